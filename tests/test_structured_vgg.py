"""VGG-11 with channels removed: the table's rows, and what each method leaves of the network."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

import zoo
from zoo.cost import count_macs

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import structured_vgg

    return structured_vgg


def result(variant: str) -> dict[str, Any]:
    dense = {"correct": 9_100, "total": 10_000, "params": 9_000_000, "macs": 150_000_000}
    speed = {batch: {"median": 3.0, "low": 2.5, "high": 3.5} for batch in ("1", "128")}
    small = {"params": 1_350_000, "macs": 50_000_000, "correct": 9_080, "total": 10_000}
    return {"variant": variant, "dense": dense, "speed": speed, **small}


def test_rows_stand_under_the_dense_network(script: ModuleType) -> None:
    dense, row, scratch = script.structured_table([result("scratch"), result("filters")]).texts
    assert dense[:6] == ("dense", "9.00 M", "", "150 M", "", "9.00 %")
    speed = "3.00 (2.50 to 3.50)"
    assert row[:9] == ("filters", "1.35 M", "85.00 %", "50.0 M", "66.67 %", "9.20 %", "0.20", speed, speed)
    assert row[9] == "VGG-16: params -64.00 %, FLOPs -34.20 %, error 6.75 % to 6.60 %"
    assert (scratch[0], scratch[-1]) == ("scratch", "")


def test_a_wrong_method_is_met_with_the_nearest(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--only", "filter"]) == 2
    assert "Did you mean 'filters'" in capsys.readouterr().err


@pytest.mark.slow
def test_the_cut_takes_most_parameters_and_new_weights_keep_the_shape(script: ModuleType) -> None:
    dense = zoo.create_model("vgg11_bn", dataset="cifar10")
    cut, new = script.stages("scratch", dense, 1)[:2]
    work = script.Workbench()
    small = cut.apply(dense, work).model
    kept = sum(p.numel() for p in small.parameters()) / sum(p.numel() for p in dense.parameters())
    assert kept < 0.2
    assert count_macs(small, (3, 32, 32)) < 0.55 * count_macs(dense, (3, 32, 32))
    fresh = new.apply(small, work).model
    pairs = list(zip(small.parameters(), fresh.parameters(), strict=True))
    assert all(a.shape == b.shape for a, b in pairs)
    assert not any(torch.equal(a, b) for a, b in pairs if a.ndim > 1)
    assert all(
        torch.equal(m.weight, torch.ones_like(m.weight)) for m in fresh.modules() if isinstance(m, nn.BatchNorm2d)
    )
    again = new.apply(small, work).model
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), again.parameters(), strict=True))
