"""Leaving early: rules that say when, what they give, and how one is chosen (BranchyNet, arXiv:1709.01686).

A rule is chosen on images held out of training, for a wanted accuracy or a wanted mean cost:

    answers = exit_answers(model, valid)
    chosen = choose_rule(answers, exit_macs(model, (1, 28, 28)), accuracy=0.99)
    chosen.rule, chosen.mean_macs
    evaluate_early(model, test, chosen.rule)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from zoo.cost import count_macs
from zoo.data import Dataset, normalize
from zoo.errors import RecipeError
from zoo.models.branchy import EarlyExits
from zoo.registry import Image

Measure = Literal["entropy", "confidence"]
LEVELS = 1000  # thresholds tried by `choose_rule` and `curve`


@dataclass(frozen=True)
class ExitRule:
    """An image leaves at the first exit whose answer is less uncertain than that exit's threshold.

    measure: of the softmax at an exit, "entropy" divided by that of equal probabilities (section III.C), or
    "confidence", 1 - the highest probability; both are 0 for certainty. thresholds: one an exit, from 0, nobody leaves,
    to 1.
    Raises RecipeError for another measure or a threshold out of range.
    """

    thresholds: tuple[float, ...]
    measure: Measure = "entropy"

    def __post_init__(self) -> None:
        if self.measure not in get_args(Measure):
            raise RecipeError(f"measure={self.measure!r} was given; {' or '.join(get_args(Measure))} is allowed.")
        for threshold in self.thresholds:
            if not 0 <= threshold <= 1:
                raise RecipeError(
                    f"a threshold of {threshold!r} was given; 0 (no image leaves) to 1 (nearly all do) is allowed."
                )

    def __call__(self, index: int, logits_NK: Tensor) -> Tensor:
        """bool [N]: which images leave at the exit of that index."""
        return uncertainty(logits_NK, self.measure) < self.thresholds[index]


@dataclass(frozen=True)
class Answers:
    """What every exit, and last the whole network, answers for every image.

    logits: float32 [E, N, K]. labels: int64 [N].
    """

    logits: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Outcome:
    """What a rule gives on some images. leaving: how many leave by each exit, those by the last one at the end."""

    rule: ExitRule
    correct: int
    total: int
    leaving: tuple[int, ...]
    mean_macs: float

    @property
    def top1(self) -> float:
        """Share of the images whose answer is right, 0 to 1."""
        return self.correct / self.total


def uncertainty(logits: Tensor, measure: Measure) -> Tensor:
    """Of logits [..., K], float32 [...]: 0 for certainty, the most for equal probabilities."""
    logs = logits.float().log_softmax(-1)
    if measure == "confidence":
        return 1 - logs.amax(-1).exp()
    return -(logs.exp() * logs).sum(-1) / math.log(max(2, logits.shape[-1]))


def exit_macs(model: EarlyExits, image: Image) -> tuple[int, ...]:
    """MACs of one image (C, H, W) that leaves by each exit and, last, by none: the exits that it passes are counted."""
    return tuple(count_macs(_Until(model, index), image) for index in range(len(model.exits) + 1))


class _Until(nn.Module):
    """A network as far as one of its exits."""

    def __init__(self, model: EarlyExits, index: int) -> None:
        super().__init__()
        self.model = model
        self.index = index

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return self.model.forward_until(images_NCHW, self.index)[-1]


def exit_answers(model: EarlyExits, dataset: Dataset, *, batch_size: int = 500) -> Answers:
    """Run every image to the end, once. Eval mode; the model's mode is restored."""
    parts = []
    training = model.training
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(dataset), batch_size):
            images_NCHW = normalize(dataset.images[start : start + batch_size], dataset.mean, dataset.std)
            last, exits = model.forward_with_auxiliary(images_NCHW)
            parts.append(torch.stack([*exits, last]).float())
    model.train(training)
    return Answers(torch.cat(parts, 1), dataset.labels)


