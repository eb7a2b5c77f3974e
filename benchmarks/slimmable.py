"""One slimmable MobileNet against four networks trained alone, on CIFAR-10 (arXiv:1812.08928, table 3).

    python benchmarks/slimmable.py [--epochs 8] [--only NAME] [--resume] [--dataset cifar10]

`slimmable_mobilenetv1` learns at all widths at once, and mobilenetv1_025, _050, _075 and _100 each alone, by the same
recipe, for as many epochs, on all training images; nothing is chosen. The stored file of each is read back and scored
on all test images, the slimmable one at every width, as it is and as the plain network cut out of it; and cut out at
widths in between, which were never trained, with batch-norm statistics measured on training images.
On one core an epoch takes 16 minutes, and as long again for the four together. A training that was stopped goes on from
its checkpoint in --files, where weights and card are kept. Writes results/slimmable.jsonl, one line a network.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from experiments import SEED, Bench, Experiment, Result, fresh, matching
from torch import nn

import zoo
from zoo import recipes, runs
from zoo.cards import Card, card_stem, read_card
from zoo.data import Dataset
from zoo.dynamic.width import extract_width
from zoo.errors import unknown
from zoo.evaluation import predict_logits, score
from zoo.models.slimmable import Slimmable
from zoo.recipes import Recipe
from zoo.report import Column, Line, Panel, Picture, Table, exact_text, percent_text, size_text
from zoo.report.tables import Value
from zoo.train_cli import subnormals_flushed
from zoo.weights import CUT_SHORT, load_for_card, save_weights

SLIMMABLE = "slimmable_mobilenetv1"
ALONE = {0.25: "mobilenetv1_025", 0.5: "mobilenetv1_050", 0.75: "mobilenetv1_075", 1.0: "mobilenetv1_100"}
NAMES = (SLIMMABLE, *ALONE.values())
BETWEEN = (0.375, 0.625, 0.875)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 2 for wrong use."""
    parser = EXPERIMENT.options(__doc__, resumable=True)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--only", metavar="NAME", help=f"one of {', '.join(NAMES)}")
    options = parser.parse_args(arguments)
    if options.only not in (None, *NAMES):
        print(f"slimmable.py: error: {unknown('network of this experiment', options.only, NAMES)}", file=sys.stderr)
        return 2

    def measured(_images: Bench, plan: Result) -> Result:
        name = plan["model"]
        recipe = replace(recipes.default_recipe(name, options.dataset), epochs=options.epochs)
        return measure(name, options.dataset, recipe, options.files / name)

    plans = [{"model": name} for name in NAMES if options.only in (None, name)]
    return EXPERIMENT.run_each(options, plans, measured)


def measure(name: str, dataset: str, recipe: Recipe, folder: Path) -> Result:
    """A line of results: the score of the stored file; of a slimmable network at its widths, and in between."""
    card = trained(name, dataset, recipe, folder)
    model = load_for_card(card, folder / card.file)
    test = zoo.load_dataset(dataset, "test")
    line: dict[str, Any] = {"epochs": card.epochs, "file_bytes": card.file_bytes, "sha256": card.sha256}
    if not isinstance(model, Slimmable):
        return line | {"macs": card.macs, "correct": card.correct, "total": card.total}
    train = zoo.load_dataset(dataset, "train")
    widths = {f"{width:g}": of_width(model, width, test, folder) for width in model.widths}
    between = {f"{width:g}": of_plain(extract_width(model, width, train), test) for width in BETWEEN}
    return line | {"widths": widths, "between": between}


def trained(name: str, dataset: str, recipe: Recipe, folder: Path) -> Card:
    """The card of a run folder with this recipe, after training to the end what is not there yet."""
    made = folder / f"{card_stem(name, dataset, CUT_SHORT)}.json"
    if made.exists() and (card := read_card(made)).recipe == recipes.to_dict(recipe):
        return card
    options = {"model": name, "dataset": dataset, "recipe": recipe.name, "tag": CUT_SHORT, "seed": SEED,
               "valid_images": 0, "device": "cpu"}  # fmt: skip
    command = f"python benchmarks/slimmable.py --only {name} --dataset {dataset} --epochs {recipe.epochs}"
    train = zoo.load_dataset(dataset, "train")
    model = fresh(name, dataset)
    folder.mkdir(parents=True, exist_ok=True)
    with subnormals_flushed(), runs.described(folder, options, recipe, command):
        run = zoo.fit(
            model, train, None, recipe, seed=SEED, device="cpu", out_dir=folder, resume=True, spoken=True
        ).or_leave()
    return runs.finish(folder, model, run, options, recipe, command, train, lambda text: print(text, file=sys.stderr))


