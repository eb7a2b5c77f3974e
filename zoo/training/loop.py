"""The training loop. One for every model, objective and kind of weight; it reads from top to bottom."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from zoo import recipes
from zoo.data import Dataset
from zoo.errors import CheckpointError, DivergedError, RecipeError, WeightError
from zoo.evaluation import Evaluation, evaluate
from zoo.recipes import Recipe
from zoo.training.batches import Batches, chance
from zoo.training.checkpoint import load_newest, save_checkpoint
from zoo.training.distributed import Processes, processes
from zoo.training.objectives import CrossEntropy, Objective
from zoo.training.optimizer import WeightAverage, make_optimizer
from zoo.training.progress import Progress, write_events, write_log
from zoo.training.signals import stop_requests

OnStep = Callable[[nn.Module, int, int], None]


@dataclass
class Run:
    """What `fit` did.

    history: one dict an epoch (epoch, step, lr, train_loss, valid_loss, valid_top1, seconds, images_per_second).
    evaluation: of the final, averaged weights on the validation set, if there is one.
    seconds: spent in this run so far, earlier sittings counted. stopped: None when the run is finished, else why not:
    "SIGINT", "SIGTERM" or "max_minutes".
    """

    history: list[dict[str, Any]]
    evaluation: Evaluation | None
    step: int
    steps: int
    seconds: float
    images_per_second: float
    stopped: str | None


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
            **{name: getattr(self, name) for name in ("step", "loss_sum", "seconds", "history")},
        }

    def take(self, tree: dict[str, Any]) -> None:
        """Become the state that a checkpoint holds."""
        self.learner.load_state_dict(tree["learner"])
        if self.average:
            self.average.model.load_state_dict(tree["average"])
            self.average.updates = tree["average_updates"]
        saved = self.optimizer.state_dict()
        for group, options in zip(saved["param_groups"], tree["optimizer"]["options"], strict=True):
            group |= {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
        saved["state"] = {int(index): values for index, values in tree["optimizer"]["state"].items()}
        self.optimizer.load_state_dict(saved)
        for name in ("step", "loss_sum", "seconds", "history"):
            setattr(self, name, tree[name])


def fit(
    model: nn.Module,
    train: Dataset,
    valid: Dataset | None,
    recipe: Recipe,
    *,
    objective: Objective | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    out_dir: str | Path | None = None,
    resume: bool = False,
    max_minutes: float | None = None,
    on_step: OnStep | None = None,
    compile: bool = False,
    checkpoint_seconds: float = 60.0,
    tensorboard: bool = False,
    spoken: bool = False,
) -> Run:
    """Train `model` in place; when it returns, `model` holds the averaged weights, in eval mode.

    valid: scored after each epoch; None scores nothing. objective: cross-entropy with the recipe's label smoothing.
    seed: decides order, augmentation and dropout; the weights a model starts from are the caller's. Nothing else is
    random, and the global generators are left as they were.
    out_dir: folder for log.jsonl and the two newest checkpoints, one at least every `checkpoint_seconds`. resume: go on
    from the newest, bit for bit on a CPU. max_minutes: save and return after so long in this call.
    on_step(model, step, steps): called after each optimizer step. compile: through torch.compile. tensorboard: also
    write events to out_dir. spoken: progress on stderr. SIGINT and SIGTERM save and return. Under torchrun the batch is
    shared by all processes.
    Raises DivergedError at a loss that is not finite, RecipeError, CheckpointError.
    """
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    folder = Path(out_dir) if out_dir is not None else None
    _check(train, recipe)
    devices = [where] if where.type == "cuda" else []
    with processes(where) as team, stop_requests() as request, torch.random.fork_rng(devices):
        share = team.share(recipe.batch_size)
        learner = Learner(model, objective or CrossEntropy(recipe.label_smoothing)).to(where)
        if recipe.channels_last:
            learner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        average = WeightAverage(model, recipe.ema_decay) if recipe.ema_decay else None
        state = State(learner, make_optimizer(learner, recipe), average)
        batches = Batches(train, recipe, seed, where)
        steps = recipe.epochs * batches.steps_an_epoch
        progress = Progress(steps, batches.steps_an_epoch, spoken and team.is_main)
        terms = _terms(recipe, seed, train, valid)
        if resume and folder is not None:
            _resume(state, folder, terms, steps, progress)
        if compile:
            learner.compile()
        forward = _parallel(learner, team, where)
        learner.train()
        began, saved_at, first_step = time.monotonic(), time.monotonic(), state.step
        scoring_seconds, seconds_before = 0.0, state.seconds
        stopped: str | None = None

        while state.step < steps and stopped is None:
            step = state.step
            images_NCHW, targets = (part[share] for part in batches(step))
            if recipe.channels_last:
                images_NCHW = images_NCHW.contiguous(memory_format=torch.channels_last)
            _set_lr(state.optimizer, recipe.lr_at(step, steps))
            torch.manual_seed(chance(seed, f"forward/{team.rank}", step))
            with torch.autocast(where.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
                loss = forward(images_NCHW, targets)
            loss_value = _Reading(loss)
            loss.backward()
            overdue = max_minutes is not None and time.monotonic() - began > 60 * max_minutes
            mean_loss, stopped = _agree(team, loss_value.wait(), request.name or ("max_minutes" if overdue else None))
            if not math.isfinite(mean_loss):
                raise DivergedError(_diverged(mean_loss, step, recipe.lr_at(step, steps), recipe))
            if recipe.clip_norm:
                nn.utils.clip_grad_norm_(learner.parameters(), recipe.clip_norm)
            state.optimizer.step()
            state.optimizer.zero_grad(set_to_none=True)
            if average:
                average.update(model)
            if on_step:
                on_step(model, step, steps)
            state.step += 1
            state.loss_sum += mean_loss
            stopped = None if state.step == steps else stopped

            now = time.monotonic()
            speed = (state.step - first_step) * recipe.batch_size / max(1e-9, now - began - scoring_seconds)
            progress.tick(step, mean_loss, speed, _best(state.history))
            if state.step % batches.steps_an_epoch == 0:
                entry = _close_epoch(state, batches, valid, recipe, team, where, steps)
                scoring_seconds += time.monotonic() - now
                entry |= {"seconds": seconds_before + time.monotonic() - began, "images_per_second": speed}
                left = (time.monotonic() - began) / (state.step - first_step) * (steps - state.step)
                progress.epoch(entry, _best(state.history), left)
                if folder is not None and team.is_main:
                    write_log(folder, state.history)
                    if tensorboard:
                        write_events(folder, entry)
                learner.train()
            state.seconds = seconds_before + time.monotonic() - began
            due = state.step == steps or stopped is not None or time.monotonic() - saved_at > checkpoint_seconds
            if folder is not None and team.is_main and due:
                _save(folder, state, terms, recipe)
                saved_at = time.monotonic()

        elapsed = time.monotonic() - began - scoring_seconds
        final = _score(state.result, valid, recipe, team, where) if valid is not None else None
        if average:
            model.load_state_dict(average.model.state_dict())
        model.eval()
        trained_images = (state.step - first_step) * recipe.batch_size
        if stopped is not None:
            progress.say(f"stopped by {stopped} after step {state.step} of {steps}")
        return Run(
            state.history, final, state.step, steps, state.seconds, trained_images / max(1e-9, elapsed), stopped
        )


class _Reading:
    """A loss on its way to the CPU; on an accelerator it is copied while the backward pass is computed."""

    def __init__(self, loss: Tensor) -> None:
        self.value = loss.detach()
        self.event: torch.cuda.Event | None = None
        if loss.is_cuda:
            self.value = self.value.to("cpu", non_blocking=True)
            self.event = torch.cuda.Event()
            self.event.record()

    def wait(self) -> float:
        if self.event is not None:
            self.event.synchronize()
        return float(self.value)


def _check(train: Dataset, recipe: Recipe) -> None:
    if len(train) < recipe.batch_size:
        raise RecipeError(
            f"{train.name} has {len(train)} training images, fewer than one batch of {recipe.batch_size}; "
            f"set batch_size to {len(train)} or less."
        )
    if recipe.augment.flip != "none" and not train.mirrored:
        raise RecipeError(
            f"recipe {recipe.name!r} flips images, and a mirrored image of {train.name} is another class; set flip=none."
        )


def _parallel(learner: Learner, team: Processes, device: torch.device) -> Callable[..., Any]:
    if team.count == 1:
        return learner
    from torch.nn.parallel import DistributedDataParallel

    return DistributedDataParallel(learner, device_ids=[device] if device.type == "cuda" else None)


def _agree(team: Processes, loss: float, stop: str | None) -> tuple[float, str | None]:
    """The mean loss of all processes, and a reason to stop if any of them has one. A non-finite loss stays one."""
    reasons = ("SIGINT", "SIGTERM", "max_minutes")
    if team.count == 1:
        return loss, stop
    told = team.total(torch.tensor([loss, *(float(stop == reason) for reason in reasons)], dtype=torch.float64))
    agreed = next((reason for reason, count in zip(reasons, told[1:], strict=True) if count > 0), None)
    return float(told[0]) / team.count, agreed


def _close_epoch(
    state: State,
    batches: Batches,
    valid: Dataset | None,
    recipe: Recipe,
    team: Processes,
    device: torch.device,
    steps: int,
) -> dict[str, Any]:
    """Score the validation set and enter the epoch into the history."""
    scored = _score(state.result, valid, recipe, team, device) if valid is not None else None
    entry: dict[str, Any] = {
        "epoch": state.step // batches.steps_an_epoch,
        "step": state.step,
        "lr": recipe.lr_at(state.step - 1, steps),
        "train_loss": state.loss_sum / batches.steps_an_epoch,
        "valid_loss": scored.loss if scored else None,
        "valid_top1": scored.top1 if scored else None,
    }
    state.loss_sum = 0.0
    state.history.append(entry)
    return entry


def _score(model: nn.Module, valid: Dataset, recipe: Recipe, team: Processes, device: torch.device) -> Evaluation:
    part = valid if team.count == 1 else valid.subset(torch.arange(team.rank, len(valid), team.count))
    return team.total_evaluation(evaluate(model, part, device=device, precision=recipe.precision))


def _set_lr(optimizer: Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def _best(history: list[dict[str, Any]]) -> float | None:
    return max((entry["valid_top1"] for entry in history if entry["valid_top1"] is not None), default=None)


def _diverged(loss: float, step: int, lr: float, recipe: Recipe) -> str:
    return (
        f"the loss is {loss} at step {step}, at a learning rate of {lr:.4g}; nothing was saved after that. "
        f"Try --set lr={recipe.lr / 3:.2g}, --set clip_norm=1 or --set precision=fp32."
    )


def _terms(recipe: Recipe, seed: int, train: Dataset, valid: Dataset | None) -> dict[str, Any]:
    """What a resumed run must have in common with the one before."""
    return {
        "recipe": recipes.to_dict(recipe),
        "seed": seed,
        "train": train.digest,
        "valid": valid.digest if valid is not None else None,
    }


def _save(folder: Path, state: State, terms: dict[str, Any], recipe: Recipe) -> None:
    try:
        save_checkpoint(folder, state.step, state.to_tree(terms))
    except WeightError as error:
        raise DivergedError(
            f"the weights are no longer finite after step {state.step} ({error}); the checkpoint before is intact. "
            f"Try --set lr={recipe.lr / 3:.2g} or --set clip_norm=1."
        ) from error


def _resume(state: State, folder: Path, terms: dict[str, Any], steps: int, progress: Progress) -> None:
    tree, complaints = load_newest(folder)
    for complaint in complaints:
        progress.say(f"passed over: {complaint}")
    if tree is None:
        return
    epochs = tree["terms"]["recipe"]["epochs"]
    wanted = terms["recipe"]["epochs"]
    finished = tree["step"] * wanted == steps * epochs and tree["step"] > 0
    for name, before, now in _differences(tree["terms"], terms):
        if name == "recipe.epochs" and finished and wanted > epochs:
            progress.say(f"the run of {epochs} epochs is finished; it goes on to {wanted}")
            continue
        raise CheckpointError(
            f"{folder} was begun with {name}={before!r}, and {now!r} was given now; leave it out, or start a new run."
        )
    state.take(tree)
    progress.say(f"resumed at step {state.step} of {steps}")


def _differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    found: list[tuple[str, Any, Any]] = []
    for key in before.keys() | now.keys():
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append((prefix + key, old, new))
    return sorted(found, key=lambda difference: difference[0])
