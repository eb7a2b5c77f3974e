"""The table and the finding of the benchmark of whole numbers come from its results alone."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from zoo.interop.calibration import Calibration
from zoo.trained import load_trained

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import int8

    return int8


def result(subject: str, right: int, small_bytes: int, *ratios: tuple[float, float, float]) -> dict[str, Any]:
    speed = {str(b): dict(zip(("median", "low", "high"), r, strict=True)) for b, r in zip((1, 16), ratios, strict=True)}
    return {
        "subject": subject,
        "total": 1000,
        "correct": {"float32": 900, "int8": right},
        "file_bytes": {"float32": 4000, "int8": small_bytes},
        "speed": speed,
    }


def test_a_slower_network_is_called_slower(script: ModuleType) -> None:
    fast, slow = (2.0, 1.9, 2.1), (0.5, 0.4, 0.6)
    table = script.int8_table(
        [
            result("a", 899, 1000, fast, fast),
            result("b", 900, 1000, slow, slow),
            result("c", 901, 1000, fast, (1, 0.9, 1.2)),
        ]
    )
    assert [row[-1] for row in table.texts] == ["faster", "slower", "faster at batch 1, tied at batch 16"]
    assert [row[3] for row in table.texts] == ["0.10", "0.00", "-0.10"]
    assert table.texts[0][6:8] == ("4.00x", "2.00 (1.90 to 2.10)")


def test_the_finding_follows_the_numbers(script: ModuleType) -> None:
    speeds = ((1, 1, 1), (1, 1, 1))
    met = script.finding([result("a", 895, 1100, *speeds), result("b", 900, 1000, *speeds)])
    assert "`a`, loses 0.50 points" in met
    assert "`a`, is 3.64 times smaller" in met
    assert met.endswith("is met.")
    assert script.finding([result("a", 894, 1000, *speeds)]).endswith("is not met.")
    assert script.finding([result("a", 900, 1200, *speeds)]).endswith("is not met.")


@pytest.mark.slow
def test_a_tiny_run(script: ModuleType, data_root: Path) -> None:
    line = script.of_network(load_trained("lenet5", "mnist"), 2, calibration=Calibration(60, 40), images=200)
    assert line["total"] == 200
    assert line["file_bytes"]["float32"] / line["file_bytes"]["int8"] > 3.5
    assert set(line["speed"]) == {"1", "16"}
    assert script.int8_table([{"subject": "lenet5.mnist", **line}]).values[0][0] == "lenet5.mnist"
