"""Large convolutions in parts (arXiv:1512.00567, sections 3.1 and 3.2; arXiv:1704.04861): cost and accuracy.

    python benchmarks/factorised.py [--epochs 3] [--images 10000] [--seeds 3] [--dataset cifar10] [--resume]

One small network five times: a 3x3 convolution to 16 maps, then four layers (to 32, 32 maps at half and 64, 64 at a
quarter of the resolution), global average pooling, one linear layer. Each of the four is a 5x5 convolution; two 3x3;
1x5 and 5x1; 5x5 depthwise and 1x1 (a depthwise-separable layer); or, for scale, one 3x3, which sees less. Batch norm
and ReLU follow each convolution. The first of two widens, so that two 3x3 save less here than the papers' 28 %, which
is that of equal widths. Trained from new weights by the recipe `quick` on 10,000 training images; nothing is chosen.
All test images are scored once for each seed. Speed: time of the 5x5 network over that of the other, forward passes in
fp32, blocks of both alternating, so that above 1 is a gain. Four minutes on one core; writes results/factorised.jsonl.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from experiments import Bench, Experiment, Result, matching
from timing import alternated, summary
from torch import nn
from tuned import correct, deviation, errors_of, mean_error, spread_text, trained

import zoo
from zoo.layers import ConvNormAct, GlobalAveragePool
from zoo.recipes import Recipe, get_recipe
from zoo.registry import Image
from zoo.report import Column, Line, Panel, Picture, Table, count_text, exact_text
from zoo.report.tables import Value

Layer = Callable[[int, int], nn.Module]
WHOLE = "5x5"
LAYERS: dict[str, Layer] = {
    WHOLE: lambda inputs, outputs: ConvNormAct(inputs, outputs, 5),
    "two 3x3": lambda inputs, outputs: nn.Sequential(ConvNormAct(inputs, outputs, 3), ConvNormAct(outputs, outputs, 3)),
    "1x5 and 5x1": lambda inputs, outputs: nn.Sequential(
        ConvNormAct(inputs, outputs, (1, 5)), ConvNormAct(outputs, outputs, (5, 1))
    ),
    "separable 5x5": lambda inputs, outputs: nn.Sequential(
        ConvNormAct(inputs, inputs, 5, groups=inputs), ConvNormAct(inputs, outputs, 1)
    ),
    "one 3x3": lambda inputs, outputs: ConvNormAct(inputs, outputs, 3),
}
STEM = 16
STAGES = ((32, 32), (64, 64))  # maps of the layers; before each stage the resolution is halved
BATCHES = (1, 32)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 2 for wrong use."""
    parser = EXPERIMENT.options(__doc__, resumable=True)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images", type=int, default=10_000, help="of the training set, at most")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=9, help="of timing")
    options = parser.parse_args(arguments)
    recipe = replace(get_recipe("quick"), epochs=options.epochs)

    def measured(images: Bench, plan: Result) -> dict[str, Any]:
        return measure(images.first(options.images), plan["layers"], recipe, options.seeds, options.rounds)

    return EXPERIMENT.run_each(options, [{"layers": name} for name in LAYERS], measured)


def measure(images: Bench, name: str, recipe: Recipe, seeds: int, rounds: int) -> dict[str, Any]:
    """Counts and time of one network, and what each seed gets right."""
    image, classes = images.train.image, images.train.num_classes
    if not images.train.mirrored:
        recipe = replace(recipe, augment=replace(recipe.augment, flip="none"))
    models = [trained(lambda: network(LAYERS[name], image, classes), images, recipe, seed) for seed in range(seeds)]
    test = zoo.load_dataset(images.dataset, "test")
    plain, other = (network(LAYERS[layer], image, classes).eval() for layer in (WHOLE, name))
    cost = zoo.measure(other, image)
    return {
        "params": cost.params,
        "macs": cost.macs,
        "epochs": recipe.epochs,
        "images": len(images.train),
        "correct": [correct(model, test) for model in models],
        "total": len(test),
        "speed": {str(batch): faster(plain, other, (batch, *image), rounds) for batch in BATCHES},
    }


