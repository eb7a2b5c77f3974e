"""CIFAR-10 in few bytes: what the table shows is what the results say, and a goal is met or not by its own figures."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import cifar10_files

    return cifar10_files


def result(model: str, **changes: Any) -> dict[str, Any]:
    line = {"model": model, "variant": "small", "file_bytes": 60_000, "correct": 9_160, "total": 10_000}
    return {**line, "dense": {"correct": 9_200, "total": 10_000}, "dense_bytes": 1_200_000, **changes}


def test_a_file_stands_beside_its_dense_weights(script: ModuleType) -> None:
    (row,) = script.files_table([result("resnet20")]).texts
    goal = "at most 66,000 bytes, error at most 8.50 %"
    assert row == ("resnet20", "small", "8.00 %", "60,000", "8.40 %", "20x", goal, "yes")


@pytest.mark.parametrize(
    ("changes", "met"),
    [
        ({"model": "resnet20"}, True),
        ({"model": "resnet20", "file_bytes": 66_000, "correct": 9_150}, True),
        ({"model": "resnet20", "file_bytes": 66_001}, False),
        ({"model": "resnet20", "correct": 9_149}, False),
        ({"model": "squeezenet1_1", "file_bytes": 100_000, "correct": 9_150}, True),
        ({"model": "squeezenet1_1", "file_bytes": 100_001}, False),
        ({"model": "squeezenet1_1", "correct": 9_149}, False),
        ({"model": "vgg11_bn", "file_bytes": 30_000}, True),
        ({"model": "vgg11_bn", "file_bytes": 30_001}, False),
    ],
)
def test_a_goal_is_met_up_to_its_own_figure(script: ModuleType, changes: dict[str, Any], met: bool) -> None:
    (row,) = script.files_table([result(**changes)]).texts
    assert row[-1] == ("yes" if met else "no")


def test_what_aims_at_nothing_meets_nothing(script: ModuleType) -> None:
    (row,) = script.files_table([result("squeezenet1_1", variant="longer")]).texts
    assert row[-2:] == ("", "")


def test_a_wrong_pipeline_is_met_with_the_nearest(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--only", "resnet20.smal"]) == 2
    assert "Did you mean 'resnet20.small'" in capsys.readouterr().err


def test_every_layer_is_treated_and_the_ends_keep_more(script: ModuleType) -> None:
    import zoo
    from zoo.compression import Prune, Quantize, Share
    from zoo.compression.treat import layers_of

    for pipeline in (pipeline for pipeline in script.PIPELINES if pipeline.variant == "small"):
        model = zoo.create_model(pipeline.model, dataset="cifar10")
        first, *inner, last = layers_of(model)
        stages = pipeline.stages(model)
        (bits,) = (stage.bits for stage in stages if isinstance(stage, Quantize | Share))
        assert set(bits) == {first, *inner, last}
        assert min(bits[first], bits[last]) > max(bits[name] for name in inner)
        assert all(list(stage.densities) == inner for stage in stages if isinstance(stage, Prune))
