"""The published forms: parameters and MACs to the integer, logits equal to torchvision's and timm's."""

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from zoo.interop import convert_state_dict
from zoo.interop.convert import Source
from zoo.registry import architecture

#    model -> parameters without auxiliary heads, with them, MACs (convolution + linear, one image)
PUBLISHED = {
    "lenet_300_100": (266_610, 266_610, 266_200),
    "lenet5": (61_706, 61_706, 416_520),
    "lenet5_caffe": (431_080, 431_080, 2_293_000),
    "alexnet": (61_100_840, 61_100_840, 714_188_480),
    "vgg11": (132_863_336, 132_863_336, 7_609_090_048),
    "vgg13": (133_047_848, 133_047_848, 11_308_466_176),
    "vgg16": (138_357_544, 138_357_544, 15_470_264_320),
    "vgg19": (143_667_240, 143_667_240, 19_632_062_464),
    "vgg11_bn": (132_868_840, 132_868_840, 7_609_090_048),
    "vgg16_bn": (138_365_992, 138_365_992, 15_470_264_320),
    "vgg19_bn": (143_678_248, 143_678_248, 19_632_062_464),
    "squeezenet1_0": (1_248_424, 1_248_424, 818_924_576),
    "squeezenet1_1": (1_235_496, 1_235_496, 349_151_936),
    "mobilenetv1_100": (4_231_976, 4_231_976, 568_740_352),
    "mobilenetv2_100": (3_504_872, 3_504_872, 300_774_272),
    "mobilenetv2_050": (1_968_680, 1_968_680, 97_131_840),
    "googlenet": (6_624_904, 13_004_888, 1_498_376_192),
    # No library carries Inception-v2: its figures are those of our reading of the paper's table.
    "inception_v2": (11_194_984, 11_194_984, 2_018_851_840),
    "inception_v3": (23_834_568, 27_161_264, 5_713_216_096),
    "xception": (22_855_952, 22_855_952, 8_357_403_496),
}
#    ours, library, its name, its arguments, pixels that suffice to reach every layer
TWINS: tuple[tuple[str, Source, str, dict[str, float], int], ...] = (
    ("squeezenet1_0", "torchvision", "squeezenet1_0", {}, 64),
    ("squeezenet1_1", "torchvision", "squeezenet1_1", {}, 64),
    ("mobilenetv1_100", "timm", "mobilenetv1_100", {}, 64),
    ("mobilenetv2_100", "torchvision", "mobilenet_v2", {}, 64),
    ("mobilenetv2_050", "torchvision", "mobilenet_v2", {"width_mult": 0.5}, 64),
    ("mobilenetv2_100", "timm", "mobilenetv2_100", {}, 64),
    ("mobilenetv2_050", "timm", "mobilenetv2_050", {}, 64),
    ("googlenet", "torchvision", "googlenet", {"init_weights": False, "aux_logits": True}, 64),
    ("inception_v3", "torchvision", "inception_v3", {"init_weights": False, "aux_logits": True}, 139),
    ("inception_v3", "timm", "inception_v3", {}, 139),
    ("xception", "timm", "legacy_xception", {}, 96),
)
HEAVY_TWINS: tuple[tuple[str, Source, str, dict[str, float], int], ...] = (
    ("alexnet", "torchvision", "alexnet", {}, 96),
    *((name, "torchvision", name, {}, 48) for name in ("vgg11", "vgg13", "vgg16", "vgg19")),
    *((f"{name}_bn", "torchvision", f"{name}_bn", {}, 48) for name in ("vgg11", "vgg13", "vgg16", "vgg19")),
)


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Memory for a network built on the meta device, filled by random weights and statistics; evaluation mode.

    Statistics, scales and biases are random too: equal ones would hide a branch in another's place.
    """
    generator = torch.Generator().manual_seed(seed)
    model = model.to_empty(device="cpu").eval()
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if not value.is_floating_point():
                value.zero_()
            elif value.dim() > 1:
                fan_in = value[0].numel()
                value.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
            elif name.endswith(("running_var", "weight")):
                value.uniform_(0.5, 1.5, generator=generator)
            else:
                value.normal_(0, 0.1, generator=generator)
    return model


def theirs(source: Source, name: str, arguments: dict[str, float]) -> nn.Module:
    with torch.device("meta"):
        create = timm.create_model if source == "timm" else torchvision.models.get_model
        model: nn.Module = create(name, **arguments)
    return randomised(model)


def ours(name: str, state: dict[str, Tensor]) -> nn.Module:
    arch = architecture(name)
    with torch.device("meta"):
        model = arch.build(arch.num_classes, arch.image[0], arch.image[1])
    missing, unexpected = model.load_state_dict(state, strict=False, assign=True)
    assert not unexpected
    assert all(key.startswith("auxiliary.") for key in missing)
    return model.eval()


def assert_twins(name: str, source: Source, their_name: str, arguments: dict[str, float], size: int) -> None:
    twin = theirs(source, their_name, arguments)
    model = ours(name, convert_state_dict(name, twin.state_dict(), source=source))
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, logits = twin(images), model(images)
    assert expected.std() > 1e-2, "a network that says nothing proves nothing"
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(logits / scale, expected / scale, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", PUBLISHED)
def test_params_and_macs_are_the_published_ones(name: str) -> None:
    arch = architecture(name)
    with torch.device("meta"), torch.no_grad():
        model = arch.build(arch.num_classes, arch.image[0], arch.image[1]).eval()
        counter = FlopCounterMode(display=False)
        with counter:
            logits = model(torch.empty(1, *arch.image))
    every = {key: p.numel() for key, p in model.named_parameters()}
    used = sum(n for key, n in every.items() if not key.startswith("auxiliary."))
    assert (used, sum(every.values()), counter.get_total_flops() // 2) == PUBLISHED[name]
    assert logits.shape == (1, arch.num_classes)


@pytest.mark.parametrize(("name", "source", "their_name", "arguments", "size"), TWINS)
def test_logits_equal_the_library(
    name: str, source: Source, their_name: str, arguments: dict[str, float], size: int
) -> None:
    assert_twins(name, source, their_name, arguments, size)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "source", "their_name", "arguments", "size"), HEAVY_TWINS)
def test_logits_equal_the_library_for_networks_of_a_hundred_million_weights(
    name: str, source: Source, their_name: str, arguments: dict[str, float], size: int
) -> None:
    assert_twins(name, source, their_name, arguments, size)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [("googlenet", 224), ("inception_v3", 299)])
def test_logits_equal_the_library_at_the_native_size_with_auxiliary_heads(name: str, size: int) -> None:
    twin = theirs("torchvision", name, {"init_weights": False, "aux_logits": True})
    model = ours(name, convert_state_dict(name, twin.state_dict(), source="torchvision"))
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    # The root alone in training mode: the heads run, dropout and batch norm stay as in evaluation.
    twin.training = True
    with torch.no_grad():
        expected, *later = twin(images)
        logits, auxiliary = model.forward_with_auxiliary(images)  # type: ignore[operator]
    # torchvision returns the later head first.
    for got, wanted in zip([logits, *auxiliary], [expected, *reversed(later)], strict=True):
        scale = max(1.0, float(wanted.abs().max()))
        torch.testing.assert_close(got / scale, wanted / scale, atol=1e-5, rtol=0)
