"""VGG-11 on CIFAR-10 with whole channels removed: parameters, MACs, error and speed beside the dense network's.

    python benchmarks/structured_vgg.py [--only filters] [--out FILE] [--files FOLDER]

    longer      the dense network, trained on for as long as the others: what the extra training alone gives
    filters     filters of small L1 norm cut out of each layer, then trained (arXiv:1608.08710)
    slimming    trained with an L1 penalty on batch-norm scales, cut by them over all layers, trained (arXiv:1708.06519)
    scratch     the network that `filters` comes to, from new weights, for the dense training's epochs and these

All train on all 50,000 images, by one recipe; nothing is chosen by what comes out, and a fresh process scores the
stored file on the test set. Speed is the dense network's time over the small one's on this CPU, both eager PyTorch in
channels_last and one thread, blocks alternating: median, lowest and highest of the rounds; `longer`, the same layers
twice, shows what that is good for. Writes results/structured_vgg.jsonl, one line a row, and the networks, each with its
card, to --files. A quarter of an hour a row on one core.
"""

import copy
import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from experiments import keep, run_named
from timing import alternated, summary
from torch import nn

import zoo
from zoo.compression import Code, PruneChannels, Stage, Train, Treated, Workbench, compress
from zoo.cost import count_macs
from zoo.layers import init_weights
from zoo.recipes import get_recipe
from zoo.report import Column, Table, count_text, percent_text
from zoo.report.tables import Value
from zoo.train_cli import subnormals_flushed
from zoo.training.objectives import BatchNormL1, CrossEntropy
from zoo.weights import find_card

MODEL, DATASET = "vgg11_bn", "cifar10"
EPOCHS = 4  # after the cut
PENALTY, PENALTY_EPOCHS = 1e-4, 2
# Muon costs what the weights cost, whatever the batch. Half the rate of the first training.
RECIPE = dataclasses.replace(get_recipe("quick"), batch_size=512, lr=0.01)
FIRST_RATE = 0.02  # for new weights
ROUNDS, BATCHES = 9, (1, 128)
# Shares of the filters removed. The last layers hold most parameters and see small maps: little is lost there.
RATIOS = (0.0, 0.25, 0.35, 0.35, 0.7, 0.7, 0.7, 0.7)
FIGURES = {  # of the papers, on CIFAR-10: network, share of parameters gone, of FLOPs, error before and after
    "filters": ("VGG-16", 0.64, 0.342, 0.0675, 0.0660),
    "slimming": ("VGG-19", 0.885, 0.51, 0.0634, 0.0620),
}


@dataclass(frozen=True)
class New:
    """Draw all weights anew, by `seed`: the shape stays, what was learned goes."""

    seed: int = 0

    def apply(self, model: nn.Module, work: Workbench) -> Treated:
        """An untrained copy."""
        fresh = copy.deepcopy(model)
        torch.manual_seed(self.seed)
        for module in fresh.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
        return Treated(init_weights(fresh))


def filters(model: nn.Module) -> PruneChannels:
    """The cut of each convolution by its share."""
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    return PruneChannels(ratios=dict(zip(names, RATIOS, strict=True)), importance="l1", multiple_of=8)


def stages(method: str, model: nn.Module, dense_epochs: int) -> list[Stage]:
    """What a row does."""
    plans: dict[str, list[Stage]] = {
        "longer": [Train(EPOCHS)],
        "filters": [filters(model), Train(EPOCHS)],
        "slimming": [
            Train(PENALTY_EPOCHS, BatchNormL1(PENALTY, CrossEntropy(RECIPE.label_smoothing))),
            PruneChannels(0.85, importance="bn", scope="global", target="params", multiple_of=8, min_channels=16),
            Train(EPOCHS),
        ],
        "scratch": [filters(model), New(), Train(dense_epochs + EPOCHS, lr=FIRST_RATE)],
    }
    return [*plans[method], Code()]


