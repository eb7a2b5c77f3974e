"""What momentum gives when the learning rate is tuned for each: none, heavy ball and Nesterov.

    python benchmarks/momentum.py [--epochs 3] [--images 20000] [--seeds 3] [--dataset mnist] [--resume]

LeNet-300-100 from new weights on 20,000 training images as they are, SGD in batches of 128, no decay, no average of the
weights, a constant rate: that of the same seven with the fewest errors on images held out, first seed. Heavy ball
(Polyak 1964) steps along the running sum of the gradients; Nesterov's form (Sutskever et al. 2013, section 2) looks
ahead along it. At the rate chosen, all seeds are trained, and scored once on all test images. Two minutes on one
core; writes results/momentum.jsonl.
"""

import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from experiments import Bench, Experiment, Result, matching
from torch import Tensor, nn
from tuned import correct, deviation, errors_of, mean_error, spread_text, trained, tuned

import zoo
from zoo.data import Augment
from zoo.recipes import Recipe, get_recipe
from zoo.report import Column, Line, Panel, Picture, Table, percent_text
from zoo.report.tables import Value
from zoo.training import CrossEntropy

MODEL = "lenet_300_100"
MOMENTA = (0.5, 0.9, 0.95, 0.99)
NONE = "none"
METHODS = {"heavy ball": "momentum", "Nesterov": "sgd"}  # and what recipes call their optimizers
RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
POINTS = 10  # of a curve in an epoch
SGD = replace(
    get_recipe("mnist-plain"), weight_decay=0.0, ema_decay=0.0, schedule="constant", warmup=0.0, augment=Augment()
)


class Recorded(CrossEntropy):
    """Cross-entropy that remembers its loss at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []

    def forward(self, model: nn.Module, images_NCHW: Tensor, targets: Tensor) -> Tensor:
        loss = super().forward(model, images_NCHW, targets)
        self.losses.append(float(loss.detach()))
        return loss


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 2 for wrong use."""
    parser = EXPERIMENT.options(__doc__, resumable=True)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images", type=int, default=20_000, help="of the training set, at most")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(arguments)
    plans = [{"method": method, "momentum": momentum} for method in METHODS for momentum in MOMENTA]
    plans = [{"method": NONE, "momentum": 0.0}, *plans]

    def measured(images: Bench, plan: Result) -> dict[str, Any]:
        return measure(images.first(options.images), recipe_of(plan, options.epochs), options.seeds)

    return EXPERIMENT.run_each(options, plans, measured)


def recipe_of(plan: Result, epochs: int) -> Recipe:
    """The recipe of a method and its momentum; SGD with a momentum of 0 is plain."""
    optimizer = METHODS.get(plan["method"], "sgd")
    return replace(SGD, optimizer=optimizer, momentum=plan["momentum"], epochs=epochs)


def measure(images: Bench, recipe: Recipe, seeds: int) -> dict[str, Any]:
    """The best rate, and what each seed comes to with it."""

    def build() -> nn.Module:
        return zoo.create_model(MODEL, dataset=images.dataset)

    found = tuned(build, images, recipe, RATES)
    recipe = replace(recipe, lr=found.lr)
    test = zoo.load_dataset(images.dataset, "test")
    records = [Recorded() for _ in range(seeds)]
    models = [trained(build, images, recipe, seed, record) for seed, record in enumerate(records)]
    return {
        "epochs": recipe.epochs,
        "images": len(images.train),
        **found.fields,
        **curve([record.losses for record in records], len(images.train) // recipe.batch_size),
        "correct": [correct(model, test) for model in models],
        "total": len(test),
    }


def curve(losses: Sequence[Sequence[float]], steps_an_epoch: int) -> dict[str, list[float]]:
    """Mean loss of all seeds in each tenth of an epoch, and the epochs gone at the middle of it."""
    steps = max(1, steps_an_epoch // POINTS)
    means = [statistics.fmean(of_all) for of_all in zip(*losses, strict=False)]
    starts = range(0, len(means) - steps + 1, steps)
    return {
        "curve_epochs": [round((start + steps / 2) / steps_an_epoch, 3) for start in starts],
        "curve_losses": [round(statistics.fmean(means[start : start + steps]), 5) for start in starts],
    }


def tables(results: Sequence[Result]) -> list[Table]:
    """A row a method and momentum: the rate chosen, errors on images held out and on test images, the last loss."""
    columns = (
        Column("method", "method", right=False),
        Column("momentum", "momentum"),
        Column("lr", "rate"),
        Column("steady_lr", "rate / (1 - momentum)"),
        Column("held_out_error", "error held out"),
        Column("error", "test error"),
        Column("loss", "last training loss"),
    )
    values: list[tuple[Value, ...]] = []
    texts: list[tuple[str, ...]] = []
    for line in results:
        held_out = 1 - max(line["held_out_correct"]) / line["held_out"]
        steady, loss = line["lr"] / (1 - line["momentum"]), line["curve_losses"][-1]
        values.append((line["method"], line["momentum"], line["lr"], steady, held_out, mean_error(line), loss))
        numbers = f"{line['momentum']:g}", f"{line['lr']:g}", f"{steady:.2g}", percent_text(held_out)
        texts.append((line["method"], *numbers, spread_text(errors_of(line)), f"{loss:.4f}"))
    return [Table(columns, tuple(values), tuple(texts), name="momentum")]


def finding(results: Sequence[Result]) -> str:
    """What the best momentum gains over none, how the rate goes with it, and whether looking ahead helps."""
    (plain,) = matching(results, method=NONE)
    others = [line for line in results if line["method"] != NONE]
    best = min(others, key=mean_error)
    worst = max(others, key=mean_error)
    gain = mean_error(plain) - mean_error(best)
    noise = max(deviation(plain), deviation(best))
    verdict = "more" if gain > 2 * noise else "not more"
    momenta = sorted({line["momentum"] for line in others})
    pairs = [[matching(results, method=method, momentum=m)[0] for method in METHODS] for m in momenta]
    ahead = sum(mean_error(nesterov) < mean_error(heavy) for heavy, nesterov in pairs)
    steady = [line["lr"] / (1 - line["momentum"]) for line in results]
    return (
        f"With the rate tuned for each, {best['method']} at {best['momentum']:g} has the least test error, "
        f"{spread_text(errors_of(best))}, {100 * gain:.2f} points below plain SGD's {spread_text(errors_of(plain))}, "
        f"{verdict} than twice the spread over seeds; the most has {worst['method']} at {worst['momentum']:g}, "
        f"{spread_text(errors_of(worst))}; Nesterov beats heavy ball at {ahead} of {len(pairs)} momenta; the rate "
        f"chosen falls from {plain['lr']:g} to {min(line['lr'] for line in others):g} as momentum grows, so that "
        f"rate / (1 - momentum) stays between {min(steady):.2g} and {max(steady):.2g}."
    )


def picture(results: Sequence[Result]) -> Picture:
    """Training loss over epochs, plain SGD in both panels: heavy ball on the left, Nesterov on the right."""
    panels = []
    for method in METHODS:
        lines = [
            Line(f"momentum {line['momentum']:g}", tuple(zip(line["curve_epochs"], line["curve_losses"], strict=True)))
            for line in results
            if line["method"] in (NONE, method)
        ]
        panels.append(Panel(tuple(lines), "epochs", method))
    return Picture(tuple(panels), "training loss", log_y=True)


EXPERIMENT = Experiment("momentum", ("method", "momentum"), tables, finding, picture)

if __name__ == "__main__":
    sys.exit(main())
