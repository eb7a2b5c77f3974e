"""MobileNet-v2 (arXiv:1801.04381): inverted residuals with linear bottlenecks.

Native form: table 2 at width 1.0 or 0.5 (the last convolution is never narrower than 1280, section 4). Small-image form
(64 px or less): the first two halvings of the resolution are dropped (the stem's and the 24-channel stage's), no
dropout, so that 32 px ends at 4 x 4.

Shapes at width 1.0, 224: stem 32x112, 16x112, 24x56, 32x28, 64x14, 96x14, 160x7, 320x7, 1280x7. At 32: 32x32, 16x32,
24x32, 32x16, 64x8, 96x8, 160x4, 320x4, 1280x4.
"""

from torch import Tensor, nn

from zoo.layers import ConvNormAct, GlobalAveragePool, init_weights, is_small, scaled
from zoo.registry import register

PAPER = "arXiv:1801.04381"

#          expansion channels repeats stride     table 2
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """Expand 1 x 1, filter depthwise 3 x 3, project 1 x 1, linear; table 1. [N, in, H, W] -> [N, out, ...]."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(ConvNormAct(in_channels, hidden, 1, activation=nn.ReLU6))
        layers.append(ConvNormAct(hidden, hidden, 3, stride=stride, groups=hidden, activation=nn.ReLU6))
        layers.append(ConvNormAct(hidden, out_channels, 1, activation=None))
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, features_NCHW: Tensor) -> Tensor:
        out: Tensor = self.layers(features_NCHW)
        return features_NCHW + out if self.residual else out


class MobileNetV2(nn.Module):
    """float [N, C, H, W] -> logits [N, num_classes]."""

    def __init__(self, width: float, num_classes: int, in_chans: int, image_size: int) -> None:
        super().__init__()
        small = is_small(image_size)
        channels = scaled(32, width)
        blocks: list[nn.Module] = [
            ConvNormAct(in_chans, channels, 3, stride=1 if small else 2, activation=nn.ReLU6),
        ]
        for index, (expansion, base, repeats, stage_stride) in enumerate(STAGES):
            out = scaled(base, width)
            for repeat in range(repeats):
                stride = stage_stride if repeat == 0 and not (small and index == 1) else 1
                blocks.append(InvertedResidual(channels, out, stride, expansion))
                channels = out
        last = scaled(1280, max(1.0, width))
        blocks.append(ConvNormAct(channels, last, 1, activation=nn.ReLU6))
        self.features = nn.Sequential(*blocks)
        self.pool = GlobalAveragePool()
        self.dropout = nn.Dropout(0.0 if small else 0.2)
        self.classifier = nn.Linear(last, num_classes)
        init_weights(self)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        logits_NK: Tensor = self.classifier(self.dropout(self.pool(self.features(images_NCHW))))
        return logits_NK


@register(family="mobilenetv2", paper=PAPER, year=2018, role="efficient")
def mobilenetv2_050(num_classes: int = 1000, in_chans: int = 3, image_size: int = 224) -> nn.Module:
    """MobileNet-v2 at width 0.5."""
    return MobileNetV2(0.5, num_classes, in_chans, image_size)


@register(family="mobilenetv2", paper=PAPER, year=2018, role="efficient")
def mobilenetv2_100(num_classes: int = 1000, in_chans: int = 3, image_size: int = 224) -> nn.Module:
    """MobileNet-v2 at full width, table 2."""
    return MobileNetV2(1.0, num_classes, in_chans, image_size)
