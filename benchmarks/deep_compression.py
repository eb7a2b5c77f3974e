"""Deep Compression's tables 1 to 3 (arXiv:1510.00149), re-made in bytes of a file that a fresh process reads back.

    python benchmarks/deep_compression.py [--only lenet5_caffe.small] [--out FILE] [--files FOLDER]

Every pipeline starts from the zoo's own MNIST weights and trains on 55,000 images; 5,000 are held out, and the test set
is scored once, at the end, by another process. "paper" keeps the densities and bits of the paper's tables 2 and 3;
"medium", "small" and "tiny" are ours, each farther below; "tiny" cuts channels and rounds in place of pruning and
sharing. Writes results/deep_compression.jsonl, one line a pipeline, and the files themselves to --files. About an hour
on one core.
"""

import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import FINE_TUNING, bench, keep, run_named

import zoo
from zoo.compression import Code, Halve, Huffman, Prune, PruneChannels, Quantize, Share, Stage, compress
from zoo.report import Column, Table, exact_text, percent_text
from zoo.report.tables import MISSING, Value
from zoo.weights import find_card

KEY = ("model", "variant")


@dataclass(frozen=True)
class Pipeline:
    """One network and the stages that it goes through."""

    model: str
    variant: str
    stages: tuple[Stage, ...]

    @property
    def name(self) -> str:
        """As --only has it."""
        return f"{self.model}.{self.variant}"


#                 kept share, bits          arXiv:1510.00149, tables 2 and 3
PAPER_300_100 = {"1": (0.08, 6), "3": (0.09, 6), "5": (0.26, 6)}
PAPER_CAFFE = {"0": (0.66, 8), "2": (0.12, 8), "5": (0.08, 5), "7": (0.19, 5)}
#                 ours
SMALL_300_100 = {"1": (0.03, 3), "3": (0.08, 3), "5": (0.4, 4)}
MEDIUM_CAFFE = {"0": (0.5, 5), "2": (0.15, 4), "5": (0.02, 4), "7": (0.2, 4)}
SMALL_CAFFE = {"0": (0.3, 4), "2": (0.05, 3), "5": (0.008, 3), "7": (0.1, 3)}
#                 removed share of channels, bits: 6, 12 and 40 are left
TINY_CAFFE = {"0": (0.7, 4), "2": (0.76, 3), "5": (0.92, 2), "7": (0, 3)}
PLANS = {"lenet_300_100": PAPER_300_100, "lenet5_caffe": PAPER_CAFFE}
FIGURES = {  # of the paper's table 1: bytes of the file, error before and after, rate
    "lenet_300_100": (27_000, 0.0164, 0.0158, 40),
    "lenet5_caffe": (44_000, 0.0080, 0.0074, 39),
}


