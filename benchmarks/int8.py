"""Networks in whole numbers beside float32, both run by onnxruntime: accuracy, bytes, speed.

    python benchmarks/int8.py [--models resnet20.cifar10 ...] [--rounds 31] [--out benchmarks/results/int8.jsonl]

Each stored network is written twice as `zoo export` does, float32 and int8 calibrated on 800 training images; both
files are run on all test images. Speed is the time of float32 over that of int8, interleaved in one process with one
thread (zoo.latency), so that above 1 is a gain, with the interval that holds the median at 99 %.
Writes one JSON line a network. About six minutes.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from experiments import Experiment, conditions, results_of

import zoo
from zoo.data import normalize
from zoo.export_runs import metadata
from zoo.files import write_atomically
from zoo.interop.calibration import Calibration, quantize
from zoo.interop.onnx import OnnxNetwork, export_onnx, load_onnx
from zoo.interop.qdq import export_int8
from zoo.latency import Interval, interleaved
from zoo.report import Column, Table, percent_text, ratio_text, size_text
from zoo.report.tables import Value
from zoo.trained import Trained, load_trained

NETWORKS = ("lenet5.mnist", "squeezenet1_1.cifar10", "mobilenetv1_050.cifar10", "resnet20.cifar10", "vgg11_bn.cifar10")
BATCHES = (1, 16)
MOST_LOST = 0.005  # of accuracy, a share
LEAST_SMALLER = 3.5


def main() -> None:
    """Measure every network; lines of those left out stay."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=NETWORKS, metavar="MODEL.DATASET")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "int8.jsonl")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = {line["subject"]: line for line in results_of(arguments.out)}
    for subject in arguments.models:
        model, _, dataset = subject.partition(".")
        trained = load_trained(model, dataset)
        measured = {**of_network(trained, arguments.rounds), **conditions(), "onnxruntime": onnxruntime.__version__}
        lines[subject] = {"subject": subject, **measured}
        known = sorted(lines.values(), key=lambda line: NETWORKS.index(line["subject"]))
        write_atomically(arguments.out, "".join(json.dumps(line) + "\n" for line in known))
        print(json.dumps(lines[subject]), flush=True)
    print(finding(list(lines.values())))


def of_network(
    trained: Trained, rounds: int, *, calibration: Calibration | None = None, images: int | None = None
) -> dict[str, Any]:
    """Both files of one network. images: of the test set, None for all."""
    train, test = (zoo.load_dataset(trained.dataset, split) for split in ("train", "test"))
    test = test.subset(range(images or len(test)))
    image, words = trained.preprocess.image, metadata(trained)
    network, choice = quantize(trained.network, train, calibration)
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{name}.onnx" for name in ("float32", "int8")}
        export_onnx(trained.network, paths["float32"], image=image, metadata=words)
        export_int8(network, paths["int8"], metadata=words | {"calibration": choice.method})
        sides = {name: load_onnx(path, threads=1) for name, path in paths.items()}
        sizes = {name: path.stat().st_size for name, path in paths.items()}
    correct = {name: zoo.evaluate(side, test).correct for name, side in sides.items()}
    images_NCHW = normalize(test.images[: max(BATCHES)], test.mean, test.std)
    return {
        "total": len(test),
        "correct": correct,
        "file_bytes": sizes,
        "calibration": {"method": choice.method, "errors": dict(choice.errors)},
        "rounds": rounds,
        "speed": {str(batch): speed(sides, images_NCHW[:batch], rounds) for batch in BATCHES},
    }


def speed(sides: Mapping[str, OnnxNetwork], images_NCHW: torch.Tensor, rounds: int) -> dict[str, Any]:
    """Time of float32 over that of int8."""
    timing = interleaved({name: partial(side, images_NCHW) for name, side in sides.items()}, rounds)
    found = timing.ratio("float32", "int8")
    return {
        "median": found.median,
        "low": found.low,
        "high": found.high,
        "seconds": {name: timing.median(name) for name in sides},
        "busy": timing.busy,
    }


def int8_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """A row a network."""
    columns = (
        Column("subject", "weights", right=False),
        Column("float32_top1", "top-1 float32"),
        Column("int8_top1", "top-1 int8"),
        Column("lost_points", "points lost"),
        Column("float32_bytes", "float32 file"),
        Column("int8_bytes", "int8 file"),
        Column("smaller", "smaller"),
        *(Column(f"speed_{batch}", f"float32 time / int8 time, batch {batch}") for batch in BATCHES),
        Column("verdict", "int8 is", right=False),
    )
    values: list[tuple[Value, ...]] = []
    texts: list[tuple[str, ...]] = []
    for result in results:
        whole, small = (result["correct"][name] / result["total"] for name in ("float32", "int8"))
        sizes = [result["file_bytes"][name] for name in ("float32", "int8")]
        speeds = [
            Interval(*(result["speed"][str(batch)][key] for key in ("median", "low", "high"))) for batch in BATCHES
        ]
        said = verdict(speeds)
        ratio, lost = sizes[0] / sizes[1], 100 * (whole - small)
        values.append((result["subject"], whole, small, lost, *sizes, ratio, *(s.median for s in speeds), said))
        texts.append(
            (
                f"`{result['subject']}`",
                percent_text(whole),
                percent_text(small),
                f"{lost:.2f}",
                *map(size_text, sizes),
                ratio_text(ratio),
                *(f"{s.median:.2f} ({s.low:.2f} to {s.high:.2f})" for s in speeds),
                said,
            )
        )
    return Table(columns, tuple(values), tuple(texts), name="int8", title="Whole numbers beside float32")


def verdict(speeds: Sequence[Interval]) -> str:
    """At which batch int8 is faster, slower, or neither."""
    words = ["tied" if s.tied else "faster" if s.median > 1 else "slower" for s in speeds]
    if len(set(words)) == 1:
        return words[0]
    return ", ".join(f"{word} at batch {batch}" for word, batch in zip(words, BATCHES, strict=True))


def finding(results: Sequence[Mapping[str, Any]]) -> str:
    """What was asked and what came, in a sentence."""
    lost = {r["subject"]: (r["correct"]["float32"] - r["correct"]["int8"]) / r["total"] for r in results}
    smaller = {r["subject"]: r["file_bytes"]["float32"] / r["file_bytes"]["int8"] for r in results}
    worst, least = max(lost, key=lambda name: lost[name]), min(smaller, key=lambda name: smaller[name])
    met = lost[worst] <= MOST_LOST and smaller[least] >= LEAST_SMALLER
    return (
        f"Of {len(results)} networks the one that loses most, `{worst}`, loses {100 * lost[worst]:.2f} points "
        f"of accuracy, and the file that shrinks least, `{least}`, is {smaller[least]:.2f} times smaller; asked were "
        f"at most {100 * MOST_LOST:.1f} and at least {LEAST_SMALLER}, so this is {'met' if met else 'not met'}."
    )


EXPERIMENT = Experiment("int8", ("subject",), lambda results: [int8_table(results)], finding)

if __name__ == "__main__":
    main()
