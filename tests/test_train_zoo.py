"""The plan of trainings: what is trained, stored, skipped, resumed and refused. Real trainings, of digits, are slow."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from weight_files import store as store_card

from zoo import recipes
from zoo.cards import Card, read_card
from zoo.files import sha256_file
from zoo.weights import verify_card

ROOT = Path(__file__).resolve().parent.parent
FAILING = "import sys\nprint('building')\nprint('no such thing')\nsys.exit(3)\n"
SLEEPING = "import time\ntime.sleep(60)\n"
LONG_EPOCHS = 60  # some seconds, of which one is enough to be interrupted in

Run = Callable[..., int]


@pytest.fixture
def train_zoo(monkeypatch: pytest.MonkeyPatch, digits_root: Path) -> ModuleType:
    """The script as a module, with a plan of two small networks on digits."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setenv("ZOO_DATA", str(digits_root))
    import train_zoo

    plan = (
        train_zoo.Training("lenet_300_100", "digits", "smoke", 1, seeds=2),
        train_zoo.Training("lenet5", "digits", "smoke", 1, tag="cpu"),
    )
    monkeypatch.setattr(train_zoo, "PLANS", {"tiny": plan})
    return train_zoo


@pytest.fixture
def run(train_zoo: ModuleType, tmp_path: Path) -> Run:
    """Runs the script with more arguments; its runs and weights are in folders of the test."""
    return lambda *more: train_zoo.main(
        ["tiny", "--out", str(tmp_path), "--weights", str(tmp_path / "zoo"), "--jobs", "2", "--threads", "1", *more]
    )


@pytest.fixture
def stand_in(train_zoo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts another program in the place of train.py."""

    def put(source: str) -> None:
        (tmp_path / "train.py").write_text(source)
        monkeypatch.setattr(train_zoo, "ROOT", tmp_path)

    return put


def folders(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "runs/train").glob("*/"))


# without training ---------------------------------------------------------------------------------------------------


def test_first_seeds_come_first(train_zoo: ModuleType) -> None:
    labels = [task.label for task in train_zoo.in_order(train_zoo.PLANS["tiny"])]
    assert labels == ["lenet_300_100.digits seed 0", "lenet5.digits.cpu seed 0", "lenet_300_100.digits seed 1"]


@pytest.mark.slow
def test_every_plan_can_be_trained() -> None:
    """In a process of its own, where the plans are the real ones."""
    code = """
import train_zoo
from zoo.data import dataset_info
from zoo.registry import architecture
for name, plan in train_zoo.PLANS.items():
    assert plan and len({t.stem for t in plan}) == len(plan), name
    for training in plan:
        architecture(training.model), dataset_info(training.dataset), training.recipe
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "benchmarks")))}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert found.returncode == 0, found.stderr


