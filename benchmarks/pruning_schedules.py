"""How to prune: at once, in rounds or gradually; after an L1 or an L2 penalty (arXiv:1506.02626, section 3, figure 5).

    python benchmarks/pruning_schedules.py [--epochs 6] [--dataset mnist]

LeNet-300-100 is trained from new weights, SGD, six epochs, images as they are, with an L1 or an L2 penalty of three
strengths each, and pruned to several densities, all layers ranked together.
Penalties: pruned once, and left so or trained for a third of --epochs with the same penalty. At each density the
strength with the fewest errors on the images held out is taken.
Schedules: the L2 network with the fewest errors on the images held out, pruned in one go and trained for --epochs; in
three rounds of a third of them; or gradually during them; AdamW, no penalty. The learning rate goes up and down once in
the epochs, or once in each round.
Files are Huffman coded, read back by a fresh process and scored on all test images. Five minutes on one core; writes
results/pruning_schedules.jsonl.
"""

import copy
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from experiments import FINE_TUNING, SEED, Bench, Experiment, Plan, Result, bench, distinct, error_of, fresh, matching
from torch import nn

import zoo
from zoo.compression import Huffman, Prune
from zoo.data.augment import Augment
from zoo.recipes import get_recipe
from zoo.report import Column, Line, Panel, Picture, Table, percent_text
from zoo.report.tables import Value
from zoo.training.objectives import L1

