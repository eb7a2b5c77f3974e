"""A kill costs at most one checkpoint interval, wherever it falls; afterwards the run ends as if nothing had been.

Every point of `POINTS` is tried, and random moments: six, or as many as the environment variable ZOO_KILLS says.
The time between checkpoints is set to nothing, so that the interval is one step.
"""

import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
from scenarios import STEPS, fingerprint, newest, same, train

from zoo.training.checkpoint import checkpoint_files

# (point, the how-manieth visit of it): about the middle of the run, at the first visit and at the last.
POINTS = (
    ("before batch making", 1),
    ("before batch making", 9),
    ("before forward", 7),
    ("before backward", 8),
    ("before optimizer step", 9),
    ("after optimizer step", 9),
    ("after average", 10),
    ("before evaluation", 2),
    ("after evaluation", 3),
    ("before temporary file", 8),
    ("in a write", 1),
    ("in a write", 200),
    ("before fsync", 9),
    ("before rename", 10),
    ("after rename", 10),
    ("before dropping the old", 4),
    ("before log", 2),
    ("after log", 2),
    ("after log", 3),
)
RANDOM = int(os.environ.get("ZOO_KILLS", "6"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    folder = tmp_path_factory.mktemp("whole")
    model, _ = train(folder)
    return newest(folder), fingerprint(model)


def check(folder: Path, whole: tuple[dict[str, Any], str]) -> int:
    """Resume what a kill has left; the number of steps that were done when it fell."""
    done = (folder / "steps").stat().st_size if (folder / "steps").exists() else 0
    files = checkpoint_files(folder / "run")
    kept = int(files[0].name[11:20]) if files else 0
    assert kept >= done - 1
    model, run = train(folder / "run", resume=True, checkpoint_seconds=0)
    assert run.step == STEPS
    assert same(newest(folder / "run"), whole[0])
    assert fingerprint(model) == whole[1]
    assert not list((folder / "run").glob(".*"))
    assert len((folder / "run" / "log.jsonl").read_text().splitlines()) == 3
    return done


@pytest.mark.parametrize(("point", "call"), POINTS, ids=str)
def test_a_kill_at_a_named_point(
    nursery: Any, tmp_path: Path, whole: tuple[dict[str, Any], str], point: str, call: int
) -> None:
    births = nursery.run(
        "killed", tmp_path, point=point, call=call, folder=str(tmp_path / "run"), checkpoint_seconds=0.0
    )
    assert births.statuses == [-9], births.output()
    check(tmp_path, whole)


def test_kills_at_random_moments(nursery: Any, tmp_path: Path, whole: tuple[dict[str, Any], str]) -> None:
    """From the birth of the process to about its natural end, which an unhurt one shows."""
    began = time.monotonic()
    births = nursery.run("trained", tmp_path, folder=str(tmp_path / "run"), checkpoint_seconds=0.0)
    assert births.statuses == [0]
    moments, lifetime = random.Random(), time.monotonic() - began
    for trial in range(RANDOM):
        folder = tmp_path / str(trial)
        moment = moments.uniform(0, lifetime) if trial else 0.0
        births = nursery.run("trained", folder, folder=str(folder / "run"), checkpoint_seconds=0.0, kill_after=moment)
        assert births.statuses[0] in ((0, -9) if trial else (-9,)), births.output()
        check(folder, whole)


def test_killed_twice_at_different_points(nursery: Any, tmp_path: Path, whole: tuple[dict[str, Any], str]) -> None:
    """The first resume right, the second wrong is a fault that has been seen elsewhere."""
    for sitting, (point, call) in enumerate((("before rename", 3), ("after rename", 2), ("in a write", 40))):
        births = nursery.run(
            "killed",
            tmp_path,
            point=point,
            call=call,
            folder=str(tmp_path / "run"),
            checkpoint_seconds=0.0,
            resume=sitting > 0,
        )
        assert births.statuses == [-9], births.output()
    (tmp_path / "steps").unlink()
    check(tmp_path, whole)


@pytest.mark.slow
@pytest.mark.parametrize("point", ["before weights", "after weights", "before card", "after card", "before pictures"])
def test_a_kill_while_a_run_is_finished(
    nursery: Any, tmp_path: Path, digits_root: Path, finished_digits: dict[str, str], point: str
) -> None:
    """Training is over; `--resume` alone makes what is missing, and the stored weights are those of an unhurt run."""
    environment = {"ZOO_DATA": str(digits_root), "ZOO_CACHE": str(tmp_path / "cache")}
    births = nursery.run("command", tmp_path, environment=environment, arguments=["lenet5", *SMOKE], point=point)
    assert births.statuses == [-9], births.output()
    births = nursery.run("command", tmp_path, environment=environment, arguments=["--resume", RUN])
    assert births.statuses == [0], births.output()
    left = {path.name for path in (tmp_path / RUN).iterdir()}
    assert left == finished_digits.keys()
    card = "lenet5.digits.safetensors"
    assert (tmp_path / RUN / card).read_bytes().hex() == finished_digits[card]


SMOKE = ("--dataset", "digits", "--recipe", "smoke", "--threads", "1")
RUN = "runs/train/1-lenet5-digits"


@pytest.fixture(scope="module")
def finished_digits(nursery: Any, tmp_path_factory: pytest.TempPathFactory, digits_root: Path) -> dict[str, str]:
    """Name -> bytes, in hex, of what an unhurt run leaves."""
    folder = tmp_path_factory.mktemp("finished")
    environment = {"ZOO_DATA": str(digits_root), "ZOO_CACHE": str(folder / "cache")}
    births = nursery.run("command", folder, environment=environment, arguments=["lenet5", *SMOKE])
    assert births.statuses == [0], births.output()
    return {path.name: path.read_bytes().hex() for path in (folder / RUN).iterdir()}
