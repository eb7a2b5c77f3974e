"""zoo.cost on compressed networks: non-zero parameters, effective MACs and bit operations, worked out by hand."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from zoo import registry
from zoo.compression.binary import Binarize
from zoo.compression.forms import Form, Plain, Scaled, Shared, Signs, Vectors, values
from zoo.compression.stage import Workbench
from zoo.compression.treat import Made, put
from zoo.cost import cached_cost, measure

# Weights and positions of lenet5's five layers on an image of 32 x 32.
WEIGHTS = {"0": 6 * 25, "3": 16 * 150, "7": 120 * 400, "9": 84 * 120, "11": 10 * 84}
POSITIONS = {"0": 28 * 28, "3": 10 * 10, "7": 1, "9": 1, "11": 1}
BIASES = 6 + 16 + 120 + 84 + 10


class Formed(Made):
    """A weight that is what a form says, owning a tensor of another size."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.stored = form
        self.factor = nn.Parameter(torch.ones(3))

    def forward(self) -> Tensor:
        return values(self.stored) * self.factor[0]

    def form(self) -> Form:
        return self.stored


class Mask(nn.Module):
    """A parametrization without a form that keeps every n-th weight."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n

    def forward(self, weight: Tensor) -> Tensor:
        return weight * (torch.arange(weight.numel()) % self.n == 0).reshape(weight.shape)


def dense_lenet5() -> nn.Module:
    """No weight or bias of it is zero."""
    model = registry.build("lenet5")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.5)
    return model


def test_a_dense_network_skips_nothing() -> None:
    cost = cached_cost("lenet5", (1, 32, 32), 10)
    assert (cost.nonzero_params, cost.effective_macs) == (cost.params, cost.macs) == (61706, 416520)
    assert cost.bit_operations == 416520 * 32 * 32


def test_a_mask_on_lenet5() -> None:
    """Every tenth weight of the first linear layer and every third of the second convolution are kept."""
    model = dense_lenet5()
    parametrize.register_parametrization(model.get_submodule("7"), "weight", Mask(10))
    parametrize.register_parametrization(model.get_submodule("3"), "weight", Mask(3))
    cost = measure(model, (1, 32, 32))
    kept = WEIGHTS | {"3": 800, "7": 4800}
    assert (cost.params, cost.macs) == (61706, 416520)
    assert cost.nonzero_params == sum(kept.values()) + BIASES == 16906
    assert cost.effective_macs == sum(kept[name] * POSITIONS[name] for name in kept) == 213320
    assert cost.bit_operations == 416520 * 32 * 32
    assert [row.nonzero_params for row in cost.by_layer] == [156, 816, 4920, 10164, 850]


def test_depthwise_layers_by_hand() -> None:
    """Two of four depthwise filters of 9 are zero; the pointwise layer reads two of four channels."""
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4, bias=False), nn.Conv2d(4, 8, 1, bias=False))
    with torch.no_grad():
        for layer in model:
            layer.weight.fill_(1)
        model[0].weight[[1, 3]] = 0
        model[1].weight[:, [1, 3]] = 0
    cost = measure(model, (4, 6, 7))
    positions = 4 * 5
    assert cost.macs == (4 * 9 + 4 * 8) * positions
    assert cost.effective_macs == (2 * 9 + 2 * 8) * positions
    assert cost.nonzero_params == 2 * 9 + 2 * 8
    assert cost.bit_operations == cost.macs * 1024


@pytest.mark.parametrize(
    ("form", "bits"),
    [
        (lambda codes: Shared(codes, torch.arange(1.0, 33)), 5),
        (lambda codes: Shared(codes, torch.arange(1.0, 34)), 6),
        (lambda codes: Shared(codes * 0, torch.ones(1)), 1),
        (lambda codes: Scaled(codes, torch.ones(1), torch.full((1,), -1)), 5),
        (lambda codes: Scaled(codes * 8, torch.ones(120), torch.full((120,), -1)), 8),
        (lambda codes: Signs(codes % 2, torch.ones(120)), 1),
        (lambda codes: Plain(codes + 1.0), 32),
        (lambda codes: Vectors(codes[None, :, :100], torch.ones(1, 100, 32, 4), (120, 400)), 32),
    ],
)
def test_bit_operations_follow_the_form(form: Callable[[Tensor], Form], bits: int) -> None:
    model = dense_lenet5()
    codes = torch.arange(120 * 400).reshape(120, 400) % 32
    put(model.get_submodule("7"), Formed(form(codes)))
    cost = measure(model, (1, 32, 32))
    assert cost.bit_operations == (416520 - 48000) * 1024 + 48000 * bits * 32
    assert cost.effective_macs == cost.macs == 416520
    assert cost.params == cost.params_used == cost.nonzero_params == 61706
    assert [row.params for row in cost.by_layer] == [156, 2416, 48120, 10164, 850]
    assert (cost.weight_bytes, cost.flash_bytes) == (4 * 61706, 61470 + 4 * 236)


def test_a_declared_width_of_activations_goes_with_a_form() -> None:
    model = dense_lenet5()
    layer = model.get_submodule("7")
    put(layer, Formed(Signs(torch.ones(120, 400, dtype=torch.int64), torch.ones(120))))
    layer.activation_bits = 8  # type: ignore[assignment]
    assert measure(model, (1, 32, 32)).bit_operations == (416520 - 48000) * 1024 + 48000 * 8


def test_a_binary_network_by_hand() -> None:
    """xnor_lenet5 at 28 px: only its first and last layer multiply numbers."""
    full = 20 * 25 * 24 * 24 + 500 * 10
    binary = 50 * 20 * 25 * 8 * 8 + 500 * 50 * 4 * 4
    cost = cached_cost("xnor_lenet5", (1, 28, 28), 10)
    assert cost.macs == cost.effective_macs == full + binary == 2_293_000
    assert cost.bit_operations == full * 1024 + binary
    assert cost.nonzero_params == cost.params == cost.params_used


def test_binary_weights_multiply_full_inputs() -> None:
    model = Binarize().apply(dense_lenet5(), Workbench()).model
    cost = measure(model, (1, 32, 32))
    inner = 416520 - WEIGHTS["0"] * 784 - 840
    assert cost.bit_operations == (416520 - inner) * 1024 + inner * 32
    assert cost.effective_macs == cost.macs
    # What trains is a parameter; the sign and the scale are made of it.
    assert (cost.params, cost.nonzero_params) == (61706, 61706)
