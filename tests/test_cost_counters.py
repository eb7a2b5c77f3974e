"""zoo.cost: three counts of multiply-accumulates that agree, and a model that comes back as it was."""

import sys
import warnings
from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from zoo import registry
from zoo.cost import count_macs, measure
from zoo.cost.cache import cached_cost
from zoo.cost.counters import einsum_macs
from zoo.errors import ImageSizeError, MissingPackageError, ZooError

NAMES = list(registry.architectures())


def on_meta(name: str, image: tuple[int, int, int], num_classes: int) -> nn.Module:
    with torch.device("meta"):
        return registry.architecture(name).build(num_classes, image[0], image[1])


def assert_counters_agree(name: str, image: tuple[int, int, int], num_classes: int) -> None:
    """fvcore on real tensors, torch.utils.flop_counter on the meta device; the rows add up to the total."""
    cost = cached_cost(name, image, num_classes)
    assert cost.macs == count_macs(on_meta(name, image, num_classes), image) > 0
    assert sum(row.macs for row in cost.by_layer) == cost.macs == cost.effective_macs
    assert sum(row.params for row in cost.by_layer) == cost.params_used <= cost.params
    assert cost.nonzero_params == cost.params_used
    assert 2 * cost.macs <= cost.training_macs < 3 * cost.macs
    assert cost.peak_activation_bytes >= 4 * cost.peak_activation_bytes_int8 > 0


@pytest.mark.parametrize("name", NAMES)
def test_the_two_counters_agree_on_every_small_form(name: str) -> None:
    assert_counters_agree(name, (3, 32, 32), 10)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_two_counters_agree_on_every_published_form(name: str) -> None:
    published = registry.architecture(name)
    assert_counters_agree(name, published.image, published.num_classes)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_convolution_by_formula(data: st.DataObject) -> None:
    """macs = positions * out_channels * in_channels / groups * kernel_h * kernel_w.

    Positions are those of the output, for a transposed convolution those of the input.
    """
    groups, wide, narrow = (data.draw(st.integers(1, 3), label=label) for label in ("groups", "in", "out"))
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    kernel, stride, dilation = (data.draw(pair, label=label) for label in ("kernel", "stride", "dilation"))
    padding = data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2)), label="padding")
    height, width = data.draw(st.tuples(st.integers(7, 12), st.integers(7, 12)), label="size")
    transposed = data.draw(st.booleans(), label="transposed")
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    layer = kind(groups * wide, groups * narrow, kernel, stride, padding, dilation=dilation, groups=groups)
    sizes = zip((height, width), kernel, stride, padding, dilation, strict=True)
    if transposed:
        positions = height * width
    else:
        positions = prod((size + 2 * p - d * (k - 1) - 1) // s + 1 for size, k, s, p, d in sizes)
    expected = positions * groups * narrow * wide * prod(kernel)
    image = (groups * wide, height, width)
    cost = measure(layer, image)
    assert cost.macs == cost.effective_macs == count_macs(layer, image) == expected
    assert cost.training_macs == 2 * expected
    assert cost.params == groups * narrow * wide * prod(kernel) + groups * narrow


@settings(max_examples=30, deadline=None)
@given(batch=st.integers(1, 4), rows=st.integers(1, 4), inputs=st.integers(1, 9), outputs=st.integers(1, 9))
def test_linear_by_formula(batch: int, rows: int, inputs: int, outputs: int) -> None:
    """macs = every position before the last dimension, times inputs, times outputs."""
    layer = nn.Linear(inputs, outputs)
    image = (batch, rows, inputs)
    expected = batch * rows * inputs * outputs
    assert measure(layer, image).macs == count_macs(layer, image) == expected


@pytest.mark.parametrize("kernel", [3, (1, 5)])
def test_same_padding_is_counted(kernel: int | tuple[int, int]) -> None:
    """fvcore has no rule of its own for it."""
    layer = nn.Conv2d(4, 8, kernel, padding="same", groups=2)
    taps = 9 if kernel == 3 else 5
    assert measure(layer, (4, 6, 7)).macs == count_macs(layer, (4, 6, 7)) == 42 * 8 * 2 * taps


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", [(3, 4), (4, 5)]),
        ("bhqd,bhkd->bhqk", [(2, 3, 7, 5), (2, 3, 6, 5)]),
        ("...qd,...kd->...qk", [(2, 3, 7, 5), (2, 3, 6, 5)]),
        ("bij,bjk,kl->bil", [(2, 3, 4), (2, 4, 5), (5, 6)]),
        ("ijk,kl->il", [(3, 4, 5), (5, 6)]),
        ("ij,jk", [(101, 103), (103, 107)]),
        ("ij,ij->ij", [(3, 4), (3, 4)]),
        ("ij->ji", [(3, 4)]),
        ("i,j->ij", [(3,), (4,)]),
    ],
)
def test_einsum_counts_what_torch_carries_out(equation: str, shapes: list[tuple[int, ...]]) -> None:
    class Einsum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.operands = nn.ParameterList(torch.randn(*shape) for shape in shapes)

        def forward(self, x: Tensor) -> Tensor:
            return x.sum() + torch.einsum(equation, *self.operands)

    assert einsum_macs(equation, shapes) == count_macs(Einsum(), (1, 1, 1)) == measure(Einsum(), (1, 1, 1)).macs


