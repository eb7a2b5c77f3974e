"""Folding batch norm: the same function, and only where that is certain."""

import pytest
import torch
from structured_networks import IMAGE, roughened
from torch import Tensor, nn

from zoo import registry
from zoo.compression.fold import FoldBatchNorm, fold_batch_norm, foldable
from zoo.compression.forms import Plain, Scaled, forms_of, values
from zoo.compression.prune import Prune
from zoo.compression.quantize import Quantize
from zoo.compression.stage import Workbench
from zoo.errors import CompressionError

QUICK = ("resnet20", "mobilenetv1_025")


class Mixed(nn.Module):
    """One norm that can be folded and four that cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.plain_norm = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
        self.twice_read, self.twice_read_norm = nn.Conv2d(6, 6, 1, bias=False), nn.BatchNorm2d(6)
        self.repeated, self.repeated_norm = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)
        self.after_sum = nn.BatchNorm2d(6, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.plain_norm(self.plain(x)).relu()
        y = self.twice_read(x)
        x = self.twice_read_norm(y) + y
        x = self.repeated_norm(self.repeated(self.repeated(x)))
        return self.after_sum(x + x.relu()).mean((2, 3))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in (*QUICK, "vgg11_bn", "squeezenet1_0_bypass", "mobilenetv2_050", "googlenet", "inception_v3", "nin")
    ],
)
def test_every_norm_of_a_network_is_folded_and_the_logits_stay(name: str) -> None:
    torch.manual_seed(0)
    model = roughened(registry.build(name, num_classes=10, image_size=32)).float()
    treated = FoldBatchNorm().apply(model, Workbench())
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(treated.layers) == len(norms)
    assert treated.untreated == {}
    assert not any(isinstance(m, nn.BatchNorm2d) for m in treated.model.modules())
    assert [n for n, _ in treated.model.named_modules()] == [n for n, _ in model.named_modules()]
    images_NCHW = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected, logits_NK = model.double()(images_NCHW.double()), treated.model.double()(images_NCHW.double())
    assert float((logits_NK - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_only_what_is_certain_is_folded() -> None:
    model = roughened(Mixed())
    model.zoo_origin = registry.Origin("mixed", 6, *IMAGE[:2])
    treated = FoldBatchNorm().apply(model, Workbench())
    assert treated.layers == {"plain": "took in plain_norm"}
    assert treated.untreated.keys() == {"twice_read_norm", "repeated_norm", "after_sum"}
    images_NCHW = torch.randn(2, *IMAGE, dtype=torch.float64)
    torch.testing.assert_close(treated.model(images_NCHW), model(images_NCHW), rtol=1e-12, atol=1e-12)
    assert isinstance(model.plain_norm, nn.BatchNorm2d)


def test_a_weight_of_two_convolutions_takes_in_no_norm() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    assert foldable(model, IMAGE) == {"1": "0", "3": "2"}
    model[2].weight = model[0].weight
    assert foldable(model, IMAGE) == {}


def test_the_function_folds_without_a_name_and_leaves_what_has_none() -> None:
    model = roughened(nn.Sequential(nn.Conv2d(3, 4, 1, groups=1, bias=False), nn.BatchNorm2d(4), nn.ReLU()))
    folded = fold_batch_norm(model, IMAGE)
    images_NCHW = torch.randn(1, *IMAGE, dtype=torch.float64)
    torch.testing.assert_close(folded(images_NCHW), model(images_NCHW), rtol=1e-12, atol=1e-12)
    assert isinstance(folded[1], nn.Identity)
    plain = registry.build("lenet5")
    assert fold_batch_norm(plain).state_dict().keys() == plain.state_dict().keys()
    assert FoldBatchNorm().apply(plain, Workbench()).untreated == {"the model": "has no batch norm"}
    with pytest.raises(CompressionError, match="size of image"):
        fold_batch_norm(model)


def test_pruned_weights_stay_zero_and_masked() -> None:
    model = registry.build("mobilenetv1_025", num_classes=10, image_size=32)
    sparse = Prune(density=0.5).apply(model, Workbench()).model
    folded = FoldBatchNorm().apply(sparse, Workbench()).model
    layer = next(iter(foldable(model, (3, 32, 32)).values()))
    before, after = sparse.get_submodule(layer), folded.get_submodule(layer)
    assert torch.equal(before.weight == 0, after.weight == 0)
    assert hasattr(after, "parametrizations")


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_grid_takes_the_factors_into_its_scales(bits: int, per_channel: bool) -> None:
    torch.manual_seed(0)
    model = roughened(Mixed())
    model.zoo_origin = registry.Origin("mixed", 6, *IMAGE[:2])
    model.float().plain_norm.weight.data[:3] *= -1
    quantized = Quantize(bits, per_channel=per_channel).apply(Prune(0.5).apply(model, Workbench()).model, Workbench())
    before = forms_of(quantized.model)
    folded = FoldBatchNorm().apply(quantized.model, Workbench()).model
    after = forms_of(folded)
    for name in ("plain", "twice_read", "repeated"):
        old, new = before[f"{name}.weight"], after[f"{name}.weight"]
        assert isinstance(old, Scaled)
        assert isinstance(new, Scaled)
        flip = torch.where(torch.arange(6) < 3, -1, 1) if name == "plain" else torch.ones(6, dtype=torch.int64)
        steps, scaled = old.codes - old.zero.reshape(-1, 1, 1, 1), new.codes - new.zero.reshape(-1, 1, 1, 1)
        assert torch.equal(steps * flip.reshape(-1, 1, 1, 1), scaled)
    assert len(after["plain.weight"].scale) == 6
    images_NCHW = torch.randn(2, *IMAGE)
    torch.testing.assert_close(folded(images_NCHW), quantized.model(images_NCHW), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("negative", [False, True])
def test_a_zero_point_stays_where_no_factor_is_negative(negative: bool) -> None:
    model = roughened(Mixed()).float()
    model.zoo_origin = registry.Origin("mixed", 6, *IMAGE[:2])
    model.plain_norm.weight.data = model.plain_norm.weight.data.abs()
    model.plain_norm.weight.data[0] *= -1 if negative else 1
    quantized = Quantize(4, symmetric=False).apply(model, Workbench()).model
    folded = FoldBatchNorm().apply(quantized, Workbench()).model
    assert isinstance(forms_of(folded)["plain.weight"], Plain if negative else Scaled)
    images_NCHW = torch.randn(2, *IMAGE)
    torch.testing.assert_close(folded(images_NCHW), quantized(images_NCHW), rtol=1e-4, atol=1e-4)


def test_a_channel_that_its_norm_silences_is_zero() -> None:
    model = roughened(Mixed()).float()
    model.zoo_origin = registry.Origin("mixed", 6, *IMAGE[:2])
    model.plain_norm.weight.data[2] = 0
    quantized = Quantize(3).apply(model, Workbench()).model
    folded = FoldBatchNorm().apply(quantized, Workbench()).model
    weight = values(forms_of(folded)["plain.weight"])
    assert bool((weight[2] == 0).all())
    assert bool(weight[3].any())
    torch.testing.assert_close(folded.plain.weight.detach(), weight, rtol=0, atol=0)