def outcome(answers: Answers, rule: ExitRule, macs: Sequence[int]) -> Outcome:
    """What a rule gives on images whose answers are known. macs: as `exit_macs` counts them."""
    exits = len(answers.logits) - 1
    _require_fit(rule, exits)
    leaves_EN = torch.stack([rule(index, answers.logits[index]) for index in range(exits)])
    leaves_EN = torch.cat([leaves_EN, torch.ones_like(leaves_EN[:1])])
    taken_N = leaves_EN.int().argmax(0)
    logits_NK = answers.logits[taken_N, torch.arange(len(taken_N))]
    return _outcome(rule, logits_NK, taken_N, answers.labels, macs)


def evaluate_early(
    model: EarlyExits, dataset: Dataset, rule: ExitRule, macs: Sequence[int], *, batch_size: int = 500
) -> Outcome:
    """Score every image once, computing no image further than it needs; in eval mode, the model's mode is restored."""
    _require_fit(rule, len(model.exits))
    logits, taken = [], []
    training = model.training
    model.eval()
    for start in range(0, len(dataset), batch_size):
        images_NCHW = normalize(dataset.images[start : start + batch_size], dataset.mean, dataset.std)
        answers_NK, taken_N = model.forward_early(images_NCHW, rule)
        logits.append(answers_NK)
        taken.append(taken_N)
    model.train(training)
    return _outcome(rule, torch.cat(logits), torch.cat(taken), dataset.labels, macs)


def curve(
    answers: Answers, macs: Sequence[int], *, measure: Measure = "entropy", levels: int = LEVELS
) -> list[Outcome]:
    """Outcomes of one threshold shared by all exits, from nobody leaving early to nearly all, by falling mean cost.

    The thresholds are quantiles of the uncertainties of these images, `levels` of them.
    """
    values = uncertainty(answers.logits[:-1], measure).flatten().double()
    steps = torch.linspace(0, 1, levels, dtype=torch.float64)
    thresholds = {0.0, 1.0, *torch.quantile(values, steps).clamp(0, 1).tolist()}
    exits = len(answers.logits) - 1
    found = [outcome(answers, ExitRule((level,) * exits, measure), macs) for level in sorted(thresholds)]
    return sorted(found, key=lambda each: -each.mean_macs)


def choose_rule(
    answers: Answers,
    macs: Sequence[int],
    *,
    accuracy: float | None = None,
    mean_macs: float | None = None,
    measure: Measure = "entropy",
) -> Outcome:
    """The cheapest rule of `curve` of at least an accuracy, or the most accurate one of at most a mean cost.

    answers: on images that were held out of training. accuracy: a share, 0 to 1. Give one of the two.
    Raises RecipeError where both or none are given, or no rule keeps to it; it says what can be had.
    """
    if (accuracy is None) == (mean_macs is None):
        raise RecipeError("give either accuracy, a share from 0 to 1, or mean_macs; the rule is chosen for that one.")
    every = curve(answers, macs, measure=measure)
    if accuracy is not None:
        fit = [found for found in every if found.top1 >= accuracy]
        if not fit:
            best = max(found.top1 for found in every)
            raise RecipeError(f"accuracy={accuracy} was wanted; the best rule gives {best:.4f} on these images.")
        return min(fit, key=lambda found: (found.mean_macs, -found.correct))
    fit = [found for found in every if mean_macs is not None and found.mean_macs <= mean_macs]
    if not fit:
        least = min(found.mean_macs for found in every)
        raise RecipeError(f"mean_macs={mean_macs} was wanted; leaving at once takes {least:.0f} on these images.")
    return max(fit, key=lambda found: (found.correct, -found.mean_macs))


def _outcome(rule: ExitRule, logits_NK: Tensor, taken_N: Tensor, labels_N: Tensor, macs: Sequence[int]) -> Outcome:
    leaving = torch.bincount(taken_N, minlength=len(macs)).tolist()
    total = len(labels_N)
    return Outcome(
        rule=rule,
        correct=int((logits_NK.argmax(1) == labels_N).sum()),
        total=total,
        leaving=tuple(leaving),
        mean_macs=sum(count * cost for count, cost in zip(leaving, macs, strict=True)) / total,
    )


def _require_fit(rule: ExitRule, exits: int) -> None:
    if len(rule.thresholds) != exits:
        raise RecipeError(
            f"{len(rule.thresholds)} thresholds were given for a network with {exits} exits; give one for each."
        )
