"""`python train.py` and `zoo train`: what is wrong is said in one line; what is in force can be pasted back."""

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from zoo import recipes, runs, train_cli
from zoo.evaluation import Evaluation
from zoo.recipes import RECIPES, override
from zoo.training.checkpoint import checkpoint_files
from zoo.training.loop import Run

SMOKE = ["lenet_300_100", "--dataset", "digits", "--recipe", "smoke", "--threads", "1"]
RUN = "runs/train/1-lenet_300_100-digits"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits_root: Path) -> Path:
    """A folder of its own, with the digits at hand."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZOO_DATA", str(digits_root))
    return tmp_path


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 2) -> str:
    """The one line that a wrong command ends with."""
    capsys.readouterr()
    assert train_cli.main(arguments) == status
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert sum(line.startswith("zoo: error: ") for line in lines) == 1
    assert lines[-1].startswith("zoo: error: ")
    return lines[-1].removeprefix("zoo: error: ")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["squeezenet11", "--dataset", "digits"], "no model is called 'squeezenet11'. Did you mean 'squeezenet1_1'"),
        (["lenet5", "--dataset", "digit"], "no data set is called 'digit'. Did you mean 'digits'"),
        (["lenet5", "--dataset", "digits", "--recipe", "smok"], "no recipe is called 'smok'. Did you mean 'smoke'"),
        (
            ["lenet5", "--dataset", "digits", "--set", "lrr=1"],
            "no field of a recipe is called 'lrr'. Did you mean 'lr'",
        ),
        (["lenet5", "--dataset", "digits", "--set", "lr"], "'lr' is no override; write it as field=value"),
        (["lenet5", "--dataset", "digits", "--set", "lr=fast"], "lr=fast was given; a number is allowed."),
        (["lenet5", "--dataset", "digits", "--set", "lr=-1"], "lr=-1.0 was given; a finite number from 0"),
        (["lenet5", "--dataset", "digits", "--set", "flip=random"], "set flip=none"),
        (["lenet5", "--dataset", "digits", "--set", "batch_size=100000"], "set batch_size to 1"),
        (
            ["lenet5", "--dataset", "digits", "--set", "optimizer=sgdd"],
            "no optimizer is called 'sgdd'. Did you mean 'sgd'",
        ),
        (["lenet5", "--dataset", "digits", "--epoch", "3"], "unrecognized arguments: --epoch 3"),
        (["lenet5", "--dataset", "digits", "--epochs", "3"], "A recipe is changed by --set epochs=VALUE."),
        (["lenet5", "--datset", "digits"], "Did you mean --dataset?"),
        (["lenet5", "--dataset", "digits", "--seed", "x"], "argument --seed: invalid int value: 'x'"),
        (["lenet5", "--dataset"], "argument --dataset: expected one argument"),
        (["lenet5", "--dataset", "digits", "--device", "tpux"], "no device is called 'tpux'"),
        (["lenet5", "--dataset", "digits", "--valid-images", "5000"], "a validation set of 5000 images"),
        (["--dataset", "digits"], "no model was given; `zoo list` prints what there is"),
        (["lenet5"], "no dataset was given; `zoo data` prints what there is"),
        (["timm/resnet18", "--dataset", "digits", "--pack"], "was not built by its name"),
        (["--resume", "nowhere"], "nowhere is no run folder: it has no run.json"),
    ],
)
def test_wrong_use(capsys: pytest.CaptureFixture[str], arguments: list[str], says: str) -> None:
    assert says in error_of(capsys, *arguments)


def test_wrong_use_before_training_leaves_no_run(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    error_of(capsys, "squeezenet11", "--dataset", "digits")
    error_of(capsys, "lenet5", "--dataset", "digits", "--set", "lr=x")
    error_of(capsys, "lenet5", "--dataset", "digits", "--set", "flip=random")
    assert not (here / "runs").exists()


@pytest.fixture
def stopped(here: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A run that was stopped after its first step."""
    assert train_cli.main([*SMOKE, "--max-minutes", "0"]) == 0
    assert f"go on with: python train.py --resume {RUN}" in capsys.readouterr().err
    return here / RUN


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--seed", "3"], "was begun with seed=0, and 3 was given now"),
        (["--dataset", "mnist"], "was begun with dataset='digits', and 'mnist' was given now"),
        (["lenet5"], "was begun with model='lenet_300_100', and 'lenet5' was given now"),
        (["--recipe", "mnist"], "was begun with recipe='smoke', and 'mnist' was given now"),
        (["--valid-images", "7"], "was begun with valid-images=None, and 7 was given now"),
        (["--set", "lr=0.5"], "was begun with lr=0.02, and 0.5 was given now"),
        (["--set", "epochs=4"], "was begun with recipe.epochs=1, and 4 was given now"),
    ],
)
def test_a_conflict_on_resuming_names_both_values_and_changes_nothing(
    stopped: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    before = {path.name: path.read_bytes() for path in stopped.iterdir()}
    assert says in error_of(capsys, "--resume", str(stopped), *arguments)
    assert {path.name: path.read_bytes() for path in stopped.iterdir()} == before


def test_resume_needs_nothing_else_and_takes_what_agrees(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_cli.main([*SMOKE, "--set", "lr=0.02", "--resume", str(stopped)]) == 0
    told = capsys.readouterr().err
    assert "resumed at step 1 of " in told
    assert "test: " in told
    assert {path.name for path in stopped.parent.iterdir()} == {stopped.name}


def test_more_epochs_on_a_finished_run(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    assert train_cli.main(SMOKE) == 0
    assert train_cli.main(["--resume", RUN, "--set", "epochs=2"]) == 0
    assert "the run of 1 epochs is finished; it goes on to 2" in capsys.readouterr().err
    card = json.loads((here / RUN / "lenet_300_100.digits.json").read_text())
    assert card["epochs"] == 2
    assert "epochs=2" in card["command"]
    assert train_cli.main(["--resume", RUN]) == 0
    assert len((here / RUN / "log.jsonl").read_text().splitlines()) == 2


def test_the_command_can_be_pasted_back(capsys: pytest.CaptureFixture[str]) -> None:
    given = [
        *SMOKE,
        "--set",
        "lr=0.07",
        "--set",
        "translation=0.05",
        "--seed",
        "5",
        "--valid-images",
        "0",
        "--tag",
        "a",
    ]
    options = train_cli._options(train_cli._parse(given), None)
    recipe = train_cli._recipe(options, None)
    words = shlex.split(train_cli._command(options, recipe, 1))
    assert words[:2] == ["python", "train.py"]
    again = train_cli._options(train_cli._parse(words[2:]), None)
    assert train_cli._recipe(again, None) == recipe
    assert {**again, "settings": None, "recipe": None} == {**options, "settings": None, "recipe": None}
    two = shlex.split(train_cli._command(options, recipe, 2))
    assert two == ["torchrun", "--nproc-per-node", "2", *words[1:]]


def test_the_first_lines_say_where_and_what(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    threads = torch.get_num_threads()
    assert train_cli.main([*SMOKE, "--max-minutes", "0"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("python 3.")
    assert f"torch {torch.__version__}" in lines[0]
    assert lines[0].endswith(f"{threads} threads, 1 process")
    assert lines[1].startswith("python train.py lenet_300_100 --dataset digits --recipe smoke --seed 0")
    assert f"run folder: {RUN}" in lines
    assert RUN in lines[-1]


def test_interrupted_before_the_first_step(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_arguments: Any, **_named: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train_cli, "load_dataset", interrupted)
    assert train_cli.main(SMOKE) == 130
    assert capsys.readouterr().err.splitlines()[-1].startswith("interrupted")


@pytest.mark.parametrize(("stopped_by", "status"), [(None, 0), ("max_minutes", 0), ("SIGINT", 130), ("SIGTERM", 143)])
def test_the_exit_status(monkeypatch: pytest.MonkeyPatch, stopped_by: str | None, status: int) -> None:
    finished = []
    run = Run([], Evaluation(1, 2, 0.1, torch.zeros(2, 2)), 1, 2, 0.1, 1.0, stopped_by)
    monkeypatch.setattr(train_cli, "fit", lambda *_a, **_n: run)
    monkeypatch.setattr(runs, "finish", lambda *arguments: finished.append(arguments))
    assert train_cli.main(SMOKE) == status
    assert len(finished) == (stopped_by is None)


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: Any, **_named: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(train_cli, "fit", broken)
    with pytest.raises(ZeroDivisionError):
        train_cli.main(SMOKE)


def test_all_images_may_be_trained_on(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_cli.main([*SMOKE, "--valid-images", "0"]) == 0
    entry = json.loads((here / RUN / "log.jsonl").read_text())
    assert entry["valid_top1"] is None
    note = json.loads((here / RUN / "lenet_300_100.digits.json").read_text())["note"]
    assert "held out" not in note
    assert checkpoint_files(here / RUN)


def test_the_recipe_that_suits_is_taken_and_recorded(here: Path) -> None:
    assert train_cli.main(["lenet_300_100", "--dataset", "digits", "--max-minutes", "0"]) == 0
    run = runs.read_run(here / RUN)
    assert run["options"]["recipe"] == "mnist-plain"
    assert recipes.from_dict(run["recipe"]) == RECIPES["mnist-plain"]
    assert override(RECIPES["smoke"], ["epochs=2"]) == replace(RECIPES["smoke"], epochs=2)


@pytest.mark.parametrize("damage", ["{}", "[]", "{", '{"format": "zoo-run-2"}', ""])
def test_a_damaged_run_file(stopped: Path, capsys: pytest.CaptureFixture[str], damage: str) -> None:
    (stopped / "run.json").write_text(damage)
    assert "run.json" in error_of(capsys, "--resume", str(stopped))


@pytest.mark.parametrize("name", ["options", "recipe", "command", "commit", "versions"])
def test_a_run_file_that_lacks_something(stopped: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    run = json.loads((stopped / "run.json").read_text())
    del run[name]
    (stopped / "run.json").write_text(json.dumps(run))
    assert f"{name!r} is missing" in error_of(capsys, "--resume", str(stopped))


@pytest.mark.parametrize("name", ["model", "dataset", "recipe"])
def test_a_run_file_that_names_nothing(stopped: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    run = json.loads((stopped / "run.json").read_text())
    run["options"][name] = 3
    (stopped / "run.json").write_text(json.dumps(run))
    assert f"it names no {name}" in error_of(capsys, "--resume", str(stopped))


def test_subnormal_numbers_are_flushed_while_training_and_only_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """They make a late epoch more than twice as slow on a CPU."""
    seen = []

    def train(_given: dict[str, Any]) -> int:
        seen.append(float(torch.tensor(1e-40) * 1))
        return 0

    monkeypatch.setattr(train_cli, "_train", train)
    assert train_cli.main(["lenet5", "--dataset", "digits"]) == 0
    assert seen == [0.0]
    assert float(torch.tensor(1e-40) * 1) > 0
