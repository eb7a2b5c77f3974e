"""Structured pruning over every registered network and over those of other libraries."""

from copy import deepcopy
from functools import cache

import pytest
import torch
from structured_networks import part, roughened, silenced
from torch import nn
from torch.nn.functional import cross_entropy

from zoo import registry
from zoo.compression.stage import Workbench
from zoo.compression.structured import Graph, PruneChannels, dependency_graph, shrink
from zoo.compression.structured.blocks import droppable
from zoo.cost import count_macs, measure

Size = tuple[int, int, int]
COLOUR, GREY = (3, 32, 32), (1, 28, 28)
QUICK = ("lenet_300_100", "lenet5", "lenet5_caffe", "mobilenetv1_025", "resnet20")
OTHERS = (
    "timm/resnet18",
    "timm/mobilenetv3_small_100",
    "timm/densenet121",
    "timm/regnety_002",
    "timm/convnext_atto",
    "torchvision/shufflenet_v2_x0_5",
    "torchvision/mnasnet0_5",
)
# Channels that meet activations of one bit in ways that pin them, or that layers of several widths share.
PINNED = ("xnor_", "slimmable_")
RATIOS = (0.25, 0.5, 0.75)


def _slow(name: str) -> object:
    return pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)


REGISTERED = [_slow(name) for name in registry.architectures()]
EVERY = [*REGISTERED, *map(_slow, OTHERS)]
FAMILIES = {found.family: name for name, found in reversed(registry.architectures().items())}  # the first of each
DIFFERENT = [*FAMILIES.values(), *OTHERS]


@cache
def _built(name: str, image: Size) -> tuple[nn.Module, Graph]:
    torch.manual_seed(0)
    library, _, rest = name.rpartition("/")
    if library == "timm":
        import timm

        model = timm.create_model(rest, num_classes=10)
    elif library == "torchvision":
        from torchvision.models import get_model

        model = get_model(rest, num_classes=10)
    else:
        model = registry.build(name, num_classes=10, in_chans=image[0], image_size=image[1])
    model = roughened(model)
    return model, dependency_graph(model, image)


def _params(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def check_equivalence(name: str, image: Size, ratio: float) -> None:
    """The smaller network computes what the one does whose removed channels are zero; it is finite and smaller."""
    model, graph = _built(name, image)
    removed = part(graph, ratio, seed=int(100 * ratio))
    quiet = silenced(model, graph, removed)
    small = shrink(quiet, graph, removed)
    images_NCHW = torch.randn(1, *image, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        expected, logits_NK = quiet(images_NCHW), small(images_NCHW)
    assert logits_NK.shape == (1, 10)
    assert bool(logits_NK.isfinite().all())
    torch.testing.assert_close(logits_NK, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))
    if not name.startswith(PINNED):
        assert _params(small) < _params(model)
        assert count_macs(small, image) < count_macs(model, image)


@pytest.mark.parametrize("name", EVERY)
def test_half_of_the_channels_can_go(name: str) -> None:
    check_equivalence(name, COLOUR, 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [0.25, 0.75])
@pytest.mark.parametrize("name", DIFFERENT)
def test_other_shares_can_go(name: str, ratio: float) -> None:
    check_equivalence(name, COLOUR, ratio)


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("name", ["lenet_300_100", "lenet5", "lenet5_caffe", "mobilenetv1_025"])
def test_grey_images_of_28_pixels(name: str, ratio: float) -> None:
    check_equivalence(name, GREY, ratio)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_classifiers_keep_up(name: str) -> None:
    model = registry.build(name, num_classes=10)
    small = PruneChannels(0.5).apply(model, Workbench()).model
    with torch.no_grad():
        logits_NK, auxiliary = small.forward_with_auxiliary(torch.zeros(1, *model.zoo_origin.image))
    assert logits_NK.shape == (1, 10)
    assert auxiliary


@pytest.mark.parametrize("name", [pytest.param("squeezenet1_1", marks=pytest.mark.slow), "resnet20", "lenet5"])
def test_what_is_left_is_an_ordinary_network(name: str) -> None:
    model = registry.build(name, num_classes=10, in_chans=3, image_size=32)
    small = PruneChannels(0.5).apply(model, Workbench()).model
    again = PruneChannels(0.5).apply(model, Workbench()).model
    state = small.state_dict()
    assert all(torch.equal(state[k], v) for k, v in again.state_dict().items())
    assert measure(small, COLOUR).macs == count_macs(small, COLOUR) < count_macs(model, COLOUR)
    twin = deepcopy(small)
    for parameter in twin.parameters():
        parameter.data.zero_()
    twin.load_state_dict(state)
    images_NCHW = torch.randn(4, *COLOUR, generator=torch.Generator().manual_seed(1))
    assert torch.equal(twin(images_NCHW), small(images_NCHW))
    small.train()
    cross_entropy(small(images_NCHW), torch.arange(4)).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in small.parameters())
    before = next(small.parameters()).detach().clone()
    torch.optim.SGD(small.parameters(), 0.1).step()
    assert not torch.equal(next(small.parameters()), before)


@pytest.mark.parametrize(
    ("name", "count"), [("resnet20", 7), ("mobilenetv2_050", 10), ("squeezenet1_0_bypass", 4), ("squeezenet1_1", 0)]
)
def test_residual_blocks_are_found(name: str, count: int) -> None:
    model = registry.build(name, num_classes=10, in_chans=3, image_size=32)
    assert len(droppable(model, COLOUR)) == count
