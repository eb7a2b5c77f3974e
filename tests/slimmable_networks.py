"""Networks small enough to be trained in a test: one family of four widths, and the slimmable one of them all."""

import pytest
import torch
from torch import Tensor, nn

from zoo import registry
from zoo.layers import ConvNormAct, GlobalAveragePool
from zoo.models.slimmable import Slimmable
from zoo.registry import Architecture

NAMES = {0.25: "tiny_025", 0.5: "tiny_050", 0.75: "tiny_075", 1.0: "tiny_100"}
SLIMMABLE = "slimmable_tiny"


class Tiny(nn.Module):
    """[N, C, H, W] -> [N, K] through a plain, a strided depthwise and a pointwise convolution, and a linear layer."""

    def __init__(self, width: float, num_classes: int, in_chans: int) -> None:
        super().__init__()
        narrow, wide = int(16 * width), int(48 * width)
        self.features = nn.Sequential(
            ConvNormAct(in_chans, narrow, 3, stride=2),
            ConvNormAct(narrow, narrow, 3, stride=2, groups=narrow),
            ConvNormAct(narrow, wide, 1),
        )
        self.pool = GlobalAveragePool()
        self.classifier = nn.Linear(wide, num_classes)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        logits_NK: Tensor = self.classifier(self.pool(self.features(images_NCHW)))
        return logits_NK


def enter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register them for one test."""

    def add(name: str, build: registry.Builder) -> None:
        found = Architecture(name, "tiny", "-", 2026, "efficient", (1, 28, 28), 10, build)
        monkeypatch.setitem(registry._ARCHITECTURES, name, found)

    for width, name in NAMES.items():
        add(name, lambda classes, channels, _size, width=width: Tiny(width, classes, channels))  # type: ignore[misc]
    add(SLIMMABLE, lambda *sizes: Slimmable(NAMES, *sizes))


def build(name: str = SLIMMABLE, image: tuple[int, int, int] = (1, 28, 28), num_classes: int = 10) -> nn.Module:
    """A network with seeded weights, and with norms that differ from channel to channel."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = registry.build(name, num_classes=num_classes, in_chans=image[0], image_size=image[1])
        with torch.no_grad():
            for key, tensor in model.state_dict().items():
                if tensor.ndim == 1:
                    low, high = (-0.5, 0.5) if key.endswith(("bias", "mean")) else (0.5, 1.5)
                    tensor.uniform_(low, high)
    return model


def slimmable(image: tuple[int, int, int] = (1, 28, 28), num_classes: int = 10) -> Slimmable:
    """The slimmable one of the small family, with seeded weights."""
    model = build(SLIMMABLE, image, num_classes)
    assert isinstance(model, Slimmable)
    return model
