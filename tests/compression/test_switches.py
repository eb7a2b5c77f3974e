"""Learned switches: what they multiply, what they cost, and that what is off is gone."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from structured_networks import IMAGE, NETWORKS, Residual, roughened
from torch import nn

from zoo import registry
from zoo.compression import Code, LearnSwitches, Prune, compress, load_packed, save_packed
from zoo.compression.forms import materialise
from zoo.compression.stage import Workbench
from zoo.compression.structured import dependency_graph
from zoo.compression.switches import (
    Switches,
    SwitchPenalty,
    add_switches,
    last_makers,
    switchable,
    without_off,
)
from zoo.data import Dataset
from zoo.errors import CompressionError
from zoo.evaluation import evaluate
from zoo.recipes import get_recipe
from zoo.training import fit
from zoo.training.objectives import Objective

Digits = tuple[Dataset, Dataset]
RECIPE = replace(get_recipe("smoke"), optimizer="adamw", lr=0.02, epochs=1, ema_decay=0.9, weight_decay=0.0)
MODELS = ("lenet5", "resnet20", "mobilenetv2_050", "squeezenet1_1")


def switched(model: nn.Module, image: tuple[int, int, int], blocks: list[str]) -> tuple[nn.Module, Any, Any, Switches]:
    """(a copy with switches, the graph, places of switches by class of channels, the switches)."""
    copy = deepcopy(model)
    graph = dependency_graph(copy, image)
    places, _ = switchable(copy, graph)
    return copy, graph, places, add_switches(copy, graph, last_makers(copy, graph), places, blocks)


def network(kind: Any) -> tuple[nn.Module, tuple[int, int, int]]:
    torch.manual_seed(0)
    if isinstance(kind, str):
        size = 28 if kind == "lenet5" else 32
        model = registry.build(kind, image_size=size)
        return roughened(model), registry.origin(model).image
    return roughened(kind()), IMAGE


@pytest.fixture(scope="module")
def trained(digits: Digits) -> nn.Module:
    torch.manual_seed(0)
    model = registry.build("lenet5", num_classes=10, in_chans=1, image_size=28)
    fit(model, digits[0], None, replace(RECIPE, lr=0.002, epochs=8), device="cpu")
    return model


@pytest.mark.parametrize("kind", [*NETWORKS, *MODELS])
def test_all_begin_on_and_change_nothing(kind: Any) -> None:
    model, image = network(kind)
    copy, graph, places, switches = switched(model, image, [])
    images_NCHW = torch.randn(2, *image, dtype=torch.float64)
    assert torch.equal(copy(images_NCHW), model(images_NCHW))
    assert len(places) == len(switches.values) == sum(len(family.channels) for family in graph.families)


@pytest.mark.parametrize("kind", [*NETWORKS, *MODELS])
def test_what_is_off_can_be_removed_and_what_is_between_is_multiplied_in(kind: Any) -> None:
    model, image = network(kind)
    copy, graph, places, switches = switched(model, image, [])
    with torch.no_grad():
        switches.values[::3] = 0
        switches.values[1::3] = 0.75
    for family in graph.families:  # as `without_off` keeps the best, so that none is kept that is off
        with torch.no_grad():
            switches.values[places[family.channels[0]]] = 1
    images_NCHW = torch.randn(2, *image, dtype=torch.float64)
    expected = copy(images_NCHW)
    found = {channel: switches().tolist()[place] for channel, place in places.items()}
    small, kept = without_off(materialise(copy), graph, found)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    assert kept.keys() == {name for family in graph.families for name in family.layers}
    torch.testing.assert_close(small(images_NCHW), expected, rtol=1e-6, atol=1e-6)
    assert not torch.allclose(expected, model(images_NCHW), rtol=1e-3)


def test_a_batch_norm_is_switched_and_not_the_convolution_before_it() -> None:
    """In training the norm would undo a switch on what it reads."""
    model, image = network("resnet20")
    makers = last_makers(model, dependency_graph(model, image))
    norms = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert sorted(makers) == sorted([*norms, "classifier"])


def test_a_block_is_mixed_with_its_input() -> None:
    model, image = network("resnet20")
    copy, _, places, switches = switched(model, image, ["stages.0.1", "stages.2.2"])
    images_NCHW = torch.randn(2, *image, dtype=torch.float64)
    assert torch.equal(copy(images_NCHW), model(images_NCHW))
    assert switches.prices[len(places) :].tolist() == [16, 64]
    with torch.no_grad():
        switches.values[len(places)] = 0
    without = deepcopy(model)
    without.stages[0][1] = nn.Identity()
    torch.testing.assert_close(copy(images_NCHW), without(images_NCHW))


def test_the_penalty_is_a_price_and_a_pull_to_either_end() -> None:
    class Nothing(Objective):
        def forward(self, model: nn.Module, images_NCHW: Any, targets: Any) -> torch.Tensor:
            return torch.ones(())

    switches = Switches(torch.tensor([1.0, 3.0]))
    with torch.no_grad():
        switches.values[1] = 0.25
    loss = SwitchPenalty(0.1, 0.2, Nothing())(nn.Sequential(switches, switches), ..., ...)  # type: ignore[arg-type]
    assert float(loss.detach()) == pytest.approx(1 + 0.1 + 3 * (0.1 * 0.25 + 0.2 * 0.25 * 0.75))
    loss.backward()
    assert switches.values.grad is not None
    assert switches.values.grad.tolist() == pytest.approx([0.1 - 0.2, 3 * (0.1 + 0.2 * 0.5)])


def test_values_are_kept_from_0_to_1() -> None:
    switches = Switches(torch.ones(3))
    with torch.no_grad():
        switches.values.copy_(torch.tensor([-1.0, 0.5, 2.0]))
    assert switches().tolist() == [0, 0.5, 1, 1]
    switches.project()
    assert switches.values.tolist() == [0, 0.5, 1]


@pytest.mark.slow
def test_switches_are_learned_and_a_smaller_network_is_packed(
    trained: nn.Module, digits: Digits, tmp_path: Path
) -> None:
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    stages = [LearnSwitches(epochs=10, linear=0.002, bimodal=0.01, lr=0.01), Code()]
    packed = compress(trained, stages, dataset="digits", train=digits[0], valid=digits[1], recipe=RECIPE, device="cpu")
    assert all(torch.equal(tensor, before[name]) for name, tensor in trained.state_dict().items())
    save_packed(tmp_path / "x.zpk", packed)
    small, _ = load_packed(tmp_path / "x.zpk")
    assert packed.receipts[-1].params < 0.6 * sum(p.numel() for p in trained.parameters())
    assert evaluate(small, digits[1]).top1 > evaluate(trained, digits[1]).top1 - 0.05
    notes = {layer.name: layer.note for layer in packed.receipts[0].layers if layer.note}
    assert notes.keys() == {"0.weight", "3.weight", "7.weight", "9.weight"}
    assert notes["7.weight"] == f"kept {small[7].out_features} of 120 channels"


def test_a_price_too_high_leaves_one_channel_of_each_family(trained: nn.Module, digits: Digits) -> None:
    work = Workbench(digits[0], None, replace(RECIPE, lr=0.1), device="cpu")
    treated = LearnSwitches(epochs=2, linear=1, bimodal=0).apply(trained, work)
    assert treated.layers == {
        name: f"kept 1 of {count} channels" for name, count in (("0", 6), ("3", 16), ("7", 120), ("9", 84))
    }
    assert torch.isfinite(treated.model(torch.zeros(1, 1, 28, 28))).all()


@pytest.mark.slow
def test_blocks_learn_to_go(digits: Digits) -> None:
    torch.manual_seed(0)
    model = registry.build("resnet20", num_classes=10, in_chans=1, image_size=28)
    work = Workbench(digits[0].subset(range(384)), None, replace(RECIPE, lr=0.15), device="cpu")
    treated = LearnSwitches(epochs=2, linear=0.5, bimodal=0).apply(model, work)
    told = {name: words.partition(";")[0] for name, words in treated.layers.items() if "switch" in words}
    assert told.keys() == {f"stages.{name}" for name in ("0.0", "0.1", "0.2", "1.1", "1.2", "2.1", "2.2")}
    assert "removed" in told.values()
    for name, words in told.items():
        assert isinstance(treated.model.get_submodule(name), nn.Identity) == (words == "removed")
    assert torch.isfinite(treated.model(torch.zeros(1, 1, 28, 28))).all()
    plain = LearnSwitches(epochs=1, linear=0.0, bimodal=0.0, blocks=False).apply(model, work)
    assert not [name for name in plain.layers if name in told]


class Named(nn.Module):
    """A residual block that its network asks for a number."""

    scale = 2.0

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Conv2d(1, 3, 1), nn.Conv2d(3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.outer(self.inner(x).relu()) + x


class Asking(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block, self.head = Named(), nn.Linear(784, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head((self.block.scale * self.block(x)).flatten(1))


def test_a_block_that_cannot_go_is_told(digits: Digits) -> None:
    work = Workbench(digits[0].subset(range(128)), None, RECIPE, device="cpu")
    treated = LearnSwitches(epochs=1).apply(Asking(), work)
    assert treated.untreated == {"block": "its input cannot stand for its output"}
    assert treated.layers.keys() == {"block.inner"}


def test_a_seed_decides_and_pruned_weights_stay_zero(trained: nn.Module, digits: Digits) -> None:
    work = Workbench(digits[0].subset(range(640)), None, RECIPE, device="cpu")
    sparse = Prune(densities={"3": 0.3}).apply(trained, work).model
    stage = LearnSwitches(epochs=2, linear=0.02, bimodal=0.02)
    torch.manual_seed(1)
    one = stage.apply(sparse, work).model
    torch.manual_seed(2)
    other = stage.apply(sparse, work).model
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    weight = one[3].weight
    assert isinstance(weight, torch.Tensor)
    assert 0.5 < float((weight == 0).float().mean()) < 0.8
    zeros = (weight == 0).clone()
    work.fine_tune(one, RECIPE)
    assert bool((one[3].weight[zeros] == 0).all())


def test_channels_behind_a_norm_without_scales_are_told(digits: Digits) -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, affine=False), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 10),
    )  # fmt: skip
    work = Workbench(digits[0].subset(range(128)), None, RECIPE, device="cpu")
    treated = LearnSwitches(epochs=1).apply(model, work)
    assert treated.layers.keys() == {"3"}
    assert treated.untreated["0"] == "a batch norm without trained scales would undo its switches"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: LearnSwitches(epochs=0), "epochs=0 was given; a whole number from 1"),
        (lambda: LearnSwitches(linear=-1), "linear=-1 was given; a number from 0"),
        (lambda: LearnSwitches(bimodal=float("nan")), "bimodal=nan was given; a number from 0"),
        (lambda: LearnSwitches().apply(registry.build("lenet5"), Workbench()), "fine-tuning needs a recipe"),
        (lambda: LearnSwitches().apply(registry.build("lenet5"), Workbench(recipe=RECIPE)), "fine-tuning needs images"),
        (lambda: LearnSwitches().apply(Residual(), Workbench()), "size of image"),
        (
            lambda: LearnSwitches().apply(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), Workbench(_blank())),
            "nothing to treat: the model: it has no channels that could go",
        ),
    ],
)
def test_what_cannot_be_done_is_one_clear_sentence(make: Any, said: str) -> None:
    with pytest.raises(CompressionError, match=said) as caught:
        make()
    assert "\n" not in str(caught.value)


def _blank() -> Dataset:
    images, labels = torch.zeros(4, 1, 28, 28, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)
    return Dataset("x", "train", images, labels, tuple("0123456789"), (0.5,), (0.5,), "", mirrored=False)
