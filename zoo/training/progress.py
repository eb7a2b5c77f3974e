"""What a run says while it trains: one line on a terminal, plain lines elsewhere, and the log."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from zoo.errors import MissingPackageError
from zoo.files import write_atomically


class Clock:
    """Time of a run: of this sitting and of those before it."""

    def __init__(self, first_step: int, seconds_before: float) -> None:
        self.began = self.marked = time.monotonic()
        self.first_step = first_step
        self.seconds_before = seconds_before
        self.paused_seconds = 0.0

    def seconds(self) -> float:
        """Spent in the run so far."""
        return self.seconds_before + time.monotonic() - self.began

    def overdue(self, max_minutes: float | None) -> bool:
        """Whether this sitting has taken longer than allowed."""
        return max_minutes is not None and time.monotonic() - self.began > 60 * max_minutes

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave what is done inside out of `images_per_second`."""
        before = time.monotonic()
        yield
        self.paused_seconds += time.monotonic() - before

    def images_per_second(self, step: int, batch_size: int) -> float:
        """Speed of this sitting up to `step` steps of the run."""
        elapsed = time.monotonic() - self.began - self.paused_seconds
        return (step - self.first_step) * batch_size / max(1e-9, elapsed)

    def seconds_left(self, step: int, steps: int) -> float:
        """Until the last of `steps`, at the pace of this sitting, pauses counted."""
        return (time.monotonic() - self.began) / max(1, step - self.first_step) * (steps - step)

    def mark(self) -> None:
        """Begin `since_mark` anew."""
        self.marked = time.monotonic()

    def since_mark(self) -> float:
        """Seconds since the last mark, or since the sitting began."""
        return time.monotonic() - self.marked


class Progress:
    """Speaks to stderr. A silent one (`spoken=False`) says nothing at all."""

    def __init__(self, steps: int, steps_an_epoch: int, spoken: bool, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.spoken = spoken
        self.steps = steps
        self.steps_an_epoch = steps_an_epoch
        self.live = spoken and self.stream.isatty()
        self._next = 0.0

    def say(self, text: str) -> None:
        """One plain line."""
        if self.spoken:
            print(("\r\033[K" if self.live else "") + text, file=self.stream, flush=True)

    def tick(self, step: int, loss: float, images_per_second: float, history: list[dict[str, Any]]) -> None:
        """Redraw the live line after `step` steps, five times a second at the most."""
        now = time.monotonic()
        if not self.live or now < self._next:
            return
        self._next = now + 0.2
        epoch, within = divmod(step - 1, self.steps_an_epoch)
        share = (within + 1) / self.steps_an_epoch
        bar = "█" * round(20 * share) + "░" * (20 - round(20 * share))
        text = f"epoch {epoch + 1} {bar} loss {loss:.3f}{_best(history)} {images_per_second:,.0f} images/s"
        print(f"\r\033[K{text}", end="", file=self.stream, flush=True)

    def epoch(self, history: list[dict[str, Any]], seconds_left: float) -> None:
        """One line for the epoch that has just ended."""
        entry = history[-1]
        valid = "" if entry["valid_top1"] is None else f"  valid {entry['valid_top1']:.2%}{_best(history)}"
        epochs = self.steps // self.steps_an_epoch
        self.say(
            f"epoch {entry['epoch']:>3}/{epochs}  loss {entry['train_loss']:.4f}{valid}  "
            f"{entry['images_per_second']:,.0f} images/s  {_clock(seconds_left)} left"
        )


def write_log(folder: Path, history: list[dict[str, Any]]) -> None:
    """`log.jsonl`, a line an epoch, written whole: after a resume no epoch stands in it twice."""
    write_atomically(folder / "log.jsonl", "".join(json.dumps(entry) + "\n" for entry in history))


def require_events() -> None:
    """Raise MissingPackageError where tensorboard is not installed: before the first step, not after an epoch."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise MissingPackageError("--tensorboard needs tensorboard: `pip install 'zoo[tracking]'`.") from None


def write_events(folder: Path, entry: dict[str, Any]) -> None:
    """One epoch for TensorBoard."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for name in ("lr", "train_loss", "valid_loss", "valid_top1", "images_per_second"):
            if entry[name] is not None:
                writer.add_scalar(name, entry[name], entry["epoch"])


def _best(history: list[dict[str, Any]]) -> str:
    scored = [entry["valid_top1"] for entry in history if entry["valid_top1"] is not None]
    return f" (best {max(scored):.2%})" if scored else ""


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s"
