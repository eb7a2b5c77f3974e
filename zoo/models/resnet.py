"""ResNet for CIFAR-10 (arXiv:1512.03385, section 4.2): the yardstick that every small network is held against.

6n + 2 layers: a 3 x 3 stem of 16 maps, three stages of n basic blocks at 16, 32 and 64 maps, global average pooling.
Shortcuts are the paper's option A: subsampled identity padded with zero channels, no parameters. The network is made
for small images; larger ones run through the same layers.

Shapes at 32 px: stem 16x32x32, stage 1 16x32x32, stage 2 32x16x16, stage 3 64x8x8.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from zoo.layers import ConvNormAct, GlobalAveragePool, init_weights
from zoo.registry import register

PAPER = "arXiv:1512.03385"


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut of option A: [N, in, H, W] -> [N, out, H / stride, W / stride]."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(in_channels, out_channels, 3, stride=stride)
        self.conv2 = ConvNormAct(out_channels, out_channels, 3, activation=None)
        self.stride = stride
        self.new_channels = out_channels - in_channels

    def forward(self, features_NCHW: Tensor) -> Tensor:
        shortcut = features_NCHW
        if self.new_channels:
            shortcut = shortcut[:, :, :: self.stride, :: self.stride]
            shortcut = F.pad(shortcut, (0, 0, 0, 0, self.new_channels // 2, self.new_channels - self.new_channels // 2))
        return F.relu(self.conv2(self.conv1(features_NCHW)) + shortcut)


class ResNet(nn.Module):
    """float [N, C, H, W] -> logits [N, num_classes]."""

    def __init__(self, blocks_a_stage: int, num_classes: int, in_chans: int) -> None:
        super().__init__()
        channels = 16
        self.stem = ConvNormAct(in_chans, channels, 3)
        stages: list[nn.Module] = []
        for width, first_stride in ((16, 1), (32, 2), (64, 2)):
            blocks: list[nn.Module] = []
            for index in range(blocks_a_stage):
                blocks.append(BasicBlock(channels, width, first_stride if index == 0 else 1))
                channels = width
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.pool = GlobalAveragePool()
        self.classifier = nn.Linear(channels, num_classes)
        init_weights(self)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        logits_NK: Tensor = self.classifier(self.pool(self.stages(self.stem(images_NCHW))))
        return logits_NK


@register(family="resnet", paper=PAPER, year=2015, role="yardstick")
def resnet20(num_classes: int = 10, in_chans: int = 3, image_size: int = 32) -> nn.Module:
    """ResNet-20, n = 3: 269,722 parameters."""
    return ResNet(3, num_classes, in_chans)


@register(family="resnet", paper=PAPER, year=2015, role="yardstick")
def resnet56(num_classes: int = 10, in_chans: int = 3, image_size: int = 32) -> nn.Module:
    """ResNet-56, n = 9: 853,018 parameters."""
    return ResNet(9, num_classes, in_chans)
