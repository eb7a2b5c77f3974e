"""A polite stop saves and leaves: signals, on one rank of two too, the time budget, and torchrun's own end."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from scenarios import STEPS, newest, same, train

from zoo.evaluation import Evaluation
from zoo.training import loop
from zoo.training.checkpoint import checkpoint_files
from zoo.training.signals import stop_requests

ROOT = Path(__file__).parents[2]


def step_kept(folder: Path) -> int:
    return int(checkpoint_files(folder)[0].name[11:20])


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_saves_and_returns(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    def ask(_model: Any, step: int, _steps: int) -> None:
        if step == 7:
            os.kill(os.getpid(), getattr(signal, name))

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    _, run = train(tmp_path, on_step=ask)
    assert (run.stopped, run.step, run.steps) == (name, 9, STEPS)
    assert step_kept(tmp_path) == 9
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    assert capsys.readouterr().err.splitlines()[-1] == f"stopped by {name} after step 9 of {STEPS}"


@pytest.mark.parametrize("step", [6, 18], ids=["mid", "end"])
def test_a_signal_at_the_end_of_an_epoch_does_not_wait_for_its_score(tmp_path: Path, step: int) -> None:
    """The epoch is saved open, and closed when the run goes on: to the same bits and the same history."""
    whole, part = tmp_path / "whole", tmp_path / "part"
    train(whole)
    _, run = train(part, stop_at=step)
    assert (run.stopped, run.step, len(run.history)) == ("SIGTERM", step, step // 6 - 1)
    assert step_kept(part) == step
    _, run = train(part, resume=True)
    assert run.stopped is None
    assert run.evaluation is not None
    assert same(newest(part), newest(whole))


def test_a_signal_while_an_epoch_is_scored_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    train(whole)
    scored = []

    def evaluate(*arguments: Any, **named: Any) -> Evaluation:
        scored.append(len(arguments[1]))
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments, **named)

    real = loop.evaluate
    with monkeypatch.context() as patch:
        patch.setattr(loop, "evaluate", evaluate)
        patch.setattr(loop, "_SCORED_AT_ONCE", 5)
        _, run = train(part)
    assert scored == [5], "the rest of the 21 images is not waited for"
    assert (run.stopped, run.step, run.history) == ("SIGTERM", 6, [])
    train(part, resume=True)
    assert same(newest(part), newest(whole))


def test_scoring_in_parts_is_scoring_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, whole = train(tmp_path / "whole")
    monkeypatch.setattr(loop, "_SCORED_AT_ONCE", 4)
    _, parts = train(tmp_path / "parts")
    assert whole.evaluation is not None
    assert parts.evaluation is not None
    assert parts.evaluation.total == 21
    assert torch.equal(parts.evaluation.confusion, whole.evaluation.confusion)
    assert parts.evaluation.loss == pytest.approx(whole.evaluation.loss, rel=1e-6)


def test_a_second_interrupt_ends_at_once(tmp_path: Path) -> None:
    seen = []

    def ask(_model: Any, step: int, _steps: int) -> None:
        seen.append(step)
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, on_step=ask)
    assert seen == [0, 1, 2, 3]
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_no_handler_is_touched() -> None:
    seen: list[str | None] = []

    def work() -> None:
        with stop_requests() as request:
            seen.append(request.name)

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None]
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_time_budget_is_for_one_sitting(tmp_path: Path) -> None:
    """A budget of nothing does a step each time; the run goes on from where it was."""
    for step in (1, 2, 3):
        _, run = train(tmp_path, stop_at=1, resume=step > 1)
        assert (run.stopped, run.step) == ("max_minutes", step)
    assert run.seconds > 0


def test_the_time_already_spent_is_kept(tmp_path: Path) -> None:
    _, first = train(tmp_path, stop_at=4)
    _, second = train(tmp_path, resume=True)
    assert second.seconds > first.seconds
    assert all(entry["seconds"] <= second.seconds for entry in second.history)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_of_two_stops_both(nursery: Any, tmp_path: Path, rank: int) -> None:
    births = nursery.run("trained", tmp_path, count=2, folder=str(tmp_path / "run"), stop_at=8, stop_rank=rank)
    assert births.statuses == [0, 0], births.output(0) + births.output(1)
    assert [births.answer(r)["step"] for r in (0, 1)] == [8, 8]
    assert [births.answer(r)["stopped"] for r in (0, 1)] == ["SIGTERM", "SIGTERM"]
    assert step_kept(tmp_path / "run") == 8


def start(folder: Path, data: Path, command: list[str]) -> "subprocess.Popen[str]":
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "ZOO_DATA": str(data),
        "ZOO_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    folder.mkdir(exist_ok=True)
    with (folder / "out").open("a") as out:
        return subprocess.Popen(
            [sys.executable, *command], cwd=folder, env=environment, stdout=out, stderr=out, text=True
        )


def wait_for_log(folder: Path, run: str, process: "subprocess.Popen[str]") -> None:
    """Until the run has ended an epoch."""
    for _ in range(1200):
        if (folder / run / "log.jsonl").exists() or process.poll() is not None:
            return
        time.sleep(0.1)
    raise AssertionError("the run never ended an epoch")


LENET = ["lenet5", "--dataset", "digits", "--recipe", "mnist", "--set", "precision=fp32", "--threads", "1"]
RUN = "runs/train/1-lenet5-digits"
TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]


@pytest.mark.slow
def test_a_command_that_is_stopped_and_resumed_ends_as_the_whole_one(tmp_path: Path, digits_root: Path) -> None:
    """`--resume` alone is enough; the weights stored at the end have the same digest."""
    script = str(ROOT / "train.py")
    whole = start(tmp_path / "whole", digits_root, [script, *LENET, "--set", "epochs=6"])
    assert whole.wait(120) == 0, (tmp_path / "whole" / "out").read_text()
    run = start(tmp_path / "parts", digits_root, [script, *LENET, "--set", "epochs=6"])
    wait_for_log(tmp_path / "parts", RUN, run)
    run.send_signal(signal.SIGTERM)
    assert run.wait(20) == 143, (tmp_path / "parts" / "out").read_text()
    assert checkpoint_files(tmp_path / "parts" / RUN)
    resumed = start(tmp_path / "parts", digits_root, [script, "--resume", RUN])
    assert resumed.wait(120) == 0, (tmp_path / "parts" / "out").read_text()
    assert "resumed at step" in (tmp_path / "parts" / "out").read_text()
    names = ("lenet5.digits.safetensors",)
    for name in names:
        assert (tmp_path / "parts" / RUN / name).read_bytes() == (tmp_path / "whole" / RUN / name).read_bytes()
    assert same(newest(tmp_path / "parts" / RUN), newest(tmp_path / "whole" / RUN))


@pytest.mark.slow
def test_the_end_of_torchrun_saves(tmp_path: Path, digits_root: Path) -> None:
    """SIGTERM to the agent reaches both processes: saved and gone within 20 seconds."""
    command = [*TORCHRUN, str(ROOT / "train.py"), *LENET, "--set", "epochs=5000"]
    agent = start(tmp_path / "a", digits_root, command)
    wait_for_log(tmp_path / "a", RUN, agent)
    assert agent.poll() is None, (tmp_path / "a" / "out").read_text()
    agent.send_signal(signal.SIGTERM)
    agent.wait(20)
    told = (tmp_path / "a" / "out").read_text()
    assert "stopped by SIGTERM" in told
    assert checkpoint_files(tmp_path / "a" / RUN)
