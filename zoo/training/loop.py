"""The training loop. One for every model, objective and kind of weight; it reads from top to bottom."""

import math
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from zoo.data import Dataset
from zoo.errors import DivergedError, RecipeError
from zoo.evaluation import Evaluation, evaluate, joined
from zoo.recipes import Recipe
from zoo.training.batches import Batches, chance
from zoo.training.checkpoint import tidy
from zoo.training.distributed import Processes, choose_device, processes
from zoo.training.objectives import Objective, default_objective
from zoo.training.optimizer import WeightAverage, make_optimizer
from zoo.training.progress import Clock, Progress, require_events, write_events, write_log
from zoo.training.signals import StopRequest, stop_requests
from zoo.training.state import Learner, State, refuse_old_checkpoints, save, terms_of
from zoo.training.state import resume as resume_state

OnStep = Callable[[nn.Module, int, int], None]
_SCORED_AT_ONCE = 500  # images; between them a request to stop is heard
_REASONS = ("SIGINT", "SIGTERM", "max_minutes")


@dataclass
class Run:
    """What `fit` did.

    history: one dict an epoch (epoch, step, lr, train_loss, valid_loss, valid_top1, seconds, images_per_second); the
    two of validation are None where nothing was scored, and a loss that is not finite is None too.
    evaluation: of a finished run's averaged weights on the validation set, if there is one.
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

    def or_leave(self) -> "Run":
        """This run; but one that a signal stopped ends the process, as the signal would have without `fit`.

        For what goes on to use the weights as if they were trained: they are not.
        """
        if self.stopped == "SIGINT":
            raise KeyboardInterrupt
        if self.stopped == "SIGTERM":
            raise SystemExit(128 + signal.SIGTERM)
        return self


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

    valid: scored after each epoch; None scores nothing. objective: cross-entropy with the recipe's label
    smoothing by default; of a network with several exits or widths, that of all.
    seed: decides order, augmentation and dropout; the weights a model starts from are the caller's. Nothing else is
    random, and the global generators are left as they were.
    out_dir: folder for log.jsonl and the two newest checkpoints, one at least every `checkpoint_seconds`. resume: go on
    from the newest, bit for bit on a CPU. max_minutes: save and return after so long in this call.
    on_step(model, step, steps): called after each optimizer step. compile: through torch.compile. tensorboard: also
    write events to out_dir. spoken: progress on stderr. SIGINT and SIGTERM save and return. Under torchrun the batch is
    shared by all processes.
    Raises DivergedError at a loss that is not finite, RecipeError, CheckpointError, MissingPackageError.
    """
    where = choose_device(device)
    check(train, recipe)
    if tensorboard:
        require_events()
    devices = [where] if where.type == "cuda" else []
    with processes(where) as team, stop_requests() as request, torch.random.fork_rng(devices):
        share = team.share(recipe.batch_size)
        batches = Batches(train, recipe, seed, where)
        folder = Path(out_dir) if out_dir is not None else None
        terms = terms_of(recipe, seed, train, valid)
        setting = _Setting(recipe, valid, team, where, folder, terms, batches.steps_an_epoch, tensorboard)
        steps = setting.steps
        state = _begin(model, objective, recipe, team, where)
        learner, optimizer, average = state.learner, state.optimizer, state.average
        progress = Progress(steps, batches.steps_an_epoch, spoken and team.is_main)
        setting.open_folder(state, resume, progress)
        if compile:
            learner.compile()
        forward = _parallel(learner, team, where)
        learner.train()
        clock = Clock(state.step, state.seconds)
        evaluation: Evaluation | None = None
        stopped: str | None = None

        while True:
            if state.has_open_epoch(batches.steps_an_epoch):
                evaluation, closed = setting.close_epoch(state, request, clock, progress)
                if not closed:
                    stopped = stopped or request.name or "SIGTERM"  # the last: another process was told
                elif state.step == steps:
                    stopped = None
            if state.step == steps or stopped is not None or clock.since_mark() > checkpoint_seconds:
                setting.save(state, clock)
            if state.step == steps or stopped is not None:
                break

            lr = recipe.lr_at(state.step, steps)
            images_NCHW, targets = (part[share] for part in batches(state.step))
            if recipe.channels_last:
                images_NCHW = images_NCHW.contiguous(memory_format=torch.channels_last)
            torch.manual_seed(chance(seed, f"forward/{team.rank}", state.step))
            with torch.autocast(where.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
                loss = forward(images_NCHW, targets)
            loss_value = _Reading(loss)
            loss.backward()
            wish = request.name or ("max_minutes" if clock.overdue(max_minutes) else None)
            mean_loss, stopped = _agree(team, loss_value.wait(), wish)
            if not math.isfinite(mean_loss):
                raise DivergedError(_diverged(mean_loss, state.step, lr, recipe))
            if recipe.clip_norm:
                nn.utils.clip_grad_norm_(learner.parameters(), recipe.clip_norm)
            _set_lr(optimizer, lr)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            team.equalise(learner.buffers())  # batch statistics: what is averaged and scored is the same everywhere
            if average:
                average.update(model)
            if on_step:
                on_step(model, state.step, steps)
            state.step += 1
            state.loss_sum += mean_loss
            progress.tick(state.step, mean_loss, clock.images_per_second(state.step, recipe.batch_size), state.history)

        if stopped is not None:
            progress.say(f"stopped by {stopped} after step {state.step} of {steps}")
            evaluation = None
        elif evaluation is None:  # resumed at its end
            evaluation, _ = setting.score(state.result, request)
        if average:
            model.load_state_dict(average.model.state_dict())
        model.eval()
        speed = clock.images_per_second(state.step, recipe.batch_size)
        return Run(state.history, evaluation, state.step, steps, state.seconds, speed, stopped)


@dataclass(frozen=True)
class _Setting:
    """What stays as it is while a run trains, and what is done with it now and then."""

    recipe: Recipe
    valid: Dataset | None
    team: Processes
    device: torch.device
    folder: Path | None
    terms: dict[str, Any]
    steps_an_epoch: int
    tensorboard: bool

    @property
    def steps(self) -> int:
        return self.recipe.epochs * self.steps_an_epoch

    def open_folder(self, state: State, resume: bool, progress: Progress) -> None:
        """Take up the run of the folder, or make sure that a new one does not mix with it."""
        if self.folder is None:
            return
        if resume:
            resume_state(state, self.folder, self.terms, self.steps, progress.say)
            self.team.agree_on("the step of the newest checkpoint that can be read", state.step)
        else:
            refuse_old_checkpoints(self.folder)
        if self.team.is_main:
            tidy(self.folder, state.step)

    def score(self, model: nn.Module, request: StopRequest) -> tuple[Evaluation | None, bool]:
        """Score the validation set, if there is one; each process takes its share. (None, False) if asked to stop."""
        if self.valid is None:
            return None, True
        rows_N = torch.arange(self.team.rank, len(self.valid), self.team.count)
        chunks = rows_N.split(_SCORED_AT_ONCE)
        parts: list[Evaluation] = []
        for some in chunks:
            if request.name is not None:
                break
            part = self.valid.subset(some)
            parts.append(evaluate(model, part, device=self.device, precision=self.recipe.precision))
        missing = torch.tensor(len(chunks) - len(parts))
        if self.team.total(missing) > 0:
            return None, False
        return self.team.total_evaluation(joined(parts)), True

    def close_epoch(
        self, state: State, request: StopRequest, clock: Clock, progress: Progress
    ) -> tuple[Evaluation | None, bool]:
        """Score the epoch that has just ended, and enter it into the history and the log; (None, False) if stopped."""
        speed = clock.images_per_second(state.step, self.recipe.batch_size)
        with clock.paused():
            scored, complete = self.score(state.result, request)
        state.learner.train()
        if not complete:
            return None, False
        entry = {
            "epoch": state.step // self.steps_an_epoch,
            "step": state.step,
            "lr": self.recipe.lr_at(state.step - 1, self.steps),
            "train_loss": state.loss_sum / self.steps_an_epoch,
            "valid_loss": scored.loss if scored and math.isfinite(scored.loss) else None,
            "valid_top1": scored.top1 if scored else None,
            "seconds": clock.seconds(),
            "images_per_second": speed,
        }
        state.history.append(entry)
        state.loss_sum = 0.0
        progress.epoch(state.history, clock.seconds_left(state.step, self.steps))
        if self.folder is not None and self.team.is_main:
            write_log(self.folder, state.history)
            if self.tensorboard:
                write_events(self.folder, entry)
        return scored, True

    def save(self, state: State, clock: Clock) -> None:
        """Write a checkpoint, if there is a folder for it; the main process does."""
        state.seconds = clock.seconds()
        if self.folder is not None and self.team.is_main:
            save(self.folder, state, self.terms)
        clock.mark()


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


def check(train: Dataset, recipe: Recipe) -> None:
    """Raise RecipeError when a data set cannot be trained on by a recipe: too few images, or a flip that lies."""
    if len(train) < recipe.batch_size:
        raise RecipeError(
            f"{train.name} has {len(train)} training images, fewer than one batch of {recipe.batch_size}; "
            f"set batch_size to {len(train)} or less."
        )
    if recipe.augment.flip != "none" and not train.mirrored:
        raise RecipeError(
            f"recipe {recipe.name!r} flips images, and a mirrored image of {train.name} may be of another class; "
            "set flip=none."
        )


def _begin(
    model: nn.Module, objective: Objective | None, recipe: Recipe, team: Processes, device: torch.device
) -> State:
    """The state before the first step, the same on every process."""
    learner = Learner(model, objective or default_objective(model, recipe.label_smoothing)).to(device)
    if recipe.channels_last:
        learner.to(memory_format=torch.channels_last)
    team.equalise([*learner.parameters(), *learner.buffers()])
    average = WeightAverage(model, recipe.ema_decay) if recipe.ema_decay else None
    return State(learner, make_optimizer(learner, recipe), average)


def _parallel(learner: Learner, team: Processes, device: torch.device) -> Callable[..., Any]:
    if team.count == 1:
        return learner
    from torch.nn.parallel import DistributedDataParallel

    return DistributedDataParallel(learner, device_ids=[device] if device.type == "cuda" else None)


def _agree(team: Processes, loss: float, stop: str | None) -> tuple[float, str | None]:
    """The mean loss of all processes, and a reason to stop if any of them has one. A non-finite loss stays one."""
    if team.count == 1:
        return loss, stop
    told = team.total(torch.tensor([loss, *(float(stop == reason) for reason in _REASONS)], dtype=torch.float64))
    agreed = next((reason for reason, count in zip(_REASONS, told[1:], strict=True) if count > 0), None)
    return float(told[0]) / team.count, agreed


def _set_lr(optimizer: Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def _diverged(loss: float, step: int, lr: float, recipe: Recipe) -> str:
    return (
        f"the loss is {loss} at step {step}, at a learning rate of {lr:.4g}; nothing was saved after that. "
        f"Try --set lr={recipe.lr / 3:.2g}, --set clip_norm=1 or --set precision=fp32."
    )
