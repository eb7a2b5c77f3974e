"""What is cut out of a slimmable network is the ordinary network of that width, to the last bit."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from slimmable_networks import NAMES, SLIMMABLE, build, enter, slimmable
from torch import nn

import zoo
from zoo import registry
from zoo.compression import Code, compress, load_packed, save_packed
from zoo.compression.stage import Workbench
from zoo.compression.structured import PruneChannels
from zoo.cost import count_macs, measure
from zoo.data import Dataset
from zoo.dynamic import width as module
from zoo.dynamic.width import extract_width
from zoo.errors import CompressionError, RecipeError
from zoo.models.slimmable import Slimmable
from zoo.recipes import Recipe
from zoo.training.objectives import EveryWidth
from zoo.weights import load_weights, save_weights

MOBILENET = "slimmable_mobilenetv1"
WIDTHS = (0.25, 0.5, 0.75, 1.0)


@pytest.fixture(autouse=True)
def small_family(monkeypatch: pytest.MonkeyPatch) -> None:
    enter(monkeypatch)


@pytest.fixture
def mobilenet() -> Slimmable:
    model = build(MOBILENET, (3, 32, 32))
    assert isinstance(model, Slimmable)
    return model


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("width", WIDTHS)
def test_outputs_are_the_same_bit_for_bit(mobilenet: Slimmable, width: float, layout: torch.memory_format) -> None:
    plain = extract_width(mobilenet, width)
    assert mobilenet.width == 1.0
    mobilenet.set_width(width)
    images = torch.randn(2, 3, 32, 32).contiguous(memory_format=layout)
    with torch.no_grad():
        logits = mobilenet(images)
        assert float(logits.std()) > 1e-3, "a network that says nothing proves nothing"
        assert torch.equal(plain(images), logits)


@pytest.mark.parametrize("width", WIDTHS)
def test_costs_are_the_same_to_the_integer(mobilenet: Slimmable, width: float) -> None:
    plain = extract_width(mobilenet, width)
    mobilenet.set_width(width)
    ours, theirs = measure(mobilenet, (3, 32, 32)), measure(plain, (3, 32, 32))
    assert ours.macs == theirs.macs == count_macs(mobilenet, (3, 32, 32))
    assert ours.fvcore_total == theirs.fvcore_total
    assert ours.activations == theirs.activations
    assert ours.peak_activation_bytes == theirs.peak_activation_bytes
    assert ours.params == sum(p.numel() for p in mobilenet.parameters()), "of the whole network"


@pytest.mark.parametrize("width", NAMES)
def test_it_is_the_registered_network_with_weights_of_its_own(width: float) -> None:
    model = slimmable()
    plain = extract_width(model, width)
    assert registry.origin(plain).name == NAMES[width]
    assert not plain.training
    kinds = {type(m) for m in plain.modules() if any(True for _ in m.parameters(recurse=False))}
    assert kinds == {nn.Conv2d, nn.BatchNorm2d, nn.Linear}
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.zero_()
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_a_file_holds_every_width(tmp_path: Path) -> None:
    model = slimmable()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half())  # as the file keeps them
    save_weights(tmp_path / "all.safetensors", model)
    again = registry.build(SLIMMABLE)
    load_weights(again, tmp_path / "all.safetensors")
    assert isinstance(again, Slimmable)
    images = torch.randn(2, 1, 28, 28)
    for width in model.widths:
        save_weights(tmp_path / "one.safetensors", extract_width(again, width))
        plain = registry.build(NAMES[width])
        load_weights(plain, tmp_path / "one.safetensors")
        model.set_width(width)
        again.set_width(width)
        assert torch.equal(again(images), model(images))
        assert torch.equal(plain(images), model(images))


def test_one_in_between_is_a_network_with_fewer_channels_that_a_packed_file_holds(
    tmp_path: Path, digits: tuple[Dataset, Dataset]
) -> None:
    model = slimmable()
    plain = extract_width(model, 0.6, digits[0], batches=1, batch_size=50)
    first, _, last = (plain.get_submodule(f"features.{index}.0") for index in range(3))
    assert isinstance(first, nn.Conv2d)
    assert isinstance(last, nn.Conv2d)
    assert (first.out_channels, last.in_channels, last.out_channels) == (9, 9, 28)
    assert torch.equal(last.weight, model.network.get_submodule("features.2.0").weight[:28, :9])  # type: ignore[index]
    assert registry.origin(plain).name == "tiny_100"
    save_packed(tmp_path / "between.zpk", compress(plain, [Code()]))
    again, _ = load_packed(tmp_path / "between.zpk")
    images = torch.randn(2, 1, 28, 28)
    assert again(images).shape == (2, 10)
    assert sum(p.numel() for p in again.parameters()) == sum(p.numel() for p in plain.parameters())


@pytest.mark.parametrize("sandwich", [False, True])
def test_statistics_measured_anew_help_widths_in_between(
    digits: tuple[Dataset, Dataset], monkeypatch: pytest.MonkeyPatch, sandwich: bool
) -> None:
    train, test = digits[0].subset(torch.arange(640)), digits[1].subset(torch.arange(200))
    model = slimmable()
    recipe = Recipe("few", epochs=6, batch_size=32, optimizer="adamw", lr=0.03, ema_decay=0.8)
    zoo.fit(model, train, None, recipe, objective=EveryWidth(sandwich=sandwich), device="cpu")
    between = (0.3, 0.55, 0.8)
    measured = [zoo.evaluate(extract_width(model, width, train), test) for width in between]
    monkeypatch.setattr(module, "re_estimate_batch_norm", lambda *_, **__: [])
    borrowed = [zoo.evaluate(extract_width(model, width, train), test) for width in between]
    assert all(one.loss < other.loss for one, other in zip(measured, borrowed, strict=True))
    assert sum(found.correct for found in measured) > 1.1 * sum(found.correct for found in borrowed)


@pytest.mark.parametrize("width", [0.1, 0.0, 1.01, float("nan"), float("inf")])
def test_a_width_out_of_range_is_refused(width: float, digits: tuple[Dataset, Dataset]) -> None:
    with pytest.raises(RecipeError, match=r"was given; any from 0\.25 to 1 is allowed\.$"):
        extract_width(slimmable(), width, digits[0])


def test_one_in_between_needs_images() -> None:
    with pytest.raises(
        RecipeError, match=r"^width 0\.3 is none of 0\.25, 0\.5, 0\.75, 1, which have statistics; give train"
    ):
        extract_width(slimmable(), 0.3)


def test_only_a_slimmable_network_has_widths() -> None:
    with pytest.raises(RecipeError, match=r"^a Tiny has one width; give a slimmable network\.$"):
        extract_width(build("tiny_100"), 0.5)


def test_a_copy_keeps_its_width() -> None:
    model = slimmable()
    model.set_width(0.5)
    images = torch.randn(2, 1, 28, 28)
    copied = deepcopy(model)
    assert copied.width == 0.5
    assert torch.equal(copied(images), model(images))


def test_structured_pruning_says_that_it_cannot() -> None:
    with pytest.raises(CompressionError, match=r"^a slimmable network .* zoo\.dynamic\.extract_width"):
        PruneChannels(0.5).apply(slimmable(), Workbench())
