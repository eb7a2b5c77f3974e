"""zoo.compression.binary and zoo.models.xnor: binary weights; population counts equal the simulated network."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from zoo import registry
from zoo.compression.binary import (
    Binarize,
    BinaryWeight,
    PackedConv2d,
    count_differing,
    pack,
    pack_network,
    popcount,
)
from zoo.compression.forms import Plain, Scaled, Signs, forms_of, materialise, values
from zoo.compression.stage import Workbench
from zoo.data import Dataset
from zoo.errors import CompressionError
from zoo.evaluation import evaluate
from zoo.models.xnor import BinaryConv2d, binarise, sign
from zoo.recipes import RECIPES
from zoo.training import fit

XNOR = registry.match(family="xnor")


def lively(name: str, seed: int = 0) -> nn.Module:
    """A network of the registry whose batch norms and biases are not at their first values."""
    torch.manual_seed(seed)
    model = registry.build(name)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.5)
                module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(-1.5, 1.5)
                module.bias.normal_(0, 0.3)
            elif isinstance(module, BinaryConv2d):
                module.bias.normal_()
    return model


def test_a_sign_has_no_zero_and_passes_gradients_within_one() -> None:
    x = torch.tensor([-2.0, -1.0, -0.3, -0.0, 0.0, 0.3, 1.0, 2.0], requires_grad=True)
    signs = sign(x)
    assert signs.tolist() == [-1, -1, -1, 1, 1, 1, 1, 1]
    (signs * torch.arange(1.0, 9)).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 2, 3, 4, 5, 6, 7, 0]


def test_scales_and_their_gradient_by_hand() -> None:
    """Equation 6, and the gradient of section 3.1: through the mean, and through the sign where |w| <= 1."""
    weight = torch.tensor([[0.5, -1.5, 0.25, -0.75], [2.0, 2.0, -2.0, 2.0]], requires_grad=True)
    signs, scale = binarise(weight)
    assert signs.tolist() == [[1, -1, 1, -1], [1, 1, -1, 1]]
    assert scale.tolist() == [0.75, 2.0]
    (signs[0] * scale[0] * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    through_scale = torch.tensor([1.0, -1.0, 1.0, -1.0]) * (1 - 2 + 3 - 4) / 4
    through_sign = torch.tensor([1.0, 0.0, 3.0, 4.0]) * 0.75
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad[0], through_scale + through_sign)


def test_a_binary_convolution_is_that_of_the_definition() -> None:
    torch.manual_seed(0)
    layer = BinaryConv2d(3, 4, 3, padding=1).requires_grad_(False)
    image = torch.randn(1, 3, 5, 6)
    expected = torch.zeros(1, 4, 5, 6)
    for f in range(4):
        alpha = layer.weight[f].abs().mean()
        for i in range(5):
            for j in range(6):
                total = 0
                for c in range(3):
                    for u in range(3):
                        for v in range(3):
                            y, x = i + u - 1, j + v - 1
                            if 0 <= y < 5 and 0 <= x < 6:
                                total += math.copysign(1, image[0, c, y, x] * layer.weight[f, c, u, v])
                expected[0, f, i, j] = total * alpha + layer.bias[f]
    torch.testing.assert_close(layer(image), expected)


@pytest.mark.parametrize("channels", [1, 20, 64, 65, 130])
@pytest.mark.parametrize(("kernel", "padding"), [(1, 0), (3, 1), (5, 2), (5, 0), (2, 3)])
def test_packed_words_equal_the_simulation(channels: int, kernel: int, padding: int) -> None:
    torch.manual_seed(channels * kernel)
    layer = BinaryConv2d(channels, 7, kernel, padding=padding).requires_grad_(False)
    packed = PackedConv2d(layer)
    for size in ((6, 9), (9, 6)):
        features = torch.randn(3, channels, *size)
        features[features.abs() < 0.1] = 0
        features[0] *= -1  # negative zeros too
        assert torch.equal(packed(features), layer(features))


@pytest.mark.parametrize("name", XNOR)
def test_packed_networks_equal_the_simulation(name: str) -> None:
    model = lively(name)
    packed = pack_network(model)
    assert not any(isinstance(m, BinaryConv2d) for m in packed.modules())
    assert any(isinstance(m, BinaryConv2d) for m in model.modules())
    for count in (1, 3):
        images = torch.randn(count, *registry.architecture(name).image)
        with torch.no_grad():
            logits = model(images)
            assert torch.equal(packed(images), logits)
    assert logits.std() > 1e-3


def test_a_stride_is_packed_too() -> None:
    torch.manual_seed(0)
    layer = BinaryConv2d(5, 3, 3, padding=1).requires_grad_(False)
    layer.stride = (2, 1)
    features = torch.randn(2, 5, 8, 9)
    assert torch.equal(PackedConv2d(layer)(features), layer(features))


def test_counts_without_numpy_2(monkeypatch: pytest.MonkeyPatch) -> None:
    words = np.random.default_rng(0).integers(0, 1 << 63, (5, 3), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    expected = [[int(word).bit_count() for word in row] for row in words]
    assert popcount(words).tolist() == expected
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert popcount(words).tolist() == expected


def test_counts_of_many_words_do_not_wrap() -> None:
    columns = np.full((1024, 2), (1 << 64) - 1, dtype=np.uint64)
    assert count_differing(columns, np.zeros((1, 1024), dtype=np.uint64)).tolist() == [[65536, 65536]]
    assert count_differing(columns[:1023], np.zeros((1, 1023), dtype=np.uint64)).tolist() == [[65472, 65472]]


def test_packing_fills_up_with_zeros() -> None:
    bits = np.ones((1, 65, 1, 2), dtype=bool)
    bits[0, 1, 0, 1] = bits[0, 9, 0, 1] = False
    every = (1 << 64) - 1
    assert pack(bits).tolist() == [[[[every, 1], [every - 2 - 512, 1]]]]


@pytest.mark.parametrize("name", XNOR)
def test_signs_stand_for_the_whole_weight(name: str) -> None:
    """A network filled from its forms gives the same logits, and the same forms, to the last bit."""
    model = lively(name)
    forms = forms_of(model)
    binary = [n for n, form in forms.items() if isinstance(form, Signs)]
    assert len(binary) == sum(isinstance(m, BinaryConv2d) for m in model.modules()) > 0
    fresh = registry.build(name)
    assert forms.keys() == fresh.state_dict().keys()
    fresh.load_state_dict({n: values(form) for n, form in forms.items()})
    images = torch.randn(2, *registry.architecture(name).image)
    with torch.no_grad():
        assert torch.equal(fresh(images), model(images))
    for n in binary:
        assert torch.equal(values(forms_of(fresh)[n]), values(forms[n]))
        assert (forms[n].bits, values(forms[n]).unique().numel()) == (1, 2 * len(forms[n].scale))


def small() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.Conv2d(4, 4, 3, groups=4),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 24 * 24, 16),
        nn.Linear(16, 10),
    )


def weight_of(model: nn.Module, name: str) -> Tensor:
    weight = model.get_submodule(name).weight
    assert isinstance(weight, Tensor)
    return weight


def binary_weight(model: nn.Module, name: str) -> BinaryWeight:
    """The only parametrization of a layer's weight."""
    lists = model.get_submodule(name).parametrizations
    assert isinstance(lists, nn.ModuleDict)
    (only,) = lists["weight"]  # type: ignore[misc]
    assert isinstance(only, BinaryWeight)
    return only


