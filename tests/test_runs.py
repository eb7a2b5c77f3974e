"""Run folders: numbered, never overwritten, and holding what a run leaves behind."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from zoo import runs
from zoo.cards import PACKED
from zoo.compression import load_packed
from zoo.create import create_model
from zoo.data import Dataset, load_dataset
from zoo.errors import CheckpointError, MissingPackageError
from zoo.evaluation import evaluate
from zoo.files import sha256_file
from zoo.recipes import RECIPES, to_dict
from zoo.training import fit
from zoo.weights import load_weights, read_card, verify_card

OPTIONS: dict[str, Any] = {"model": "lenet_300_100", "dataset": "digits", "tag": "", "seed": 4, "device": "cpu"}
STEM = "lenet_300_100.digits"


def test_folders_are_numbered_across_models(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    assert runs.new_folder("lenet5", "mnist", root).name == "1-lenet5-mnist"
    assert runs.new_folder("nin", "mnist", root).name == "2-nin-mnist"
    (root / "9-something").mkdir()
    (root / "12").mkdir()  # not a run's name
    (root / "notes.txt").write_text("")
    assert runs.new_folder("nin", "mnist", root).name == "10-nin-mnist"


@pytest.mark.parametrize(
    ("model", "dataset", "name"),
    [
        ("timm/resnet18", "mnist", "1-timm-resnet18-mnist"),
        ("nin", "folder:/home/me/my pets", "1-nin-folder-home-me-my-pets"),
        ("nin", "folder:../..", "1-nin-folder-..-.."),
    ],
)
def test_a_name_is_one_folder(tmp_path: Path, model: str, dataset: str, name: str) -> None:
    folder = runs.new_folder(model, dataset, tmp_path)
    assert folder.name == name
    assert folder.resolve().parent == tmp_path.resolve()


def test_folders_made_at_once_differ(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        folders = list(pool.map(lambda _: runs.new_folder("nin", "mnist", tmp_path), range(64)))
    assert len(set(folders)) == 64
    assert all(folder.is_dir() for folder in folders)


def test_a_number_that_another_process_has_just_taken_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both looked at the folder before either made one."""
    first = runs.new_folder("nin", "mnist", tmp_path)
    (first / "log.jsonl").write_text("mine")
    monkeypatch.setattr(Path, "iterdir", lambda _self: iter(()))
    assert runs.new_folder("nin", "mnist", tmp_path).name == "2-nin-mnist"


def test_what_was_asked_is_kept(tmp_path: Path) -> None:
    runs.write_run(tmp_path, OPTIONS, RECIPES["smoke"], "python train.py ...")
    run = runs.read_run(tmp_path)
    assert run["options"] == OPTIONS
    assert run["recipe"] == to_dict(RECIPES["smoke"])
    assert run["command"] == "python train.py ..."
    assert run["versions"]["torch"] == str(torch.__version__)
    assert re.fullmatch(r"([0-9a-f]{40}(\+changes)?)?", run["commit"])


def test_what_was_asked_before_comes_back_if_it_is_refused(tmp_path: Path) -> None:
    runs.write_run(tmp_path, OPTIONS, RECIPES["smoke"], "before")
    with pytest.raises(CheckpointError), runs.described(tmp_path, OPTIONS, RECIPES["smoke"], "now"):
        raise CheckpointError(runs.read_run(tmp_path)["command"])
    assert runs.read_run(tmp_path)["command"] == "before"
    with runs.described(None, OPTIONS, RECIPES["smoke"], "now"):
        assert runs.read_run(tmp_path)["command"] == "before"
    with pytest.raises(KeyboardInterrupt), runs.described(tmp_path, OPTIONS, RECIPES["smoke"], "now"):
        raise KeyboardInterrupt
    assert runs.read_run(tmp_path)["command"] == "now"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": "zoo-run-2"}', '{"format": "zoo-run-1"}', "\udcff"])
def test_a_damaged_run_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError, match=r"run\.json.*start a new run"):
        runs.read_run(tmp_path)


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is no run folder: it has no run\.json"):
        runs.read_run(tmp_path)
    (tmp_path / "run.json").mkdir()
    with pytest.raises(CheckpointError, match="cannot be read"):
        runs.read_run(tmp_path)


