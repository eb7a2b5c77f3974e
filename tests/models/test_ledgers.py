"""The shape after each stage, as the module docstrings state it; and what the small-image forms promise."""

from importlib import import_module

import pytest
import torch
from torch import Tensor, nn

from zoo.registry import architecture

Shape = tuple[int, int, int]
Ledger = tuple[tuple[str, Shape], ...]

#    model -> image size -> submodule, (channels, height, width) of what it returns
STAGES: dict[str, dict[int, Ledger]] = {
    "alexnet": {
        224: (
            ("features.conv1", (64, 55, 55)),
            ("features.pool1", (64, 27, 27)),
            ("features.conv2", (192, 27, 27)),
            ("features.pool2", (192, 13, 13)),
            ("features.conv3", (384, 13, 13)),
            ("features.conv5", (256, 13, 13)),
            ("features.pool5", (256, 6, 6)),
        ),
        32: (
            ("features.conv1", (64, 32, 32)),
            ("features.pool1", (64, 16, 16)),
            ("features.conv2", (192, 16, 16)),
            ("features.pool2", (192, 8, 8)),
            ("features.conv3", (384, 8, 8)),
            ("features.conv5", (256, 8, 8)),
            ("features.pool5", (256, 4, 4)),
        ),
    },
    "googlenet": {
        224: (
            ("features.conv1", (64, 112, 112)),
            ("features.pool1", (64, 56, 56)),
            ("features.conv3", (192, 56, 56)),
            ("features.pool2", (192, 28, 28)),
            ("features.inception3b", (480, 28, 28)),
            ("features.pool3", (480, 14, 14)),
            ("features.inception4e", (832, 14, 14)),
            ("features.pool4", (832, 7, 7)),
            ("features.inception5b", (1024, 7, 7)),
        ),
        32: (
            ("features.conv1", (64, 32, 32)),
            ("features.conv3", (192, 32, 32)),
            ("features.pool2", (192, 16, 16)),
            ("features.inception3b", (480, 16, 16)),
            ("features.pool3", (480, 8, 8)),
            ("features.inception4e", (832, 8, 8)),
            ("features.pool4", (832, 4, 4)),
            ("features.inception5b", (1024, 4, 4)),
        ),
    },
    "inception_v2": {
        224: (
            ("features.conv1", (64, 112, 112)),
            ("features.pool1", (64, 56, 56)),
            ("features.conv3", (192, 56, 56)),
            ("features.pool2", (192, 28, 28)),
            ("features.inception3b", (320, 28, 28)),
            ("features.inception3c", (576, 14, 14)),
            ("features.inception4d", (576, 14, 14)),
            ("features.inception4e", (1024, 7, 7)),
            ("features.inception5b", (1024, 7, 7)),
        ),
        32: (
            ("features.conv1", (32, 32, 32)),
            ("features.conv3", (96, 32, 32)),
            ("features.pool2", (96, 16, 16)),
            ("features.inception3b", (160, 16, 16)),
            ("features.inception3c", (288, 8, 8)),
            ("features.inception4d", (288, 8, 8)),
            ("features.inception4e", (512, 4, 4)),
            ("features.inception5b", (512, 4, 4)),
        ),
    },
    "inception_v3": {
        299: (
            ("features.conv1a", (32, 149, 149)),
            ("features.conv2a", (32, 147, 147)),
            ("features.conv2b", (64, 147, 147)),
            ("features.pool1", (64, 73, 73)),
            ("features.conv4a", (192, 71, 71)),
            ("features.pool2", (192, 35, 35)),
            ("features.mixed5d", (288, 35, 35)),
            ("features.mixed6a", (768, 17, 17)),
            ("features.mixed6e", (768, 17, 17)),
            ("features.mixed7a", (1280, 8, 8)),
            ("features.mixed7c", (2048, 8, 8)),
        ),
        32: (
            ("features.conv1a", (16, 32, 32)),
            ("features.conv2a", (16, 32, 32)),
            ("features.conv2b", (24, 32, 32)),
            ("features.conv4a", (64, 32, 32)),
            ("features.pool2", (64, 16, 16)),
            ("features.mixed5d", (104, 16, 16)),
            ("features.mixed6a", (264, 8, 8)),
            ("features.mixed6e", (256, 8, 8)),
            ("features.mixed7a", (424, 4, 4)),
            ("features.mixed7c", (680, 4, 4)),
        ),
    },
    "xception": {
        299: (
            ("features.conv1", (32, 149, 149)),
            ("features.conv2", (64, 147, 147)),
            ("features.block1", (128, 74, 74)),
            ("features.block2", (256, 37, 37)),
            ("features.block3", (728, 19, 19)),
            ("features.block11", (728, 19, 19)),
            ("features.block12", (1024, 10, 10)),
            ("features.conv3", (1536, 10, 10)),
            ("features.conv4", (2048, 10, 10)),
        ),
        32: (
            ("features.conv1", (16, 32, 32)),
            ("features.conv2", (24, 32, 32)),
            ("features.block1", (40, 32, 32)),
            ("features.block2", (88, 16, 16)),
            ("features.block3", (240, 8, 8)),
            ("features.block11", (240, 8, 8)),
            ("features.block12", (344, 4, 4)),
            ("features.conv3", (512, 4, 4)),
            ("features.conv4", (680, 4, 4)),
        ),
    },
}
CASES = [(name, size) for name, ledgers in STAGES.items() for size in ledgers]
NARROWED = ("inception_v2", "inception_v3", "xception")


