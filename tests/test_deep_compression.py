"""Deep Compression's tables: what they show is what the results say, and the committed results keep their promise."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results/deep_compression.jsonl"
PROMISES = (("lenet_300_100", 20_000, 0.016), ("lenet5_caffe", 20_000, 0.008), ("lenet5_caffe", 8_000, 0.010))


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import deep_compression

    return deep_compression


def result(variant: str = "paper", **changes: Any) -> dict[str, Any]:
    layer = {"name": "1.weight", "values": 1000, "nonzero": 80, "index_bytes": 40, "code_bytes": 50, "file_bytes": 100}
    bias = {"name": "1.bias", "values": 10, "nonzero": 10, "file_bytes": 41}
    line = {"model": "lenet_300_100", "variant": variant, "file_bytes": 10_000, "correct": 9850, "total": 10_000}
    return {**line, "dense_bytes": 1_000_000, "receipts": [{"layers": [layer, bias]}], **changes}


def test_their_figure_stands_beside_ours(script: ModuleType) -> None:
    (row,) = script.pipelines_table([result()]).texts
    assert row == ("lenet_300_100", "paper", "10,000", "1.50 %", "100x", "27,000", "1.58 %", "40x")


def test_layers_are_those_of_the_papers_pipeline(script: ModuleType) -> None:
    (row,) = script.weights_table([result(), result("small")]).texts
    assert row == ("lenet_300_100", "1", "1,000", "8.00 %", "8.00 %", "100", "5.00", "4.00", "10.00")


def test_codes_and_positions_stand_apart_where_they_are_known(script: ModuleType) -> None:
    old = result()
    del old["receipts"][0]["layers"][0]["index_bytes"]
    dense = result()
    dense["receipts"][0]["layers"][0] |= {"index_bytes": 0, "code_bytes": 90}
    table = script.weights_table([old, dense])
    assert [row[-3:] for row in table.texts] == [("-", "-", "10.00"), ("9.00", "-", "10.00")]
    assert "before they were told apart" in table.reasons[0]["index_bits"]
    assert "among the weights" in table.reasons[1]["index_bits"]


def test_a_wrong_pipeline_is_met_with_the_nearest(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--only", "lenet5_caffe.smal"]) == 2
    assert "Did you mean 'lenet5_caffe.small'" in capsys.readouterr().err


def test_pipelines_name_layers_that_there_are(script: ModuleType) -> None:
    import zoo
    from zoo.compression import Prune
    from zoo.compression.treat import layers_of

    for pipeline in script.PIPELINES:
        names = list(layers_of(zoo.create_model(pipeline.model, dataset="mnist")))
        cut, coded, *_ = pipeline.stages
        assert list(coded.bits) == names
        if isinstance(cut, Prune):
            assert list(cut.densities) == names
        else:
            assert list(cut.ratios) == names[:-1]  # the outputs stay


@pytest.mark.parametrize(("model", "file_bytes", "error"), PROMISES)
def test_the_committed_results_keep_the_promise(model: str, file_bytes: int, error: float) -> None:
    lines = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    kept = [line for line in lines if line["model"] == model and line["file_bytes"] <= file_bytes]
    assert any(1 - line["correct"] / line["total"] <= error + 1e-9 for line in kept)


def test_the_committed_receipts_add_up() -> None:
    for line in map(json.loads, RESULTS.read_text().splitlines()):
        last = line["receipts"][-1]
        inside = sum(layer["file_bytes"] for layer in last["layers"])
        assert last["bits_after"] == 8 * inside
        assert inside < line["file_bytes"] == last["file_bytes"] < inside + 400
