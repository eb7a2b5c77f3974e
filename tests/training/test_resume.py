"""Resume is exact: the whole state, bit for bit, wherever a run was interrupted, with one process and with two."""

from pathlib import Path
from typing import Any

import pytest
import torch
from scenarios import STEPS, fingerprint, newest, same, train

OPTIMIZERS = ("sgd", "adamw", "lion", "nadamw", "muon")
# The steps after which a run was interrupted: within an epoch, at its end, one before the end, and twice in one epoch.
STOPS = ((1,), (4,), (6,), (11,), (STEPS - 1,), (8, 10), (1, 3, 5, 15))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """optimizer -> (last state, weights) of the uninterrupted run; each is trained once."""
    seen: dict[str, tuple[dict[str, Any], str]] = {}

    def of(optimizer: str) -> tuple[dict[str, Any], str]:
        if optimizer not in seen:
            folder = tmp_path_factory.mktemp(f"whole-{optimizer}")
            model, run = train(folder, settings=[f"optimizer={optimizer}"], on_step=lambda *_: None)
            assert run.stopped is None
            seen[optimizer] = newest(folder), fingerprint(model)
        return seen[optimizer]

    return of


@pytest.mark.parametrize("stops", STOPS, ids=str)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_interrupted_run_ends_in_the_state_of_the_whole_one(
    whole: Any, tmp_path: Path, optimizer: str, stops: tuple[int, ...]
) -> None:
    """The interrupted sittings stir the global generator after every step; the whole run leaves it alone."""
    for sitting, stop in enumerate(stops):
        torch.manual_seed(1000 + sitting)
        _, run = train(tmp_path, settings=[f"optimizer={optimizer}"], stop_at=stop, resume=sitting > 0)
        assert run.stopped is not None
        assert run.evaluation is None
    model, run = train(tmp_path, settings=[f"optimizer={optimizer}"], resume=True)
    assert run.stopped is None
    assert same(newest(tmp_path), whole(optimizer)[0])
    assert fingerprint(model) == whole(optimizer)[1]


def test_the_compared_state_is_whole(whole: Any) -> None:
    """The comparison covers weights, statistics, average, optimizer, counters, history and terms."""
    state = whole("adamw")[0]
    assert state.keys() == {
        *("terms", "learner", "average", "average_updates", "optimizer", "step", "loss_sum", "history"),
    }
    assert {"model.0.weight", "model.1.running_mean", "model.1.num_batches_tracked"} <= state["learner"].keys()
    assert {"exp_avg", "exp_avg_sq", "step"} == state["optimizer"]["state"]["0"].keys()
    assert state["step"] == STEPS
    assert len(state["history"]) == 3
    assert all(entry["valid_top1"] is not None for entry in state["history"])


def test_states_that_differ_in_one_bit_are_told_apart(whole: Any) -> None:
    state = whole("sgd")[0]
    other = {**state, "learner": {**state["learner"], "model.0.bias": state["learner"]["model.0.bias"].clone()}}
    assert same(state, other)
    other["learner"]["model.0.bias"].view(torch.int32)[1] ^= 1
    assert not same(state, other)


def test_the_global_generator_is_left_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(42)
    before = torch.get_rng_state()
    train(tmp_path, stop_at=4)
    assert torch.get_rng_state().equal(before)


def test_the_seed_matters(tmp_path: Path, whole: Any) -> None:
    """Without this, a trainer that draws nothing at all would pass."""
    train(tmp_path, settings=["mixup=0"])
    assert not same(newest(tmp_path)["learner"], whole("sgd")[0]["learner"])


@pytest.fixture(scope="module")
def whole_of_two(nursery: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The last state of an uninterrupted run of two processes."""
    folder = tmp_path_factory.mktemp("two")
    births = nursery.run("trained", folder, count=2, folder=str(folder / "run"))
    assert births.statuses == [0, 0], births.output(0) + births.output(1)
    return newest(folder / "run")


@pytest.mark.parametrize("stops", [(3,), pytest.param((1, 8, 10), marks=pytest.mark.slow)], ids=str)
def test_two_processes_resume_exactly(
    nursery: Any, tmp_path: Path, whole_of_two: dict[str, Any], stops: tuple[int, ...]
) -> None:
    run = str(tmp_path / "run")
    for sitting, stop in enumerate(stops):
        births = nursery.run("trained", tmp_path / "stopped", count=2, folder=run, stop_at=stop, resume=sitting > 0)
        assert births.statuses == [0, 0], births.output(0) + births.output(1)
        assert [births.answer(rank)["step"] for rank in (0, 1)] == [stop, stop]
    births = nursery.run("trained", tmp_path / "ended", count=2, folder=run, resume=True)
    assert births.statuses == [0, 0], births.output(0) + births.output(1)
    assert same(newest(tmp_path / "run"), whole_of_two)
    assert births.answer(0)["fingerprint"] == births.answer(1)["fingerprint"]  # batch statistics and average too
