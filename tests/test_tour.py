"""The tour: every step says what it found, and the files are what they are said to be."""

import re
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import zoo

ROOT = Path(__file__).resolve().parents[1]
pytest.importorskip("onnxruntime")


@pytest.fixture
def tour(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return import_module("tour")


@pytest.mark.slow
def test_five_steps(
    tour: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    digits_root: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ZOO_DATA", str(digits_root))
    folder = tmp_path / "tour"
    assert tour.main(["--out", str(folder)]) == 0
    told = capsys.readouterr().out
    assert re.findall(r"^(\d)\. ", told, re.MULTILINE) == ["1", "2", "3", "4", "5"]
    before, after = (float(share) for share in re.findall(r"([\d.]+) % right", told))
    assert after > before + 10
    assert "same class as PyTorch for 100.00 % of 360 images" in told
    network, info = zoo.load_packed(folder / "lenet5.zpk")
    assert (info.model, info.dataset) == ("lenet5", "digits")
    test = zoo.load_dataset("digits", "test", root=digits_root)
    assert zoo.evaluate(network, test).top1 == pytest.approx(after / 100, abs=5e-5)
    assert (folder / "lenet5.zpk").stat().st_size < 247_000 / 30
    assert len(re.findall(r"digit-\d.png: \d, .* % \(it is a \d\)", told)) == tour.SHOWN


def test_a_folder_that_cannot_be_made(tour: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert tour.main(["--out", str(tmp_path / "file" / "tour")]) == 2
    assert "file" in capsys.readouterr().err
