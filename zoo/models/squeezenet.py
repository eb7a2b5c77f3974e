"""SqueezeNet (arXiv:1602.07360): AlexNet's accuracy in 50 times fewer parameters, by Fire modules.

A Fire module squeezes its input by 1 x 1 convolutions and expands it by 1 x 1 and 3 x 3 ones, concatenated.
Native form: the published network (table 1 for 1.0; 1.1 is the authors' cheaper revision; `bypass` adds the
parameter-free skips of section 6 round modules 3, 5, 7 and 9). Small-image form (64 px or less): a 3 x 3 stride-1 stem,
the first pooling dropped, batch norm after each convolution (the paper has none), no dropout.

Shapes of 1.1 at 224: stem 64x111, pool 64x55, fire3 128x55, pool 27, fire5 256x27, pool 13, fire9 512x13, classesx13.
At 32: stem 64x32, fire3 128x32, pool 16, fire5 256x16, pool 8, fire9 512x8, classesx8.
"""

import torch
from torch import Tensor, nn

from zoo.layers import GlobalAveragePool, init_weights, is_small
from zoo.registry import register

PAPER = "arXiv:1602.07360"
POOL = "pool"

#            squeeze, expand (each of 1x1 and 3x3); "pool" after the stem is the one that small images drop
LAYERS_1_0 = (POOL, (16, 64), (16, 64), (32, 128), POOL, (32, 128), (48, 192), (48, 192), (64, 256), POOL, (64, 256))
LAYERS_1_1 = (POOL, (16, 64), (16, 64), POOL, (32, 128), (32, 128), POOL, (48, 192), (48, 192), (64, 256), (64, 256))


def _conv(in_channels: int, out_channels: int, kernel_size: int, norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)]
    if norm:
        layers.append(nn.BatchNorm2d(out_channels))
    return nn.Sequential(*layers, nn.ReLU(inplace=True))


class Fire(nn.Module):
    """[N, in, H, W] -> [N, 2 * expand, H, W]; section 3.2. With `bypass` the input is added to the output."""

    def __init__(self, in_channels: int, squeeze: int, expand: int, *, norm: bool, bypass: bool) -> None:
        super().__init__()
        self.bypass = bypass
        self.squeeze = _conv(in_channels, squeeze, 1, norm)
        self.expand1x1 = _conv(squeeze, expand, 1, norm)
        self.expand3x3 = _conv(squeeze, expand, 3, norm)

    def forward(self, features_NCHW: Tensor) -> Tensor:
        squeezed = self.squeeze(features_NCHW)
        expanded = torch.cat([self.expand1x1(squeezed), self.expand3x3(squeezed)], 1)
        return features_NCHW + expanded if self.bypass else expanded


class SqueezeNet(nn.Module):
    """float [N, C, H, W] -> logits [N, num_classes].

    stem: (channels, kernel) of the native stride-2 stem.
    """

    def __init__(
        self,
        stem: tuple[int, int],
        layers: tuple[str | tuple[int, int], ...],
        bypass: bool,
        num_classes: int,
        in_chans: int,
        image_size: int,
    ) -> None:
        super().__init__()
        small = is_small(image_size)
        channels, kernel = stem
        stages: list[nn.Module] = (
            [_conv(in_chans, channels, 3, True)]
            if small
            else [nn.Sequential(nn.Conv2d(in_chans, channels, kernel, 2), nn.ReLU(inplace=True))]
        )
        for layer in layers[1:] if small else layers:
            if isinstance(layer, str):
                stages.append(nn.MaxPool2d(3, 2, ceil_mode=True))
                continue
            squeeze, expand = layer
            # The paper's bypass goes wherever the module keeps its channels: fire 3, 5, 7 and 9.
            stages.append(Fire(channels, squeeze, expand, norm=small, bypass=bypass and channels == 2 * expand))
            channels = 2 * expand
        self.features = nn.Sequential(*stages)
        self.dropout = nn.Dropout(0.0 if small else 0.5)
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        # The published network has ReLU here; with batch norm and no dropout it only kills classes.
        self.activation = nn.Identity() if small else nn.ReLU(inplace=True)
        self.pool = GlobalAveragePool()
        init_weights(self)
        nn.init.normal_(self.classifier.weight, std=0.01)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        maps_NKHW = self.activation(self.classifier(self.dropout(self.features(images_NCHW))))
        logits_NK: Tensor = self.pool(maps_NKHW)
        return logits_NK


@register(family="squeezenet", paper=PAPER, year=2016, role="efficient")
def squeezenet1_0(num_classes: int = 1000, in_chans: int = 3, image_size: int = 224) -> nn.Module:
    """SqueezeNet 1.0, table 1."""
    return SqueezeNet((96, 7), LAYERS_1_0, False, num_classes, in_chans, image_size)


@register(family="squeezenet", paper=PAPER, year=2016, role="efficient")
def squeezenet1_0_bypass(num_classes: int = 1000, in_chans: int = 3, image_size: int = 224) -> nn.Module:
    """SqueezeNet 1.0 with simple bypass, figure 2 (middle)."""
    return SqueezeNet((96, 7), LAYERS_1_0, True, num_classes, in_chans, image_size)


@register(family="squeezenet", paper=PAPER, year=2016, role="efficient")
def squeezenet1_1(num_classes: int = 1000, in_chans: int = 3, image_size: int = 224) -> nn.Module:
    """SqueezeNet 1.1, the authors' revision with 2.4 times fewer MACs."""
    return SqueezeNet((64, 3), LAYERS_1_1, False, num_classes, in_chans, image_size)
