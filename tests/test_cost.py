"""zoo.cost: the definition of every figure, worked out by hand on networks small enough for it."""

import json
from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear, scaled_dot_product_attention
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode

from zoo import registry
from zoo.cost import Cost, Unsupported, count_macs, measure
from zoo.cost.counters import require_fvcore
from zoo.errors import FileFormatError


class Residual(nn.Module):
    """Four maps of 8 x 8 (256 elements) throughout; the image is added at the end."""

    def __init__(self, *, inplace: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1)
        self.act = nn.ReLU(inplace=inplace)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.act(self.conv1(x)))


class Concat(nn.Module):
    """Two branches of 4 and 6 maps on an image of 2 x 8 x 8 (128 elements)."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(2, 4, 1)
        self.right = nn.Conv2d(2, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.left(x), self.right(x)), 1)


class Auxiliary(nn.Module):
    """A second head that exists for training only."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Conv2d(3, 4, 3)
        self.aux = nn.Sequential(nn.Identity(), nn.Linear(4, 10), nn.BatchNorm1d(10))
        self.head = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.trunk(x).mean((2, 3))
        return self.head(pooled) + (self.aux(pooled) if self.training else 0)


class Functional(nn.Module):
    """Matrix products called as functions, without a module of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(8, 3, 3, 3))
        self.mix = nn.Parameter(torch.randn(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        maps = conv2d(x, self.kernel, padding="same")  # 216 weights at 6 x 6
        tokens = maps.flatten(2).transpose(1, 2)  # 1 x 36 x 8
        tokens = tokens @ self.mix  # 36 * 8 * 8
        scores = torch.einsum("bqd,bkd->bqk", tokens, tokens)  # 36 * 36 * 8
        attended = scaled_dot_product_attention(tokens[:, None], tokens[:, None], tokens[:, None])  # twice that
        return torch.erf(attended[:, 0]) + scores.mean()


class Shared(nn.Module):
    """One layer called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.conv(x))


class Mask(nn.Module):
    """A parametrization that keeps some weights."""

    def __init__(self, kept: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", kept)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.get_buffer("kept")


def lenet5() -> nn.Module:
    return registry.build("lenet5")


def test_lenet5_by_hand() -> None:
    """LeCun et al. 1998: 156 + 2,416 + 48,120 + 10,164 + 850 parameters."""
    cost = measure(lenet5(), (1, 32, 32))
    macs = [6 * 28 * 28 * 25, 16 * 10 * 10 * 6 * 25, 400 * 120, 120 * 84, 84 * 10]
    outputs = [(1, 6, 28, 28), (1, 16, 10, 10), (1, 120), (1, 84), (1, 10)]
    params = [156, 2416, 48120, 10164, 850]
    assert [row.macs for row in cost.by_layer] == macs
    assert [row.output_shape for row in cost.by_layer] == outputs
    assert [row.params for row in cost.by_layer] == params
    assert [row.kind for row in cost.by_layer] == ["Conv2d", "Conv2d", "Linear", "Linear", "Linear"]
    assert (cost.params, cost.params_used, cost.macs, cost.flops) == (61706, 61706, 416520, 833040)
    assert cost.fvcore_total == 416520
    assert cost.activations == 6 * 784 + 1600 + 120 + 84 + 10
    assert cost.training_macs == 3 * 416520 - macs[0]
    assert cost.bit_operations == 416520 * 32 * 32
    assert cost.weight_bytes == 4 * 61706
    assert cost.flash_bytes == 61470 + 4 * 236
    assert (cost.peak_activation_bytes, cost.peak_layer) == (4 * 2 * 6 * 784, "1")  # tanh beside its input
    assert cost.peak_activation_bytes_int8 == 6 * 784 + 6 * 196  # the first pooling
    assert cost.unsupported == {
        "aten::avg_pool2d": Unsupported(2, 4 * (6 * 14 * 14 + 16 * 5 * 5)),
        "aten::tanh": Unsupported(4, 6 * 784 + 1600 + 120 + 84),
    }
    assert cost.uncalled == ()


def test_residual_image_lives_until_it_is_added() -> None:
    apart = measure(Residual(inplace=False), (4, 8, 8))
    assert (apart.peak_activation_bytes, apart.peak_layer) == (4 * 3 * 256, "act")
    inplace = measure(Residual(inplace=True), (4, 8, 8))
    assert (inplace.peak_activation_bytes, inplace.peak_layer) == (4 * 3 * 256, "conv2")
    assert inplace.peak_activation_bytes_int8 == 3 * 256


def test_plain_chain_holds_input_and_output_only() -> None:
    model = nn.Sequential(nn.Conv2d(4, 2, 1), nn.Conv2d(2, 3, 1), nn.Flatten(), nn.Linear(192, 10))
    cost = measure(model, (4, 8, 8))
    assert (cost.peak_activation_bytes, cost.peak_layer) == (4 * (256 + 128), "0")


def test_concatenation_holds_parts_and_whole_or_when_deployed_the_whole() -> None:
    cost = measure(Concat(), (2, 8, 8))
    assert (cost.peak_activation_bytes, cost.peak_layer) == (4 * (256 + 384 + 640), "")
    assert cost.peak_activation_bytes_int8 == 128 + 640


def test_deployed_form_folds_norm_and_activation() -> None:
    model = nn.Sequential(nn.Conv2d(1, 8, 1, bias=False), nn.BatchNorm2d(8), nn.SiLU())
    cost = measure(model, (1, 4, 4))
    assert cost.peak_activation_bytes == 4 * (128 + 128)
    assert cost.peak_activation_bytes_int8 == 16 + 128


def test_statistics_that_nobody_reads_are_no_activations() -> None:
    cost = measure(nn.Sequential(nn.Flatten(), nn.LayerNorm(192)), (3, 8, 8))
    assert cost.peak_activation_bytes == 4 * (192 + 192)  # layer norm also puts out a mean and a deviation


def test_what_is_returned_lives_to_the_end() -> None:
    class TwoOutputs(Concat):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            return self.left(x), -self.right(x)

    cost = measure(TwoOutputs(), (2, 8, 8))
    assert cost.peak_activation_bytes == 4 * (256 + 384 + 384)


def test_a_layer_shared_by_two_norms_folds_neither() -> None:
    class TwoNorms(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1, bias=False)
            self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.conv(self.first(self.conv(x))))

    assert measure(TwoNorms(), (3, 5, 5)).flash_bytes == 81 + 2 * 8 * 3