def network(layer: Layer, image: Image, classes: int) -> nn.Sequential:
    """float [N, C, H, W] -> logits [N, classes]."""
    modules: list[nn.Module] = [ConvNormAct(image[0], STEM, 3)]
    channels = STEM
    for stage in STAGES:
        modules.append(nn.MaxPool2d(2))
        for maps in stage:
            modules.append(layer(channels, maps))
            channels = maps
    return nn.Sequential(*modules, GlobalAveragePool(), nn.Linear(channels, classes))


def faster(plain: nn.Module, other: nn.Module, shape: tuple[int, ...], rounds: int) -> dict[str, object]:
    """Time of one network over that of another, on the same random images."""
    seconds = alternated({"plain": plain, "other": other}, torch.randn(shape), rounds)
    return summary(seconds["plain"], seconds["other"])


def tables(results: Sequence[Result]) -> list[Table]:
    """A row a network; ratios to the one with 5x5 convolutions."""
    columns = (
        Column("layers", "layers", right=False),
        Column("params", "params"),
        Column("macs", "MACs"),
        Column("fewer", "5x5 MACs / these"),
        Column("error", "test error"),
        *(Column(f"speed_{batch}", f"5x5 time / its time, batch {batch}") for batch in BATCHES),
    )
    (whole,) = matching(results, layers=WHOLE)
    values: list[tuple[Value, ...]] = []
    texts: list[tuple[str, ...]] = []
    for line in results:
        fewer = whole["macs"] / line["macs"]
        speeds = [line["speed"][str(batch)] for batch in BATCHES]
        medians = [speed["median"] for speed in speeds]
        values.append((line["layers"], line["params"], line["macs"], fewer, mean_error(line), *medians))
        shown = [f"{speed['median']:.2f} ({speed['low']:.2f} to {speed['high']:.2f})" for speed in speeds]
        counts = exact_text(line["params"]), count_text(line["macs"]), f"{fewer:.1f}x"
        texts.append((line["layers"], *counts, spread_text(errors_of(line)), *(shown if line != whole else ["", ""])))
    return [Table(columns, tuple(values), tuple(texts), name="factorised")]


def finding(results: Sequence[Result]) -> str:
    """For each way to factorise: MACs saved, time saved, points gained or lost beside the spread over seeds."""
    (whole,) = matching(results, layers=WHOLE)
    words = []
    for line in results:
        if line is whole:
            continue
        change = 100 * (mean_error(line) - mean_error(whole))
        clear = abs(change) > 200 * max(deviation(line), deviation(whole))
        speed = line["speed"][str(BATCHES[-1])]["median"]
        words.append(
            f"{line['layers']} {whole['macs'] / line['macs']:.1f} times fewer MACs, {speed:.2f} times as fast, error "
            f"{change:+.2f} points{'' if clear else ' (within twice the spread over seeds)'}"
        )
    return f"Against 5x5 convolutions ({spread_text(errors_of(whole))} test error): {'; '.join(words)}."


def picture(results: Sequence[Result]) -> Picture:
    """A mark a seed: error over MACs, and over parameters."""
    panels = []
    for field, words, unit in (("macs", "million MACs", 1e6), ("params", "thousand parameters", 1e3)):
        lines = [
            Line(line["layers"], tuple((line[field] / unit, 100 * error) for error in errors_of(line)), joined=False)
            for line in results
        ]
        panels.append(Panel(tuple(lines), words, log_x=True))
    return Picture(tuple(panels), "test error (%)")


EXPERIMENT = Experiment("factorised", ("layers",), tables, finding, picture, dataset="cifar10")

if __name__ == "__main__":
    sys.exit(main())
