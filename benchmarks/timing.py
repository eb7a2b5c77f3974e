"""Networks timed side by side in one run, and what the rounds' ratios come to (zoo.latency does the timing)."""

import statistics
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import nn

from zoo.latency import interleaved

BLOCK_SECONDS = 0.15


def alternated(sides: Mapping[str, nn.Module], images: torch.Tensor, rounds: int) -> dict[str, Sequence[float]]:
    """Seconds of one call of each side, a figure a round: those of one round may be compared."""
    acts = {name: partial(side, images) for name, side in sides.items()}
    timing = interleaved(acts, rounds, threads=torch.get_num_threads(), block_seconds=BLOCK_SECONDS)
    return dict(timing.seconds)


def summary(alternative: Sequence[float], subject: Sequence[float]) -> dict[str, object]:
    """Median, lowest and highest of the rounds' ratios, and all of them."""
    ratios = [a / b for a, b in zip(alternative, subject, strict=True)]
    return {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios), "ratios": ratios}
