"""Half precision: what it rounds, what it leaves, and that no code changes by it."""

import copy

import pytest
import torch
from small_networks import LAYERS, network
from structured_networks import roughened

from zoo import registry
from zoo.compression import Binarize, Code, FoldBatchNorm, ProductQuantize, Prune, Quantize, Share, compress
from zoo.compression.forms import HasSigns, Plain, Scaled, Shared, forms_of, values
from zoo.compression.halve import Halve
from zoo.compression.stage import Stage, Workbench
from zoo.errors import CompressionError


def test_everything_is_halved_and_hardly_changed() -> None:
    model = roughened(network()).float()
    treated = Halve().apply(model, Workbench())
    before, after = model.state_dict(), treated.model.state_dict()
    for name, tensor in after.items():
        assert torch.equal(tensor, tensor.half().to(tensor.dtype)), name
        assert float((tensor - before[name]).abs().max()) <= 2**-11 * float(before[name].abs().max()), name
    assert not torch.equal(after["0.weight"], before["0.weight"])
    assert set(treated.layers) >= {*LAYERS, "0.bias", "1", "1.bias", "1.running_mean", "1.running_var"}
    assert treated.untreated == {}


@pytest.mark.parametrize(
    ("stage", "kind"),
    [
        (Prune(0.3), Plain),
        (Share(3), Shared),
        (Quantize(2, range="mse"), Scaled),
        (Quantize(8, symmetric=False), Scaled),
        (Quantize(8, per_channel=False), Scaled),
    ],
    ids=repr,
)
def test_codes_and_zeros_stay(stage: Stage, kind: type) -> None:
    model = stage.apply(network(), Workbench()).model
    before, after = forms_of(model), forms_of(Halve().apply(model, Workbench()).model)
    for name in (f"{layer}.weight" for layer in LAYERS):
        old, new = before[name], after[name]
        assert isinstance(old, kind)
        assert torch.equal(values(old) == 0, values(new) == 0)
        floats = {Plain: "tensor", Shared: "codebook", Scaled: "scale"}[kind]
        assert torch.equal(getattr(new, floats), getattr(new, floats).half().float())
        assert not torch.equal(getattr(new, floats), getattr(old, floats))
        if kind is not Plain:
            assert torch.equal(old.codes, new.codes)


@pytest.mark.parametrize("stage", [Binarize(), ProductQuantize(3, 3)], ids=["binary", "vectors"])
def test_what_has_no_numbers_of_its_own_is_left_and_named(stage: Stage) -> None:
    model = stage.apply(network(), Workbench()).model
    treated = Halve().apply(model, Workbench())
    left = [name for name in LAYERS if name not in treated.layers]
    assert left
    for name in left:
        assert treated.untreated[name] == "what its weight is made of is not rounded"
        assert torch.equal(treated.model.get_submodule(name).weight, model.get_submodule(name).weight)


def test_a_layer_that_is_binary_by_itself_keeps_its_scales() -> None:
    model = registry.build("xnor_lenet5", num_classes=10, image_size=28)
    treated = Halve().apply(model, Workbench())
    binary = [name for name, module in model.named_modules() if isinstance(module, HasSigns)]
    assert binary
    assert set(binary) == {name for name in treated.untreated if name in binary}
    for name in binary:
        assert torch.equal(treated.model.get_submodule(name).weight, model.get_submodule(name).weight)


@pytest.mark.parametrize("factor", [1e9, 1e-9])
def test_what_float16_does_not_have_keeps_its_bytes(factor: float) -> None:
    model = network()
    model[0].weight.data *= factor
    treated = Halve().apply(model, Workbench())
    assert treated.untreated == {"0": "float16 does not have values as large or as small as those of weight"}
    assert torch.equal(treated.model[0].weight, model[0].weight)


def test_nothing_to_halve_is_said() -> None:
    with pytest.raises(CompressionError, match="there is nothing to treat"):
        Halve().apply(torch.nn.ReLU(), Workbench())


def test_the_model_given_is_left_alone_and_the_file_is_half() -> None:
    model = registry.build("lenet5", num_classes=10, image_size=28)
    before = copy.deepcopy(model.state_dict())
    packed = compress(model, [Code(("fixed",)), Halve()])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    whole, half = (receipt.file_bytes for receipt in packed.receipts)
    assert 1.99 < whole / half <= 2.0


def test_a_trained_grid_goes_through_norms_and_halves_to_the_file() -> None:
    torch.manual_seed(0)
    model = roughened(registry.build("resnet20", num_classes=10, image_size=32)).float()
    packed = compress(model, [Quantize(3, range="mse"), FoldBatchNorm(), Halve(), Code()])
    weights = [layer for layer in packed.receipts[-1].layers if layer.name.endswith(".weight")]
    assert {layer.form for layer in weights} == {"scaled"}
    assert all(layer.alphabet <= 7 for layer in weights)
    folded, halved = packed.receipts[1:3]
    assert halved.file_bytes < folded.file_bytes
