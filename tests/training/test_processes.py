"""Several processes: the same run as one, and no hang when one of them dies."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from scenarios import STEPS, newest, train

from zoo.errors import RecipeError, ZooError
from zoo.evaluation import Evaluation
from zoo.training.distributed import Processes, choose_device

HERE = Path(__file__).parent
TOLERANCE = 2e-5  # of a loss, relative: two halves of a batch add up in another order than the whole


def test_two_processes_follow_the_losses_of_one(nursery: Any, tmp_path: Path) -> None:
    """Without batch norm, whose statistics are those of a process's share; mixing and flips included."""
    births = nursery.run("trained", tmp_path, count=2, folder=str(tmp_path / "two"), norm=False)
    assert births.statuses == [0, 0], births.output(0) + births.output(1)
    train(tmp_path / "one", norm=False)
    one, two = newest(tmp_path / "one"), newest(tmp_path / "two")
    for mine, theirs in zip(one["history"], two["history"], strict=True):
        assert mine["train_loss"] == pytest.approx(theirs["train_loss"], rel=TOLERANCE)
        assert mine["valid_loss"] == pytest.approx(theirs["valid_loss"], rel=TOLERANCE)
        assert mine["valid_top1"] == theirs["valid_top1"]
    for name, tensor in one["learner"].items():
        torch.testing.assert_close(tensor, two["learner"][name], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_lenet5_on_mnist_with_two_processes_and_with_one(nursery: Any, tmp_path: Path, data_root: Path) -> None:
    """The same losses while rounding has not grown yet, and the same accuracy within 0.2 points at the end."""
    answers = []
    for count in (1, 2):
        births = nursery.run(
            "lenet", tmp_path / str(count), count=count, limit=280, folder="run", data=str(data_root), epochs=1
        )
        assert births.statuses == [0] * count, births.output()
        answers.append(births.answer())
    one, two = answers
    assert one["losses"][:50] == pytest.approx(two["losses"][:50], rel=1e-4)
    assert len(one["losses"]) == len(two["losses"]) == 468
    assert abs(one["correct"] - two["correct"]) <= 0.002 * one["total"]
    assert one["correct"] > 0.95 * one["total"]


def test_both_processes_return_the_same(nursery: Any, tmp_path: Path) -> None:
    """With batch norm: statistics, average and scores too, though each sees its own share."""
    births = nursery.run("trained", tmp_path, count=2, folder=str(tmp_path / "run"))
    assert births.statuses == [0, 0], births.output(0) + births.output(1)
    mine, theirs = births.answer(0), births.answer(1)
    assert mine["fingerprint"] == theirs["fingerprint"]
    assert mine["step"] == STEPS
    for one, other in zip(mine["history"], theirs["history"], strict=True):
        for name in ("train_loss", "valid_loss", "valid_top1"):
            assert one[name] == other[name]
    assert births.output(1) == ""


HURTS = [
    (rank, where, how)
    for where in ("forward", "backward", "evaluation", "save")
    for how in ("raise", "kill")
    for rank in ((0,) if where == "save" else (1,))
]


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "where", "how"), HURTS)
def test_nothing_hangs_when_one_dies(nursery: Any, tmp_path: Path, rank: int, where: str, how: str) -> None:
    """No agent helps here: the other process must find out for itself. SIGALRM would end one that hangs for 90 s."""
    births = nursery.run(
        "hurt", tmp_path, count=2, limit=90, rank=rank, where=where, how=how, folder=str(tmp_path / "run"),
        checkpoint_seconds=0,
    )  # fmt: skip
    assert births.statuses[rank] == (-9 if how == "kill" else 1)
    assert births.statuses[1 - rank] == 1, births.output(1 - rank)
    if how == "raise":
        assert f"process {rank} of 2 failed: RuntimeError: broken on purpose" in births.output(rank)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["raise", "kill"])
def test_torchrun_names_the_one_that_died(tmp_path: Path, how: str) -> None:
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
        *("--standalone", str(HERE / "torchrun_driver.py"), str(tmp_path / "run"), how),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(HERE)])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=90)
    assert done.returncode != 0
    assert re.search(r"rank\s*: 1 ", done.stderr), done.stderr
    if how == "raise":
        assert "process 1 of 2 failed: RuntimeError" in done.stderr


def test_a_batch_is_shared_evenly_or_not_at_all() -> None:
    assert [Processes(rank, 4).share(8) for rank in range(4)] == [slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 8)]
    assert Processes().share(7) == slice(0, 7)
    with pytest.raises(RecipeError, match="a batch of 7 cannot be shared by 2 processes; use a multiple of 2"):
        Processes(0, 2).share(7)


def test_one_process_needs_no_group() -> None:
    team = Processes()
    values = torch.ones(2)
    evaluation = Evaluation(1, 2, 0.5, torch.tensor([[1, 1], [0, 0]]))
    assert team.total(values) is values
    assert team.total_evaluation(evaluation) is evaluation
    assert team.same_text("x") == "x"
    team.equalise([values])
    team.agree_on("anything", 3)


def test_a_group_adds_up_and_agrees(nursery: Any, tmp_path: Path) -> None:
    births = nursery.run("group", tmp_path, count=2)
    assert births.statuses == [0, 0], births.output(0) + births.output(1)
    for rank in (0, 1):
        answer = births.answer(rank)
        assert answer["total"] == 3.0
        assert answer["text"] == "from 0"
        assert answer["equal"] == [[1.0, 1.0], [[10]]]
        assert answer["evaluation"] == [3, 7, pytest.approx((2 * 0.5 + 5 * 1.2) / 7), [[2, 2], [2, 1]]]
        assert answer["disagreement"].startswith("the processes differ in the weather: [0, 1]")


def test_devices_by_name() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device(None).type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ZooError, match="no device is called 'gpu'"):
        choose_device("gpu")
    with pytest.raises(ZooError, match="'cuda:99' was asked for"):
        choose_device("cuda:99")
