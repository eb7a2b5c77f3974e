"""The table and the finding of the benchmark of plain C come from its results alone."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from interop.exported_networks import network_of

from zoo.data import Dataset
from zoo.interop.calibration import Calibration
from zoo.interop.plain_c import compiler

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import plain_c

    return plain_c


def result(model: str, **changed: int) -> dict[str, Any]:
    counts = {"images": 100, "logits": 1000, "wrong_logits": 0, "sanitized_images": 20, "correct": 90}
    sizes = {"code_bytes": 3000, "table_bytes": 900, "weight_bytes": 61470, "predicted_weight_bytes": 61470}
    memory = {"ram_bytes": 5880, "predicted_ram_bytes": 5880, "stack_bytes": 1100, "int8_correct": 89}
    return {"model": model, "dataset": "mnist", **counts, **sizes, **memory} | changed


def test_what_was_found_stands_beside_what_was_predicted(script: ModuleType) -> None:
    (row,) = script.plain_c_table([result("lenet5")]).texts
    sizes = ("3,000", "900", "61,470", "61,470", "5,880", "5,880", "1,100")
    assert row == ("lenet5, mnist", "0 of 1,000", "20", *sizes, "89.00 %", "90.00 %")


def test_the_finding_follows_the_numbers(script: ModuleType) -> None:
    said = script.finding([result("lenet5"), result("nin", wrong_logits=3, weight_bytes=1, ram_bytes=5292, correct=94)])
    assert "Of 2,000 logits 3 differ" in said
    assert "for 1 of 2" in said
    assert "RAM is within 10.00 %" in said
    assert "lost by int8 is 5.00 points" in said


@pytest.mark.slow
@pytest.mark.skipif(compiler() is None, reason="there is no C compiler ($CC, or else cc)")
def test_a_small_run(script: ModuleType, digits: tuple[Dataset, Dataset]) -> None:
    train, test = digits[0], digits[1].subset(range(50))
    model = network_of("lenet5", train.image[1], in_chans=1)
    line = script.of_network(model, train, test, calibration=Calibration(40, 20, ("largest",)), sanitized=10)
    assert (line["logits"], line["wrong_logits"], line["sanitized_wrong_logits"]) == (500, 0, 0)
    assert line["weight_bytes"] == line["predicted_weight_bytes"]
    assert line["ram_bytes"] == line["predicted_ram_bytes"]
    assert 0 < line["code_bytes"] < 20_000
    assert 0 < line["stack_bytes"] < 2048
