"""Disk full and I/O errors while a run writes: the old file is intact, no temporary left, the exit status not 0."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from scenarios import network, newest, same, train

from zoo import train_cli
from zoo.training.checkpoint import checkpoint_files, load_newest, save_checkpoint
from zoo.training.progress import write_log
from zoo.weights import save_weights

ERRORS = (errno.ENOSPC, errno.EIO)


class Faults:
    """Lets the n-th file operation on a folder's files fail, and counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made = 0
        self.number: int | None = None
        self.code = 0
        for name in ("write", "fchmod", "fsync", "close", "replace", "open"):
            monkeypatch.setattr(os, name, self.watched(name, getattr(os, name)))

    def watched(self, name: str, function: Any) -> Any:
        def operation(*arguments: Any, **named: Any) -> Any:
            self.made += 1
            if self.made == self.number:
                if name == "close":
                    function(*arguments)
                raise OSError(self.code, os.strerror(self.code))
            return function(*arguments, **named)

        return operation

    def arm(self, number: int | None, code: int = 0) -> None:
        self.made, self.number, self.code = 0, number, code


def write_checkpoint(folder: Path, value: int) -> None:
    save_checkpoint(folder, value, {"value": value})


def write_history(folder: Path, value: int) -> None:
    write_log(folder, [{"value": value}])


def write_weights(folder: Path, value: int) -> None:
    save_weights(folder / "weights.safetensors", network(value))


@pytest.mark.parametrize("code", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("write", [write_checkpoint, write_history, write_weights])
def test_every_operation_of_a_write_may_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Any, code: int
) -> None:
    faults = Faults(monkeypatch)
    write(tmp_path, 1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write(tmp_path, 2)
    made = faults.made // 2
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert made >= 8
    failed = 0
    for number in range(1, made + 1):
        for path in tmp_path.iterdir():
            path.unlink()
        faults.arm(None)
        write(tmp_path, 1)
        faults.arm(number, code)
        with pytest.raises(OSError, match=os.strerror(code)):
            write(tmp_path, 2)
        failed += 1
        faults.arm(None)
        left = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        assert left in (before, after)
        if write is write_checkpoint:
            assert load_newest(tmp_path)[1] == []
    assert failed == made


@pytest.mark.parametrize("code", ERRORS, ids=errno.errorcode.get)
def test_a_run_that_meets_a_full_disk_goes_on_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    train(tmp_path / "whole")
    with monkeypatch.context() as patch:
        faults = Faults(patch)
        faults.arm(60, code)
        with pytest.raises(OSError, match=os.strerror(code)):
            train(tmp_path / "run", checkpoint_seconds=0)
    assert checkpoint_files(tmp_path / "run")
    train(tmp_path / "run", resume=True)
    assert same(newest(tmp_path / "run"), newest(tmp_path / "whole"))


@pytest.mark.parametrize("code", ERRORS, ids=errno.errorcode.get)
def test_the_command_says_so_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    digits_root: Path,
    capsys: pytest.CaptureFixture[str],
    code: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZOO_DATA", str(digits_root))

    def full(*_arguments: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    command = ["lenet5", "--dataset", "digits", "--recipe", "smoke", "--threads", "1"]
    assert train_cli.main(command) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"zoo: error: {os.strerror(code)}")
    assert "--resume" in last
    assert not list(tmp_path.glob("runs/train/*/.*"))
