"""All that changes while a run trains, how it is kept, and how a run goes on from it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from zoo import recipes
from zoo.data import Dataset
from zoo.errors import CheckpointError, DivergedError, WeightError
from zoo.recipes import Recipe
from zoo.training.checkpoint import checkpoint_files, load_newest, save_checkpoint, tensors_of
from zoo.training.objectives import Objective
from zoo.training.optimizer import WeightAverage

_COUNTERS = ("step", "loss_sum", "seconds", "history")


class Learner(nn.Module):
    """Model and objective as one module, so that data parallelism sees whatever methods an objective calls."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.objective = objective

    def forward(self, images_NCHW: Tensor, targets: Tensor) -> Tensor:
        """Scalar loss of one batch."""
        loss: Tensor = self.objective(self.model, images_NCHW, targets)
        return loss


@dataclass
class State:
    """All that changes while a run trains; what is not here is a function of (recipe, seed, step)."""

    learner: Learner
    optimizer: Optimizer
    average: WeightAverage | None
    step: int = 0
    loss_sum: float = 0.0  # over the steps of the current epoch
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def result(self) -> nn.Module:
        """The model to score and to keep."""
        return self.average.model if self.average else self.learner.model

    def has_open_epoch(self, steps_an_epoch: int) -> bool:
        """Whether an epoch's last step is done and the epoch is not scored yet: a stop may come between the two."""
        return len(self.history) < self.step // steps_an_epoch

    def to_tree(self, terms: dict[str, Any]) -> dict[str, Any]:
        """Everything a checkpoint holds."""
        saved = self.optimizer.state_dict()
        options = [{k: v for k, v in group.items() if k != "params"} for group in saved["param_groups"]]
        return {
            "terms": terms,
            "learner": self.learner.state_dict(),
            "average": self.average.model.state_dict() if self.average else {},
            "average_updates": self.average.updates if self.average else 0,
            "optimizer": {"state": saved["state"], "options": options},
            **{name: getattr(self, name) for name in _COUNTERS},
        }

    def take(self, tree: dict[str, Any]) -> None:
        """Become the state that a checkpoint holds. Raises CheckpointError when it is that of another network."""
        try:
            self.learner.load_state_dict(tree["learner"])
            if self.average:
                self.average.model.load_state_dict(tree["average"])
                self.average.updates = tree["average_updates"]
            saved = self.optimizer.state_dict()
            for group, options in zip(saved["param_groups"], tree["optimizer"]["options"], strict=True):
                group |= {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
            saved["state"] = {int(index): values for index, values in tree["optimizer"]["state"].items()}
            self.optimizer.load_state_dict(saved)
        except (RuntimeError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(
                f"the checkpoint is that of another network or objective ({reason}); build the one it was made with."
            ) from error
        for name in _COUNTERS:
            setattr(self, name, tree[name])


def terms_of(recipe: Recipe, seed: int, train: Dataset, valid: Dataset | None) -> dict[str, Any]:
    """What a resumed run must have in common with the one before. Of a part of a data set, digest and size tell."""
    return {
        "recipe": recipes.to_dict(recipe),
        "seed": seed,
        "train": train.digest,
        "train_images": len(train),
        "valid": valid.digest if valid is not None else None,
        "valid_images": len(valid) if valid is not None else 0,
    }


def save(folder: Path, state: State, terms: dict[str, Any]) -> None:
    """Write a checkpoint. Raises DivergedError, and leaves the one before, when the state is not finite."""
    tree = state.to_tree(terms)
    try:
        save_checkpoint(folder, state.step, tree)
    except WeightError as error:
        if all(bool(torch.isfinite(tensor).all()) for tensor in tensors_of(tree)):
            raise
        lr = terms["recipe"]["lr"]
        raise DivergedError(
            f"the weights are no longer finite after step {state.step}, at a peak learning rate of {lr:.4g} ({error}) "
            f"The checkpoint before is intact. Try --set lr={lr / 3:.2g} or --set clip_norm=1."
        ) from error


def refuse_old_checkpoints(folder: Path) -> None:
    """Raise CheckpointError where a new run would mix with the one that the folder holds."""
    if checkpoint_files(folder):
        raise CheckpointError(f"{folder} holds the checkpoints of a run; resume it, or take another folder.")


def resume(state: State, folder: Path, terms: dict[str, Any], steps: int, say: Callable[[str], None]) -> None:
    """Go on from the newest checkpoint that can be read; with none, from the beginning.

    A finished run may go on with more epochs. Raises CheckpointError, naming both values, for any other difference.
    """
    tree, complaints = load_newest(folder)
    for complaint in complaints:
        say(f"passed over: {complaint}")
    if tree is None:
        return
    before, wanted = tree["terms"]["recipe"]["epochs"], terms["recipe"]["epochs"]
    finished = tree["step"] > 0 and tree["step"] * wanted == steps * before
    for name, old, new in _differences(tree["terms"], terms):
        if name == "recipe.epochs" and finished and new > old:
            say(f"the run of {old} epochs is finished; it goes on to {new}")
            continue
        raise CheckpointError(
            f"{folder} was begun with {name}={old!r}, and {new!r} was given now; leave it out, or start a new run."
        )
    state.take(tree)
    say(f"resumed at step {state.step} of {steps}")


def _differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    """(name, value before, value now) of all leaves that differ, by name."""
    found: list[tuple[str, Any, Any]] = []
    for key in before.keys() | now.keys():
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append((prefix + key, old, new))
    return sorted(found, key=lambda difference: difference[0])
