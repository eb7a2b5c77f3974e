"""One contract for every registered model: a new one is tested by existing."""

import inspect

import pytest
import torch

from zoo.errors import ImageSizeError, UnknownNameError, ZooError
from zoo.registry import architecture, architectures, build, match, register
from zoo.training.objectives import default_objective

NAMES = list(architectures())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("channels", "size", "classes"), [(1, 28, 10), (3, 32, 7)])
def test_a_small_form_maps_images_to_logits_and_learns(name: str, channels: int, size: int, classes: int) -> None:
    torch.manual_seed(0)
    model = build(name, num_classes=classes, in_chans=channels, image_size=size)
    assert not model.training
    images = torch.randn(2, channels, size, size)
    logits = model(images)
    assert logits.shape == (2, classes)
    assert torch.isfinite(logits).all()
    assert torch.equal(logits, model(images)), "eval mode takes no chances"
    in_train_mode = model.train()(images)
    assert isinstance(in_train_mode, torch.Tensor)
    assert in_train_mode.shape == (2, classes)
    default_objective(model, 0.0)(model, images, torch.tensor([0, 1])).backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None]
    assert idle == [], "every parameter takes part, those of auxiliary heads, exits and narrower widths too"
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [28, 29, 47, 64])
def test_every_small_size_is_taken(name: str, size: int) -> None:
    """`build` promises 28 to 64 px without a look; this is the look."""
    with torch.device("meta"), torch.no_grad():
        model = architecture(name).build(5, 1, size).eval()
        assert model(torch.empty(2, 1, size, size)).shape == (2, 5)


@pytest.mark.parametrize("name", NAMES)
def test_a_builder_says_what_it_is(name: str) -> None:
    arch = architecture(name)
    assert arch.build.__name__ == name == arch.name
    assert list(inspect.signature(arch.build).parameters) == ["num_classes", "in_chans", "image_size"]
    assert arch.paper
    assert 1980 < arch.year < 2030
    assert arch.build.__doc__, "a builder's docstring names the paper's table or where it differs"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1, 4, 8, 20])
def test_an_image_is_taken_or_refused_with_the_least_size(name: str, size: int) -> None:
    try:
        model = build(name, num_classes=3, in_chans=1, image_size=size)
    except ImageSizeError as error:
        text = str(error)
        assert f"{size} x {size}" in text
        assert name in text
        assert "fails at" in text
        least = int(text.rpartition(" x ")[2].rstrip("."))
        assert least > size
        with torch.no_grad():
            assert build(name, num_classes=3, in_chans=1, image_size=least)(torch.randn(1, 1, least, least)).shape == (
                1,
                3,
            )
        with pytest.raises(ImageSizeError):
            build(name, num_classes=3, in_chans=1, image_size=least - 1)
    else:
        with torch.no_grad():
            assert model(torch.randn(1, 1, size, size)).shape == (1, 3)


def test_some_model_is_too_large_for_a_tiny_image() -> None:
    with pytest.raises(ImageSizeError, match=r"an image of 4 x 4 is too small for lenet5_caffe: it fails at '0'"):
        build("lenet5_caffe", image_size=4)


@pytest.mark.parametrize("wrong", [{"num_classes": 0}, {"in_chans": 0}, {"image_size": -3}])
def test_counts_below_one_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ImageSizeError, match="at least 1"):
        build("lenet5", **wrong)


def test_a_typo_gets_a_guess() -> None:
    with pytest.raises(UnknownNameError, match=r"no model is called 'squeezenet11'\. Did you mean 'squeezenet1_1'"):
        build("squeezenet11")


def test_a_twin_is_an_error() -> None:
    def lenet5(num_classes: int = 10, in_chans: int = 1, image_size: int = 28) -> torch.nn.Module:
        return torch.nn.Identity()

    with pytest.raises(ZooError, match="'lenet5' is registered already"):
        register(family="lenet", paper="-", year=2000, role="baseline")(lenet5)
    assert architecture("lenet5").build is not lenet5


def test_match_keeps_the_order_of_registration_and_knows_families() -> None:
    assert match("squeezenet*") == ["squeezenet1_0", "squeezenet1_0_bypass", "squeezenet1_1"]
    assert match(family="resnet") == ["resnet20", "resnet56"]
    assert match("nothing*") == []
    with pytest.raises(UnknownNameError, match=r"no family is called 'resnets'\. Did you mean 'resnet'"):
        match(family="resnets")


def test_the_bypass_adds_the_input_where_channels_match() -> None:
    torch.manual_seed(0)
    model = build("squeezenet1_0_bypass", image_size=32)
    fires = [m for m in model.modules() if type(m).__name__ == "Fire"]
    assert [fire.bypass for fire in fires] == [False, True, False, True, False, True, False, True]
    plain = build("squeezenet1_0", image_size=32)
    plain.load_state_dict(model.state_dict())
    images = torch.randn(1, 3, 32, 32)
    assert not torch.equal(model(images), plain(images))


def test_mobilenet_widths_are_the_paper_s() -> None:
    channels = {
        name: build(name, image_size=32).classifier.in_features  # type: ignore[union-attr]
        for name in match("mobilenetv1_*")
    }
    assert channels == {
        "mobilenetv1_025": 256,
        "mobilenetv1_050": 512,
        "mobilenetv1_075": 768,
        "mobilenetv1_100": 1024,
    }
