"""Winograd's filtering gives what the plain convolution gives, in any model; its multiplications are counted."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import zoo
from zoo.compression import Prune, compress
from zoo.cost import count_macs, measure
from zoo.errors import ZooError
from zoo.winograd import WinogradConv2d, fits, to_winograd, winograd_conv2d

TILES = (2, 4)


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("size", [(3, 3), (4, 4), (5, 9), (8, 8), (13, 6)])
@pytest.mark.parametrize("padding", [(0, 0), (1, 1), (2, 0)])
@pytest.mark.parametrize(("channels", "filters", "groups"), [(1, 1, 1), (6, 4, 1), (6, 4, 2), (6, 12, 6)])
def test_float64_agrees_to_ten_places(
    tile: int, size: tuple[int, int], padding: tuple[int, int], channels: int, filters: int, groups: int
) -> None:
    torch.manual_seed(0)
    images = torch.randn(3, channels, *size, dtype=torch.float64)
    weight = torch.randn(filters, channels // groups, 3, 3, dtype=torch.float64)
    bias = torch.randn(filters, dtype=torch.float64)
    plain = F.conv2d(images, weight, bias, padding=padding, groups=groups)
    found = winograd_conv2d(images, weight, bias, padding, groups, tile)
    assert found.shape == plain.shape
    assert (found - plain).abs().max() < 1e-10


@pytest.mark.parametrize("tile", TILES)
def test_gradients_agree(tile: int) -> None:
    torch.manual_seed(0)
    given = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((2, 3, 7, 7), (5, 3, 3, 3), (5,))]
    images, weight, bias = given

    def gradients(output: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(output.square().sum(), given)

    ours = gradients(winograd_conv2d(images, weight, bias, (1, 1), 1, tile))
    for mine, theirs in zip(ours, gradients(F.conv2d(images, weight, bias, padding=1)), strict=True):
        assert (mine - theirs).abs().max() < 1e-9


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("name", ["resnet20", "mobilenetv1_025", "vgg11_bn"])
def test_a_whole_network_agrees(name: str, tile: int) -> None:
    torch.manual_seed(0)
    model = zoo.create_model(name, dataset="cifar10").double().eval()
    replaced = to_winograd(model, tile)
    assert sum(isinstance(m, WinogradConv2d) for m in replaced.modules()) == sum(map(fits, model.modules())) > 0
    assert not any(isinstance(m, WinogradConv2d) for m in model.modules())
    assert replaced.state_dict().keys() == model.state_dict().keys()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        assert (replaced(images) - model(images)).abs().max() < 1e-9
    assert count_macs(replaced, (3, 32, 32)) == count_macs(model, (3, 32, 32))


def test_smaller_tiles_round_less() -> None:
    torch.manual_seed(0)
    images, weight = torch.randn(4, 64, 16, 16), torch.randn(64, 64, 3, 3)
    exact = F.conv2d(images.double(), weight.double(), padding=1)
    errors = [
        (winograd_conv2d(images, weight, None, (1, 1), 1, tile).double() - exact).abs().max().item() for tile in TILES
    ]
    assert errors[0] < errors[1] < 1e-2


def test_only_what_fits_is_replaced() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.Conv2d(4, 4, 3, stride=2),
        nn.Conv2d(4, 4, 3, dilation=2),
        nn.Conv2d(4, 4, 1),
        nn.Conv2d(4, 4, 5),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
    )
    assert [isinstance(m, WinogradConv2d) for m in to_winograd(model, 2)] == [True] + 6 * [False]


def test_pruned_weights_are_taken_as_they_are() -> None:
    torch.manual_seed(0)
    model = zoo.create_model("resnet20", dataset="cifar10")
    pruned = compress(model, [Prune(0.3)]).model.double()
    images = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        assert (to_winograd(pruned, 4)(images) - pruned(images)).abs().max() < 1e-9


@pytest.mark.parametrize(("tile", "fewer"), [(2, 2.25), (4, 4.0)])
def test_multiplications_are_counted(tile: int, fewer: float) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Conv2d(8, 8, 3, padding=1, groups=4))
    cost = measure(model, (3, 16, 16))
    assert cost.winograd_multiplications[tile] * fewer == cost.macs == 16 * 16 * 9 * (24 + 16)
    mixed = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, stride=2), nn.Flatten(), nn.Linear(392, 2))
    counted = measure(mixed, (3, 16, 16))
    first = 16 * 16 * 9 * 24
    assert counted.winograd_multiplications[tile] == counted.macs - first + first / fewer
    assert measure(to_winograd(mixed, tile), (3, 16, 16)) == counted


def test_tiles_at_the_edges_count_in_full() -> None:
    cost = measure(nn.Sequential(nn.Conv2d(1, 1, 3)), (1, 7, 7))  # 5 x 5 outputs: 3 x 3 tiles of 2, 2 x 2 tiles of 4
    assert cost.winograd_multiplications == {2: 9 * 16, 4: 4 * 36}


def test_a_measured_network_computes_as_before() -> None:
    replaced = to_winograd(nn.Sequential(nn.Conv2d(1, 1, 3)), 2)
    again = copy.deepcopy(replaced)
    measure(replaced, (1, 8, 8))
    assert [type(m) for m in replaced] == [type(m) for m in again] == [WinogradConv2d]


@pytest.mark.parametrize(
    ("model", "tile", "words"),
    [
        (nn.Sequential(nn.Conv2d(1, 1, 3)), 3, "tile=3 was given; 2 for"),
        (nn.Sequential(nn.Conv2d(1, 1, 5)), 2, "no 3x3 convolution of stride 1"),
    ],
)
def test_wrong_use(model: nn.Module, tile: int, words: str) -> None:
    with pytest.raises(ZooError, match=words):
        to_winograd(model, tile)