def test_moving_data_adds_nothing() -> None:
    class Moves(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.nn.functional.pad(x, (1, 1, 1, 1)).repeat(1, 2, 1, 1).clone()

    assert measure(Moves(), (3, 4, 4)).unsupported == {}


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (lambda: [nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)], 216 + 4 * 8),
        (lambda: [nn.Conv2d(3, 8, 3, bias=True), nn.BatchNorm2d(8)], 216 + 4 * 8),
        (lambda: [nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8, affine=False)], 216 + 4 * 8),
        (lambda: [nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(inplace=True), nn.BatchNorm2d(8)], 216 + 8 * 8),
        (lambda: [nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3, bias=False)], 8 * 3 + 216),
        (lambda: [nn.Flatten(), nn.Linear(192, 10), nn.BatchNorm1d(10)], 1920 + 4 * 10),
        (lambda: [nn.Flatten(), nn.LayerNorm(192)], 4 * 2 * 192),
    ],
)
def test_flash_bytes(layers: Callable[[], list[nn.Module]], expected: int) -> None:
    assert measure(nn.Sequential(*layers()), (3, 8, 8)).flash_bytes == expected


def test_auxiliary_head_is_listed_and_not_counted() -> None:
    model = Auxiliary()
    cost = measure(model.train(), (3, 8, 8))
    assert cost.params == sum(p.numel() for p in model.parameters()) == 112 + 50 + 50 + 20
    assert cost.params_used == cost.nonzero_params == 112 + 50
    assert cost.macs == 4 * 27 * 36 + 40
    assert cost.uncalled == ("aux.1", "aux.2")
    assert cost.weight_bytes == 4 * (112 + 50)


def test_functional_calls_are_counted_for_the_module_that_makes_them() -> None:
    cost = measure(Functional(), (3, 6, 6))
    products = [216 * 36, 36 * 8 * 8, 36 * 36 * 8, 2 * 36 * 36 * 8]
    assert cost.macs == sum(products) == count_macs(Functional(), (3, 6, 6))
    assert [(row.name, row.kind, row.macs) for row in cost.by_layer] == [("", "Functional", sum(products))]
    # fvcore's own rules know neither padding="same" nor attention, and round einsum's 10,368 to four digits.
    assert cost.fvcore_total == 36 * 8 * 8 + 10370
    assert cost.unsupported["aten::erf"] == Unsupported(1, 36 * 8)
    assert "aten::scaled_dot_product_attention" not in cost.unsupported


def test_products_of_vectors_and_broadcasts() -> None:
    class Products(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            matrix, vector = x[0, 0], x[0, 0, 0]
            stack = matrix @ torch.stack((matrix, matrix, matrix))  # 3 products, of which fvcore's rule counts one
            return stack.sum() + (matrix @ vector).sum() + vector @ vector + torch.baddbmm(stack, stack, stack).sum()

    assert measure(Products(), (1, 5, 5)).macs == 3 * 125 + 25 + 5 + 3 * 125
    assert measure(Products(), (1, 5, 5)).fvcore_total is None
    assert count_macs(Products(), (1, 5, 5)) == 3 * 125 + 25 + 5 + 3 * 125


def test_fused_attention_of_eval_mode_is_seen() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mha = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            tokens = x.flatten(2).transpose(1, 2)
            return self.mha(tokens, tokens, tokens, need_weights=False)[0]

    cost = measure(Attention(), (8, 4, 4))
    assert cost.macs == 4 * 16 * 64 + 2 * 16 * 16 * 8 == count_macs(Attention(), (8, 4, 4))
    assert cost.params_used == cost.params
    assert cost.uncalled == ()


def test_custom_function_that_hides_its_product_is_reported() -> None:
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor, weight: Tensor) -> Tensor:
            return linear(x, weight)

    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(5, 12))

        def forward(self, x: Tensor) -> Tensor:
            return Double.apply(x.flatten(1), self.weight)

    cost = measure(Hidden(), (3, 2, 2))
    assert cost.macs + sum(entry.operations for entry in cost.unsupported.values()) >= 60
    assert sum(row.macs for row in cost.by_layer) == 60


