"""Winograd's convolution: multiplications, rounding error and real speed beside PyTorch's own convolution.

    python benchmarks/winograd.py [--rounds 9] [--threads 1] [--out benchmarks/results/winograd.jsonl]

Error: the largest difference from the plain sum in float64, as a share of the largest output, in float32 and bfloat16,
of zoo.winograd with both tiles and of F.conv2d. Speed: the time of F.conv2d (or of the network that calls it) over that
of zoo.winograd, both float32, blocks alternating, so that above 1 is a gain; median, lowest and highest of the rounds.
Inputs are normal, weights He's. Writes one JSON line a subject. About two minutes.
"""

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from timing import alternated, summary
from torch import nn
from torch.nn import functional as F

import zoo
from zoo.cost import measure
from zoo.files import write_atomically
from zoo.report import Column, Table, count_text
from zoo.report.tables import Value
from zoo.runs import device_name, versions
from zoo.winograd import to_winograd, winograd_conv2d

TILES = (2, 4)
#         channels, filters, side, batch
LAYERS = ((16, 16, 32, 16), (64, 64, 32, 16), (128, 128, 16, 16), (256, 256, 8, 16), (512, 512, 4, 16))
NETWORKS = ("resnet20", "vgg11_bn")
BATCH = 16


def main() -> None:
    """Measure every subject and write one JSON line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "winograd.jsonl")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    machine = {
        "device": device_name(torch.device("cpu")),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
    results = [of_layer(*layer, arguments.rounds) for layer in LAYERS]
    results += [of_network(name, arguments.rounds) for name in NETWORKS]
    write_atomically(arguments.out, "".join(json.dumps(result | machine) + "\n" for result in results))
    print(finding(results))


@torch.no_grad()
def of_layer(channels: int, filters: int, side: int, batch: int, rounds: int) -> dict[str, Any]:
    """One convolution, padded so that the size stays."""
    torch.manual_seed(0)
    images = torch.randn(batch, channels, side, side)
    weight = torch.randn(filters, channels, 3, 3) * (2 / (9 * channels)) ** 0.5
    exact = F.conv2d(images.double(), weight.double(), padding=1)
    layer = nn.Sequential(nn.Conv2d(channels, filters, 3, padding=1, bias=False)).eval()
    layer[0].weight = nn.Parameter(weight)

    def error(dtype: torch.dtype, tile: int | None) -> float:
        pair = images.to(dtype), weight.to(dtype)
        found = winograd_conv2d(*pair, None, (1, 1), 1, tile) if tile else F.conv2d(*pair, padding=1)  # type: ignore[arg-type]
        return float((found.double() - exact).abs().max() / exact.abs().max())

    return {
        "subject": f"{channels} to {filters} maps, {side} x {side}",
        "errors": {
            name: {str(tile or "plain"): error(dtype, tile) for tile in (None, *TILES)}
            for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))
        },
        **of_any(layer, images, rounds),
    }


@torch.no_grad()
def of_network(name: str, rounds: int) -> dict[str, Any]:
    """A whole network of the zoo, every fitting convolution replaced."""
    torch.manual_seed(0)
    model = zoo.create_model(name, dataset="cifar10").eval()
    return {"subject": name, "errors": None, **of_any(model, torch.randn(BATCH, 3, 32, 32), rounds)}


def of_any(model: nn.Module, images: torch.Tensor, rounds: int) -> dict[str, Any]:
    """Multiplications, and ratios of time round by round."""
    channels, height, width = images.shape[1:]
    cost = measure(model, (channels, height, width))
    sides = {"plain": model} | {str(tile): to_winograd(model, tile) for tile in TILES}  # type: ignore[arg-type]
    seconds = alternated(sides, images, rounds)
    return {
        "batch_size": len(images),
        "macs": cost.macs,
        "multiplications": {str(tile): count for tile, count in cost.winograd_multiplications.items()},
        "rounds": rounds,
        "speed": {str(tile): summary(seconds["plain"], seconds[str(tile)]) for tile in TILES},
    }


def winograd_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """A row a subject: both tiles side by side."""
    columns = (
        Column("subject", "subject", right=False),
        Column("macs", "MACs"),
        *(Column(f"fewer_{tile}", f"fewer multiplications, tile {tile}") for tile in TILES),
        *(Column(f"float32_{side}", f"error in float32, {side}") for side in ("plain", "2", "4")),
        *(Column(f"bfloat16_{side}", f"in bfloat16, {side}") for side in ("plain", "2", "4")),
        *(Column(f"speed_{tile}", f"plain time / its time, tile {tile}") for tile in TILES),
    )
    values: list[tuple[Value, ...]] = []
    texts: list[tuple[str, ...]] = []
    for result in results:
        fewer = [result["macs"] / result["multiplications"][str(tile)] for tile in TILES]
        errors = [
            result["errors"][name][side] if result["errors"] else None
            for name in ("float32", "bfloat16")
            for side in ("plain", "2", "4")
        ]
        speeds = [result["speed"][str(tile)] for tile in TILES]
        values.append((result["subject"], result["macs"], *fewer, *errors, *(s["median"] for s in speeds)))
        texts.append(
            (
                result["subject"],
                count_text(result["macs"]),
                *(f"{ratio:.2f}x" for ratio in fewer),
                *("" if error is None else f"{error:.1e}" for error in errors),
                *(f"{s['median']:.2f} ({s['low']:.2f} to {s['high']:.2f})" for s in speeds),
            )
        )
    return Table(columns, tuple(values), tuple(texts), name="winograd", title="Winograd convolution")


def finding(results: Sequence[Mapping[str, Any]]) -> str:
    """What the numbers say, in a sentence."""
    ratios = {(r["subject"], tile): r["speed"][str(tile)]["median"] for r in results for tile in TILES}
    (subject, tile), best = max(ratios.items(), key=lambda item: item[1])
    gains = sum(ratio > 1 for ratio in ratios.values())
    return (
        f"Finding: of {len(ratios)} measured pairs {gains} are faster than PyTorch's own convolution; the best, "
        f"{subject} with tile {tile}, takes {1 / best:.2f} of its time, for up to 4 times fewer multiplications."
    )


if __name__ == "__main__":
    main()
