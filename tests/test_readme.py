"""What the README says is run: its Python blocks, and every `zoo` command that needs no hour."""

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from zoo.cli import app
from zoo.train_cli import _parse

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
SHELL = [
    line.partition("  #")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]
TRAINING = [line for line in SHELL if "train" in shlex.split(line)[:2]]
ZOO = [line for line in SHELL if line.startswith("zoo ") and line not in TRAINING]
COMPRESSING = [line for line in ZOO if line.startswith("zoo compress ")]


@pytest.mark.slow
def test_python_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits_root: Path) -> None:
    """In order, in one namespace, as a reader would paste them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZOO_DATA", str(digits_root))
    assert len(PYTHON) >= 4
    namespace: dict[str, object] = {}
    for block in PYTHON:
        exec(compile(block, "README.md", "exec"), namespace)
    logits = namespace["logits"]
    assert tuple(logits.shape) == (1, 10)  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize("line", COMPRESSING)
@pytest.mark.usefixtures("data_root")
def test_zoo_compress(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, shlex.split(line)[1:])
    assert result.exit_code == 0, result.output
    assert len(list(tmp_path.glob("runs/compress/1-*/*.zpk"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in ZOO if line not in COMPRESSING])
def test_zoo_commands(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name in ("photo.jpg", "photos/first.png", "digit.png"):
        Image.new("RGB", (300, 200), "teal").save(name)
    result = CliRunner().invoke(app, shlex.split(line)[1:])
    assert result.exit_code == 0, result.output
    assert result.stdout.strip()


@pytest.mark.parametrize("line", [line for line in TRAINING if "torchrun" not in line])
def test_train_commands_are_understood(line: str) -> None:
    words = shlex.split(line)
    given = _parse(words[2:])
    assert given.keys() & {"model", "resume"}


@pytest.mark.slow
def test_the_short_training_of_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from zoo.train_cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZOO_DATA", str(digits_root))
    line = next(line for line in TRAINING if "digits" in line)
    assert main(shlex.split(line)[2:]) == 0
    assert "measured on lenet5.digits.safetensors" in capsys.readouterr().err
    assert (tmp_path / "runs/train/1-lenet5-digits/lenet5.digits.json").exists()
