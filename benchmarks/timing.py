"""Networks timed side by side in one run: blocks of all sides alternate, and who goes first rotates."""

import statistics
import time
from collections.abc import Mapping, Sequence

import torch
from torch import nn

BLOCK_SECONDS = 0.15


@torch.no_grad()
def alternated(sides: Mapping[str, nn.Module], images: torch.Tensor, rounds: int) -> dict[str, list[float]]:
    """Seconds of one call of each side, a figure a round: those of one round may be compared."""
    calls = {name: calls_a_block(side, images) for name, side in sides.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            seconds[name].append(seconds_a_call(sides[name], images, calls[name]))
    return seconds


def calls_a_block(model: nn.Module, images: torch.Tensor) -> int:
    """How many calls fill a block; warms everything up too."""
    seconds_a_call(model, images, 2)
    return max(1, round(BLOCK_SECONDS / seconds_a_call(model, images, 2)))


def seconds_a_call(model: nn.Module, images: torch.Tensor, calls: int) -> float:
    """Mean time of one call in a block of some."""
    start = time.perf_counter()
    for _ in range(calls):
        model(images)
    return (time.perf_counter() - start) / calls


def summary(alternative: Sequence[float], subject: Sequence[float]) -> dict[str, object]:
    """Median, lowest and highest of the rounds' ratios, and all of them."""
    ratios = [a / b for a, b in zip(alternative, subject, strict=True)]
    return {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios), "ratios": ratios}
