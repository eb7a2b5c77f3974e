"""Inception-v2, or BN-Inception: every 5x5 as two 3x3, batch norm after every convolution (arXiv:1502.03167, figure 5).

Factorising the 5x5 is arXiv:1512.00567, section 3.1. Where it differs from the paper: the stem is a plain 7x7
convolution, not a separable one of depth multiplier 8, and there are no auxiliary heads.

Small-image form (<= 64 px): a 3x3 stride-1 stem instead of 7x7 / 2 and the first pooling dropped, the other three
halvings kept; every width times SMALL_WIDTH, rounded to a multiple of 8.

Shape after each stage:

| stage                | 224 px         | 32 px         |
|----------------------|----------------|---------------|
| features.conv1       | 64 x 112 x 112 | 32 x 32 x 32  |
| features.pool1       | 64 x 56 x 56   | -             |
| features.conv3       | 192 x 56 x 56  | 96 x 32 x 32  |
| features.pool2       | 192 x 28 x 28  | 96 x 16 x 16  |
| features.inception3b | 320 x 28 x 28  | 160 x 16 x 16 |
| features.inception3c | 576 x 14 x 14  | 288 x 8 x 8   |
| features.inception4d | 576 x 14 x 14  | 288 x 8 x 8   |
| features.inception4e | 1024 x 7 x 7   | 512 x 4 x 4   |
| features.inception5b | 1024 x 7 x 7   | 512 x 4 x 4   |
"""

from collections import OrderedDict
from functools import partial
from typing import Literal

from torch import Tensor, nn

from zoo.layers import Branches, ConvNormAct, GlobalAveragePool, init_weights, is_small, scaled
from zoo.registry import register

Pool = Literal["average", "max"]
Row = tuple[str, int, int, int, int, int, int, Pool, int]

#    stage, stride, 1x1, 3x3 reduce, 3x3, double 3x3 reduce, double 3x3, pool, projection    arXiv:1502.03167, figure 5
#    A 1x1 of 0 is absent; a projection of 0 passes the pooled features through.
INCEPTIONS: tuple[Row, ...] = (
    ("inception3a", 1, 64, 64, 64, 64, 96, "average", 32),
    ("inception3b", 1, 64, 64, 96, 64, 96, "average", 64),
    ("inception3c", 2, 0, 128, 160, 64, 96, "max", 0),
    ("inception4a", 1, 224, 64, 96, 96, 128, "average", 128),
    ("inception4b", 1, 192, 96, 128, 96, 128, "average", 128),
    ("inception4c", 1, 160, 128, 160, 128, 160, "average", 96),
    ("inception4d", 1, 96, 128, 192, 160, 192, "average", 96),
    ("inception4e", 2, 0, 128, 192, 192, 256, "max", 0),
    ("inception5a", 1, 352, 192, 320, 160, 224, "average", 128),
    ("inception5b", 1, 352, 192, 320, 192, 224, "max", 128),
)
SMALL_WIDTH = 0.5

conv = partial(ConvNormAct, eps=1e-3)


def inception(inputs: int, row: Row, width: float) -> tuple[Branches, int]:
    """The block of one row, and its output channels: [N, inputs, H, W] -> [N, outputs, H / stride, W / stride]."""
    _, stride, *published, pool, projection = row
    one, reduce, three, double_reduce, double = (scaled(c, width) if c else 0 for c in published)
    project = scaled(projection, width) if projection else 0
    branches: dict[str, nn.Module] = {}
    if one:
        branches["one"] = conv(inputs, one, 1)
    branches["three"] = nn.Sequential(conv(inputs, reduce, 1), conv(reduce, three, 3, stride=stride))
    branches["twice"] = nn.Sequential(
        conv(inputs, double_reduce, 1), conv(double_reduce, double, 3), conv(double, double, 3, stride=stride)
    )
    kind = nn.AvgPool2d if pool == "average" else nn.MaxPool2d
    pooling: list[nn.Module] = [kind(3, stride, padding=1)]
    if project:
        pooling.append(conv(inputs, project, 1))
    branches["pool"] = nn.Sequential(*pooling)
    return Branches(branches), one + three + double + (project or inputs)


class InceptionV2(nn.Module):
    """Stem, ten inception blocks, one linear layer: float [N, C, H, W] -> logits [N, K]."""

    def __init__(self, num_classes: int, in_chans: int, small: bool) -> None:
        super().__init__()
        width = SMALL_WIDTH if small else 1.0
        first, second = scaled(64, width), scaled(192, width)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["conv1"] = conv(in_chans, first, 3) if small else conv(in_chans, first, 7, stride=2)
        if not small:
            layers["pool1"] = nn.MaxPool2d(3, 2, padding=1)
        layers["conv2"] = conv(first, first, 1)
        layers["conv3"] = conv(first, second, 3)
        layers["pool2"] = nn.MaxPool2d(3, 2, padding=1)
        inputs = second
        for row in INCEPTIONS:
            layers[row[0]], inputs = inception(inputs, row, width)
        self.features = nn.Sequential(layers)
        self.pool = GlobalAveragePool()
        self.classifier = nn.Linear(inputs, num_classes)
        init_weights(self)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        logits_NK: Tensor = self.classifier(self.pool(self.features(images_NCHW)))
        return logits_NK


@register(family="inception", paper="arXiv:1502.03167", year=2015, role="efficient")
def inception_v2(num_classes: int = 1000, in_chans: int = 3, image_size: int = 224) -> nn.Module:
    """Inception-v2 (arXiv:1502.03167, 5x5 as two 3x3), plain 7x7 stem, no auxiliary heads.

    Small form: 3x3 stride-1 stem, first pooling dropped, half the width.
    """
    return InceptionV2(num_classes, in_chans, is_small(image_size))
