"""The table and the finding of the Winograd benchmark come from its results alone."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import winograd

    return winograd


def result(subject: str, small: float, large: float, errors: bool = True) -> dict[str, Any]:
    sides = {"plain": 1e-7, "2": 2e-7, "4": 3e-6}
    speed = {tile: {"median": r, "low": r / 2, "high": 2 * r} for tile, r in (("2", small), ("4", large))}
    counts = {"macs": 9_000, "multiplications": {"2": 4_000, "4": 2_250}}
    return {
        "subject": subject,
        **counts,
        "speed": speed,
        "errors": {"float32": sides, "bfloat16": sides} if errors else None,
    }


def test_both_tiles_stand_side_by_side(script: ModuleType) -> None:
    layer, network = script.winograd_table([result("layer", 0.5, 2), result("net", 0.5, 0.25, errors=False)]).texts
    errors = ("1.0e-07", "2.0e-07", "3.0e-06")
    speeds = ("0.50 (0.25 to 1.00)", "2.00 (1.00 to 4.00)")
    assert layer == ("layer", "9.00 k", "2.25x", "4.00x", *errors, *errors, *speeds)
    assert network[4:10] == ("",) * 6


def test_the_finding_follows_the_numbers(script: ModuleType) -> None:
    results = [result("layer", 0.5, 2), result("net", 0.5, 0.25)]
    assert "of 4 measured pairs 1 are faster" in script.finding(results)
    assert "layer with tile 4, takes 0.50 of its time" in script.finding(results)
    assert "of 2 measured pairs 0 are faster" in script.finding(results[1:])


def test_a_tiny_run(script: ModuleType) -> None:
    line = script.of_layer(2, 3, 8, 1, rounds=1)
    assert line["macs"] / line["multiplications"]["2"] == 2.25
    assert line["errors"]["float32"]["4"] < 1e-4 < line["errors"]["bfloat16"]["plain"]
    assert set(line["speed"]) == {"2", "4"}
