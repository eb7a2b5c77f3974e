"""XNOR-Net (arXiv:1603.05279): convolutions whose weights and inputs are -1 and +1, so that a dot product is an
exclusive or and a population count. `zoo.compression.binary.pack_network` computes it that way.

A block is BatchNorm, sign, binary convolution, pooling (section 3.2, figure 3), with no other activation. A filter W of
n weights is replaced by alpha sign(W) with alpha = ||W||_1 / n (equation 6). Gradients pass a sign where |x| <= 1 and
reach alpha too (section 3.1). The first and the last layer stay in full precision, as in section 4.

Differences from the paper: the scale of the inputs, K, is left out, as in the authors' code (the paper reports a gain
of less than 1 % by it on AlexNet); weights are neither centred nor clamped; sign(0) is +1; padding is by zeros, so a
padded input is worth 0 and has no sign.

Shapes of xnor_lenet5 at 28 px: 20x24x24, 20x12x12, 50x8x8, 50x4x4, 500x1x1, classes. Its fully connected layer of 500
is written as the convolution that it equals.
Shapes of xnor_nin at 32 px: 192x32x32, 160x32x32, 96x32x32, pool 96x16x16, block 2 192x16x16, pool 192x8x8, block 3
192x8x8, classesx8x8, mean. Any larger image is taken as it is.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from zoo.layers import GlobalAveragePool, init_weights
from zoo.registry import register

PAPER = "arXiv:1603.05279"

#             kernel padding filters; the first of block 1 and the classes stand apart: they are in full precision
NIN_BLOCKS = (
    ((1, 0, 160), (1, 0, 96)),
    ((5, 2, 192), (1, 0, 192), (1, 0, 192)),
    ((3, 1, 192), (1, 0, 192)),
)


class _Sign(torch.autograd.Function):
    """+1 where x >= 0, else -1; the gradient passes where |x| <= 1 (arXiv:1602.02830, section 1.3)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        one = x.new_ones(())
        return torch.where(x >= 0, one, -one)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        passed: Tensor = gradients[0] * (x.abs() <= 1)
        return passed


def sign(x: Tensor) -> Tensor:
    """-1 and +1 in the shape and dtype of `x`, +1 for zero, with a straight-through gradient."""
    signs: Tensor = _Sign.apply(x)
    return signs


def binarise(weight: Tensor, kept: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Signs [F, ...] and scales [F], the mean magnitude of each filter, of a weight [F, ...] (equation 6).

    kept: bool [F, ...], what is not pruned: signs are 0 elsewhere, and the mean is of the kept weights alone.
    """
    signs, magnitudes = sign(weight), weight.abs()
    kept = torch.ones_like(weight) if kept is None else kept.to(weight.dtype)
    signs, magnitudes = signs * kept, (magnitudes * kept).flatten(1)
    # Divided by the largest, so that the mean of equal magnitudes is that magnitude to the last bit: a weight that is
    # binary already, as one read from a file is, keeps its scales.
    largest = magnitudes.detach().amax(1).clamp_min(torch.finfo(weight.dtype).tiny)
    shares = (magnitudes / largest[:, None]).sum(1) / kept.flatten(1).sum(1).clamp_min(1)
    return signs, shares * largest


class BinaryConv2d(nn.Conv2d):
    """float [N, C, H, W] -> float [N, F, H', W']: sign(x) convolved with sign(W), times alpha, plus bias.

    The convolution gives whole numbers, which float32 holds exactly. `weight` is what trains; of it only the signs and
    the scales count.
    """

    weight_bits = 1
    activation_bits = 1

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, padding: int = 0) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=padding)

    def forward(self, features_NCHW: Tensor) -> Tensor:
        signs, scale = binarise(self.weight)
        dots_NFHW = conv2d(sign(features_NCHW), signs, None, self.stride, self.padding)
        return rescale(dots_NFHW, scale, self.bias)

    def weight_signs(self) -> tuple[Tensor, Tensor]:
        """int64 [F, C, h, w], 1 for + and 0 for -, and float [F]; detached, on the CPU."""
        signs, scale = binarise(self.weight.detach())
        return (signs > 0).long().cpu(), scale.cpu()


def rescale(dots_NFHW: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """Whole dot products of signs times the scale [F] of each filter, plus its bias [F]."""
    scaled = dots_NFHW * scale[:, None, None]
    return scaled if bias is None else scaled + bias[:, None, None]


def block(channels: int, filters: int, kernel: int, padding: int = 0) -> list[nn.Module]:
    """BatchNorm, then sign and binary convolution in one module."""
    return [nn.BatchNorm2d(channels, eps=1e-4), BinaryConv2d(channels, filters, kernel, padding=padding)]


@register(family="xnor", paper=PAPER, year=2016, role="efficient")
def xnor_lenet5(num_classes: int = 10, in_chans: int = 1, image_size: int = 28) -> nn.Module:
    """The layers of `lenet5_caffe` (the LeNet-5 of most binary networks) with XNOR blocks for its inner two."""
    side = _halve(_halve(image_size - 4) - 4)
    return nn.Sequential(
        nn.Conv2d(in_chans, 20, 5),
        nn.BatchNorm2d(20, eps=1e-4),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2, ceil_mode=True),
        *block(20, 50, 5),
        nn.MaxPool2d(2, ceil_mode=True),
        *block(50, 500, side),
        nn.BatchNorm2d(500, eps=1e-4),
        nn.Flatten(),
        nn.Linear(500, num_classes),
    )


@register(family="xnor", paper=PAPER, year=2016, role="efficient")
def xnor_nin(num_classes: int = 10, in_chans: int = 3, image_size: int = 32) -> nn.Module:
    """Network-in-Network for CIFAR-10 (arXiv:1312.4400) with XNOR blocks for all but its first and last layer.

    The paper has no such network; pooling, maximum then average, follows common re-implementations, without dropout.
    """
    first, second, third = (
        _blocks(channels, table) for channels, table in zip((192, 96, 192), NIN_BLOCKS, strict=True)
    )
    model = nn.Sequential(
        nn.Conv2d(in_chans, 192, 5, padding=2),
        nn.BatchNorm2d(192, eps=1e-4),
        nn.ReLU(inplace=True),
        *first,
        nn.MaxPool2d(3, 2, ceil_mode=True),
        *second,
        nn.AvgPool2d(3, 2, ceil_mode=True),
        *third,
        nn.BatchNorm2d(192, eps=1e-4),
        nn.Conv2d(192, num_classes, 1),
        GlobalAveragePool(),
    )
    return init_weights(model)


def _blocks(channels: int, table: tuple[tuple[int, int, int], ...]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for kernel, padding, filters in table:
        layers += block(channels, filters, kernel, padding)
        channels = filters
    return layers


def _halve(side: int) -> int:
    """Side after a pooling of 2 that rounds up; at least 1, so that what is too small fails where it runs, not here."""
    return max(1, -(-side // 2))
