"""Inception-v3: 7x7 as 1x7 and 7x1, grids reduced by parallel branches (arXiv:1512.00567, table 1, figures 5 to 10).

Where it differs from the paper: widths and blocks are those of the authors' released network, which torchvision and
timm carry; the paper's table gives the grids only.

The native form has one auxiliary head, for training only: `forward_with_auxiliary` reaches it, `forward` never runs
it, and every key of its starts with `auxiliary.`. It needs a 17 x 17 grid, that is images of about 299 px.

Small-image form (<= 64 px): stride-1 stem and the first pooling dropped, the other three halvings kept; every
convolution and pooling padded; every width times SMALL_WIDTH, rounded to a multiple of 8; no auxiliary head, no
dropout.

Shape after each stage:

| stage            | 299 px         | 32 px         |
|------------------|----------------|---------------|
| features.conv1a  | 32 x 149 x 149 | 16 x 32 x 32  |
| features.conv2a  | 32 x 147 x 147 | 16 x 32 x 32  |
| features.conv2b  | 64 x 147 x 147 | 24 x 32 x 32  |
| features.pool1   | 64 x 73 x 73   | -             |
| features.conv4a  | 192 x 71 x 71  | 64 x 32 x 32  |
| features.pool2   | 192 x 35 x 35  | 64 x 16 x 16  |
| features.mixed5d | 288 x 35 x 35  | 104 x 16 x 16 |
| features.mixed6a | 768 x 17 x 17  | 264 x 8 x 8   |
| features.mixed6e | 768 x 17 x 17  | 256 x 8 x 8   |
| features.mixed7a | 1280 x 8 x 8   | 424 x 4 x 4   |
| features.mixed7c | 2048 x 8 x 8   | 680 x 4 x 4   |
"""

from collections import OrderedDict
from functools import partial

from torch import Tensor, nn

from zoo.layers import Branches, ConvNormAct, GlobalAveragePool, init_weights, is_small, scaled
from zoo.registry import register

Kernel = int | tuple[int, int] | str
Step = tuple[int, Kernel, int]  # channels, kernel, stride
Block = dict[str, tuple[Step, ...]]

ROW, COLUMN = (1, 7), (7, 1)
SPLIT = "split"  # 1x3 and 3x1 side by side: twice the channels
AVERAGE: Step = (0, "average", 1)
MAXIMUM: Step = (0, "maximum", 2)


def mixed5(pool: int) -> Block:
    """Blocks of the 35 x 35 grid (figure 5); pool: channels of the pooling branch."""
    return {
        "one": ((64, 1, 1),),
        "five": ((48, 1, 1), (64, 5, 1)),
        "twice": ((64, 1, 1), (96, 3, 1), (96, 3, 1)),
        "pool": (AVERAGE, (pool, 1, 1)),
    }


def mixed6(c: int) -> Block:
    """Blocks of the 17 x 17 grid (figure 6, n = 7); c: channels inside the branches."""
    return {
        "one": ((192, 1, 1),),
        "seven": ((c, 1, 1), (c, ROW, 1), (192, COLUMN, 1)),
        "twice": ((c, 1, 1), (c, COLUMN, 1), (c, ROW, 1), (c, COLUMN, 1), (192, ROW, 1)),
        "pool": (AVERAGE, (192, 1, 1)),
    }


#   Grid reductions (figure 10) and the blocks of the 8 x 8 grid (figure 7).
REDUCE5: Block = {"three": ((384, 3, 2),), "twice": ((64, 1, 1), (96, 3, 1), (96, 3, 2)), "pool": (MAXIMUM,)}
REDUCE6: Block = {
    "three": ((192, 1, 1), (320, 3, 2)),
    "seven": ((192, 1, 1), (192, ROW, 1), (192, COLUMN, 1), (192, 3, 2)),
    "pool": (MAXIMUM,),
}
MIXED7: Block = {
    "one": ((320, 1, 1),),
    "three": ((384, 1, 1), (384, SPLIT, 1)),
    "twice": ((448, 1, 1), (384, 3, 1), (384, SPLIT, 1)),
    "pool": (AVERAGE, (192, 1, 1)),
}
MIXED: tuple[tuple[str, Block], ...] = (
    ("mixed5b", mixed5(32)),
    ("mixed5c", mixed5(64)),
    ("mixed5d", mixed5(64)),
    ("mixed6a", REDUCE5),
    ("mixed6b", mixed6(128)),
    ("mixed6c", mixed6(160)),
    ("mixed6d", mixed6(160)),
    ("mixed6e", mixed6(192)),
    ("mixed7a", REDUCE6),
    ("mixed7b", MIXED7),
    ("mixed7c", MIXED7),
)
#    layer, channels, kernel, stride, padding       a layer of 0 channels is a 3x3 / 2 pooling
STEM = (
    ("conv1a", 32, 3, 2, 0),
    ("conv2a", 32, 3, 1, 0),
    ("conv2b", 64, 3, 1, 1),
    ("pool1", 0, 3, 2, 0),
    ("conv3b", 80, 1, 1, 0),
    ("conv4a", 192, 3, 1, 0),
    ("pool2", 0, 3, 2, 0),
)
AUXILIARY_AFTER = "mixed6e"
SMALL_WIDTH = 1 / 3