def test_binarize_takes_the_inner_layers() -> None:
    model = small()
    before = copy.deepcopy(model.state_dict())
    treated = Binarize().apply(model, Workbench())
    assert treated.layers == {"1": "binary, 4 scales", "5": "binary, 16 scales"}
    assert set(treated.untreated) == {"0", "6"}
    for name in treated.layers:
        original, weight = weight_of(model, name), weight_of(treated.model, name)
        alpha = original.abs().flatten(1).mean(1).reshape(-1, *[1] * (original.ndim - 1))
        torch.testing.assert_close(weight, alpha * original.sign())
        form = forms_of(treated.model)[f"{name}.weight"]
        assert isinstance(form, Signs)
        assert torch.equal(values(form), weight)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert set(Binarize(first_and_last=True).apply(model, Workbench()).layers) == {"0", "1", "5", "6"}


def test_what_is_binarized_trains_on(digits: tuple[Dataset, Dataset]) -> None:
    """The form follows fine-tuning, zeros survive momentum and weight decay, and a copy has a form of its own."""
    model = small()
    with torch.no_grad():
        weight_of(model, "5")[:, ::3] = 0
    recipe = replace(RECIPES["smoke"], lr=0.1, weight_decay=0.1)
    work = Workbench(train=digits[0].subset(torch.arange(256)), recipe=recipe, device="cpu")
    first = Binarize().apply(model, work).model
    treated = Binarize(epochs=1).apply(model, work)
    assert treated.layers["5"] == "ternary, 16 scales, 12288 of 36864 weights stay zero"
    weight, form = weight_of(treated.model, "5"), forms_of(treated.model)["5.weight"]
    assert isinstance(form, Scaled)
    assert torch.equal(values(form), weight)
    assert torch.equal(weight == 0, weight_of(model, "5") == 0)
    assert not torch.equal(weight, weight_of(first, "5"))
    twin = copy.deepcopy(treated.model)
    with torch.no_grad():
        binary_weight(twin, "1").latent.neg_()
    assert torch.equal(values(forms_of(twin)["1.weight"]), weight_of(twin, "1"))
    assert torch.equal(values(forms_of(treated.model)["1.weight"]), weight_of(treated.model, "1"))
    assert not torch.equal(weight_of(twin, "1"), weight_of(treated.model, "1"))


