"""VGG (arXiv:1409.1556): nothing but 3 x 3 convolutions and pooling; configurations A, B, D and E of table 1.

Native form: the paper's network, with 4096-4096 linear layers; `_bn` adds batch norm after each convolution.
Small-image form (64 px or less): the same convolutions and all five poolings (there is no strided stem to spare);
pooling rounds up so that 28 px passes; one linear layer after the last pool, as usual on CIFAR-10, no dropout.

Shapes after each of the five poolings of vgg16 at 224: 64x112, 128x56, 256x28, 512x14, 512x7; at 32: 64x16, 128x8,
256x4, 512x2, 512x1.
"""

from torch import Tensor, nn

from zoo.layers import GlobalAveragePool, init_weights, is_small
from zoo.registry import register

PAPER = "arXiv:1409.1556"

# Channels of the convolutions between poolings; table 1, columns A, B, D, E.
A = ((64,), (128,), (256,) * 2, (512,) * 2, (512,) * 2)
B = ((64,) * 2, (128,) * 2, (256,) * 2, (512,) * 2, (512,) * 2)
D = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)
E = ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4)


class VGG(nn.Module):
    """float [N, C, H, W] -> logits [N, num_classes]."""

    def __init__(
        self, stages: tuple[tuple[int, ...], ...], norm: bool, num_classes: int, in_chans: int, image_size: int
    ) -> None:
        super().__init__()
        small = is_small(image_size)
        layers: list[nn.Module] = []
        channels = in_chans
        for stage in stages:
            for width in stage:
                layers.append(nn.Conv2d(channels, width, 3, padding=1))
                if norm:
                    layers.append(nn.BatchNorm2d(width))
                layers.append(nn.ReLU(inplace=True))
                channels = width
            layers.append(nn.MaxPool2d(2, ceil_mode=small))
        self.features = nn.Sequential(*layers)
        if small:
            self.pool: nn.Module = GlobalAveragePool()
            self.classifier: nn.Module = nn.Linear(channels, num_classes)
        else:
            self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(7), nn.Flatten())
            self.classifier = nn.Sequential(
                nn.Linear(channels * 7 * 7, 4096),
                nn.ReLU(inplace=True),
                nn.Dropout(),
                nn.Linear(4096, 4096),
                nn.ReLU(inplace=True),
                nn.Dropout(),
                nn.Linear(4096, num_classes),
            )
        init_weights(self)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        logits_NK: Tensor = self.classifier(self.pool(self.features(images_NCHW)))
        return logits_NK


@register(family="vgg", paper=PAPER, year=2014, role="baseline")
def vgg11(num_classes: int = 1000, in_chans: int = 3, image_size: int = 224) -> nn.Module:
    """VGG-11, configuration A."""
    return VGG(A, False, num_classes, in_chans, image_size)


@register(family="vgg", paper=PAPER, year=2014, role="baseline")
def vgg11_bn(num_classes: int = 1000, in_chans: int = 3, image_size: int = 224) -> nn.Module:
    """VGG-11, configuration A, with batch norm."""
    return VGG(A, True, num_classes, in_chans, image_size)


@register(family="vgg", paper=PAPER, year=2014, role="baseline")
def vgg13(num_classes: int = 1000, in_chans: int = 3, image_size: int = 224) -> nn.Module:
    """VGG-13, configuration B."""
    return VGG(B, False, num_classes, in_chans, image_size)


@register(family="vgg", paper=PAPER, year=2014, role="baseline")
def vgg13_bn(num_classes: int = 1000, in_chans: int = 3, image_size: int = 224) -> nn.Module:
    """VGG-13, configuration B, with batch norm."""
    return VGG(B, True, num_classes, in_chans, image_size)


@register(family="vgg", paper=PAPER, year=2014, role="baseline")
def vgg16(num_classes: int = 1000, in_chans: int = 3, image_size: int = 224) -> nn.Module:
    """VGG-16, configuration D."""
    return VGG(D, False, num_classes, in_chans, image_size)


@register(family="vgg", paper=PAPER, year=2014, role="baseline")
def vgg16_bn(num_classes: int = 1000, in_chans: int = 3, image_size: int = 224) -> nn.Module:
    """VGG-16, configuration D, with batch norm: the baseline of the ranking."""
    return VGG(D, True, num_classes, in_chans, image_size)


@register(family="vgg", paper=PAPER, year=2014, role="baseline")
def vgg19(num_classes: int = 1000, in_chans: int = 3, image_size: int = 224) -> nn.Module:
    """VGG-19, configuration E."""
    return VGG(E, False, num_classes, in_chans, image_size)


@register(family="vgg", paper=PAPER, year=2014, role="baseline")
def vgg19_bn(num_classes: int = 1000, in_chans: int = 3, image_size: int = 224) -> nn.Module:
    """VGG-19, configuration E, with batch norm."""
    return VGG(E, True, num_classes, in_chans, image_size)