@pytest.mark.slow
def test_a_checkout_is_enough(tmp_path: Path) -> None:
    """As on a machine where the package is not installed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-m", "benchmarks.train_zoo", "full", "--dry-run", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    assert done.stderr == ""


@pytest.mark.slow
def test_a_reader_of_a_dry_run_may_leave_early(tmp_path: Path) -> None:
    script = "import sys, time; time.sleep(0.5); from benchmarks.train_zoo import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", script, "full", "--dry-run", "--out", str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()  # before anything was written
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() in (0, 1)


def test_a_dry_run_prints_commands_and_changes_nothing(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert run("--dry-run", "--only", "*.cpu", "--minutes", "5") == 1
    (line,) = capsys.readouterr().out.splitlines()
    label, _, command = line.partition(": ")
    assert label == "lenet5.digits.cpu seed 0"
    assert command.endswith(
        "train.py lenet5 --dataset digits --recipe smoke --set epochs=1 --seed 0 --valid-images 0 --tag cpu "
        "--max-minutes 5.00 --threads 1"
    )
    assert sorted(tmp_path.rglob("*")) == before


def test_no_minutes_leave_all(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--minutes", "0") == 1
    said = capsys.readouterr().out
    assert said == (
        "0 trained, 3 left: lenet_300_100.digits seed 0, lenet5.digits.cpu seed 0, lenet_300_100.digits seed 1\n"
    )
    assert folders(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "lenet5.digit.cpu"], "no training is called 'lenet5.digit.cpu'. Did you mean 'lenet5.digits.cpu'"),
        (["--jobs", "0"], "at least 1 training"),
    ],
)
def test_wrong_use(run: Run, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    assert words in capsys.readouterr().err


def test_an_unknown_plan_proposes_the_nearest(train_zoo: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_zoo.main(["tin"]) == 2
    assert "no plan is called 'tin'. Did you mean 'tiny'" in capsys.readouterr().err


def test_two_at_once_are_refused(
    train_zoo: ModuleType, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs/train").mkdir(parents=True)
    with train_zoo.only_one(tmp_path / "runs/train"):
        assert run("--minutes", "0") == 2
    assert "another train_zoo.py" in capsys.readouterr().err
    assert run("--minutes", "0") == 1


def test_a_failing_training_is_named_and_the_others_go_on(
    run: Run, stand_in: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(FAILING)
    assert run() == 1
    said = capsys.readouterr()
    assert sorted(said.err.splitlines()) == [
        f"{label} failed with status 3: no such thing"
        for label in ("lenet5.digits.cpu seed 0", "lenet_300_100.digits seed 0", "lenet_300_100.digits seed 1")
    ]
    assert "0 trained, 3 left" in said.out


def test_a_damaged_card_is_named_left_alone_and_the_others_go_on(
    run: Run, stand_in: Callable[[str], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(FAILING)
    card = tmp_path / "zoo" / "lenet5.digits.cpu.json"
    card.parent.mkdir()
    card.write_text("{}")
    assert run("--dry-run") == 1
    assert "lenet5.digits.cpu is left: " in capsys.readouterr().err
    assert run() == 1
    said = capsys.readouterr()
    assert "lenet5.digits.cpu is left: " in said.err
    assert "lenet_300_100.digits seed 1 failed" in said.err
    assert "lenet5.digits.cpu seed 0" in said.out.splitlines()[-1]
    assert card.read_text() == "{}"


def test_weights_of_another_recipe_do_not_count(train_zoo: ModuleType, tmp_path: Path) -> None:
    options = train_zoo._parse(["tiny", "--out", str(tmp_path), "--weights", str(tmp_path)])
    task = train_zoo.Task(train_zoo.PLANS["tiny"][1], 1)
    store_card(tmp_path, "lenet5", "digits", "cpu")  # its seeds are 1 and 2
    assert not train_zoo.is_done(task, options)
    store_card(tmp_path, "lenet5", "digits", "cpu", recipe=recipes.to_dict(task.training.recipe))
    assert train_zoo.is_done(task, options)
    assert not train_zoo.is_done(train_zoo.Task(task.training, 0), options)


@pytest.mark.slow
def test_a_training_left_behind_keeps_others_out(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SLEEPING)
    first = start(tmp_path, root=tmp_path)
    try:
        wait_for(lambda: (tmp_path / "runs/train/lenet5.digits.seed0.log").exists())
        first.kill()
        first.wait()
        again = start(tmp_path, "--minutes", "0", root=tmp_path)
        assert again.wait(60) == 2
        assert "a training that one left behind" in said(tmp_path)
    finally:
        for pid in children_of(tmp_path):
            os.kill(pid, signal.SIGKILL)
    wait_for(lambda: start(tmp_path, "--minutes", "0", root=tmp_path).wait(60) == 1)


# with training ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_plan_is_trained_stored_and_then_skipped(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    said = capsys.readouterr().out
    assert "3 trained, 0 left" in said
    zoo = tmp_path / "zoo"
    stems = ("lenet5.digits.cpu", "lenet_300_100.digits")
    assert {path.name for path in zoo.iterdir()} == {f"{s}.{end}" for s in stems for end in ("json", "safetensors")}
    for stem in stems:
        assert verify_card(zoo / f"{stem}.json", accuracy=True) == []
    own = {card.seed: card for card in run_cards(tmp_path, "lenet_300_100")}
    merged = read_card(zoo / "lenet_300_100.digits.json")
    assert (merged.seed, [result.seed for result in merged.seeds]) == (0, [0, 1])
    assert [result.correct for result in merged.seeds] == [own[0].correct, own[1].correct]
    assert merged.top1_std is not None
    assert own[0].sha256 == merged.sha256 == sha256_file(zoo / merged.file)
    assert own[0].sha256 != own[1].sha256

    runs, files = folders(tmp_path), {path: path.read_bytes() for path in zoo.iterdir()}
    assert run() == 0
    assert "0 trained, 0 left" in capsys.readouterr().out
    for path in zoo.iterdir():
        path.unlink()
    assert run("--minutes", "0") == 0
    assert {path: path.read_bytes() for path in zoo.iterdir()} == files, "stored again from the runs"
    assert folders(tmp_path) == runs

    damaged = tmp_path / "runs/train" / next(name for name in runs if "lenet5" in name) / "lenet5.digits.cpu.json"
    damaged.write_text("{")
    (zoo / "lenet5.digits.cpu.json").unlink()
    capsys.readouterr()
    assert run() == 0
    assert "resuming lenet5.digits.cpu seed 0" in capsys.readouterr().out
    assert read_card(damaged).sha256 == read_card(zoo / "lenet5.digits.cpu.json").sha256
    assert folders(tmp_path) == runs


@pytest.mark.slow
def test_large_networks_are_stored_packed(
    train_zoo: ModuleType, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only = ("--only", "lenet5.*")
    assert run(*only) == 0
    path = tmp_path / "zoo" / "lenet5.digits.cpu.json"
    assert read_card(path).file.endswith(".safetensors")
    (plan,) = train_zoo.PLANS.values()
    again = replace(plan[1], batch_size=32)
    monkeypatch.setattr(train_zoo, "PLANS", {"tiny": (again,)})
    monkeypatch.setattr(train_zoo, "LARGE", 1_000)
    assert run(*only) == 0
    assert {file.name for file in path.parent.iterdir()} == {"lenet5.digits.cpu.json", "lenet5.digits.cpu.zpk"}
    assert read_card(path).recipe["batch_size"] == 32
    assert verify_card(path, accuracy=True) == []


@pytest.mark.slow
def test_sigterm_saves_and_the_same_command_goes_on(tmp_path: Path, digits_root: Path) -> None:
    first = start(tmp_path, data=digits_root)
    wait_for(lambda: any(path.stat().st_size for path in tmp_path.glob("runs/train/*/log.jsonl")))
    first.send_signal(signal.SIGTERM)
    assert first.wait(60) == 143, said(tmp_path)
    assert children_of(tmp_path) == []
    (folder,) = (tmp_path / "runs/train").glob("*/")
    assert list(folder.glob("checkpoint-*.safetensors"))
    assert not (tmp_path / "zoo").exists()

    second = start(tmp_path, data=digits_root)
    assert second.wait(120) == 0, said(tmp_path)
    assert "resuming lenet5.digits seed 0" in said(tmp_path)
    assert list((tmp_path / "runs/train").glob("*/")) == [folder]
    epochs = [json.loads(line)["epoch"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert epochs == list(range(1, LONG_EPOCHS + 1))
    assert read_card(tmp_path / "zoo" / "lenet5.digits.json").epochs == LONG_EPOCHS


# helpers ------------------------------------------------------------------------------------------------------------


def start(folder: Path, *arguments: str, root: Path = ROOT, data: Path | None = None) -> "subprocess.Popen[bytes]":
    """The script in a process of its own, with a plan of one long training."""
    code = f"""
import sys
from pathlib import Path
import train_zoo
train_zoo.PLANS = {{"tiny": (train_zoo.Training("lenet5", "digits", "smoke", {LONG_EPOCHS}),)}}
train_zoo.ROOT = Path({str(root)!r})
sys.exit(train_zoo.main())
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "benchmarks")))}
    environment |= {"ZOO_DATA": str(data)} if data else {}
    words = ["tiny", "--out", str(folder), "--weights", str(folder / "zoo"), "--threads", "1", *arguments]
    with (folder / "said.txt").open("w") as out:
        return subprocess.Popen([sys.executable, "-c", code, *words], env=environment, stdout=out, stderr=out)


def said(folder: Path) -> str:
    """All that the last process said."""
    return (folder / "said.txt").read_text()


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def children_of(folder: Path) -> list[int]:
    """Processes that work in a folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if place.readlink() == folder:
                found.append(int(place.parent.name))
        except OSError:
            continue
    return found


def run_cards(folder: Path, model: str) -> list[Card]:
    return [read_card(path) for path in folder.glob(f"runs/train/*/{model}.digits.json")]
