"""Global average pooling against fully connected heads (Network-in-Network, arXiv:1312.4400, sections 3.2 and 4.6).

    python benchmarks/heads.py [--epochs 8] [--images 3000] [--seeds 3] [--dataset cifar10] [--resume]

One trunk, three 3x3 convolutions with batch norm to 16, 32 and 64 maps and two poolings, under six heads: a map a class
(1x1 convolution and ReLU) averaged, as in the paper; the 64 maps averaged, then a linear layer; one fully connected
layer on all of the 64 maps' pixels; two with 256 units between. The last two with and without dropout (0.5) before
each fully connected layer. Trained from new weights by SGD with momentum 0.9, no augmentation, on 3,000 training
images, so that there is something to overfit; the rate is that of three with the fewest errors on other training
images held out, first seed. All test images are scored once for each seed. Three minutes on one core; writes
results/heads.jsonl.
"""

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from experiments import Bench, Experiment, Result, matching
from torch import nn
from tuned import correct, deviation, errors_of, mean_error, spread_text, trained, tuned

import zoo
from zoo.data import Augment
from zoo.layers import ConvNormAct, GlobalAveragePool
from zoo.recipes import Recipe, get_recipe
from zoo.registry import Image
from zoo.report import Column, Line, Panel, Picture, Table, count_text, exact_text, percent_text
from zoo.report.tables import Value

