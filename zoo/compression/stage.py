"""What every method of compression is: a frozen configuration whose `apply` returns a new model.

A pipeline is a list of stages. What a stage decides about a weight (a mask, a shared codebook, a grid) stays on the
model as a parametrization of `torch.nn.utils.parametrize`, so that it trains on under `zoo.fit` and the next stage, the
counter and the container can read it.
"""

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import nn

from zoo.data import Dataset
from zoo.errors import CompressionError
from zoo.recipes import Recipe
from zoo.training import OnStep, fit
from zoo.training.objectives import Objective


@dataclass(frozen=True)
class Workbench:
    """What stages may use besides the model.

    train: images to fine-tune and calibrate with. valid: images that choices are made on (never the test set).
    recipe: how fine-tuning trains; a stage says for how many epochs. seed: decides all chance.
    spoken: progress on stderr.
    """

    train: Dataset | None = None
    valid: Dataset | None = None
    recipe: Recipe | None = None
    seed: int = 0
    device: torch.device | str | None = None
    spoken: bool = False

    def fine_tune(
        self, model: nn.Module, recipe: Recipe, *, objective: Objective | None = None, on_step: OnStep | None = None
    ) -> None:
        """Train a model, in place, whatever its weights are made of; it ends in eval mode, averaged.

        A signal that stops the training ends the process: what is half trained must not be packed.
        Raises CompressionError where there is nothing to train on.
        """
        fit(
            model,
            self.need_train("fine-tuning"),
            None,
            recipe,
            objective=objective,
            seed=self.seed,
            device=self.device,
            on_step=on_step,
            spoken=self.spoken,
        ).or_leave()

    def need_train(self, purpose: str) -> Dataset:
        """The training images. Raises CompressionError where there are none."""
        if self.train is None:
            raise CompressionError(f"{purpose} needs images; give train=zoo.load_dataset(NAME, 'train').")
        return self.train

    def need_valid(self, purpose: str) -> Dataset:
        """The validation images. Raises CompressionError where there are none."""
        if self.valid is None:
            raise CompressionError(
                f"{purpose} needs images held out from training; give valid=zoo.split_validation(train, 5000, 0)[1]."
            )
        return self.valid


@dataclass(frozen=True)
class Treated:
    """What a stage returns: the new model, what it did to each layer in words, and what it could not treat and why."""

    model: nn.Module
    layers: dict[str, str] = field(default_factory=dict)
    untreated: dict[str, str] = field(default_factory=dict)


class Stage(Protocol):
    """One method, configured. `apply` leaves the model it is given untouched."""

    def apply(self, model: nn.Module, work: Workbench) -> Treated:
        """The treated copy of a model. Raises CompressionError for what cannot be done."""
        ...
