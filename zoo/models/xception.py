"""Xception: depthwise separable convolutions with linear residual connections (arXiv:1610.02357, figure 5).

The two stem convolutions do not pad, as in the author's code and in timm's `legacy_xception`, whose weights load by
`zoo.interop`; the dropout of 0.5 before the classifier is the paper's (section 4.5.2) and timm's default is none.

Small-image form (<= 64 px): padded stride-1 stem and no halving in the first block, the other three halvings kept;
every width times SMALL_WIDTH, rounded to a multiple of 8; no dropout.

Shape after each stage:

| stage            | 299 px         | 32 px         |
|------------------|----------------|---------------|
| features.conv1   | 32 x 149 x 149 | 16 x 32 x 32  |
| features.conv2   | 64 x 147 x 147 | 24 x 32 x 32  |
| features.block1  | 128 x 74 x 74  | 40 x 32 x 32  |
| features.block2  | 256 x 37 x 37  | 88 x 16 x 16  |
| features.block3  | 728 x 19 x 19  | 240 x 8 x 8   |
| features.block11 | 728 x 19 x 19  | 240 x 8 x 8   |
| features.block12 | 1024 x 10 x 10 | 344 x 4 x 4   |
| features.conv3   | 1536 x 10 x 10 | 512 x 4 x 4   |
| features.conv4   | 2048 x 10 x 10 | 680 x 4 x 4   |
"""

from collections import OrderedDict

from torch import Tensor, nn

from zoo.layers import ConvNormAct, GlobalAveragePool, init_weights, is_small, scaled
from zoo.registry import register

#    block, widths of its separable convolutions, stride         arXiv:1610.02357, figure 5
MIDDLE = (728, 728, 728)
BLOCKS: tuple[tuple[str, tuple[int, ...], int], ...] = (
    ("block1", (128, 128), 2),
    ("block2", (256, 256), 2),
    ("block3", (728, 728), 2),
    *((f"block{number}", MIDDLE, 1) for number in range(4, 12)),
    ("block12", (728, 1024), 2),
)
SMALL_WIDTH = 1 / 3


def separable(inputs: int, outputs: int) -> nn.Sequential:
    """3x3 on each channel alone, then 1x1 over all; nothing in between: [N, inputs, H, W] -> [N, outputs, H, W]."""
    return nn.Sequential(
        OrderedDict(
            depthwise=nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
            pointwise=nn.Conv2d(inputs, outputs, 1, bias=False),
        )
    )


class Block(nn.Module):
    """Separable convolutions each behind a ReLU, plus a skip: [N, inputs, H, W] -> [N, last width, H', W'].

    relu_first: False in the block after the stem, whose input comes from a ReLU.
    """

    def __init__(self, inputs: int, widths: tuple[int, ...], stride: int, relu_first: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = inputs
        for number, width in enumerate(widths):
            if number or relu_first:
                # The first ReLU must not work in place: the skip reads the same tensor.
                layers.append(nn.ReLU(inplace=number > 0))
            layers += [separable(channels, width), nn.BatchNorm2d(width)]
            channels = width
        if stride > 1:
            layers.append(nn.MaxPool2d(3, stride, padding=1))
        self.body = nn.Sequential(*layers)
        same = inputs == channels and stride == 1
        self.skip = nn.Identity() if same else ConvNormAct(inputs, channels, 1, stride=stride, activation=None)

    def forward(self, features_NCHW: Tensor) -> Tensor:
        out: Tensor = self.body(features_NCHW) + self.skip(features_NCHW)
        return out


class Xception(nn.Module):
    """Entry, middle and exit flow, one linear layer: float [N, C, H, W] -> logits [N, K]."""

    def __init__(self, num_classes: int, in_chans: int, small: bool) -> None:
        super().__init__()
        width, padding = (SMALL_WIDTH, 1) if small else (1.0, 0)
        first, inputs = scaled(32, width), scaled(64, width)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["conv1"] = ConvNormAct(in_chans, first, 3, stride=1 if small else 2, padding=padding)
        layers["conv2"] = ConvNormAct(first, inputs, 3, padding=padding)
        for name, published, stride in BLOCKS:
            widths = tuple(scaled(c, width) for c in published)
            first_block = name == "block1"
            layers[name] = Block(inputs, widths, 1 if small and first_block else stride, relu_first=not first_block)
            inputs = widths[-1]
        for name, published_width in (("conv3", 1536), ("conv4", 2048)):
            outputs = scaled(published_width, width)
            layers[name] = nn.Sequential(
                OrderedDict(
                    separable=separable(inputs, outputs), norm=nn.BatchNorm2d(outputs), relu=nn.ReLU(inplace=True)
                )
            )
            inputs = outputs
        self.features = nn.Sequential(layers)
        self.pool = GlobalAveragePool()
        self.dropout = nn.Dropout(0.0 if small else 0.5)
        self.classifier = nn.Linear(inputs, num_classes)
        init_weights(self)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        logits_NK: Tensor = self.classifier(self.dropout(self.pool(self.features(images_NCHW))))
        return logits_NK


@register(family="xception", paper="arXiv:1610.02357", year=2016, role="efficient")
def xception(num_classes: int = 1000, in_chans: int = 3, image_size: int = 299) -> nn.Module:
    """Xception (arXiv:1610.02357), the same network as timm's `legacy_xception`.

    Small form: padded stride-1 stem, no halving in the first block, a third of the width, no dropout.
    """
    return Xception(num_classes, in_chans, is_small(image_size))
