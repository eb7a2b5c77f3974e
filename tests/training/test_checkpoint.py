"""Checkpoints: what is written comes back, damage is seen, the one before steps in, old files load for ever."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from scenarios import STEPS, fingerprint, newest, same, train

from zoo.errors import CheckpointError, DivergedError, WeightError
from zoo.tensorfile import read_tensors, write_tensors
from zoo.training.checkpoint import checkpoint_files, load_checkpoint, load_newest, save_checkpoint, tidy
from zoo.training.state import save

FIXTURE = Path(__file__).parents[1] / "fixtures" / "checkpoint-v1.safetensors"

STATE: dict[str, Any] = {
    "terms": {"seed": 3, "valid": None, "name": "ä/ö"},
    "learner": {"weight": torch.arange(6.0).view(2, 3), "count": torch.tensor(7)},
    "optimizer": {
        "state": {"0": {"step": torch.tensor(2.0), "buffer": None}},
        "options": [{"lr": 0.1, "betas": [0.9, 1]}],
    },
    "empty": torch.empty(0, 4),
    "half": torch.tensor([1.5, 2], dtype=torch.bfloat16),
    "flags": torch.tensor([True, False]),
    "step": 5,
    "history": [{"loss": 0.1}, {"loss": 1e-300}],
}


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "truncated in the header": lambda path: path.write_bytes(path.read_bytes()[:50]),
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(bytes(range(256)) * 20),
    "a bit of the weights": lambda path: flip(path, -20),
    "a bit of the header": lambda path: flip(path, 40),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


def test_a_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 5, STATE)
    assert path.name == "checkpoint-000000005.safetensors"
    assert same(load_checkpoint(path), STATE)


def test_a_long_history_and_many_tensors_fit(tmp_path: Path) -> None:
    """A header is bounded; what grows with a run must not stand in it."""
    state = {
        "history": [{"epoch": epoch, "loss": epoch / 3, "speed": epoch / 7} for epoch in range(30_000)],
        "tensors": {f"stage.{i}.block.{i}.conv.weight": torch.zeros(1) for i in range(6000)},
    }
    assert same(load_checkpoint(save_checkpoint(tmp_path, 1, state)), state)


def test_two_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 12):
        save_checkpoint(tmp_path, step, STATE)
    assert [path.name[11:20] for path in checkpoint_files(tmp_path)] == ["000000012", "000000003"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_falls_back_to_the_one_before(tmp_path: Path, damage: str) -> None:
    save_checkpoint(tmp_path, 4, {**STATE, "step": 4})
    newest_path = save_checkpoint(tmp_path, 5, STATE)
    DAMAGES[damage](newest_path)
    state, complaints = load_newest(tmp_path)
    assert state is not None
    assert state["step"] == 4
    assert len(complaints) == 1
    assert newest_path.name in complaints[0]


@pytest.mark.parametrize("damage", ["truncated", "empty", "a bit of the weights"])
def test_a_run_goes_on_from_the_one_before_and_says_so(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole_model, _ = train(tmp_path / "whole")
    train(tmp_path / "run", stop_at=9, checkpoint_seconds=0)
    files = checkpoint_files(tmp_path / "run")
    assert [path.name[18:20] for path in files] == ["09", "08"]
    DAMAGES[damage](files[0])
    capsys.readouterr()
    model, _ = train(tmp_path / "run", resume=True)
    told = capsys.readouterr().err
    assert f"passed over: {files[0]}" in told
    assert f"resumed at step 8 of {STEPS}" in told
    assert fingerprint(model) == fingerprint(whole_model)
    assert same(newest(tmp_path / "run"), newest(tmp_path / "whole"))
    assert files[0].with_suffix(".passed-over").exists()
    assert files[0] not in checkpoint_files(tmp_path / "run")  # a damaged one never counts as one of the two


def test_a_tensor_added_or_renamed_is_seen(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 5, STATE)
    tensors, metadata = read_tensors(path)
    write_tensors(path, {**tensors, "/more": torch.zeros(1)}, metadata)
    with pytest.raises(CheckpointError, match="digest"):
        load_checkpoint(path)
    tensors["/learner/other"] = tensors.pop("/learner/count")
    write_tensors(path, tensors, metadata)
    with pytest.raises(CheckpointError, match="digest"):
        load_checkpoint(path)
    write_tensors(path, {"/learner/weight": torch.zeros(1)}, metadata)
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(path)


def test_all_damaged_is_an_error_that_names_each(tmp_path: Path) -> None:
    for step in (4, 5):
        save_checkpoint(tmp_path, step, STATE).write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"000000005.*000000004.*Start the run anew") as caught:
        load_newest(tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError):
        train(tmp_path, resume=True)


def test_a_future_format_is_refused_by_name(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 5, STATE)
    tensors, metadata = read_tensors(path)
    write_tensors(path, tensors, {**metadata, "format": "zoo-checkpoint-2"})
    with pytest.raises(CheckpointError, match=r"'zoo-checkpoint-2'; this version reads 'zoo-checkpoint-1'"):
        load_checkpoint(path)
    with pytest.raises(CheckpointError, match="zoo-checkpoint-2"):
        load_newest(tmp_path)


def test_an_empty_folder_has_no_state(tmp_path: Path) -> None:
    assert load_newest(tmp_path) == (None, [])
    _, run = train(tmp_path / "new", resume=True)
    assert run.step == STEPS


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_never_written(tmp_path: Path, value: float) -> None:
    save_checkpoint(tmp_path, 4, STATE)
    with pytest.raises(WeightError, match="finite"):
        save_checkpoint(tmp_path, 5, {**STATE, "more": torch.tensor([1.0, value])})
    assert [path.name[18:20] for path in checkpoint_files(tmp_path)] == ["04"]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_that_cannot_be_stored_is_not_called_divergence(tmp_path: Path) -> None:
    """The advice to lower the learning rate would be wrong."""

    class Odd:
        step = 1

        def to_tree(self, terms: dict[str, Any]) -> dict[str, Any]:
            return {"phase": torch.zeros(1, dtype=torch.complex64)}

    with pytest.raises(WeightError, match="complex"):
        save(tmp_path, Odd(), {"recipe": {"lr": 0.1}})  # type: ignore[arg-type]
    Odd.to_tree = lambda _self, _terms: {"w": torch.tensor([float("inf")])}  # type: ignore[method-assign]
    with pytest.raises(DivergedError, match=r"after step 1.*0\.1.*Try --set lr=0\.033"):
        save(tmp_path, Odd(), {"recipe": {"lr": 0.1}})  # type: ignore[arg-type]


def test_what_is_neither_plain_nor_a_tensor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"'/optimizer/0' is a object"):
        save_checkpoint(tmp_path, 1, {"optimizer": [object()]})


def test_leftovers_of_a_killed_process_are_swept(tmp_path: Path) -> None:
    train(tmp_path, stop_at=3)
    kept = {path.name for path in tmp_path.iterdir()}
    for name in (".checkpoint-000000003.safetensors.abc.part", ".log.jsonl.xyz.part"):
        (tmp_path / name).write_bytes(b"half")
    tidy(tmp_path, 3)
    assert {path.name for path in tmp_path.iterdir()} == kept
    (tmp_path / ".log.jsonl.xyz.part").write_bytes(b"half")
    train(tmp_path, resume=True)
    assert not list(tmp_path.glob(".*"))


def test_the_first_format_loads_for_ever(tmp_path: Path) -> None:
    """Written by the first version after five steps of the standard run; the file is never to be written again."""
    assert FIXTURE.stat().st_size < 20_000
    state = load_checkpoint(FIXTURE)
    assert state["step"] == 5
    assert state["terms"]["recipe"]["augment"]["flip"] == "alternating"
    assert state["learner"]["model.0.weight"].shape == (4, 3, 3, 3)
    assert float(state["learner"]["model.1.num_batches_tracked"]) == 5
    (tmp_path / "checkpoint-000000005.safetensors").write_bytes(FIXTURE.read_bytes())
    _, run = train(tmp_path, resume=True)
    assert run.step == STEPS
    assert [entry["step"] for entry in run.history] == [6, 12, 18]


def test_the_file_is_plain_safetensors() -> None:
    """Any reader of the format opens it: a header length, JSON, tensors."""
    data = FIXTURE.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    assert header["__metadata__"]["format"] == "zoo-checkpoint-1"
    assert header["state"]["dtype"] == "U8"