def test_shared_layer_counts_each_call_and_its_parameters_once() -> None:
    cost = measure(Shared(), (3, 5, 5))
    assert cost.macs == 2 * 81 * 25
    assert cost.params == cost.params_used == 84
    assert [(row.name, row.macs, row.params, row.activations) for row in cost.by_layer] == [("conv", 4050, 84, 150)]
    assert cost.flash_bytes == 81 + 12


def test_zero_weights_are_skipped_exactly() -> None:
    model = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2, bias=True), nn.Flatten(), nn.Linear(6 * 36, 5))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1)
        model[0].weight.view(-1)[:10] = 0
        model[0].bias[0] = 0
        model[2].weight[:, 7] = 0
    cost = measure(model, (4, 8, 8))
    assert cost.macs == 108 * 36 + 1080
    assert cost.effective_macs == 98 * 36 + 1075
    assert cost.nonzero_params == cost.params - 10 - 1 - 5
    assert [row.nonzero_params for row in cost.by_layer] == [98 + 5, 1075 + 5]


def test_masks_are_seen_through() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3, bias=False))
    kept = torch.ones(4, 2, 3, 3)
    kept[0] = 0
    parametrize.register_parametrization(model[0], "weight", Mask(kept))
    cost = measure(model, (2, 5, 5))
    assert (cost.macs, cost.effective_macs) == (72 * 9, 54 * 9)
    assert (cost.params, cost.nonzero_params) == (72, 54)
    assert [(row.name, row.kind, row.params) for row in cost.by_layer] == [("0", "Conv2d", 72)]
    assert cost.peak_activation_bytes == 4 * (50 + 36)  # the masked weight is no activation


def test_bit_operations_follow_what_a_module_declares() -> None:
    model = nn.Sequential(nn.Sequential(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 1)), nn.Conv2d(4, 1, 1))
    model[0].weight_bits, model[0].activation_bits = 1, 8
    model[0][1].weight_bits = 4
    assert measure(model, (2, 3, 3)).bit_operations == 9 * (8 * 1 * 8 + 16 * 4 * 8 + 4 * 32 * 32)


@pytest.mark.parametrize(
    ("name", "image"), [("lenet5", (1, 32, 32)), ("resnet20", (3, 32, 32)), ("vgg11", (3, 32, 32))]
)
def test_training_macs_equal_a_counted_backward_pass(name: str, image: tuple[int, int, int]) -> None:
    model = registry.build(name, in_chans=image[0], image_size=image[1])
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, *image)).sum().backward()
    assert measure(model, image).training_macs == counter.get_total_flops() // 2


def test_activations_are_those_of_fvcore() -> None:
    model = registry.build("googlenet", num_classes=10, image_size=32)
    with torch.no_grad():
        analysis = require_fvcore().ActivationCountAnalysis(model, torch.zeros(1, 3, 32, 32))
        expected = analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()
    assert measure(model, (3, 32, 32)).activations == expected


def test_norm_and_pooling_stay_out_of_macs() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.GroupNorm(1, 4))
    cost = measure(model, (3, 4, 4))
    assert cost.macs == 12 * 16
    assert cost.fvcore_total is not None
    assert cost.fvcore_total > 12 * 16


def test_json_round_trip() -> None:
    cost = measure(Auxiliary(), (3, 8, 8))
    assert Cost.from_dict(json.loads(json.dumps(cost.to_dict()))) == cost
    assert Cost.from_dict(replace(cost, fvcore_total=None).to_dict()).fvcore_total is None


@pytest.mark.parametrize("field", [field.name for field in fields(Cost)])
@pytest.mark.parametrize("value", [-1, 1.5, True, "7", [["x"]], {"a": 1}])
def test_damaged_dictionaries_are_refused(field: str, value: object) -> None:
    plain = measure(Shared(), (3, 4, 4)).to_dict()
    if field == "peak_layer" and isinstance(value, str):
        pytest.skip("any text is a name")
    with pytest.raises(FileFormatError):
        Cost.from_dict(plain | {field: value})


@pytest.mark.parametrize("change", [{"flops": 1}, {"params": None}])
def test_other_fields_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(FileFormatError):
        Cost.from_dict(measure(Shared(), (3, 4, 4)).to_dict() | change)
