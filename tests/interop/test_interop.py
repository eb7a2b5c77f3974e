"""Checkpoints that do not fit, models of other libraries, and ours in timm."""

import sys
from collections.abc import Callable
from subprocess import run

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from zoo import interop
from zoo.errors import ImageSizeError, UnknownNameError, WeightError, ZooError
from zoo.interop.reshape import replace_first_convolution
from zoo.registry import architectures, build

State = dict[str, Tensor]


@pytest.fixture
def squeezenet() -> State:
    torch.manual_seed(0)
    return dict(torchvision.models.squeezenet1_1(num_classes=10).state_dict())


@pytest.fixture(scope="module")
def mobilenet() -> State:
    torch.manual_seed(0)
    return dict(timm.create_model("mobilenetv1_100", num_classes=5, in_chans=1).state_dict())


def convert(state: State, name: str = "squeezenet1_1") -> State:
    return interop.convert_state_dict(name, state, source="torchvision")


def test_module_prefix_is_dropped(squeezenet: State) -> None:
    plain = convert(squeezenet)
    prefixed = convert({f"module.{key}": value for key, value in squeezenet.items()})
    assert plain.keys() == prefixed.keys()
    assert all(torch.equal(plain[key], prefixed[key]) for key in plain)
    build("squeezenet1_1", num_classes=10).load_state_dict(plain)


def test_classes_and_channels_are_those_of_the_checkpoint(mobilenet: State) -> None:
    converted = interop.convert_state_dict("mobilenetv1_100", mobilenet, source="timm")
    loaded = build("mobilenetv1_100", num_classes=5, in_chans=1).load_state_dict(converted)
    assert loaded.missing_keys == loaded.unexpected_keys == []


def test_half_precision_becomes_single(squeezenet: State) -> None:
    assert {v.dtype for v in convert({key: v.half() for key, v in squeezenet.items()}).values()} == {torch.float32}


def test_old_files_lack_counters(mobilenet: State) -> None:
    old = {key: value for key, value in mobilenet.items() if not key.endswith("num_batches_tracked")}
    assert len(old) < len(mobilenet)
    converted = interop.convert_state_dict("mobilenetv1_100", old, source="timm")
    assert converted["features.0.1.num_batches_tracked"] == 0


def _without(key: str) -> Callable[[State], None]:
    return lambda state: state.__delitem__(key)


def _with(key: str, value: object) -> Callable[[State], None]:
    return lambda state: state.update({key: value})  # type: ignore[dict-item]


def _spoiled(state: State) -> None:
    state["features.3.squeeze.weight"] = state["features.3.squeeze.weight"].clone()
    state["features.3.squeeze.weight"].view(-1)[5] = float("nan")


FAULTS: tuple[tuple[Callable[[State], None], str], ...] = (
    (_without("features.3.squeeze.weight"), r"lacks 'features\.2\.squeeze\.0\.weight'"),
    (_without("classifier.1.bias"), r"lacks 'classifier\.bias'"),
    (_without("features.0.weight"), r"lacks 'features\.0\.0\.weight'"),
    (dict.clear, "and 49 more"),
    (_with("features.99.weight", torch.zeros(1)), r"holds 'features\.99\.weight', which the network has not"),
    (_with("features.0.weight", torch.zeros(64, 3, 5, 5)), r"'features\.0\.weight' .* is 64x3x5x5; .* 64x3x3x3"),
    (_with("features.0.weight", torch.zeros(())), r"'features\.0\.weight' .* is a single number"),
    (_with("classifier.1.bias", torch.zeros(11)), r"'classifier\.1\.weight' .* is 10x512x1x1; .* needs 11x512x1x1"),
    (_with("classifier.1.bias", torch.zeros(0)), r"'classifier\.1\.weight' .* 10x512x1x1"),
    (_with("features.0.bias", torch.zeros(64, dtype=torch.int64)), r"'features\.0\.bias' .* type torch\.int64"),
    (_with("features.0.bias", torch.zeros(64, dtype=torch.complex64)), "type torch.complex64"),
    (_with("epoch", 3), "holds 'epoch', a int, not a tensor"),
    (_with("state_dict", {}), "give the state dict inside the file"),
    (
        _with("module.features.0.bias", torch.zeros(64)),
        "'features.0.bias' and 'module.features.0.bias', which are the same",
    ),
    (_spoiled, r"'features\.3\.squeeze\.weight' .* not finite"),
)


