"""GoogLeNet, or Inception-v1 (arXiv:1409.4842, table 1).

Where it differs from the paper: batch norm after every convolution and, in the branch that the table heads "5x5",
3x3 kernels. Both come from torchvision, whose weights load by `zoo.interop`: with 5x5 kernels they would not fit.

The native form has the paper's two auxiliary heads, for training only: `forward_with_auxiliary` reaches them, `forward`
never runs them, and every key of theirs starts with `auxiliary.`.

Small-image form (<= 64 px): a 3x3 stride-1 stem instead of 7x7 / 2 and the first pooling dropped, the other three
kept; full width; no auxiliary heads and no dropout.

Shape after each stage:

| stage                | 224 px         | 32 px         |
|----------------------|----------------|---------------|
| features.conv1       | 64 x 112 x 112 | 64 x 32 x 32  |
| features.pool1       | 64 x 56 x 56   | -             |
| features.conv3       | 192 x 56 x 56  | 192 x 32 x 32 |
| features.pool2       | 192 x 28 x 28  | 192 x 16 x 16 |
| features.inception3b | 480 x 28 x 28  | 480 x 16 x 16 |
| features.pool3       | 480 x 14 x 14  | 480 x 8 x 8   |
| features.inception4e | 832 x 14 x 14  | 832 x 8 x 8   |
| features.pool4       | 832 x 7 x 7    | 832 x 4 x 4   |
| features.inception5b | 1024 x 7 x 7   | 1024 x 4 x 4  |
"""

from collections import OrderedDict
from functools import partial

from torch import Tensor, nn

from zoo.layers import Branches, ConvNormAct, GlobalAveragePool, init_weights, is_small
from zoo.registry import register

Widths = tuple[int, int, int, int, int, int]

#    1x1, 3x3 reduce, 3x3, "5x5" reduce, "5x5", pool projection    arXiv:1409.4842, table 1
INCEPTIONS: tuple[tuple[str, Widths], ...] = (
    ("inception3a", (64, 96, 128, 16, 32, 32)),
    ("inception3b", (128, 128, 192, 32, 96, 64)),
    ("inception4a", (192, 96, 208, 16, 48, 64)),
    ("inception4b", (160, 112, 224, 24, 64, 64)),
    ("inception4c", (128, 128, 256, 24, 64, 64)),
    ("inception4d", (112, 144, 288, 32, 64, 64)),
    ("inception4e", (256, 160, 320, 32, 128, 128)),
    ("inception5a", (256, 160, 320, 32, 128, 128)),
    ("inception5b", (384, 192, 384, 48, 128, 128)),
)
POOL_AFTER = {"inception3b": ("pool3", 3), "inception4e": ("pool4", 2)}  # name and kernel
AUXILIARY_AFTER = (("inception4a", 512), ("inception4d", 528))  # and the channels there

conv = partial(ConvNormAct, eps=1e-3)


def pool(kernel_size: int) -> nn.MaxPool2d:
    """Halve height and width, rounding up."""
    return nn.MaxPool2d(kernel_size, 2, ceil_mode=True)


def inception(inputs: int, widths: Widths) -> Branches:
    """Four branches: [N, inputs, H, W] -> [N, sum of their last widths, H, W]."""
    one, three_reduce, three, five_reduce, five, projection = widths
    return Branches(
        {
            "one": conv(inputs, one, 1),
            "three": nn.Sequential(conv(inputs, three_reduce, 1), conv(three_reduce, three, 3)),
            "five": nn.Sequential(conv(inputs, five_reduce, 1), conv(five_reduce, five, 3)),
            "pool": nn.Sequential(nn.MaxPool2d(3, 1, padding=1), conv(inputs, projection, 1)),
        }
    )


def auxiliary_head(inputs: int, num_classes: int) -> nn.Sequential:
    """Classifier on middle features, for training only: [N, inputs, H, W] -> [N, K]."""
    return nn.Sequential(
        OrderedDict(
            pool=nn.AdaptiveAvgPool2d(4),
            conv=conv(inputs, 128, 1),
            flatten=nn.Flatten(),
            fc1=nn.Linear(128 * 4 * 4, 1024),
            relu=nn.ReLU(inplace=True),
            dropout=nn.Dropout(0.7),
            fc2=nn.Linear(1024, num_classes),
        )
    )


class GoogLeNet(nn.Module):
    """Stem, nine inception blocks, one linear layer: float [N, C, H, W] -> logits [N, K]."""

    def __init__(self, num_classes: int, in_chans: int, small: bool) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["conv1"] = conv(in_chans, 64, 3) if small else conv(in_chans, 64, 7, stride=2)
        if not small:
            layers["pool1"] = pool(3)
        layers["conv2"] = conv(64, 64, 1)
        layers["conv3"] = conv(64, 192, 3)
        layers["pool2"] = pool(3)
        inputs = 192
        for name, widths in INCEPTIONS:
            layers[name] = inception(inputs, widths)
            inputs = widths[0] + widths[2] + widths[4] + widths[5]
            if name in POOL_AFTER:
                pool_name, kernel = POOL_AFTER[name]
                layers[pool_name] = pool(kernel)
        self.features = nn.Sequential(layers)
        self.pool = GlobalAveragePool()
        self.dropout = nn.Dropout(0.0 if small else 0.2)
        self.classifier = nn.Linear(inputs, num_classes)
        heads = () if small else AUXILIARY_AFTER
        self.auxiliary = nn.ModuleDict({name: auxiliary_head(channels, num_classes) for name, channels in heads})
        init_weights(self)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return self._classify(self.features(images_NCHW))

    def forward_with_auxiliary(self, images_NCHW: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits [N, K] and those of each auxiliary head, first head first; the paper weighs the latter by 0.3.

        The small-image form has no heads: its list is empty.
        """
        features, auxiliary_logits = images_NCHW, []
        for name, stage in self.features.named_children():
            features = stage(features)
            if name in self.auxiliary:
                auxiliary_logits.append(self.auxiliary[name](features))
        return self._classify(features), auxiliary_logits

    def _classify(self, features_NCHW: Tensor) -> Tensor:
        logits_NK: Tensor = self.classifier(self.dropout(self.pool(features_NCHW)))
        return logits_NK


@register(family="googlenet", paper="arXiv:1409.4842", year=2014, role="efficient")
def googlenet(num_classes: int = 1000, in_chans: int = 3, image_size: int = 224) -> nn.Module:
    """GoogLeNet (arXiv:1409.4842) with batch norm and 3x3 kernels in the "5x5" branch, as torchvision's.

    Small form: 3x3 stride-1 stem, first pooling dropped, full width, no auxiliary heads, no dropout.
    """
    return GoogLeNet(num_classes, in_chans, is_small(image_size))