class Restless(nn.Module):
    """Changes a buffer, replaces another and draws random numbers in its forward pass, in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("latest", torch.zeros(1))
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.latest = x.mean((1, 2, 3))
        return self.body(x) + torch.rand(1)


@pytest.mark.parametrize("image", [(3, 8, 8), (5, 8, 8)], ids=["measured", "refused"])
def test_the_model_comes_back_as_it_was(image: tuple[int, int, int]) -> None:
    model = Restless().train()
    model.body[1].eval()
    model.body[0].bias.requires_grad_(False)
    model.body[0].weight.grad = torch.ones_like(model.body[0].weight)
    model.body[1].register_forward_hook(lambda *_: None)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    buffers = {key: id(value) for key, value in model.named_buffers()}
    modes = [m.training for m in model.modules()]
    trained = [p.requires_grad for p in model.parameters()]
    hooks = [(dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in model.modules()]
    chance = torch.get_rng_state()
    fused = torch.backends.mha.get_fastpath_enabled()
    for count in (measure, count_macs):
        if image[0] == 3:
            count(model, image)
        else:
            with pytest.raises(ImageSizeError, match="does not pass through Restless"):
                count(model, image)
        assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
        assert {key: id(value) for key, value in model.named_buffers()} == buffers
        assert [m.training for m in model.modules()] == modes
        assert [p.requires_grad for p in model.parameters()] == trained
        assert [(dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in model.modules()] == hooks
        assert torch.equal(torch.get_rng_state(), chance)
        assert model.body[0].weight.grad is not None
        assert torch.is_grad_enabled()
        assert torch.backends.mha.get_fastpath_enabled() == fused


def test_a_trace_that_fails_leaves_no_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    """fvcore takes its hooks away only where tracing succeeds."""

    class Untraceable(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            if torch.jit.is_tracing():
                raise RuntimeError("no")
            return self.layer(x)

    model = Untraceable()
    with pytest.raises(ZooError, match="fvcore cannot trace Untraceable"):
        measure(model, (1, 1, 4))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_caller_s_mode_does_not_change_the_count(mode: str) -> None:
    model = registry.build("mobilenetv1_025", num_classes=10, image_size=32)
    expected = measure(model, (3, 32, 32))
    assert measure(model.train(mode == "train"), (3, 32, 32)) == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_model_is_measured_in_its_own_dtype(dtype: torch.dtype) -> None:
    model = registry.build("mobilenetv1_025", num_classes=10, image_size=32)
    expected = measure(model, (3, 32, 32))
    assert measure(model.to(dtype), (3, 32, 32)) == expected
    assert {p.dtype for p in model.parameters()} == {dtype}


def test_compiled_and_wrapped_models_are_measured_as_what_they_wrap() -> None:
    model = registry.build("lenet5")
    expected = measure(model, (1, 32, 32))
    assert measure(torch.compile(model), (1, 32, 32)) == expected
    assert measure(nn.DataParallel(model), (1, 32, 32)) == expected
    model.compile()
    call = model._compiled_call_impl
    assert measure(model, (1, 32, 32)) == expected
    assert model._compiled_call_impl is call is not None


def test_models_that_cannot_be_seen_are_refused_in_one_sentence() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantized = torch.ao.quantization.quantize_dynamic(net)
        scripted = torch.jit.script(net)
    cases = [
        (quantized, "1 .Linear. is quantized"),
        (scripted, "is scripted"),
        (nn.Sequential(torch.compile(nn.Linear(2, 2))), "0 .OptimizedModule. is compiled"),
        (nn.Sequential(nn.LazyLinear(3)), "lazy parameter"),
        (nn.Sequential(nn.Linear(2, 2, device="meta")), "meta device"),
    ]
    for model, reason in cases:
        with pytest.raises(ZooError, match=reason):
            measure(model, (3, 2, 2))


@pytest.mark.parametrize("image", [(3, 32), (3, 0, 32), (3, 32.0, 32), (1, 3, 32, 32)])
def test_an_image_is_channels_height_width(image: tuple[int, ...]) -> None:
    for count in (measure, count_macs):
        with pytest.raises(ImageSizeError, match="channels, height, width"):
            count(nn.Flatten(), image)


def test_without_fvcore_the_second_counter_stands_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fvcore", None)
    monkeypatch.setitem(sys.modules, "fvcore.nn", None)
    model = registry.build("lenet5")
    assert count_macs(model, (1, 32, 32)) == 416520
    with pytest.raises(MissingPackageError, match="pip install fvcore"):
        measure(model, (1, 32, 32))
    with pytest.raises(MissingPackageError):
        cached_cost("lenet5", (1, 32, 32), 10)


def test_a_network_without_parameters() -> None:
    cost = measure(nn.Flatten(), (3, 4, 4))
    assert (cost.params, cost.macs, cost.fvcore_total, cost.by_layer) == (0, 0, 0, ())
    assert cost.peak_activation_bytes == 4 * 48
