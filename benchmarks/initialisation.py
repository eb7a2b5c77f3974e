"""How to begin: five initialisations against activation and depth of a perceptron, before and after a short training.

    python benchmarks/initialisation.py [--depths 4 16 32] [--epochs 1] [--dataset mnist] [--resume]

Perceptrons of 128 units a layer; biases begin at zero, weights at zero or normal: Xavier's deviation sqrt(2 / (in +
out)) (Glorot and Bengio 2010), He's sqrt(2 / in) (arXiv:1502.01852, section 2.2), and He's divided and multiplied by 3.
Before training, for 500 training images in float64: the standard deviation over the images (root mean square over the
units) of each hidden layer's output, and of the gradient of an image's loss by it; at 1e-16 float64 ends, and so does
what an output near 0.5 tells. Then one epoch of plain SGD, batches of 128, no momentum, no decay, at the rate of three
with the fewest errors on images held out; all test images are scored once. Four minutes on one core; writes
results/initialisation.jsonl.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import torch
from experiments import SEED, Bench, Experiment, Result, distinct, matching
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tuned import correct, mean_error, tuned

import zoo
from zoo.data import Augment, Dataset, normalize
from zoo.recipes import Recipe, get_recipe
from zoo.report import Column, Line, Panel, Picture, Table, percent_text
from zoo.report.tables import Value

UNITS = 128
DEPTHS = (4, 16, 32)
ACTIVATIONS: dict[str, type[nn.Module]] = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "ReLU": nn.ReLU}
#                      standard deviation of a weight of a layer with so many inputs and outputs
INITIALISATIONS: dict[str, Callable[[int, int], float]] = {
    "zeros": lambda inputs, outputs: 0.0,
    "He / 3": lambda inputs, outputs: (2 / inputs) ** 0.5 / 3,
    "Xavier": lambda inputs, outputs: (2 / (inputs + outputs)) ** 0.5,
    "He": lambda inputs, outputs: (2 / inputs) ** 0.5,
    "He x 3": lambda inputs, outputs: (2 / inputs) ** 0.5 * 3,
}
RATES = (0.01, 0.1, 1.0)
PROBED = 500
LEARNT = 0.5  # share of test images right, from which on a network counts as trained
STEADY = 100.0  # factor between the first and the last layer's gradient, up to which these count as alike
SGD = replace(
    get_recipe("mnist-plain"), epochs=1, momentum=0.0, weight_decay=0.0, ema_decay=0.0, schedule="constant",
    warmup=0.0, augment=Augment(),
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 2 for wrong use."""
    parser = EXPERIMENT.options(__doc__, resumable=True)
    parser.add_argument("--depths", type=int, nargs="+", default=DEPTHS, help="weight layers, 2 or more")
    parser.add_argument("--epochs", type=int, default=SGD.epochs)
    options = parser.parse_args(arguments)
    cells = product(ACTIVATIONS, options.depths, INITIALISATIONS)
    plans = [{"activation": a, "depth": max(2, d), "initialisation": i} for a, d, i in cells]
    recipe = replace(SGD, epochs=options.epochs)
    return EXPERIMENT.run_each(options, plans, lambda images, plan: measure(images, plan, recipe))


def measure(images: Bench, plan: Result, recipe: Recipe) -> dict[str, Any]:
    """Curves of the network before training, accuracy after it."""

    def build() -> nn.Sequential:
        return perceptron(images.train, plan["depth"], plan["activation"], plan["initialisation"])

    torch.manual_seed(SEED)
    curves = signals(build(), images.train.subset(range(min(PROBED, len(images.train)))))
    found = tuned(build, images, recipe, RATES)
    test = zoo.load_dataset(images.dataset, "test")
    scored = {"correct": [correct(found.model, test)], "total": len(test)}
    return {"units": UNITS, "epochs": recipe.epochs, **curves, **found.fields, **scored}