def of_width(model: Slimmable, width: float, test: Dataset, folder: Path) -> dict[str, Any]:
    """What a slimmable network is at a width, and what the plain network is that is cut out of it there."""
    plain = extract_width(model, width)
    path = folder / f"{model.names[width]}.extracted.safetensors"
    save_weights(path, plain)
    model.set_width(width)
    logits_NK, theirs_NK = (predict_logits(each, test, 500, torch.device("cpu")) for each in (model, plain))
    return {
        "correct": score(logits_NK, test.labels).correct,
        "total": len(test),
        "macs": zoo.measure(model, test.image).macs,
        "plain_macs": zoo.measure(plain, test.image).macs,
        "plain_bytes": path.stat().st_size,
        "identical": torch.equal(logits_NK, theirs_NK),
    }


def of_plain(plain: nn.Module, test: Dataset) -> dict[str, Any]:
    """Score and cost of an ordinary network."""
    found = zoo.evaluate(plain, test)
    return {"correct": found.correct, "total": found.total, "macs": zoo.measure(plain, test.image).macs}


def pairs(results: Sequence[Result]) -> dict[str, tuple[Result, Result | None]]:
    """Width -> its figures in the slimmable network, and the line of the network trained alone for as many epochs."""
    found: dict[str, tuple[Result, Result | None]] = {}
    for slimmable in matching(results, model=SLIMMABLE):
        for width, figures in slimmable["widths"].items():
            alone = matching(results, model=ALONE[float(width)], epochs=slimmable["epochs"])
            found[width] = figures, alone[0] if alone else None
    return found


def tables(results: Sequence[Result]) -> list[Table]:
    """A row a width: top-1 in the one network, alone, and the difference; what it costs, and what is cut out there."""
    columns = (
        Column("width", "width"),
        Column("slimmable", "one network"),
        Column("alone", "trained alone"),
        Column("difference", "difference, points"),
        Column("macs", "MACs"),
        Column("plain_macs", "MACs, cut out"),
        Column("identical", "same outputs", right=False),
        Column("plain_bytes", "file, cut out"),
    )
    values: list[tuple[Value, ...]] = []
    texts: list[tuple[str, ...]] = []
    for width, (slim, alone) in pairs(results).items():
        lost = None if alone is None else points(slim) - points(alone)
        counts = slim["macs"], slim["plain_macs"]
        same = "yes" if slim["identical"] else "no"
        top1 = slim["correct"] / slim["total"], None if alone is None else alone["correct"] / alone["total"]
        values.append((float(width), *top1, lost, *counts, same, slim["plain_bytes"]))
        shown = percent_text(top1[0]), *(("-", "-") if alone is None else (percent_text(top1[1] or 0), f"{lost:+.2f}"))
        texts.append((width, *shown, *map(exact_text, counts), same, exact_text(slim["plain_bytes"])))
    for slimmable in matching(results, model=SLIMMABLE):
        for width, figures in slimmable["between"].items():
            top1 = figures["correct"] / figures["total"], None
            values.append((float(width), *top1, None, None, figures["macs"], "", None))
            texts.append((width, percent_text(top1[0]), "-", "-", "-", exact_text(figures["macs"]), "", "-"))
    return [Table(columns, tuple(values), tuple(texts), name="slimmable", title="Four widths of one network")]


def finding(results: Sequence[Result]) -> str:
    """How far from networks trained alone the widths are, and what one file saves."""
    compared = {width: (slim, alone) for width, (slim, alone) in pairs(results).items() if alone is not None}
    if not compared:
        return "No width has been trained both ways yet."
    (one,) = matching(results, model=SLIMMABLE)
    differences = {width: points(slim) - points(alone) for width, (slim, alone) in compared.items()}
    worst = min(differences, key=differences.__getitem__)
    within = sum(difference >= -1 for difference in differences.values())
    same = all(slim["identical"] and slim["macs"] == slim["plain_macs"] for slim, _ in compared.values())
    apart = sum(slim["plain_bytes"] for slim, _ in pairs(results).values())
    return (
        f"After {one['epochs']} epochs {within} of {len(compared)} widths of one network are within a point of the "
        f"network trained alone, or better (the worst, {worst}, by {differences[worst]:+.2f}); one file of "
        f"{size_text(one['file_bytes'])} stands for {size_text(apart)} in half precision, and what is cut out of it "
        f"{'has the same outputs and costs' if same else 'differs from it'}."
    )


def picture(results: Sequence[Result]) -> Picture:
    """Top-1 over multiply-accumulates."""
    found = pairs(results)
    between = [figures for line in matching(results, model=SLIMMABLE) for figures in line["between"].values()]
    named = (
        ("one network", [slim for slim, _ in found.values()], True),
        ("trained alone", [alone for _, alone in found.values() if alone is not None], True),
        ("cut out in between", between, False),
    )
    lines = tuple(
        Line(label, tuple((line["macs"], points(line)) for line in figures), joined)
        for label, figures, joined in named
        if figures
    )
    return Picture((Panel(lines, "multiply-accumulates an image", log_x=True),), "top-1, %")


def points(line: Result) -> float:
    """Top-1 in percent."""
    return float(100 * line["correct"] / line["total"])


EXPERIMENT = Experiment("slimmable", ("model",), tables, finding, picture, dataset="cifar10")

if __name__ == "__main__":
    sys.exit(main())
