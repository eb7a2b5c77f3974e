"""What a run says: plain lines where nobody looks, one line on a terminal, a log that is always whole."""

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from zoo.training import progress
from zoo.training.progress import Clock, Progress, write_events, write_log

ENTRY: dict[str, Any] = {
    "epoch": 2, "step": 20, "lr": 0.1, "train_loss": 0.5, "valid_loss": 0.4, "valid_top1": 0.9, "seconds": 4.0,
    "images_per_second": 1234.5,
}  # fmt: skip


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_elsewhere() -> None:
    stream = io.StringIO()
    shown = Progress(30, 10, spoken=True, stream=stream)
    shown.tick(3, 0.7, 99, [])
    shown.epoch([{**ENTRY, "valid_top1": 0.95}, ENTRY], 3725)
    assert stream.getvalue() == "epoch   2/3  loss 0.5000  valid 90.00% (best 95.00%)  1,234 images/s  1h02m left\n"


def test_one_line_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    stream = Terminal()
    shown = Progress(30, 10, spoken=True, stream=stream)
    shown.tick(15, 0.7, 99, [ENTRY])
    assert stream.getvalue() == f"\r\033[Kepoch 2 {'█' * 10}{'░' * 10} loss 0.700 (best 90.00%) 99 images/s"
    shown.tick(16, 0.7, 99, [])  # too soon
    now[0] += 0.1
    shown.tick(17, 0.7, 99, [])
    assert stream.getvalue().count("\r") == 1
    now[0] += 0.2
    shown.tick(20, 0.7, 99, [])
    assert stream.getvalue().endswith(f"epoch 2 {'█' * 20} loss 0.700 99 images/s")
    shown.say("done")
    assert stream.getvalue().endswith("\r\033[Kdone\n")


def test_a_silent_one_says_nothing() -> None:
    stream = Terminal()
    shown = Progress(30, 10, spoken=False, stream=stream)
    shown.tick(3, 0.7, 99, [])
    shown.epoch([ENTRY], 1)
    shown.say("x")
    assert stream.getvalue() == ""


def test_no_validation_is_not_shown() -> None:
    stream = io.StringIO()
    Progress(30, 10, spoken=True, stream=stream).epoch([{**ENTRY, "valid_top1": None}], 59.6)
    assert stream.getvalue() == "epoch   2/3  loss 0.5000  1,234 images/s  1m00s left\n"


def test_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [50.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    clock = Clock(first_step=10, seconds_before=7.0)
    now[0] += 4
    assert clock.seconds() == 11
    assert clock.images_per_second(14, 8) == 8
    with clock.paused():
        now[0] += 6
    assert clock.images_per_second(14, 8) == 8
    assert clock.seconds_left(14, 20) == 15
    assert not clock.overdue(None)
    assert not clock.overdue(10 / 60)
    assert clock.overdue(9.9 / 60)
    assert clock.since_mark() == 10
    clock.mark()
    assert clock.since_mark() == 0
    assert clock.seconds() == 17


def test_the_log_is_written_whole(tmp_path: Path) -> None:
    write_log(tmp_path, [ENTRY])
    write_log(tmp_path, [ENTRY, {**ENTRY, "epoch": 3}])
    assert [json.loads(line)["epoch"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [2, 3]


def test_events_hold_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, float, int]] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            assert folder == str(tmp_path)

        def __enter__(self) -> "Writer":
            return self

        def __exit__(self, *_: object) -> None:
            written.append(("closed", 0, 0))

        def add_scalar(self, name: str, value: float, epoch: int) -> None:
            written.append((name, value, epoch))

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    progress.require_events()
    write_events(tmp_path, {**ENTRY, "valid_loss": None})
    assert written == [
        ("lr", 0.1, 2),
        ("train_loss", 0.5, 2),
        ("valid_top1", 0.9, 2),
        ("images_per_second", 1234.5, 2),
        ("closed", 0, 0),
    ]