conv = partial(ConvNormAct, eps=1e-3)


def stem(in_chans: int, small: bool, width: float) -> tuple[OrderedDict[str, nn.Module], int]:
    """The layers before the first block, and their output channels."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    inputs = in_chans
    for name, channels, kernel, stride, padding in STEM:
        if small and name == "pool1":
            continue
        if channels == 0:
            layers[name] = nn.MaxPool2d(kernel, stride, padding=1 if small else padding)
            continue
        outputs = scaled(channels, width)
        if small:
            layers[name] = conv(inputs, outputs, kernel)
        else:
            layers[name] = conv(inputs, outputs, kernel, stride=stride, padding=padding)
        inputs = outputs
    return layers, inputs


def branch(inputs: int, steps: tuple[Step, ...], small: bool, width: float) -> tuple[nn.Sequential, int]:
    """One branch of a block, and its output channels. A native reduction does not pad, the small form's does."""
    layers: list[nn.Module] = []
    for published, kernel, stride in steps:
        channels = scaled(published, width) if published else inputs
        reduction_padding = None if stride == 1 or small else 0
        if kernel == "average":
            layers.append(nn.AvgPool2d(3, stride, padding=1))
        elif kernel == "maximum":
            layers.append(nn.MaxPool2d(3, stride, padding=1 if small else 0))
        elif isinstance(kernel, str):
            layers.append(Branches({"row": conv(inputs, channels, (1, 3)), "column": conv(inputs, channels, (3, 1))}))
            channels *= 2
        else:
            layers.append(conv(inputs, channels, kernel, stride=stride, padding=reduction_padding))
        inputs = channels
    return nn.Sequential(*layers), inputs


def auxiliary_head(inputs: int, num_classes: int) -> nn.Sequential:
    """Classifier on the 17 x 17 grid, for training only: [N, inputs, 17, 17] -> [N, K] (section 4)."""
    return nn.Sequential(
        OrderedDict(
            pool=nn.AvgPool2d(5, 3),
            conv0=conv(inputs, 128, 1),
            conv1=conv(128, 768, 5, padding=0),
            average=GlobalAveragePool(),
            fc=nn.Linear(768, num_classes),
        )
    )


class InceptionV3(nn.Module):
    """Stem, eleven blocks, one linear layer: float [N, C, H, W] -> logits [N, K]."""

    def __init__(self, num_classes: int, in_chans: int, small: bool) -> None:
        super().__init__()
        width = SMALL_WIDTH if small else 1.0
        layers, inputs = stem(in_chans, small, width)
        self.auxiliary = nn.ModuleDict()
        for name, block in MIXED:
            built = {label: branch(inputs, steps, small, width) for label, steps in block.items()}
            layers[name] = Branches({label: module for label, (module, _) in built.items()})
            inputs = sum(outputs for _, outputs in built.values())
            if name == AUXILIARY_AFTER and not small:
                self.auxiliary[name] = auxiliary_head(inputs, num_classes)
        self.features = nn.Sequential(layers)
        self.pool = GlobalAveragePool()
        self.dropout = nn.Dropout(0.0 if small else 0.5)
        self.classifier = nn.Linear(inputs, num_classes)
        init_weights(self)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return self._classify(self.features(images_NCHW))

    def forward_with_auxiliary(self, images_NCHW: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits [N, K] and those of the auxiliary head; the small-image form has none: its list is empty."""
        features, auxiliary_logits = images_NCHW, []
        for name, stage in self.features.named_children():
            features = stage(features)
            if name in self.auxiliary:
                auxiliary_logits.append(self.auxiliary[name](features))
        return self._classify(features), auxiliary_logits

    def _classify(self, features_NCHW: Tensor) -> Tensor:
        logits_NK: Tensor = self.classifier(self.dropout(self.pool(features_NCHW)))
        return logits_NK


@register(family="inception", paper="arXiv:1512.00567", year=2015, role="efficient")
def inception_v3(num_classes: int = 1000, in_chans: int = 3, image_size: int = 299) -> nn.Module:
    """Inception-v3 (arXiv:1512.00567), the authors' released network as torchvision and timm carry it.

    Small form: padded stride-1 stem, first pooling dropped, a third of the width, no auxiliary head, no dropout.
    """
    return InceptionV3(num_classes, in_chans, is_small(image_size))
