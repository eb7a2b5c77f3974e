"""The latency benchmark: tables, finding and picture come from the rounds alone, and from those in the repository."""

import dataclasses
import json
import statistics
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import latency

    return latency


def line(model: str, macs: int, factor: float, run: int = 1, engine: str = "eager", **fields: Any) -> dict[str, Any]:
    """A network that takes so many times as long as the reference, in ten rounds of which the last are slow."""
    rounds = [factor * slow for slow in (1, 1, 1, 1, 1, 1, 1, 2, 3, 9)]
    return {
        "part": "models",
        "run": run,
        "model": model,
        "engine": engine,
        "batch": 1,
        "macs": macs,
        "milliseconds": statistics.median(rounds),
        "ratio": factor,
        "ratio_low": factor * 0.99,
        "ratio_high": factor * 1.01,
        "verdict": "slower" if factor > 1 else "tied" if factor == 1 else "faster",
        "rounds": rounds,
        "others": 0.0,
        "busy": False,
        "device": "a processor",
        "versions": {"torch": "2.0"},
    } | fields


@pytest.fixture
def results() -> list[dict[str, Any]]:
    """Five networks, of which mobilenetv1_025 has the fewest MACs and the third place by time."""
    first = [
        line("mobilenetv1_025", 10, 3.0),
        line("lenet5", 20, 0.5),
        line("resnet20", 30, 1.0),
        line("vgg11", 40, 4.0),
        line("vgg13", 40, 5.0),
        line("resnet20 (again)", 30, 1.0),
    ]
    return first + [entry | {"run": 2, "ratio": entry["ratio"] * 1.02} for entry in first]


def test_places_are_shared_by_equals(script: ModuleType) -> None:
    assert script.places([3.0, 1.0, 3.0, 9.0]) == [2.5, 1, 2.5, 4]


def test_the_correlation_is_spearmans(script: ModuleType, results: list[dict[str, Any]]) -> None:
    first, _ = script.runs_of(results)
    by_macs, by_time = (1, 2, 3, 4.5, 4.5), (3, 1, 2, 4, 5)
    assert [script.ranked(first)[name] for name in first if name != script.AGAIN] == list(
        zip(by_macs, by_time, strict=True)
    )
    assert script.correlation(first) == pytest.approx(0.667, abs=1e-3)  # worked out by hand: 6.5 / sqrt(9.5 * 10)
    assert script.misjudged(first)[0] == "mobilenetv1_025"


def test_pairs_are_told_apart_by_the_rounds(script: ModuleType, results: list[dict[str, Any]]) -> None:
    first, second = script.runs_of(results)
    found = script.orders(first, second)
    assert found == {"pairs": 15, "tied": 1, "same": 14, "told": 9, "fewer_slower": 2}
    swapped = second | {"vgg13": second["vgg11"], "vgg11": second["vgg13"]}
    assert script.orders(first, swapped)["same"] == 13
    blurred = second | {"vgg13": second["vgg13"] | {"rounds": [4, 4, 4, 4, 4, 5, 5, 5, 5, 5]}}
    assert script.orders(first, blurred)["tied"] > 1
    assert script.differences(first, second) == pytest.approx([0.02] * 5)


def test_the_finding_and_the_tables(script: ModuleType, results: list[dict[str, Any]]) -> None:
    text = script.finding(results)
    assert "MACs order 5 networks much as their time does (Spearman's correlation 0.67)" in text
    assert "of the 9 pairs that can be told apart 22% have the one with fewer MACs slower" in text
    assert "the farthest from its place: `mobilenetv1_025` (1 by MACs, 3 by time)" in text
    assert "of 15 pairs 1 are tied in one or both, and of the other 14 14 have the same order in both" in text
    assert "differ by 2.0% at the median" in text
    (table,) = script.tables(results)
    assert table.texts[0][:2] == ("mobilenetv1_025", "10")
    assert table.texts[0][-2:] == ("1", "3")
    assert table.texts[0][3] == "3 (2.97 to 3.03)"
    assert [row[0] for row in table.texts][2:4] == ["resnet20", "resnet20 (again)"]
    labels = [mark.label for mark in script.picture(results).panels[0].lines]
    assert "mobilenetv1_025" in labels
    assert script.AGAIN not in labels


def test_the_engines_side_by_side(script: ModuleType, results: list[dict[str, Any]]) -> None:
    factors = dict(zip(script.ENGINES, (8.0, 4.0, 2.0, 1.0), strict=True))
    engines = [
        line("resnet20", 30, 16 * factor, engine=engine, part="engines", batch=16) for engine, factor in factors.items()
    ]
    _, table = script.tables([*results, *engines])
    assert table.texts == (("resnet20", "16", "8", "4", "2", "1", "2.00 (2.00 to 2.00)"),)


def test_a_tiny_run(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits_root: Path) -> None:
    monkeypatch.setattr(script.zoo, "list_models", lambda: ["lenet5", "branchy_lenet5"])
    monkeypatch.setattr(script, "REFERENCE", "lenet5")
    monkeypatch.setattr(script, "RUNS", (1,))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    out = tmp_path / "out.jsonl"
    assert script.main(["--part", "models", "--dataset", "digits", "--rounds", "8", "--out", str(out)]) == 0
    found = [json.loads(entry) for entry in out.read_text().splitlines()]
    assert [entry["model"] for entry in found] == ["lenet5", "lenet5 (again)"]
    assert all(entry["run"] == 1 and len(entry["rounds"]) == 8 for entry in found)


def test_wrong_use(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--part", "model"]) == 2
    assert "no part is called 'model'. Did you mean 'models'" in capsys.readouterr().err


def test_what_the_repository_holds_keeps_what_was_asked_of_it(script: ModuleType) -> None:
    """Two runs in the same order, ratios within 7 % at the median, and a model tied with itself."""
    found = [json.loads(entry) for entry in (ROOT / script.EXPERIMENT.results).read_text().splitlines()]
    first, second = script.runs_of(found)
    counts = script.orders(first, second)
    assert counts["same"] == counts["pairs"] - counts["tied"] > 400
    assert statistics.median(script.differences(first, second)) < 0.07
    for run in (first, second):
        assert run[script.AGAIN]["verdict"] == "tied"
        for entry in run.values():
            again = script.interval(entry, run[script.REFERENCE])
            fields = (entry["ratio"], entry["ratio_low"], entry["ratio_high"])
            assert dataclasses.astuple(again) == pytest.approx(fields, rel=1e-3)
