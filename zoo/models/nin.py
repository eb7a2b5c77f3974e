"""Network-in-Network (arXiv:1312.4400): 1 x 1 convolutions as a small perceptron at each pixel, and the first global
average pooling head: no fully connected layer at all.

The paper's own network is for 32 px (section 4.2, figures 2 and 4): 192-160-96, 192-192-192, 192-192-classes. Built for
64 px or less it is that network with batch norm after each convolution (the paper has none) and dropout kept at half
the paper's rate. Above 64 px it is the authors' ImageNet network of the Caffe model zoo, as published.

Shapes at 32 px: block 1 96x32x32, pool 96x16x16, block 2 192x16x16, pool 192x8x8, block 3 classesx8x8, mean.
Native shapes at 224: 96x54x54, 96x27x27, 256x27x27, 256x13x13, 384x13x13, 384x6x6, classesx6x6.
"""

from torch import Tensor, nn

from zoo.layers import GlobalAveragePool, init_weights, is_small
from zoo.registry import register

#                kernel stride padding channels of the convolution and its two 1 x 1 layers; 0 = the classes
SMALL_BLOCKS = ((5, 1, 2, (192, 160, 96)), (5, 1, 2, (192, 192, 192)), (3, 1, 1, (192, 192, 0)))
NATIVE_BLOCKS = (
    (11, 4, 0, (96, 96, 96)),
    (5, 1, 2, (256, 256, 256)),
    (3, 1, 1, (384, 384, 384)),
    (3, 1, 1, (1024, 1024, 0)),
)


class NiN(nn.Module):
    """float [N, C, H, W] -> logits [N, num_classes]: mlpconv blocks, pooled and dropped out between, averaged last."""

    def __init__(
        self,
        blocks: tuple[tuple[int, int, int, tuple[int, int, int]], ...],
        norm: bool,
        dropout: tuple[float, ...],
        num_classes: int,
        in_chans: int,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_chans
        for (kernel, stride, padding, widths), rate in zip(blocks, (*dropout, None), strict=True):
            for position, width in enumerate(widths):
                first = position == 0
                out = width or num_classes
                layers.append(
                    nn.Conv2d(channels, out, kernel if first else 1, stride if first else 1, padding if first else 0)
                )
                if norm and width:
                    layers.append(nn.BatchNorm2d(out))
                layers.append(nn.ReLU(inplace=True) if width or not norm else nn.Identity())
                channels = out
            if rate is not None:
                layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
                layers.append(nn.Dropout(rate))
        self.features = nn.Sequential(*layers)
        self.pool = GlobalAveragePool()
        init_weights(self)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        logits_NK: Tensor = self.pool(self.features(images_NCHW))
        return logits_NK


@register(family="nin", paper="arXiv:1312.4400", year=2013, role="efficient")
def nin(num_classes: int = 10, in_chans: int = 3, image_size: int = 32) -> nn.Module:
    """Network-in-Network for CIFAR-10; the ImageNet network of the Caffe model zoo above 64 px."""
    if is_small(image_size):
        return NiN(SMALL_BLOCKS, True, (0.25, 0.25), num_classes, in_chans)
    return NiN(NATIVE_BLOCKS, False, (0.0, 0.0, 0.5), num_classes, in_chans)