KEY = ("model", "variant")
METHODS = ("filters", "slimming", "scratch", "longer")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 2 for wrong use."""
    return run_named("structured_vgg", __doc__, METHODS, run, ("model", "variant"), arguments)


def run(method: str, folder: Path) -> dict[str, Any]:
    """Cut, train, store, score the stored file in a fresh process, and time it: one line of results."""
    began = time.monotonic()
    base = find_card(MODEL, DATASET)
    dense = zoo.create_model(MODEL, dataset=DATASET, pretrained=True, tag=base.tag)
    train = zoo.load_dataset(DATASET, "train")
    plan = stages(method, dense, base.epochs)
    with subnormals_flushed():
        packed = compress(dense, plan, dataset=DATASET, train=train, recipe=RECIPE)
    small = packed.model.eval()
    result: dict[str, Any] = {
        "model": MODEL,
        "variant": method,
        "dense": {"stem": base.stem, "correct": base.correct, "total": base.total, "params": base.params,
                  "macs": base.macs, "epochs": base.epochs},
        "params": sum(p.numel() for p in small.parameters()),
        "macs": count_macs(small, base.image),
        "speed": {str(batch): speed_up(dense, small, torch.randn(batch, *base.image)) for batch in BATCHES},
        "stages": [receipt.stage for receipt in packed.receipts],
        **keep(
            packed,
            base,
            method,
            folder,
            stages=plan,
            recipe=RECIPE,
            command=f"python benchmarks/structured_vgg.py --only {method}",
            trained_on=len(train),
            began=began,
        ),
    }  # fmt: skip
    print(f"{method}: {result['params']:,} parameters, {result['correct']} of {result['total']} correct", flush=True)
    return result


def speed_up(dense: nn.Module, small: nn.Module, images: torch.Tensor) -> dict[str, object]:
    """Time of the dense network over that of the small one, round by round; both and their images in channels_last.

    Training leaves a network so and reading one does not, which alone made the dense one 1.64 times as slow.
    """
    sides = {
        name: side.eval().to(memory_format=torch.channels_last) for name, side in (("dense", dense), ("small", small))
    }
    seconds = alternated(sides, images.contiguous(memory_format=torch.channels_last), ROUNDS)
    return summary(seconds["dense"], seconds["small"])


def structured_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """A row a method, the dense network first."""
    columns = (
        Column("method", "method", right=False),
        Column("params", "params"),
        Column("params_gone", "params gone"),
        Column("macs", "MACs"),
        Column("macs_gone", "MACs gone"),
        Column("error", "error"),
        Column("loss", "points lost"),
        *(Column(f"speed_{batch}", f"dense time / its time, batch {batch}") for batch in BATCHES),
        Column("paper", "the paper", right=False),
    )
    values: list[tuple[Value, ...]] = []
    texts: list[tuple[str, ...]] = []
    for result in sorted(results, key=lambda result: METHODS.index(result["variant"])):
        dense = result["dense"]
        if not values:
            error = 1 - dense["correct"] / dense["total"]
            values.append(("dense", dense["params"], None, dense["macs"], None, error, None, None, None, None))
            texts.append(("dense", count_text(dense["params"]), "", count_text(dense["macs"]), "", percent_text(error))
                         + ("",) * 4)  # fmt: skip
        gone = [1 - result[what] / dense[what] for what in ("params", "macs")]
        error = 1 - result["correct"] / result["total"]
        loss = error - (1 - dense["correct"] / dense["total"])
        speeds = [result["speed"][str(batch)] for batch in BATCHES]
        medians = tuple(speed["median"] for speed in speeds)
        paper = paper_text(result["variant"])
        counts = result["params"], gone[0], result["macs"], gone[1]
        values.append((result["variant"], *counts, error, loss, *medians, paper))
        shown = count_text(counts[0]), percent_text(gone[0]), count_text(counts[2]), percent_text(gone[1])
        spread = (f"{s['median']:.2f} ({s['low']:.2f} to {s['high']:.2f})" for s in speeds)
        texts.append((result["variant"], *shown, percent_text(error), f"{100 * loss:.2f}", *spread, paper))
    return Table(columns, tuple(values), tuple(texts), name="structured_vgg", title="VGG-11 with channels removed")


def paper_text(method: str) -> str:
    """Their figure in words, or nothing."""
    if method not in FIGURES:
        return ""
    network, params, flops, before, after = FIGURES[method]
    return (
        f"{network}: params -{percent_text(params)}, FLOPs -{percent_text(flops)}, "
        f"error {percent_text(before)} to {percent_text(after)}"
    )


if __name__ == "__main__":
    sys.exit(main())
