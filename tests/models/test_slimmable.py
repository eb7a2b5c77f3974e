"""Slimmable layers: shared weights, norms of their own, and widths that are refused."""

import pytest
import torch
from slimmable_networks import build, enter, slimmable

from zoo.errors import RecipeError
from zoo.models.slimmable import Slimmable, SlimmableConv2d, SwitchableBatchNorm2d
from zoo.registry import build as build_registered

IMAGES = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def small_family(monkeypatch: pytest.MonkeyPatch) -> None:
    enter(monkeypatch)


def test_the_registered_one_starts_at_its_widest() -> None:
    model = build_registered("slimmable_mobilenetv1", num_classes=10, in_chans=3, image_size=32)
    assert isinstance(model, Slimmable)
    assert model.widths == (0.25, 0.5, 0.75, 1.0)
    assert model.width == 1.0
    assert model.names[0.25] == "mobilenetv1_025"


def test_its_norms_make_a_mobilenet_a_hundredth_larger() -> None:
    shared, plain = (
        sum(p.numel() for p in build_registered(name, image_size=32, num_classes=10).parameters())
        for name in ("slimmable_mobilenetv1", "mobilenetv1_100")
    )
    assert 1.005 < shared / plain < 1.015


def test_widths_share_the_first_channels() -> None:
    model = slimmable()
    first = model.network.get_submodule("features.0.0")
    assert isinstance(first, SlimmableConv2d)
    model.set_width(0.5)
    before = model(IMAGES)
    with torch.no_grad():
        first.weight[8:] += 1
    assert torch.equal(model(IMAGES), before), "the upper half of the filters is not read"
    with torch.no_grad():
        first.weight[7] += 1
    assert not torch.equal(model(IMAGES), before)


@pytest.mark.parametrize("width", [0.25, 0.5, 0.75, 1.0])
def test_one_width_learns_statistics_of_its_own_alone(width: float) -> None:
    model = slimmable().train()
    norm = model.network.get_submodule("features.1.1")
    assert isinstance(norm, SwitchableBatchNorm2d)
    before = norm.running_mean.clone()
    model.set_width(width)
    model(IMAGES).sum().backward()
    own = torch.zeros(4 + 8 + 12 + 16, dtype=torch.bool)
    own[norm.slices[width]] = True
    assert norm.weight.grad is not None
    assert norm.place(width) == norm.slices[width]
    assert torch.equal(norm.running_mean != before, own)
    assert not norm.weight.grad[~own].any()
    assert bool(norm.weight.grad[own].any())


@pytest.mark.parametrize("width", [0.25, 0.5, 0.75, 1.0])
def test_every_parameter_takes_part_at_every_width(width: float) -> None:
    """Data parallelism waits for a gradient of each."""
    model = slimmable().train()
    model.set_width(width)
    model(IMAGES).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_setting_a_width_and_back_leaves_everything_as_it_was() -> None:
    model = slimmable()
    before = model(IMAGES)
    model.set_width(0.25)
    assert model.width == 0.25
    assert not torch.equal(model(IMAGES), before)
    model.set_width(1.0)
    assert torch.equal(model(IMAGES), before)


@pytest.mark.parametrize("width", [0.3, 0.1, 0.0, -0.5, 1.5, float("nan"), float("inf")])
def test_a_width_without_statistics_is_refused(width: float) -> None:
    model = slimmable()
    with pytest.raises(
        RecipeError, match=r"was given; the network was trained at 0\.25, 0\.5, 0\.75, 1, and .* from 0\.25 to 1"
    ):
        model.set_width(width)
    assert model.width == 1.0


@pytest.mark.parametrize("width", [0.1, 1.5, float("nan")])
def test_training_takes_any_width_in_range_and_no_other(width: float) -> None:
    model = slimmable().train()
    model.set_width(0.3)
    assert model(IMAGES).shape == (4, 10)
    with pytest.raises(RecipeError, match="was given"):
        model.set_width(width)


def test_a_width_in_between_trains_by_the_batch_and_leaves_the_statistics() -> None:
    model = slimmable().train()
    before = {name: tensor.clone() for name, tensor in model.named_buffers()}
    model.set_width(0.6)
    model(IMAGES).sum().backward()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.named_buffers())
    norm = model.network.get_submodule("features.0.1")
    assert isinstance(norm, SwitchableBatchNorm2d)
    assert norm.place(0.6) == slice(4 + 8, 4 + 8 + 9), "the first channels of the next wider"
    with pytest.raises(RecipeError, match=r"width 0\.6 has no statistics; zoo\.dynamic\.extract_width"):
        model.eval()(IMAGES)


def test_the_plain_family_differs_in_channels_alone() -> None:
    assert sum(p.numel() for p in build("tiny_100").parameters()) < sum(p.numel() for p in slimmable().parameters())