class Finished:
    """A run of one epoch on the digits, and how often the test set was read while it was finished."""

    def __init__(self, folder: Path, digits: tuple[Dataset, Dataset]) -> None:
        self.folder = folder
        self.train, self.test = digits
        torch.manual_seed(4)
        self.model = create_model("lenet_300_100", dataset="digits")
        self.said: list[str] = []
        self.recipe = RECIPES["smoke"]
        runs.write_run(folder, OPTIONS, self.recipe, "python train.py ...")
        self.run = fit(self.model, self.train, None, self.recipe, device="cpu", out_dir=folder, checkpoint_seconds=0)

    def finish(self) -> Any:
        command = "python train.py ..."
        return runs.finish(
            self.folder, self.model, self.run, OPTIONS, self.recipe, command, self.train, self.said.append
        )


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: Any, digits_root: Path) -> Finished:
    monkeypatch.setenv("ZOO_DATA", str(digits_root))
    return Finished(tmp_path, digits)


def test_what_a_run_leaves(finished: Finished, tmp_path: Path) -> None:
    card = finished.finish()
    left = {path.name for path in tmp_path.iterdir()}
    (checkpoint,) = (name for name in left if name.startswith("checkpoint-"))
    pictures = {"curves.png", "confusion.png", "mistakes.png"}
    assert left == {"run.json", "log.jsonl", checkpoint, f"{STEM}.safetensors", f"{STEM}.json", *pictures}
    assert checkpoint[11:20] == f"{finished.run.steps:09d}"
    assert read_card(tmp_path / f"{STEM}.json") == card
    assert card.sha256 == sha256_file(tmp_path / f"{STEM}.safetensors")
    assert card.data_digest == {"train": finished.train.digest, "test": finished.test.digest}
    assert card.seed == 4
    assert (card.seeds[0].correct, card.seeds[0].total) == (card.correct, card.total)
    assert card.recipe == to_dict(finished.recipe)
    assert card.params == 266_610
    assert verify_card(tmp_path / f"{STEM}.json", accuracy=True) == []
    assert f"test: {card.correct} of {card.total} correct" in finished.said[0]


def test_the_accuracy_is_that_of_the_stored_file(finished: Finished, tmp_path: Path) -> None:
    """Half precision rounds: what is on the card was counted after reading the file back."""
    card = finished.finish()
    stored = create_model("lenet_300_100", dataset="digits")
    load_weights(stored, tmp_path / f"{STEM}.safetensors")
    counted = evaluate(stored, finished.test)
    assert (card.correct, card.total, card.loss) == (counted.correct, counted.total, counted.loss)
    assert card.loss != evaluate(finished.model, finished.test).loss


def test_the_test_set_is_scored_once_on_the_stored_file(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    scored: list[tuple[Any, str]] = []
    predict = runs.predict_logits

    def counted(model: Any, dataset: Dataset, *rest: Any) -> Any:
        scored.append((model, dataset.split))
        return predict(model, dataset, *rest)

    monkeypatch.setattr(runs, "predict_logits", counted)
    monkeypatch.setattr(runs, "load_dataset", load_dataset)
    finished.finish()
    assert [split for _, split in scored] == ["test"]
    assert scored[0][0] is not finished.model


def test_packed_weights_are_smaller_and_measured_as_they_are_stored(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    halves = finished.finish()
    monkeypatch.setitem(OPTIONS, "pack", True)
    card = finished.finish()
    assert (card.file, card.format) == (f"{STEM}.zpk", PACKED)
    assert card.file_bytes < 0.35 * halves.file_bytes
    counted = evaluate(load_packed(tmp_path / card.file)[0], finished.test)
    assert (card.correct, card.loss) == (counted.correct, counted.loss)
    assert card.loss != halves.loss
    assert verify_card(tmp_path / f"{STEM}.json", accuracy=True) == []


def test_without_matplotlib_pictures_are_left_out(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zoo import report

    def absent(*_arguments: Any) -> None:
        raise MissingPackageError("plots need matplotlib")

    monkeypatch.setattr(report, "curves_plot", absent)
    finished.finish()
    assert finished.said[-1] == "no pictures: plots need matplotlib"
    assert (tmp_path / f"{STEM}.json").exists()


def test_a_tag_is_in_the_name(finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPTIONS, "tag", "wide")
    card = finished.finish()
    assert card.tag == "wide"
    assert (tmp_path / f"{STEM}.wide.safetensors").exists()
    assert json.loads((tmp_path / f"{STEM}.wide.json").read_text())["file"] == f"{STEM}.wide.safetensors"


def test_where_it_was_trained() -> None:
    assert runs.device_name(torch.device("cpu"))
    assert set(runs.versions()) == {"python", "torch", "timm"}
