"""What a run says while it trains: one line on a terminal, plain lines elsewhere, and the log."""

import json
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from zoo.errors import MissingPackageError
from zoo.files import write_atomically


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

    def tick(self, step: int, loss: float, images_per_second: float, best: float | None) -> None:
        """Redraw the live line, five times a second at the most."""
        now = time.monotonic()
        if not self.live or now < self._next:
            return
        self._next = now + 0.2
        epoch, within = divmod(step, self.steps_an_epoch)
        share = (within + 1) / self.steps_an_epoch
        bar = "█" * round(20 * share) + "░" * (20 - round(20 * share))
        text = f"epoch {epoch + 1} {bar} loss {loss:.3f}{_best(best)} {images_per_second:,.0f} images/s"
        print(f"\r\033[K{text}", end="", file=self.stream, flush=True)

    def epoch(self, entry: dict[str, Any], best: float | None, seconds_left: float) -> None:
        """One line an epoch."""
        valid = "" if entry["valid_top1"] is None else f"  valid {entry['valid_top1']:.2%}{_best(best)}"
        epochs = self.steps // self.steps_an_epoch
        self.say(
            f"epoch {entry['epoch']:>3}/{epochs}  loss {entry['train_loss']:.4f}{valid}  "
            f"{entry['images_per_second']:,.0f} images/s  {_clock(seconds_left)} left"
        )


def write_log(folder: Path, history: list[dict[str, Any]]) -> None:
    """`log.jsonl`, a line an epoch, written whole: after a resume no epoch stands in it twice."""
    write_atomically(folder / "log.jsonl", "".join(json.dumps(entry) + "\n" for entry in history))


def write_events(folder: Path, entry: dict[str, Any]) -> None:
    """One epoch for TensorBoard. Raises MissingPackageError where tensorboard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingPackageError("--tensorboard needs tensorboard: `pip install 'zoo[tracking]'`.") from None
    with SummaryWriter(str(folder)) as writer:
        for name in ("lr", "train_loss", "valid_loss", "valid_top1", "images_per_second"):
            if entry[name] is not None:
                writer.add_scalar(name, entry[name], entry["epoch"])


def _best(best: float | None) -> str:
    return "" if best is None else f" (best {best:.2%})"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s"
