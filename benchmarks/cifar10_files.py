"""CIFAR-10 in few bytes: networks of the zoo rounded or pruned, and coded; each file read back by a fresh process.

    python benchmarks/cifar10_files.py [--only resnet20.small] [--out FILE] [--files FOLDER]

Every pipeline starts from the zoo's own weights and trains on all 50,000 training images, so that nothing is chosen by
what comes out; the test set is scored at the end, by another process. Writes results/cifar10_files.jsonl, one line a
pipeline, and the files themselves, each with its card, to --files. `longer` is the dense network trained on for as long
as `small`: what that training alone gives. On one core: resnet20 takes an hour and a half, the others half an hour.
"""

import dataclasses
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from experiments import keep, run_named
from torch import nn

import zoo
from zoo.compression import Calibrate, Code, FoldBatchNorm, Halve, Prune, Quantize, Share, Train, compress
from zoo.compression.stage import Stage
from zoo.compression.treat import layers_of
from zoo.recipes import get_recipe
from zoo.report import Column, Table, exact_text, percent_text
from zoo.report.tables import Value
from zoo.train_cli import subnormals_flushed
from zoo.weights import find_card

# A step of Muon costs what the weights cost, whatever the batch; half the rate of the first training.
RECIPE = dataclasses.replace(get_recipe("quick"), lr=0.01)
AGAIN = get_recipe("quick")  # at its full rate: the rounded weights are to move to other steps
WIDE = dataclasses.replace(RECIPE, batch_size=512)
CENTROIDS_LR = 5e-4
T = TypeVar("T")


@dataclass(frozen=True)
class Pipeline:
    """A network, the stages that it goes through, and what its file is to be.

    min_ratio: fp32 over file. max_error: share of test images. max_loss: the same, over the weights it starts from.
    """

    model: str
    variant: str
    stages: Callable[[nn.Module], Sequence[Stage]]
    max_bytes: int | None = None
    max_error: float | None = None
    min_ratio: int | None = None
    max_loss: float | None = None
    recipe: zoo.Recipe = RECIPE

    @property
    def name(self) -> str:
        """As --only has it."""
        return f"{self.model}.{self.variant}"


def by_size(model: nn.Module, settings: Sequence[tuple[int, T]]) -> dict[str, T]:
    """The setting of each layer but the first and the last: (up to so many weights, setting), ascending."""
    _, *inner, _ = ((name, layer.weight.numel()) for name, layer in layers_of(model).items())
    return {name: next(setting for most, setting in settings if count <= most) for name, count in inner}


def ends(model: nn.Module, setting: T) -> dict[str, T]:
    """The setting of the first layer and the last."""
    first, *_, last = layers_of(model)
    return {first: setting, last: setting}


def rounded(model: nn.Module, bits: Sequence[tuple[int, int]], ends_bits: int, epochs: int) -> list[Stage]:
    """Train through the rounding to a grid a channel, of few bits where there are many weights; nothing is pruned.

    Two bits are -1, 0 and 1 times a scale. The norms' factors go into the scales.
    """
    all_bits = by_size(model, bits) | ends(model, ends_bits)
    trained = Quantize(all_bits, range="mse", epochs=epochs, scales="recomputed")
    return [trained, Calibrate(), FoldBatchNorm(), Halve(), Code()]


def pruned(
    model: nn.Module, densities: Sequence[tuple[int, float]], bits: int, ends_bits: int, epochs: tuple[int, int]
) -> list[Stage]:
    """Prune layers by how many weights they have, fold the norms, share `bits`; the two ends keep all and `ends_bits`.

    epochs: of pruning, of centroids.
    """
    kept = by_size(model, densities)
    shared = dict.fromkeys(kept, bits) | ends(model, ends_bits)
    return [
        Prune(densities=kept, schedule="gradual", ramp=0.5, epochs=epochs[0]),
        FoldBatchNorm(),
        Share(shared, biases_bits=0, epochs=epochs[1], lr=CENTROIDS_LR),
        Code(),
    ]


