"""What binary weights and binary activations cost on a LeNet-5 (XNOR-Net, arXiv:1603.05279).

    python benchmarks/xnor_accuracy.py [--epochs 4] [--full] [--dataset mnist]

Three networks of the same layers (20-50-500-10) are trained from new weights by one recipe: `lenet5_caffe` in full
precision; the same with binary weights, and a scale a filter, in its inner two layers (the `Binarize` stage, section
3.1); and `xnor_lenet5`, whose inner layers have binary inputs too, after batch norm (section 3.2). The packed file of
each is read back by a fresh process and scored on all test images; nothing is chosen. Bit operations are
multiply-accumulates times the bits of both factors. Four minutes on one core; writes results/xnor_accuracy.jsonl.
--full adds nin, nin with binary weights and xnor_nin on CIFAR-10, hours on a CPU: it has not been run here.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from experiments import FINE_TUNING, SEED, Bench, Experiment, Plan, Result, bench, distinct, error_of, fresh, matching

import zoo
from zoo.compression import Binarize, Code
from zoo.recipes import Recipe, get_recipe
from zoo.report import Column, Table, count_text, exact_text, percent_text
from zoo.report.tables import Value

KINDS = ("full precision", "binary weights", "binary weights and inputs")
NETWORKS = {"mnist": ("lenet5_caffe", "xnor_lenet5"), "cifar10": ("nin", "xnor_nin")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 2 for wrong use."""
    parser = EXPERIMENT.options(__doc__)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--full", action="store_true", help="CIFAR-10 too")
    options = parser.parse_args(arguments)

    def measured() -> list[dict[str, Any]]:
        recipe = replace(FINE_TUNING, epochs=options.epochs)
        lines = measure(bench(options.dataset, options.files), *NETWORKS["mnist"], recipe)
        if options.full:
            lines += measure(bench("cifar10", options.files), *NETWORKS["cifar10"], get_recipe("standard"))
        return lines

    return EXPERIMENT.run(options, measured)


def measure(images: Bench, float_name: str, binary_name: str, recipe: Recipe) -> list[dict[str, Any]]:
    """A line a network."""
    lines = []
    for kind, name in zip(KINDS, (float_name, float_name, binary_name), strict=True):
        model = fresh(name, images.dataset)
        if kind == "binary weights":
            model = images.treat(model, [Binarize(epochs=recipe.epochs)], recipe)
        else:
            zoo.fit(model, images.train, None, recipe, seed=SEED, device="cpu").or_leave()
        plan = Plan({"dataset": images.dataset, "model": name, "kind": kind}, (Code(),))
        cost = zoo.measure(model, images.train.image)
        counted = {
            "epochs": recipe.epochs,
            "params": cost.params,
            "macs": cost.macs,
            "bit_operations": cost.bit_operations,
        }
        lines.append(images.measure(model, plan, recipe) | counted)
    return images.scored(lines)


def tables(results: Sequence[Result]) -> list[Table]:
    """A row a network: error, bytes, bit operations, and the last two as ratios to full precision in fp32."""
    columns = (
        Column("dataset", "data set", right=False),
        Column("model", "network", right=False),
        Column("kind", "inner layers", right=False),
        Column("error", "error"),
        Column("file_bytes", "file"),
        Column("bytes_ratio", "fp32 / file"),
        Column("bit_operations", "bit operations"),
        Column("operations_ratio", "fp32 / these"),
    )
    values: list[tuple[Value, ...]] = []
    texts: list[tuple[str, ...]] = []
    for line in results:
        smaller, fewer = savings(results, line)
        names = line["dataset"], line["model"], line["kind"]
        error, size, operations = error_of([line]), line["file_bytes"], line["bit_operations"]
        values.append((*names, error, size, smaller, operations, fewer))
        measured = percent_text(error), exact_text(size), f"{smaller:.1f}x"
        texts.append((*names, *measured, count_text(operations), f"{fewer:.1f}x"))
    return [Table(columns, tuple(values), tuple(texts), name="xnor_accuracy")]


def finding(results: Sequence[Result]) -> str:
    """The price of each step, and what it saves; the paper's factor for storage is 32."""
    words = []
    for dataset in distinct(results, "dataset"):
        full, *rest = [matching(results, dataset=dataset, kind=kind)[0] for kind in KINDS]
        for line in rest:
            lost = 100 * (error_of([line]) - error_of([full]))
            smaller, fewer = savings(results, line)
            words.append(
                f"{line['kind']} cost {lost:.2f} points on {dataset} after {line['epochs']} epochs, in a file "
                f"{smaller:.1f} times smaller than fp32 and with {fewer:.1f} times fewer bit operations"
            )
    sentence = "; ".join(words)
    return f"{sentence[0].upper()}{sentence[1:]} (32 times smaller in the paper, which counts binary weights alone)."


def savings(results: Sequence[Result], line: Result) -> tuple[float, float]:
    """fp32 bytes and operations of the network in full precision over those of a line."""
    (full,) = matching(results, dataset=line["dataset"], kind=KINDS[0])
    return full["dense_bytes"] / line["file_bytes"], full["bit_operations"] / line["bit_operations"]


EXPERIMENT = Experiment("xnor_accuracy", ("dataset", "kind"), tables, finding)

if __name__ == "__main__":
    sys.exit(main())
