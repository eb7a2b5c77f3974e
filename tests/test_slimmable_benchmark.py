"""The table, the finding and the picture of a slimmable network come from its lines; it runs, small, on the digits."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import slimmable_networks

ROOT = Path(__file__).resolve().parents[1]
MACS = {"0.25": 12, "0.5": 45, "0.75": 100, "1": 175}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import slimmable

    return slimmable


def results(*correct: int, epochs: int = 8, plain_macs: int = 12) -> list[dict[str, Any]]:
    """A slimmable network that gets 900 of 1,000 right at every width, and others that get so many right."""
    names = ("mobilenetv1_025", "mobilenetv1_050", "mobilenetv1_075", "mobilenetv1_100")
    widths = {
        width: {"correct": 900, "total": 1000, "macs": macs, "plain_macs": macs, "plain_bytes": 7, "identical": True}
        for width, macs in MACS.items()
    }
    widths["0.25"]["plain_macs"] = plain_macs
    between = {"0.375": {"correct": 800, "total": 1000, "macs": 20}}
    one = {"model": "slimmable_mobilenetv1", "epochs": 8, "file_bytes": 600, "widths": widths, "between": between}
    alone = [
        {"model": name, "epochs": epochs, "file_bytes": 200, "correct": found, "total": 1000, "macs": macs}
        for name, found, macs in zip(names, correct, MACS.values(), strict=False)
    ]
    return [one, *alone]


def test_a_row_a_width_beside_the_network_trained_alone(script: ModuleType) -> None:
    (table,) = script.tables(results(905, 920, 890))
    assert table.texts[0] == ("0.25", "90.00 %", "90.50 %", "-0.50", "12", "12", "yes", "7")
    assert table.texts[1][2:4] == ("92.00 %", "-2.00")
    assert table.texts[2][2:4] == ("89.00 %", "+1.00")
    assert table.texts[3] == ("1", "90.00 %", "-", "-", "175", "175", "yes", "7")
    assert table.texts[4] == ("0.375", "80.00 %", "-", "-", "-", "20", "", "-")
    assert all(len(row) == len(table.columns) for row in (*table.values, *table.texts))


def test_the_finding_follows_the_numbers(script: ModuleType) -> None:
    text = script.finding(results(910, 920, 890, 911))
    assert "After 8 epochs 2 of 4 widths" in text
    assert "(the worst, 0.5, by -2.00)" in text
    assert "one file of 600 B stands for 28 B" in text
    assert text.endswith("has the same outputs and costs.")
    assert script.finding(results(900, plain_macs=13)).endswith("differs from it.")
    assert text.count(". ") == 0


@pytest.mark.parametrize("lines", [[], results(), results(900, 900, 900, 900, epochs=9), results(900)[1:]])
def test_what_is_not_comparable_is_not_compared(script: ModuleType, lines: list[dict[str, Any]]) -> None:
    assert script.finding(lines) == "No width has been trained both ways yet."


def test_the_picture_leaves_out_what_is_missing(script: ModuleType) -> None:
    (panel,) = script.picture(results(905, 920)).panels
    assert [line.label for line in panel.lines] == ["one network", "trained alone", "cut out in between"]
    assert panel.lines[1].points == ((12, 90.5), (45, 92.0))
    (panel,) = script.picture(results()).panels
    assert [line.label for line in panel.lines] == ["one network", "cut out in between"]


def test_another_name_is_wrong_use(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--only", "mobilenetv1_100x"]) == 2
    assert "Did you mean 'mobilenetv1_100'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_small_run_is_kept_and_gone_on_with(
    script: ModuleType,
    tmp_path: Path,
    digits_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    slimmable_networks.enter(monkeypatch)
    monkeypatch.setenv("ZOO_DATA", str(digits_root))
    monkeypatch.setattr(script, "SLIMMABLE", slimmable_networks.SLIMMABLE)
    monkeypatch.setattr(script, "ALONE", slimmable_networks.NAMES)
    monkeypatch.setattr(script, "NAMES", (slimmable_networks.SLIMMABLE, "tiny_050"))
    monkeypatch.setattr(script.runs, "_pictures", lambda *_: None)  # seconds a network
    options = ["--dataset", "digits", "--files", str(tmp_path), "--epochs", "1"]
    assert script.main(options) == 0
    lines = [json.loads(text) for text in (tmp_path / "slimmable.jsonl").read_text().splitlines()]
    assert capsys.readouterr().out == script.finding(lines) + "\n"
    one, alone = lines
    assert set(one["widths"]) == set(MACS)
    assert all(found["identical"] and found["macs"] == found["plain_macs"] for found in one["widths"].values())
    assert one["widths"]["0.5"]["macs"] == alone["macs"]
    assert one["between"]["0.375"]["macs"] < one["between"]["0.625"]["macs"] < one["widths"]["0.75"]["macs"]
    assert (tmp_path / "slimmable_tiny" / "slimmable_tiny.digits.cpu.safetensors").stat().st_size == one["file_bytes"]

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("it was trained already")

    monkeypatch.setattr(script.zoo, "fit", fail)
    assert script.main(options) == 0
    again = [json.loads(text) for text in (tmp_path / "slimmable.jsonl").read_text().splitlines()]
    assert [line | {"seconds": 0} for line in again] == [line | {"seconds": 0} for line in lines]
