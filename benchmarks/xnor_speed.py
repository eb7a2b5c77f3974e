"""How fast binary networks are on packed words, as ratios to PyTorch's float convolutions in the same run.

    python benchmarks/xnor_speed.py [--rounds 9] [--threads 1] [--out benchmarks/results/xnor_speed.jsonl]

Each subject is measured against two alternatives on the same images, in float32:

    float       the same network with ordinary convolutions in place of the binary ones
    simulated   the binary network as it trains: signs made anew each time, convolved as floats

A ratio is the alternative's time over that of `zoo.compression.binary.pack_network`, so more than 1 is a gain. Blocks
of all sides alternate, and who goes first rotates; a round's ratio is that of blocks of one round. The median of the
rounds is reported with their lowest and highest. numpy works in one thread, so one thread is the default for PyTorch.
Before anything is timed, the packed outputs are compared with the simulated ones bit by bit. About a minute.
"""

import argparse
import copy
import json
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import alternated, summary
from torch import nn

from zoo import registry
from zoo.compression.binary import pack_network
from zoo.cost import count_macs
from zoo.files import write_atomically
from zoo.models.xnor import BinaryConv2d
from zoo.report import Column, Table
from zoo.report.tables import Value
from zoo.runs import device_name, versions


@dataclass(frozen=True)
class Subject:
    """What is run: a registered network, or one binary convolution; on images or features [batch, *image]."""

    name: str
    build: Callable[[], nn.Module]
    image: tuple[int, int, int]
    batch_size: int


def layer(channels: int, filters: int, kernel: int) -> Callable[[], nn.Module]:
    """One binary convolution that keeps the size."""
    return lambda: nn.Sequential(BinaryConv2d(channels, filters, kernel, padding=kernel // 2))


SUBJECTS = tuple(
    Subject(name, build, image, batch_size)
    for name, build, image in (
        ("xnor_lenet5", lambda: registry.build("xnor_lenet5"), (1, 28, 28)),
        ("xnor_nin", lambda: registry.build("xnor_nin"), (3, 32, 32)),
        ("1x1 convolution, 192 to 160 maps", layer(192, 160, 1), (192, 32, 32)),
        ("5x5 convolution, 96 to 192 maps", layer(96, 192, 5), (96, 16, 16)),
        ("3x3 convolution, 256 to 256 maps", layer(256, 256, 3), (256, 14, 14)),
    )
    for batch_size in (1, 16)
)


def main() -> None:
    """Measure every subject and write one JSON line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "xnor_speed.jsonl")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    lines = []
    for subject in SUBJECTS:
        lines.append(json.dumps(compare(subject, arguments.rounds)) + "\n")
        print(lines[-1], end="", flush=True)
    write_atomically(arguments.out, "".join(lines))


@torch.no_grad()
def compare(subject: Subject, rounds: int) -> dict[str, object]:
    """Ratios of the packed network to both alternatives, round by round."""
    torch.manual_seed(0)
    simulated = subject.build().eval()
    sides = {"packed": pack_network(simulated), "float": with_floats(simulated), "simulated": simulated}
    images = torch.randn(subject.batch_size, *subject.image)
    assert torch.equal(sides["packed"](images), simulated(images)), "the packed network is not the simulated one"
    seconds = alternated(sides, images, rounds)
    return {
        "subject": subject.name,
        "batch_size": subject.batch_size,
        "macs": count_macs(simulated, subject.image),
        "rounds": rounds,
        **{f"{name}_over_packed": summary(seconds[name], seconds["packed"]) for name in ("float", "simulated")},
        **{f"{name}_milliseconds": 1000 * statistics.median(taken) for name, taken in seconds.items()},
        "device": device_name(torch.device("cpu")),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "versions": versions() | {"numpy": np.__version__},
    }


def with_floats(model: nn.Module) -> nn.Module:
    """A copy with ordinary convolutions of the same shape in place of the binary ones."""
    copied = copy.deepcopy(model)
    for name, module in list(copied.named_modules()):
        if isinstance(module, BinaryConv2d):
            parent, _, child = name.rpartition(".")
            float_layer = copy.deepcopy(module)
            float_layer.__class__ = nn.Conv2d  # type: ignore[assignment]
            setattr(copied.get_submodule(parent), child, float_layer)
    return copied.eval()


def xnor_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """A row a subject and batch: times over that of the packed path, so that above 1 packed words are faster."""
    sides = ("float", "simulated")
    columns = (
        Column("subject", "binary network or layer", right=False),
        Column("batch_size", "batch"),
        *(Column(f"{side}_over_packed", f"{side} time / packed time") for side in sides),
    )
    values: list[tuple[Value, ...]] = []
    texts: list[tuple[str, ...]] = []
    for result in results:
        ratios = [result[f"{side}_over_packed"] for side in sides]
        values.append((result["subject"], result["batch_size"], *(ratio["median"] for ratio in ratios)))
        shown = (f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})" for ratio in ratios)
        texts.append((result["subject"], str(result["batch_size"]), *shown))
    return Table(columns, tuple(values), tuple(texts), name="xnor_speed")


if __name__ == "__main__":
    main()