PIPELINES = (
    Pipeline(
        "resnet20", "small",
        lambda model: rounded(model, ((10_000, 3), (40_000, 2)), 5, 54),
        max_bytes=66_000, max_error=0.085, recipe=AGAIN,
    ),
    Pipeline(
        "squeezenet1_1", "small",
        lambda model: rounded(model, ((20_000, 4), (100_000, 3), (10**6, 2)), 5, 6),
        min_ratio=12, max_loss=0.005,
    ),
    Pipeline("squeezenet1_1", "longer", lambda model: [Train(6), Calibrate(), Code()]),
    Pipeline(
        "vgg11_bn", "small",
        lambda model: pruned(model, ((100_000, 0.4), (600_000, 0.2), (10**7, 0.04)), 4, 6, (5, 1)),
        min_ratio=40, max_loss=0.005, recipe=WIDE,
    ),
)  # fmt: skip
KEY = ("model", "variant")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 2 for wrong use."""
    named = {pipeline.name: pipeline for pipeline in PIPELINES}
    return run_named("cifar10_files", __doc__, [*named], lambda name, folder: run(named[name], folder), KEY, arguments)


def run(pipeline: Pipeline, folder: Path) -> dict[str, Any]:
    """Compress, store, score the stored file in a fresh process: one line of results."""
    began = time.monotonic()
    base = find_card(pipeline.model, "cifar10")
    model = zoo.create_model(pipeline.model, dataset="cifar10", pretrained=True)
    train = zoo.load_dataset("cifar10", "train")
    stages = pipeline.stages(model)
    with subnormals_flushed():
        packed = compress(model, stages, dataset="cifar10", train=train, recipe=pipeline.recipe, spoken=True)
    result: dict[str, Any] = {
        "model": pipeline.model,
        "variant": pipeline.variant,
        "dense": {"stem": base.stem, "sha256": base.sha256, "correct": base.correct, "total": base.total},
        "dense_bytes": 4 * base.params,
        "receipts": [dataclasses.asdict(receipt) for receipt in packed.receipts],
        **keep(
            packed,
            base,
            pipeline.variant,
            folder,
            stages=stages,
            recipe=pipeline.recipe,
            command=f"python benchmarks/cifar10_files.py --only {pipeline.name}",
            trained_on=len(train),
            began=began,
        ),
    }
    error = 1 - result["correct"] / result["total"]
    print(f"{pipeline.name}: {result['file_bytes']:,} bytes, error {error:.2%}, {result['seconds']:.0f} s", flush=True)
    return result


def files_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """A row a file: its bytes and its error beside the dense weights', and what was aimed at."""
    columns = (
        Column("network", "network", right=False),
        Column("variant", "pipeline", right=False),
        Column("dense_error", "dense error"),
        Column("file_bytes", "file"),
        Column("error", "error"),
        Column("ratio", "fp32 / file"),
        Column("goal", "goal", right=False),
        Column("met", "met", right=False),
    )
    values: list[tuple[Value, ...]] = []
    texts: list[tuple[str, ...]] = []
    for result in results:
        (pipeline,) = (p for p in PIPELINES if (p.model, p.variant) == (result["model"], result["variant"]))
        dense_error = 1 - result["dense"]["correct"] / result["dense"]["total"]
        error = 1 - result["correct"] / result["total"]
        ratio = result["dense_bytes"] / result["file_bytes"]
        goal, met = judged(pipeline, result["file_bytes"], error, ratio, error - dense_error)
        values.append((result["model"], result["variant"], dense_error, result["file_bytes"], error, ratio, goal, met))
        shown = percent_text(dense_error), exact_text(result["file_bytes"]), percent_text(error), f"{ratio:.0f}x"
        texts.append((result["model"], result["variant"], *shown, goal, met))
    return Table(columns, tuple(values), tuple(texts), name="cifar10_files", title="CIFAR-10 in few bytes")


def judged(pipeline: Pipeline, file_bytes: int, error: float, ratio: float, loss: float) -> tuple[str, str]:
    """What was aimed at, in words, and whether a file is that, "yes" or "no"; two empty texts for no aim."""
    wanted = []
    if pipeline.max_bytes is not None:
        wanted.append((f"at most {exact_text(pipeline.max_bytes)} bytes", file_bytes <= pipeline.max_bytes))
    if pipeline.max_error is not None:
        wanted.append((f"error at most {percent_text(pipeline.max_error)}", error <= pipeline.max_error))
    if pipeline.min_ratio is not None:
        wanted.append((f"at least {pipeline.min_ratio}x smaller", ratio >= pipeline.min_ratio))
    if pipeline.max_loss is not None:
        wanted.append((f"at most {percent_text(pipeline.max_loss)} lost", round(loss, 6) <= pipeline.max_loss))
    met = "yes" if all(holds for _, holds in wanted) else "no"
    return ", ".join(words for words, _ in wanted), met if wanted else ""


if __name__ == "__main__":
    sys.exit(main())