def perceptron(images: Dataset, depth: int, activation: str, initialisation: str) -> nn.Sequential:
    """float [N, C, H, W] -> logits [N, K]: `depth` linear layers, an activation between any two."""
    channels, height, width = images.image
    widths = (channels * height * width, *[UNITS] * (depth - 1), images.num_classes)
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(widths):
        linear = nn.Linear(inputs, outputs)
        nn.init.normal_(linear.weight, std=INITIALISATIONS[initialisation](inputs, outputs))
        nn.init.zeros_(linear.bias)
        layers += [linear, ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


def signals(model: nn.Sequential, images: Dataset) -> dict[str, list[float]]:
    """Deviation over the images of each hidden layer's output, and of the gradient by it, from the first layer on."""
    outputs_NU = []
    features = normalize(images.images, images.mean, images.std).double()
    for layer in model.double():
        features = layer(features)
        if type(layer) in ACTIVATIONS.values():
            outputs_NU.append(features)
    gradients_NU = torch.autograd.grad(cross_entropy(features, images.labels, reduction="sum"), outputs_NU)
    return {
        "activations": [_deviation(output_NU) for output_NU in outputs_NU],
        "gradients": [_deviation(gradient_NU) for gradient_NU in gradients_NU],
    }


def _deviation(values_NU: Tensor) -> float:
    """Over the images, as a root mean square over the units; to four digits."""
    return float(f"{values_NU.detach().var(0).mean().sqrt():.4g}")


def accuracy(line: Result) -> float:
    """Share of the test images right after training."""
    return 1 - mean_error(line)


def learns(line: Result) -> bool:
    """Whether a network counts as trained."""
    return accuracy(line) > LEARNT


def is_steady(line: Result) -> bool:
    """Whether the gradient is about as large in the first layer as in the last, before training."""
    first, last = line["gradients"][0], line["gradients"][-1]
    return bool(0 < first <= STEADY * last and last <= STEADY * first)


def tables(results: Sequence[Result]) -> list[Table]:
    """A row an activation and depth: the accuracy of each initialisation."""
    names = [name for name in INITIALISATIONS if name in distinct(results, "initialisation")]
    columns = (
        Column("activation", "activation", right=False),
        Column("depth", "layers"),
        *(Column(name, name) for name in names),
    )
    values: list[tuple[Value, ...]] = []
    texts: list[tuple[str, ...]] = []
    for activation, depth in product(distinct(results, "activation"), sorted(distinct(results, "depth"))):
        here = matching(results, activation=activation, depth=depth)
        lines = [matching(here, initialisation=name)[0] for name in names]
        shares = [accuracy(line) for line in lines]
        values.append((activation, depth, *shares))
        shown = (percent_text(share) if share else "diverged" for share in shares)
        texts.append((activation, str(depth), *shown))
    return [Table(columns, tuple(values), tuple(texts), name="initialisation")]


def finding(results: Sequence[Result]) -> str:
    """What trains each activation at the largest depth, and whether a steady gradient foretells training."""
    depth = max(distinct(results, "depth"))
    words = []
    for activation in distinct(results, "activation"):
        lines = sorted(matching(results, activation=activation, depth=depth), key=accuracy, reverse=True)
        learnt = [f"{line['initialisation']} ({percent_text(accuracy(line))})" for line in lines if learns(line)]
        best = f"none ({percent_text(accuracy(lines[0]))} at best)"
        words.append(f"{activation} with {' and '.join(learnt) or best}")
    steady = [line for line in results if is_steady(line)]
    others = [line for line in results if not is_steady(line)]
    return (
        f"In {depth} layers more than {100 * LEARNT:.0f} % of the test images are right after one short training for "
        f"{', '.join(words)}; of the {len(steady)} networks of all depths whose gradients before training differ by "
        f"less than {STEADY:.0f} times between first and last layer {sum(map(learns, steady))} get there, of the other "
        f"{len(others)} {sum(map(learns, others))}."
    )


def picture(results: Sequence[Result]) -> Picture:
    """Deviations over the layers of the deepest networks: outputs above, gradients below, an activation a column."""
    deepest = matching(results, depth=max(distinct(results, "depth")))
    panels = []
    for kind, words in (("activations", "outputs"), ("gradients", "gradients by the outputs")):
        for activation in distinct(deepest, "activation"):
            lines = []
            for line in matching(deepest, activation=activation):
                points = tuple((layer, value) for layer, value in enumerate(line[kind], 1) if value > 0)
                if points:
                    lines.append(Line(line["initialisation"], points))
            panels.append(Panel(tuple(lines), "hidden layer", f"{activation}: {words}"))
    return Picture(tuple(panels), "standard deviation before training", log_y=True)


EXPERIMENT = Experiment("initialisation", ("activation", "depth", "initialisation"), tables, finding, picture)

if __name__ == "__main__":
    sys.exit(main())
