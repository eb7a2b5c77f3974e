"""MobileNet (arXiv:1704.04861): depthwise-separable convolutions throughout, and one factor for the width.

Native form: table 1 at width 1.0, 0.75, 0.5 or 0.25. Small-image form (64 px or less): the first two halvings of the
resolution are dropped (the stem's and the first block's), so that 32 px ends at 4 x 4, as 224 px ends at 7 x 7.

Where it differs from the paper: ReLU6 instead of ReLU, as in the authors' released code and in timm, whose weights load
by `zoo.interop`.

Shapes at width 1.0, 224: stem 32x112, 64x112, 128x56, 256x28, 512x14, 1024x7. At 32: 32x32, 64x32, 128x32, 256x16,
512x8, 1024x4.
"""

from torch import Tensor, nn

from zoo.layers import ConvNormAct, GlobalAveragePool, init_weights, is_small
from zoo.registry import register

PAPER = "arXiv:1704.04861"

#          channels stride    table 1; the stem of 32 channels, stride 2, comes before
BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
)


class SeparableConv(nn.Sequential):
    """3 x 3 depthwise, then 1 x 1 pointwise, with batch norm and ReLU6 (figure 3): [N, in, H, W] -> [N, out, ...]."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__(
            ConvNormAct(in_channels, in_channels, 3, stride=stride, groups=in_channels, activation=nn.ReLU6),
            ConvNormAct(in_channels, out_channels, 1, activation=nn.ReLU6),
        )


class MobileNetV1(nn.Module):
    """float [N, C, H, W] -> logits [N, num_classes]."""

    def __init__(self, width: float, num_classes: int, in_chans: int, image_size: int) -> None:
        super().__init__()
        halvings_to_drop = 2 if is_small(image_size) else 0
        channels = int(32 * width)
        stem_stride = 1 if halvings_to_drop else 2
        halvings_to_drop -= stem_stride == 1
        layers: list[nn.Module] = [ConvNormAct(in_chans, channels, 3, stride=stem_stride, activation=nn.ReLU6)]
        for out, native_stride in BLOCKS:
            stride = native_stride
            if stride == 2 and halvings_to_drop > 0:
                stride, halvings_to_drop = 1, halvings_to_drop - 1
            layers.append(SeparableConv(channels, int(out * width), stride))
            channels = int(out * width)
        self.features = nn.Sequential(*layers)
        self.pool = GlobalAveragePool()
        self.classifier = nn.Linear(channels, num_classes)
        init_weights(self)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        logits_NK: Tensor = self.classifier(self.pool(self.features(images_NCHW)))
        return logits_NK


@register(family="mobilenetv1", paper=PAPER, year=2017, role="efficient")
def mobilenetv1_025(num_classes: int = 1000, in_chans: int = 3, image_size: int = 224) -> nn.Module:
    """MobileNet at width 0.25."""
    return MobileNetV1(0.25, num_classes, in_chans, image_size)


@register(family="mobilenetv1", paper=PAPER, year=2017, role="efficient")
def mobilenetv1_050(num_classes: int = 1000, in_chans: int = 3, image_size: int = 224) -> nn.Module:
    """MobileNet at width 0.5."""
    return MobileNetV1(0.5, num_classes, in_chans, image_size)


@register(family="mobilenetv1", paper=PAPER, year=2017, role="efficient")
def mobilenetv1_075(num_classes: int = 1000, in_chans: int = 3, image_size: int = 224) -> nn.Module:
    """MobileNet at width 0.75."""
    return MobileNetV1(0.75, num_classes, in_chans, image_size)


@register(family="mobilenetv1", paper=PAPER, year=2017, role="efficient")
def mobilenetv1_100(num_classes: int = 1000, in_chans: int = 3, image_size: int = 224) -> nn.Module:
    """MobileNet at full width, table 1."""
    return MobileNetV1(1.0, num_classes, in_chans, image_size)