@pytest.mark.parametrize(("spoil", "message"), FAULTS)
def test_a_bad_checkpoint_is_named_in_one_sentence(
    squeezenet: State, spoil: Callable[[State], None], message: str
) -> None:
    spoil(squeezenet)
    with pytest.raises(WeightError, match=message) as caught:
        convert(squeezenet)
    assert "\n" not in str(caught.value)


def test_wrong_names(squeezenet: State) -> None:
    with pytest.raises(UnknownNameError, match="squeezenet1_1"):
        convert(squeezenet, "squeezenet11")
    with pytest.raises(WeightError, match="no torchvision checkpoint can be converted into 'nin'; torchvision serves"):
        convert(squeezenet, "nin")
    with pytest.raises(UnknownNameError, match=r"source of weights.*'torchvisoin'.*'torchvision'"):
        interop.convert_state_dict("squeezenet1_1", squeezenet, source="torchvisoin")  # type: ignore[arg-type]


def test_a_checkpoint_of_another_network_is_refused(squeezenet: State) -> None:
    with pytest.raises(WeightError, match="squeezenet1_0"):
        convert(squeezenet, "squeezenet1_0")


def test_auxiliary_heads_are_converted_when_there_and_whole() -> None:
    with torch.device("meta"):
        twin = torchvision.models.googlenet(num_classes=4, init_weights=False, aux_logits=True)
    state = {key: torch.zeros(value.shape, dtype=value.dtype) for key, value in twin.state_dict().items()}
    with_heads = convert(state, "googlenet")
    without = convert({key: v for key, v in state.items() if not key.startswith("aux")}, "googlenet")
    one_head = convert({key: v for key, v in state.items() if not key.startswith("aux2")}, "googlenet")
    assert {key.split(".")[1] for key in with_heads if key.startswith("auxiliary.")} == {"inception4a", "inception4d"}
    assert {key.split(".")[1] for key in one_head if key.startswith("auxiliary.")} == {"inception4a"}
    assert list(without) == [key for key in with_heads if not key.startswith("auxiliary.")]
    del state["aux1.fc1.bias"]
    with pytest.raises(WeightError, match=r"lacks 'auxiliary\.inception4a\.fc1\.bias'"):
        convert(state, "googlenet")