MODEL = "lenet_300_100"
DENSITIES = (0.1, 0.05, 0.02, 0.01)
SCHEDULES = ("one-shot", "iterative", "gradual")
ROUNDS = 3
PENALTIES = {"L1": (3e-5, 1e-4, 3e-4), "L2": (1e-4, 5e-4, 2e-3)}
# SGD, since what AdamW calls weight decay is not the gradient of a penalty.
SGD = replace(get_recipe("mnist-plain"), epochs=6, batch_size=256, weight_decay=0.0, ema_decay=0.99, augment=Augment())
ADAMW = replace(FINE_TUNING, batch_size=256, augment=Augment())


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 2 for wrong use."""
    parser = EXPERIMENT.options(__doc__)
    parser.add_argument("--epochs", type=int, default=6, help="of training a schedule in all; 3 or more")
    options = parser.parse_args(arguments)
    return EXPERIMENT.run(options, lambda: measure(bench(options.dataset, options.files), max(ROUNDS, options.epochs)))


def measure(images: Bench, epochs: int) -> list[dict[str, Any]]:
    """A line for each penalty, strength, density and training, and one for each schedule and density."""
    networks = {(p, strength): trained(images, p, strength) for p in PENALTIES for strength in PENALTIES[p]}
    lines = []
    for (penalty, strength), network in networks.items():
        for density in DENSITIES:
            pruned = images.treat(network, [Prune(density, scope="global")], ADAMW)
            retrained = trained(images, penalty, strength, pruned, epochs // 3)
            for model in (pruned, retrained):
                fields = {"method": penalty, "strength": strength, "trained": model is retrained, "density": density}
                lines.append(images.measure(model, Plan(fields, (Huffman(),)), ADAMW))
    strengths = {strength: images.held_out_wrong(networks["L2", strength]) for strength in PENALTIES["L2"]}
    start = networks["L2", min(strengths, key=lambda strength: strengths[strength])]
    for schedule, density in product(SCHEDULES, DENSITIES):
        share = epochs // ROUNDS if schedule == "iterative" else epochs
        pruning = Prune(density, scope="global", schedule=schedule, rounds=ROUNDS, epochs=share)  # type: ignore[arg-type]
        fields = {"method": schedule, "strength": 0, "trained": True, "density": density}
        lines.append(images.measure(start, Plan(fields, (pruning, Huffman())), ADAMW))
    return images.scored(lines)


def trained(
    images: Bench, penalty: str, strength: float, model: nn.Module | None = None, epochs: int = SGD.epochs
) -> nn.Module:
    """A new network, or a copy of a pruned one at a third of the rate, trained with a penalty on its weights."""
    lr = SGD.lr if model is None else SGD.lr / 3
    model = fresh(MODEL, images.dataset) if model is None else copy.deepcopy(model)
    decay = strength if penalty == "L2" else 0.0
    objective = L1(strength) if penalty == "L1" else None
    recipe = replace(SGD, epochs=epochs, lr=lr, weight_decay=decay)
    zoo.fit(model, images.train, None, recipe, objective=objective, seed=SEED, device="cpu").or_leave()
    return model


def chosen(results: Sequence[Result], method: str, density: float, trained: bool) -> Result:
    """The line of the strength with the fewest errors on the images held out; a schedule has but one line."""
    lines = matching(results, method=method, density=density, trained=trained)
    return max(lines, key=lambda line: line["held_out_correct"])


CELLS = (
    *((penalty, trained) for trained in (False, True) for penalty in PENALTIES),
    *((schedule, True) for schedule in SCHEDULES),
)


def tables(results: Sequence[Result]) -> list[Table]:
    """A row a density: the test error of each penalty and of each schedule."""
    columns = (
        Column("density", "kept"),
        *(Column(f"{m}_{t}", m if m in SCHEDULES else f"{m}, {'trained' if t else 'pruned only'}") for m, t in CELLS),
    )
    values: list[tuple[Value, ...]] = []
    texts: list[tuple[str, ...]] = []
    for density in distinct(results, "density"):
        errors = [error_of([chosen(results, method, density, trained)]) for method, trained in CELLS]
        values.append((density, *errors))
        texts.append((f"{100 * density:.0f} %", *map(percent_text, errors)))
    return [Table(columns, tuple(values), tuple(texts), name="pruning_schedules")]


def finding(results: Sequence[Result]) -> str:
    """Whether one go loses to rounds, and L1 to L2, as the paper has it."""
    densities = distinct(results, "density")

    def wins(better: str, worse: str, trained: bool) -> int:
        pairs = [[error_of([chosen(results, m, d, trained)]) for m in (better, worse)] for d in densities]
        return sum(first < second for first, second in pairs)

    def verdict(count: int) -> str:
        return "as" if 2 * count > len(densities) else "not as"

    rounds, gradual = wins("iterative", "one-shot", True), wins("gradual", "one-shot", True)
    alone, tuned = wins("L1", "L2", False), wins("L2", "L1", True)
    least = min(densities)
    last = ", ".join(f"{m} {percent_text(error_of([chosen(results, m, least, True)]))}" for m in SCHEDULES)
    return (
        f"With the same epochs, pruning in rounds has fewer test errors than in one go at {rounds} of {len(densities)} "
        f"densities ({verdict(rounds)} the paper has it) and gradual pruning at {gradual}; at "
        f"{100 * least:.0f} % kept: {last}; without training after it L1 beats L2 at {alone} ({verdict(alone)} in the "
        f"paper), with training L2 beats L1 at {tuned} ({verdict(tuned)} in the paper)."
    )


def picture(results: Sequence[Result]) -> Picture:
    """Error over the kept share: penalties on the left, schedules on the right."""
    densities = distinct(results, "density")
    lines = []
    for method, trained in CELLS:
        label = method if method in SCHEDULES else f"{method}, {'trained' if trained else 'pruned only'}"
        errors = [error_of([chosen(results, method, density, trained)]) for density in densities]
        points = zip(densities, errors, strict=True)
        lines.append(Line(label, tuple((100 * density, 100 * error) for density, error in points)))
    panels = (
        Panel(tuple(lines[:-3]), "weights kept (%)", "penalty while it was trained", log_x=True),
        Panel(tuple(lines[-3:]), "weights kept (%)", "schedule", log_x=True),
    )
    return Picture(panels, "test error (%)", log_y=True)


EXPERIMENT = Experiment("pruning_schedules", ("method", "strength", "trained", "density"), tables, finding, picture)

if __name__ == "__main__":
    sys.exit(main())
