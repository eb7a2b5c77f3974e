"""Batch-norm statistics measured anew."""

from typing import Any

import pytest
import torch
from small_networks import network, workbench
from torch import nn

from zoo.compression.calibrate import Calibrate, re_estimate_batch_norm, sample_batches
from zoo.compression.stage import Workbench
from zoo.data import Dataset, normalize
from zoo.registry import build


def test_the_statistics_are_averages_over_batches(digits: tuple[Dataset, Dataset]) -> None:
    """One norm directly on the images: its mean is theirs, its variance the mean of the batches' unbiased ones."""
    train = workbench(digits).need_train("a test")
    model = nn.Sequential(nn.BatchNorm2d(1, momentum=0.3)).eval()
    norm: Any = model[0]
    norm.running_mean.fill_(7)
    norm.num_batches_tracked.fill_(5)
    assert re_estimate_batch_norm(model, train, batches=4, batch_size=128) == ["0"]
    images_NCHW = normalize(train.images, train.mean, train.std)
    assert float(norm.running_mean) == pytest.approx(float(images_NCHW.mean()), abs=1e-5)
    batches = list(sample_batches(train, 4, 128, 0, torch.device("cpu")))
    assert float(norm.running_var) == pytest.approx(sum(float(b.var()) for b in batches) / 4, rel=1e-5)
    assert (norm.momentum, int(norm.num_batches_tracked), norm.training) == (0.3, 5, False)


def test_modes_are_restored_and_dropout_is_off(digits: tuple[Dataset, Dataset]) -> None:
    train = workbench(digits).need_train("a test")
    model = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm2d(1), nn.BatchNorm2d(1, track_running_stats=False)).train()
    model[1].eval()
    assert re_estimate_batch_norm(model, train, batches=2) == ["1"]
    assert [m.training for m in model.modules()] == [True, True, False, True]
    without: Any = nn.Sequential(nn.BatchNorm2d(1))
    re_estimate_batch_norm(without, train, batches=2)
    assert torch.equal(without[0].running_var, model[1].running_var)


def test_norms_of_exits_are_measured_too(digits: tuple[Dataset, Dataset]) -> None:
    model = build("branchy_lenet5")
    norm: Any = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    assert len(re_estimate_batch_norm(model, digits[0], batches=2)) == 1
    assert float((norm.running_var - 1).abs().max()) > 0.01, "they are not what they were set back to"


def test_the_stage_mends_a_model_and_leaves_the_given_one(digits: tuple[Dataset, Dataset]) -> None:
    work = workbench(digits)
    model: Any = network()
    result = Calibrate(batches=2, batch_size=100).apply(model, work)
    assert list(result.layers) == ["1", "4"]
    assert result.layers["1"] == "statistics of up to 2 batches of 100"
    assert model[1].running_var.tolist() == [1.0] * 16
    mended: Any = result.model
    images_NCHW = next(sample_batches(work.need_train("a test"), 1, 512, 0, torch.device("cpu")))
    features_NCHW = mended[:2](images_NCHW).detach()
    assert float(features_NCHW.mean((0, 2, 3)).abs().max()) < 0.1
    assert torch.allclose(features_NCHW.var((0, 2, 3)), torch.ones(16), atol=0.2)


def test_a_model_without_batch_norm_is_left_as_it_is_and_named(digits: tuple[Dataset, Dataset]) -> None:
    treated = Calibrate().apply(nn.Linear(2, 2), workbench(digits))
    assert treated.layers == {}
    assert treated.untreated == {"the model": "has no batch norm with running statistics"}


def test_batches_are_full_and_drawn_once(digits: tuple[Dataset, Dataset]) -> None:
    train = workbench(digits).need_train("a test")
    sizes = [len(batch) for batch in sample_batches(train, 99, 100, 0, torch.device("cpu"))]
    assert sizes == [100] * 5
    assert [len(b) for b in sample_batches(train, 2, 10_000, 0, torch.device("cpu"))] == [512]
    assert Workbench().train is None