@pytest.mark.parametrize(
    ("name", "in_chans", "size"),
    [
        ("timm/resnet18", 1, 28),
        ("timm/vit_tiny_patch16_224", 3, 64),
        ("torchvision/resnet18", 1, 28),
        ("torchvision/squeezenet1_1", 3, 32),
        ("torchvision/googlenet", 1, 32),
        ("torchvision/inception_v3", 3, 96),
    ],
)
def test_external_models_return_one_tensor_in_both_modes(name: str, in_chans: int, size: int) -> None:
    model = interop.create_external(name, 10, in_chans, size, pretrained=False)
    assert not model.training
    images = torch.randn(2, in_chans, size, size)
    for mode in (False, True):
        logits = model.train(mode)(images)
        assert isinstance(logits, Tensor)
        assert logits.shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm/resnet81", "timm model is called 'resnet81'.*Did you mean 'resnet18'"),
        ("torchvision/resnet81", "torchvision classifier is called 'resnet81'.*Did you mean 'resnet18'"),
        ("torchvision/fasterrcnn_resnet50_fpn", "torchvision classifier"),
        ("keras/resnet50", "library of models is called 'keras'"),
        ("resnet18", "names no library"),
    ],
)
def test_unknown_external_models(name: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        interop.create_external(name, 10, 3, 32, pretrained=False)


@pytest.mark.parametrize(
    ("name", "in_chans", "size"),
    [
        ("torchvision/inception_v3", 3, 32),
        ("torchvision/alexnet", 3, 32),
        ("torchvision/vit_b_16", 3, 33),
        ("torchvision/resnet18", 0, 32),
    ],
)
def test_external_models_refuse_images_that_do_not_fit(name: str, in_chans: int, size: int) -> None:
    with pytest.raises(ImageSizeError, match=name) as caught:
        interop.create_external(name, 10, in_chans, size, pretrained=False)
    assert "\n" not in str(caught.value)


def test_pretrained_weights_of_torchvision_are_read_as_tensors_only(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    published = torchvision.models.squeezenet1_1()
    asked: list[dict[str, object]] = []

    def fetch(url: str, **options: object) -> State:
        asked.append(options)
        return dict(published.state_dict())

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    model = interop.create_external("torchvision/squeezenet1_1", 1000, 3, 64, pretrained=True)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(images), published.eval()(images))
    assert asked == [{"progress": False, "check_hash": True, "weights_only": True}]
    grey = interop.create_external("torchvision/squeezenet1_1", 10, 1, 64, pretrained=True)
    assert grey(images[:, :1]).shape == (1, 10)
    kept = ("features.3.squeeze.weight", "features.12.expand3x3.bias")
    assert all(torch.equal(grey.state_dict()[key], published.state_dict()[key]) for key in kept)


@pytest.mark.parametrize("name", ["timm/resnet18.a1_in1k", "torchvision/resnet18"])
def test_pretrained_weights_that_cannot_be_had(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> State:
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", fail)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_url", fail)
    with pytest.raises(WeightError, match=rf"weights of {name} cannot be had \(no route to host\)"):
        interop.create_external(name, 10, 3, 32, pretrained=True)


def test_a_grey_image_through_the_replaced_convolution_is_the_image_in_three_channels() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1))
    grey = torch.randn(2, 1, 16, 16)
    expected = model(grey.expand(-1, 3, -1, -1))
    replace_first_convolution(model, 1)
    torch.testing.assert_close(model(grey), expected)
    with pytest.raises(ImageSizeError, match="3 channels only"):
        replace_first_convolution(nn.Sequential(nn.Linear(3, 3)), 1)


def test_our_models_in_timm() -> None:
    names = interop.register_with_timm()
    assert names == interop.register_with_timm() == [f"zoo_{name}" for name in architectures()]
    assert set(timm.list_models("zoo_*")) >= set(names)
    model = timm.create_model("zoo_squeezenet1_1", num_classes=10, in_chans=3, img_size=32)
    ours = build("squeezenet1_1", num_classes=10, in_chans=3, image_size=32)
    assert model.training
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in ours.state_dict().items()}
    assert timm.data.resolve_model_data_config(model)["input_size"] == (3, 32, 32)
    assert timm.create_model("zoo_lenet5").eval()(torch.zeros(1, 1, 32, 32)).shape == (1, 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pretrained": True}, "zoo.create_model"),
        ({"img_size": (32, 48)}, "squares"),
        ({"drop_rate": 0.5}, "drop_rate=0.5"),
        ({"num_classes": 0}, "num_classes=0"),
    ],
)
def test_what_timm_may_not_ask_of_ours(options: dict[str, object], message: str) -> None:
    interop.register_with_timm()
    with pytest.raises(ZooError, match=message):
        timm.create_model("zoo_squeezenet1_1", **options)


def test_importing_interop_loads_neither_library() -> None:
    code = "import sys, zoo.interop; sys.exit('timm' in sys.modules or 'torchvision' in sys.modules)"
    assert run([sys.executable, "-c", code], check=False).returncode == 0
