"""Slimmable networks (arXiv:1812.08928): one set of weights that runs at several widths, chosen anew at any time.

At width w a convolution computes with its first int(channels * w) filters, and with the first channels of what comes
in, as the plain network of that width has them; the image's channels and the classes stay whole. Each width has batch
norms of its own, since what they measure differs ("switchable batch norm", section 3.2), which makes a MobileNet a
hundredth larger.

`forward` runs at the width that is set, at first the widest. `zoo.dynamic.extract_width` cuts out a plain network;
`zoo.training.objectives.EveryWidth` trains all widths.
Difference from the paper: widths 0.25, 0.5, 0.75 and 1.0 as there, on the zoo's MobileNet, which has ReLU6.
"""

from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import RecipeError
from zoo.registry import architecture, register


class SlimmableConv2d(nn.Conv2d):
    """A convolution, depthwise or with one group, that computes with its first channels: [N, in * w, ...] -> out * w.

    width: the share of the channels that is used. whole_inputs: whether those that come in are never fewer.
    """

    width = 1.0
    whole_inputs = False

    def sizes(self, width: float) -> tuple[int, int, int]:
        """Channels in, channels out and groups at a width."""
        inputs = self.in_channels if self.whole_inputs else int(self.in_channels * width)
        return inputs, int(self.out_channels * width), inputs if self.groups > 1 else 1

    def forward(self, input: Tensor) -> Tensor:
        """[N, in * w, H, W] -> [N, out * w, H', W']."""
        inputs, outputs, groups = self.sizes(self.width)
        weight = self.weight[:outputs, : inputs // groups]
        bias = None if self.bias is None else self.bias[:outputs]
        return F.conv2d(input, weight, bias, self.stride, self.padding, self.dilation, groups)


class SlimmableLinear(nn.Linear):
    """A linear layer that reads its first inputs, and gives all its outputs: [N, in * w] -> [N, out]."""

    width = 1.0

    def sizes(self, width: float) -> tuple[int, int]:
        """Features in and out at a width."""
        return int(self.in_features * width), self.out_features

    def forward(self, input: Tensor) -> Tensor:
        """[N, in * w] -> [N, out]."""
        return F.linear(input, self.weight[:, : self.sizes(self.width)[0]], self.bias)


class SwitchableBatchNorm2d(nn.Module):
    """A batch norm for each width: [N, C * w, H, W] -> the same.

    Scales, biases and statistics of all widths lie one after the other in four vectors, so that every parameter takes
    part in every step, with a gradient of zero at other widths. A width in between takes scale and bias of the next
    wider, and has no statistics: training normalises by the batch, eval mode is refused.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, widths: tuple[float, ...], eps: float, momentum: float) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.width = widths[-1]
        ends = [0, *accumulate(int(num_features * width) for width in widths)]
        self.slices = {width: slice(*both) for width, both in zip(widths, pairwise(ends), strict=True)}
        self.weight = nn.Parameter(torch.ones(ends[-1]))
        self.bias = nn.Parameter(torch.zeros(ends[-1]))
        self.register_buffer("running_mean", torch.zeros(ends[-1]))
        self.register_buffer("running_var", torch.ones(ends[-1]))

    def place(self, width: float) -> slice:
        """Where the numbers for a width lie."""
        start = next(place.start for known, place in self.slices.items() if known >= width)
        return slice(start, start + int(self.num_features * width))

    def forward(self, features_NCHW: Tensor) -> Tensor:
        here = self.place(self.width)
        mean, var = (self.running_mean[here], self.running_var[here]) if self.width in self.slices else (None, None)
        if mean is None and not self.training:
            raise RecipeError(
                f"width {self.width:g} has no statistics; zoo.dynamic.extract_width cuts it out and measures them."
            )
        weight, bias = self.weight[here], self.bias[here]
        return F.batch_norm(features_NCHW, mean, var, weight, bias, self.training, self.momentum, self.eps)


class Slimmable(nn.Module):
    """float [N, C, H, W] -> logits [N, num_classes] at the width that is set.

    names: of the registered network of each width, narrowest first, which differ in the channels alone; the last of
    them, whose layers become slimmable, is `network`.
    """

    def __init__(self, names: dict[float, str], num_classes: int, in_chans: int, image_size: int) -> None:
        super().__init__()
        self.names = dict(names)
        self.widths = tuple(names)
        self.width = self.widths[-1]
        self.network = architecture(names[self.width]).build(num_classes, in_chans, image_size)
        first = next(layer for layer in self.network.modules() if isinstance(layer, nn.Conv2d))
        for parent in list(self.network.modules()):
            for name, layer in list(parent.named_children()):
                if isinstance(layer, nn.Conv2d):
                    layer.__class__ = SlimmableConv2d
                elif isinstance(layer, nn.Linear):
                    layer.__class__ = SlimmableLinear
                elif isinstance(layer, nn.BatchNorm2d):
                    switchable = SwitchableBatchNorm2d(layer.num_features, self.widths, layer.eps, layer.momentum or 0)
                    parent.add_module(name, switchable)
        first.whole_inputs = True  # type: ignore[assignment]  # it has become slimmable

    def set_width(self, width: float) -> None:
        """Run at this width from now on: one of `widths`; in training mode any between the least and the greatest.

        Raises RecipeError for another.
        """
        least, greatest = self.widths[0], self.widths[-1]
        if width not in self.widths and not (self.training and least <= width <= greatest):
            known = ", ".join(f"{each:g}" for each in self.widths)
            raise RecipeError(
                f"width={width!r} was given; the network was trained at {known}, and zoo.dynamic.extract_width cuts "
                f"out any from {least:g} to {greatest:g}."
            )
        self.width = width
        for layer in self.network.modules():
            if isinstance(layer, SlimmableConv2d | SlimmableLinear | SwitchableBatchNorm2d):
                layer.width = width

    def forward(self, images_NCHW: Tensor) -> Tensor:
        logits_NK: Tensor = self.network(images_NCHW)
        return logits_NK


@register(family="slimmable", paper="arXiv:1812.08928", year=2018, role="efficient")
def slimmable_mobilenetv1(num_classes: int = 1000, in_chans: int = 3, image_size: int = 224) -> nn.Module:
    """MobileNet at widths 0.25, 0.5, 0.75 and 1.0 (table 3)."""
    names = {width: f"mobilenetv1_{round(100 * width):03d}" for width in (0.25, 0.5, 0.75, 1.0)}
    return Slimmable(names, num_classes, in_chans, image_size)