def on_meta(name: str, num_classes: int, in_chans: int, image_size: int) -> nn.Module:
    with torch.device("meta"):
        return architecture(name).build(num_classes, in_chans, image_size)


@pytest.mark.parametrize(("name", "size"), CASES)
def test_shape_after_each_stage(name: str, size: int) -> None:
    model = on_meta(name, 10, 3, size).eval()
    seen: list[tuple[str, Shape]] = []
    for stage, _ in STAGES[name][size]:

        def note(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor, stage: str = stage) -> None:
            _, channels, height, width = output.shape
            seen.append((stage, (channels, height, width)))

        model.get_submodule(stage).register_forward_hook(note)
    model(torch.empty(1, 3, size, size, device="meta"))
    assert tuple(seen) == STAGES[name][size]


@pytest.mark.parametrize("name", STAGES)
def test_the_docstring_states_the_same_ledger(name: str) -> None:
    native, small = sorted(STAGES[name], reverse=True)
    rows: dict[int, list[tuple[str, Shape]]] = {native: [], small: []}
    for line in (import_module(f"zoo.models.{name}").__doc__ or "").splitlines():
        if line.startswith("| features."):
            stage, *shapes = (cell.strip() for cell in line.strip("|").split("|"))
            for size, shape in zip((native, small), shapes, strict=True):
                if shape != "-":
                    channels, height, width = map(int, shape.split(" x "))
                    rows[size].append((stage, (channels, height, width)))
    assert {size: tuple(ledger) for size, ledger in rows.items()} == STAGES[name]


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("size", [28, 29, 32, 47, 64])
@pytest.mark.parametrize("in_chans", [1, 3])
def test_the_small_form_takes_every_small_image(name: str, size: int, in_chans: int) -> None:
    model = on_meta(name, 7, in_chans, size).train()
    assert model(torch.empty(2, in_chans, size, size, device="meta")).shape == (2, 7)


@pytest.mark.parametrize("name", STAGES)
def test_the_small_form_has_neither_heads_nor_dropout(name: str) -> None:
    model = on_meta(name, 10, 3, 64)
    assert not [key for key in model.state_dict() if key.startswith("auxiliary.")]
    assert all(m.p == 0 for m in model.modules() if isinstance(m, nn.Dropout))


@pytest.mark.parametrize("name", NARROWED)
def test_the_narrowed_small_forms_have_two_to_three_million_parameters(name: str) -> None:
    assert 2e6 < sum(p.numel() for p in on_meta(name, 10, 3, 32).parameters()) < 3e6


@pytest.mark.parametrize(("name", "size", "heads"), [("googlenet", 224, 2), ("inception_v3", 299, 1)])
def test_auxiliary_heads_have_their_own_method(name: str, size: int, heads: int) -> None:
    model = on_meta(name, 10, 3, size).train()
    images = torch.empty(2, 3, size, size, device="meta")
    assert isinstance(model(images), Tensor)
    logits, auxiliary = model.forward_with_auxiliary(images)
    assert [tuple(x.shape) for x in (logits, *auxiliary)] == [(2, 10)] * (1 + heads)
    small = on_meta(name, 10, 3, 32).train()
    logits, auxiliary = small.forward_with_auxiliary(torch.empty(2, 3, 32, 32, device="meta"))
    assert tuple(logits.shape) == (2, 10)
    assert auxiliary == []


def test_forward_with_auxiliary_gives_the_logits_of_forward() -> None:
    torch.manual_seed(0)
    model = architecture("googlenet").build(10, 3, 96).eval()
    images = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        assert torch.equal(model(images), model.forward_with_auxiliary(images)[0])