def stages(plan: dict[str, tuple[float, int]], epochs: int, coder: Stage) -> tuple[Stage, ...]:
    """Prune gradually, share and train the centroids, code."""
    densities = {name: density for name, (density, _) in plan.items()}
    bits = {name: bits for name, (_, bits) in plan.items()}
    return (
        Prune(densities=densities, schedule="gradual", epochs=epochs),
        Share(bits=bits, biases_bits=4, epochs=max(1, epochs // 4), lr=FINE_TUNING.lr / 10),
        coder,
    )


def narrow(plan: dict[str, tuple[float, int]], epochs: int) -> tuple[Stage, ...]:
    """Cut whole channels and train, round what is left to a grid a channel and train through it for twice as long."""
    removed = {name: share for name, (share, _) in plan.items() if share > 0}
    bits = {name: bits for name, (_, bits) in plan.items()}
    return (
        PruneChannels(ratios=removed, epochs=epochs),
        Quantize(bits, range="mse", epochs=2 * epochs, scales="recomputed"),
        Halve(),
        Code(),
    )


PIPELINES = (
    Pipeline("lenet_300_100", "paper", stages(PAPER_300_100, 20, Huffman())),
    Pipeline("lenet_300_100", "small", stages(SMALL_300_100, 40, Code())),
    Pipeline("lenet5_caffe", "paper", stages(PAPER_CAFFE, 12, Huffman())),
    Pipeline("lenet5_caffe", "medium", stages(MEDIUM_CAFFE, 12, Code())),
    Pipeline("lenet5_caffe", "small", stages(SMALL_CAFFE, 24, Code())),
    Pipeline("lenet5_caffe", "tiny", narrow(TINY_CAFFE, 20)),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 2 for wrong use."""
    named = {pipeline.name: pipeline for pipeline in PIPELINES}
    return run_named(
        "deep_compression", __doc__, [*named], lambda name, folder: run(named[name], folder), KEY, arguments
    )


def run(pipeline: Pipeline, folder: Path) -> dict[str, Any]:
    """Compress, store, score the stored file in a fresh process: one line of results."""
    began = time.monotonic()
    images = bench("mnist", folder)
    base = find_card(pipeline.model, "mnist")
    model = zoo.create_model(pipeline.model, dataset="mnist", pretrained=True)
    packed = compress(
        model, pipeline.stages, dataset="mnist", train=images.train, valid=images.valid, recipe=FINE_TUNING
    )
    result: dict[str, Any] = {
        "model": pipeline.model,
        "variant": pipeline.variant,
        "dense_bytes": 4 * base.params,
        "receipts": [dataclasses.asdict(receipt) for receipt in packed.receipts],
        **keep(
            packed,
            base,
            pipeline.variant,
            folder,
            stages=pipeline.stages,
            recipe=FINE_TUNING,
            command=f"python benchmarks/deep_compression.py --only {pipeline.name}",
            trained_on=len(images.train),
            began=began,
        ),
    }
    error = 1 - result["correct"] / result["total"]
    print(f"{pipeline.name}: {result['file_bytes']:,} bytes, error {error:.2%}, {result['seconds']:.0f} s", flush=True)
    return result


def pipelines_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """The paper's figure and ours, a row a pipeline: bytes of the whole file and error on all test images."""
    columns = (
        Column("network", "network", right=False),
        Column("variant", "pipeline", right=False),
        Column("file_bytes", "file"),
        Column("error", "error"),
        Column("ratio", "fp32 / file"),
        Column("paper_bytes", "paper: file"),
        Column("paper_error", "paper: error"),
        Column("paper_ratio", "paper: rate"),
    )
    values: list[tuple[Value, ...]] = []
    texts: list[tuple[str, ...]] = []
    for result in results:
        error = 1 - result["correct"] / result["total"]
        ratio = result["dense_bytes"] / result["file_bytes"]
        size, _, their_error, rate = FIGURES[result["model"]]
        values.append((result["model"], result["variant"], result["file_bytes"], error, ratio, size, their_error, rate))
        ours = exact_text(result["file_bytes"]), percent_text(error), f"{ratio:.0f}x"
        theirs = exact_text(size), percent_text(their_error), f"{rate}x"
        texts.append((result["model"], result["variant"], *ours, *theirs))
    return Table(columns, tuple(values), tuple(texts), name="deep_compression", title="Deep Compression")


def weights_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """Each layer under the paper's own densities: what is kept, and what a kept weight takes after Huffman coding.

    Weight bits are those of its code, index bits those of its position; the codebook is in neither, but in all bits.
    """
    columns = (
        Column("network", "network", right=False),
        Column("layer", "layer", right=False),
        Column("weights", "weights"),
        Column("kept", "kept"),
        Column("paper_kept", "paper: kept"),
        Column("file_bytes", "bytes"),
        Column("weight_bits", "weight bits"),
        Column("index_bits", "index bits"),
        Column("bits_a_kept", "bits a kept weight"),
    )
    values: list[tuple[Value, ...]] = []
    texts: list[tuple[str, ...]] = []
    reasons: list[Mapping[str, str]] = []
    for result in results:
        if result["variant"] != "paper":
            continue
        plan = PLANS[result["model"]]
        for layer in result["receipts"][-1]["layers"]:
            name, _, tensor = layer["name"].rpartition(".")
            if tensor != "weight":
                continue
            kept, total = layer["nonzero"] / layer["values"], 8 * layer["file_bytes"] / layer["nonzero"]
            parts, why = _bits_apart(layer)
            reasons.append(why)
            values.append(
                (result["model"], name, layer["values"], kept, plan[name][0], layer["file_bytes"], *parts, total)
            )
            shown = exact_text(layer["values"]), percent_text(kept), percent_text(plan[name][0])
            bits = (MISSING if part is None else f"{part:.2f}" for part in (*parts, total))
            texts.append((result["model"], name, *shown, exact_text(layer["file_bytes"]), *bits))
    return Table(columns, tuple(values), tuple(texts), name="layers", title="By layer", reasons=tuple(reasons))


def _bits_apart(layer: Mapping[str, Any]) -> tuple[tuple[float | None, float | None], Mapping[str, str]]:
    """((bits of a kept weight's code, bits of its position), why one of them is missing)."""
    if "index_bytes" not in layer:
        reason = "the result was made before they were told apart"
        return (None, None), {"weight_bits": reason, "index_bits": reason}
    code, index = (8 * layer[name] / layer["nonzero"] for name in ("code_bytes", "index_bytes"))
    if not layer["index_bytes"]:
        return (code, None), {"index_bits": "zeros are coded among the weights where that is shorter"}
    return (code, index), {}


if __name__ == "__main__":
    sys.exit(main())