def test_a_binary_weight_is_one_parameter_and_can_be_made_plain() -> None:
    treated = Binarize().apply(small(), Workbench()).model
    assert sum(p.numel() for p in treated.parameters()) == sum(p.numel() for p in small().parameters())
    plain = materialise(copy.deepcopy(treated))
    assert torch.equal(weight_of(plain, "5"), weight_of(treated, "5")), "the copy's original is still parametrized"
    assert isinstance(forms_of(plain)["5.weight"], Plain)
    assert isinstance(forms_of(treated)["5.weight"], Signs)


def test_a_second_binarization_replaces_the_first() -> None:
    once = Binarize().apply(small(), Workbench()).model
    twice = Binarize().apply(once, Workbench()).model
    assert torch.equal(weight_of(twice, "5"), weight_of(once, "5"))
    assert torch.equal(weight_of(twice, "5"), binary_weight(twice, "5")())


def test_what_cannot_be_treated_is_listed() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(3, 4)
            self.first = nn.Linear(4, 4)
            self.binary = BinaryConv2d(1, 1, 1)
            self.second = nn.Linear(4, 4)
            self.third = nn.Linear(4, 4)

    treated = Binarize().apply(Odd(), Workbench())
    assert set(treated.layers) == {"second"}
    assert treated.untreated == {
        "embedding": "a Embedding is no convolution and no linear layer",
        "binary": "a BinaryConv2d makes its weight binary by itself",
        "first": "the first and the last layer stay in full precision",
        "third": "the first and the last layer stay in full precision",
    }


def test_wrong_use_is_refused(digits: tuple[Dataset, Dataset]) -> None:
    with pytest.raises(CompressionError, match="epochs=-1"):
        Binarize(epochs=-1)
    with pytest.raises(CompressionError, match=r"lr=-1"):
        Binarize(lr=-1)
    with pytest.raises(CompressionError, match="the first and the last layer stay in full precision"):
        Binarize().apply(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), Workbench())
    with pytest.raises(CompressionError, match="no convolution and no linear layer"):
        Binarize(first_and_last=True).apply(nn.ReLU(), Workbench())
    with pytest.raises(CompressionError, match="needs a recipe"):
        Binarize(epochs=1).apply(small(), Workbench(train=digits[0]))
    with pytest.raises(CompressionError, match="needs images"):
        Binarize(epochs=1).apply(small(), Workbench(recipe=RECIPES["smoke"]))
    with pytest.raises(CompressionError, match="xnor_lenet5 and xnor_nin have"):
        pack_network(registry.build("lenet5"))


def test_parametrized_layers_keep_their_gradient() -> None:
    treated = Binarize().apply(small(), Workbench()).model
    treated(torch.randn(2, 1, 28, 28)).square().sum().backward()
    gradient = binary_weight(treated, "5").latent.grad
    assert gradient is not None
    assert gradient.abs().max() > 0


@pytest.mark.slow
def test_xnor_lenet5_learns_the_digits(digits: tuple[Dataset, Dataset]) -> None:
    torch.manual_seed(0)
    train, test = digits
    channels, size, _ = train.image
    model = registry.build("xnor_lenet5", in_chans=channels, image_size=size)
    fit(model, train, None, replace(RECIPES["mnist"], epochs=4, precision="fp32"), device="cpu")
    scored = evaluate(model, test)
    assert scored.top1 > 0.85
    assert evaluate(pack_network(model), test).correct == scored.correct
