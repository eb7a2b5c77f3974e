"""Networks trained from new weights, each at the learning rate that suits it best on images held out.

A training whose loss stops being finite counts as no image right, and so do weights whose loss is not.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from experiments import SEED, Bench, Result
from torch import nn

import zoo
from zoo.data import Dataset
from zoo.errors import DivergedError
from zoo.recipes import Recipe
from zoo.report import percent_text
from zoo.training import Objective

Build = Callable[[], nn.Module]


@dataclass(frozen=True)
class Tuned:
    """A network at the best of several rates. held_out_correct: at each rate, of `held_out` images.

    model: None where all diverged.
    """

    rates: tuple[float, ...]
    held_out_correct: tuple[int, ...]
    held_out: int
    model: nn.Module | None

    @property
    def lr(self) -> float:
        """The rate with the most images held out right; of several the smallest."""
        return self.rates[self.held_out_correct.index(max(self.held_out_correct))]

    @property
    def fields(self) -> dict[str, Any]:
        """What a line of results says of the choice."""
        counts = {"held_out_correct": self.held_out_correct, "held_out": self.held_out}
        return {"rates": self.rates, **counts, "lr": self.lr}


def tuned(build: Build, images: Bench, recipe: Recipe, rates: Sequence[float]) -> Tuned:
    """Train at each rate, from the smallest to the largest, with the first seed."""
    rates = sorted(rates)
    models = [trained(build, images, replace(recipe, lr=rate)) for rate in rates]
    found = tuple(correct(model, images.valid) for model in models)
    return Tuned(tuple(rates), found, len(images.valid), models[found.index(max(found))])


def trained(
    build: Build, images: Bench, recipe: Recipe, seed: int = SEED, objective: Objective | None = None
) -> nn.Module | None:
    """A network trained, its weights drawn by the seed too; None if it diverged."""
    torch.manual_seed(seed)
    model = build()
    try:
        zoo.fit(model, images.train, None, recipe, objective=objective, seed=seed, device="cpu").or_leave()
    except DivergedError:
        return None
    return model


def correct(model: nn.Module | None, dataset: Dataset) -> int:
    """How many images a network gets right."""
    if model is None:
        return 0
    found = zoo.evaluate(model, dataset)
    return found.correct if math.isfinite(found.loss) else 0


def errors_of(line: Result) -> list[float]:
    """The share of wrong test answers for each seed."""
    return [1 - right / line["total"] for right in line["correct"]]


def mean_error(line: Result) -> float:
    """Over the seeds."""
    return statistics.fmean(errors_of(line))


def deviation(line: Result) -> float:
    """Standard deviation of the error over the seeds, 0 for one alone."""
    errors = errors_of(line)
    return statistics.stdev(errors) if len(errors) > 1 else 0.0


def spread_text(shares: Sequence[float]) -> str:
    """Mean and standard deviation in percent: "8.10 ± 0.12 %"."""
    if len(shares) == 1:
        return percent_text(shares[0])
    return f"{100 * statistics.fmean(shares):.2f} ± {percent_text(statistics.stdev(shares))}"