MAPS, UNITS, DROPOUT = 64, 256, 0.5
Head = Callable[[int, int], nn.Sequential]
CLASS_MAPS = "class maps averaged"
#                        (pixels of a map, classes) -> head on float [N, 64, h, w]
HEADS: dict[str, Head] = {
    CLASS_MAPS: lambda pixels, classes: nn.Sequential(nn.Conv2d(MAPS, classes, 1), nn.ReLU(), GlobalAveragePool()),
    "average, linear": lambda pixels, classes: nn.Sequential(GlobalAveragePool(), nn.Linear(MAPS, classes)),
    "one layer": lambda pixels, classes: connected((MAPS * pixels, classes), 0.0),
    "one layer, dropout": lambda pixels, classes: connected((MAPS * pixels, classes), DROPOUT),
    "two layers": lambda pixels, classes: connected((MAPS * pixels, UNITS, classes), 0.0),
    "two layers, dropout": lambda pixels, classes: connected((MAPS * pixels, UNITS, classes), DROPOUT),
}
AVERAGED = (CLASS_MAPS, "average, linear")
THEIRS = {CLASS_MAPS: 0.1041, "one layer": 0.1159, "one layer, dropout": 0.1088}  # table 5: CIFAR-10, all images
RATES = (0.01, 0.03, 0.1)
SGD = replace(get_recipe("standard"), label_smoothing=0.0, ema_decay=0.99, augment=Augment())


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 2 for wrong use."""
    parser = EXPERIMENT.options(__doc__, resumable=True)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--images", type=int, default=3000, help="of the training set, at most")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(arguments)
    recipe = replace(SGD, epochs=options.epochs)

    def measured(images: Bench, plan: Result) -> dict[str, Any]:
        return measure(images.first(options.images), plan["head"], recipe, options.seeds)

    return EXPERIMENT.run_each(options, [{"head": name} for name in HEADS], measured)


def measure(images: Bench, name: str, recipe: Recipe, seeds: int) -> dict[str, Any]:
    """Counts of a network, and what each seed gets right of its training images and of the test images."""

    def build() -> nn.Module:
        return network(HEADS[name], images.train.image, images.train.num_classes)

    found = tuned(build, images, recipe, RATES)
    recipe = replace(recipe, lr=found.lr)
    models = [found.model, *(trained(build, images, recipe, seed) for seed in range(1, seeds))]
    test = zoo.load_dataset(images.dataset, "test")
    cost = zoo.measure(build(), images.train.image)
    return {
        "params": cost.params,
        "macs": cost.macs,
        "epochs": recipe.epochs,
        **found.fields,
        "train_correct": [correct(model, images.train) for model in models],
        "train_total": len(images.train),
        "correct": [correct(model, test) for model in models],
        "total": len(test),
    }


def network(head: Head, image: Image, classes: int) -> nn.Sequential:
    """float [N, C, H, W] -> logits [N, classes]; the head sees maps of a quarter of the image's side."""
    channels, height, width = image
    trunk = (ConvNormAct(channels, 16, 3), nn.MaxPool2d(2), ConvNormAct(16, 32, 3), nn.MaxPool2d(2))
    return nn.Sequential(*trunk, ConvNormAct(32, MAPS, 3), head((height // 4) * (width // 4), classes))


def connected(widths: Sequence[int], dropout: float) -> nn.Sequential:
    """Fully connected layers from flattened maps to logits, ReLU between, dropout before each where there is any."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(widths):
        layers += [nn.Dropout(dropout)] if dropout else []
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def train_error(line: Result) -> float:
    """The share of wrong answers on the images learnt from, a mean over the seeds."""
    return 1 - statistics.fmean(line["train_correct"]) / float(line["train_total"])


def gap(line: Result) -> float:
    """How much larger the error is on test images than on those learnt from, in points."""
    return 100 * (mean_error(line) - train_error(line))


def tables(results: Sequence[Result]) -> list[Table]:
    """A row a head, and the paper's error."""
    columns = (
        Column("head", "head", right=False),
        Column("params", "params"),
        Column("macs", "MACs"),
        Column("lr", "rate"),
        Column("train_error", "training error"),
        Column("error", "test error"),
        Column("gap", "gap, points"),
        Column("paper", "test error in the paper"),
    )
    values: list[tuple[Value, ...]] = []
    texts: list[tuple[str, ...]] = []
    for line in results:
        name, learnt, theirs = line["head"], train_error(line), THEIRS.get(line["head"])
        counts = line["params"], line["macs"], line["lr"]
        values.append((name, *counts, learnt, mean_error(line), gap(line), theirs))
        shown = exact_text(line["params"]), count_text(line["macs"]), f"{line['lr']:g}", percent_text(learnt)
        paper = "" if theirs is None else percent_text(theirs)
        texts.append((name, *shown, spread_text(errors_of(line)), f"{gap(line):.1f}", paper))
    return [Table(columns, tuple(values), tuple(texts), name="heads")]


def finding(results: Sequence[Result]) -> str:
    """The best averaged head against the best fully connected one: error, gap and parameters."""
    averaged = min((line for line in results if line["head"] in AVERAGED), key=mean_error)
    joined = min((line for line in results if line["head"] not in AVERAGED), key=mean_error)
    lost = 100 * (mean_error(averaged) - mean_error(joined))
    clear = abs(lost) > 200 * max(deviation(averaged), deviation(joined))
    verdict = (
        ("as in the paper" if lost < 0 else "unlike in the paper") if clear else "within twice the spread over seeds"
    )
    dropped = [
        gap(matching(results, head=name)[0]) - gap(matching(results, head=f"{name}, dropout")[0])
        for name in ("one layer", "two layers")
    ]
    edge = ", the first at the largest rate tried" if averaged["lr"] == max(averaged["rates"]) else ""
    return (
        f"The best averaged head ({averaged['head']}) has {spread_text(errors_of(averaged))} test error and the best "
        f"fully connected one ({joined['head']}, {joined['params'] / averaged['params']:.1f} times the network's "
        f"parameters) {spread_text(errors_of(joined))}: {lost:+.2f} points, {verdict}; after {averaged['epochs']} "
        f"epochs{edge}, they have {percent_text(train_error(averaged))} and {percent_text(train_error(joined))} of the "
        f"images learnt from wrong, {gap(averaged):.1f} and {gap(joined):.1f} points less than of the test images, and "
        f"dropout narrows that by {dropped[0]:.1f} points with one layer and {dropped[1]:.1f} with two."
    )


def picture(results: Sequence[Result]) -> Picture:
    """Error over parameters, on the images learnt from and on test images, a mark a head."""
    panels = []
    for words, error in (("images learnt from", train_error), ("test images", mean_error)):
        lines = [Line(line["head"], ((line["params"] / 1e3, 100 * error(line)),), joined=False) for line in results]
        panels.append(Panel(tuple(lines), "thousand parameters", words, log_x=True))
    return Picture(tuple(panels), "error (%)")


EXPERIMENT = Experiment("heads", ("head",), tables, finding, picture, dataset="cifar10")

if __name__ == "__main__":
    sys.exit(main())
