"""Winograd's minimal filtering: 3x3 convolutions with fewer multiplications (Lavin and Gray, arXiv:1509.09308).

F(m x m, 3x3) computes a tile of m x m outputs from (m + 2) x (m + 2) inputs with one multiplication for each input and
channel: 2.25 times fewer than the 9 m^2 of the plain sum for m = 2, and 4 times fewer for m = 4 (section 4.1). Inputs,
filters and products go through small constant matrices, whose additions do not count.
"""

import copy
import math
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.compression.forms import materialise
from zoo.errors import ZooError

Tile = Literal[2, 4]
KERNEL = 3
# Matrices B^T of the inputs, G of the filters and A^T of the products (sections 4.1 and 4.3 of the paper).
_INPUTS: dict[int, list[list[float]]] = {
    2: [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
    4: [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
}
_FILTERS: dict[int, list[list[float]]] = {
    2: [[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]],
    4: [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
}
_PRODUCTS: dict[int, list[list[float]]] = {
    2: [[1, 1, 1, 0], [0, 1, -1, -1]],
    4: [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
}


class WinogradConv2d(nn.Conv2d):
    """A 3x3 convolution of stride 1, computed by F(tile x tile, 3x3); weights and state dict are nn.Conv2d's.

    `to_winograd` makes it of an existing layer. zoo.cost counts it as the convolution that it stands for.
    """

    counts_as = nn.Conv2d
    tile: Tile = 4

    def forward(self, input: Tensor) -> Tensor:
        """images_NCHW -> float [N, K, H + 2p - 2, W + 2p - 2]."""
        padding = cast(tuple[int, int], self.padding)
        return winograd_conv2d(input, self.weight, self.bias, padding, self.groups, self.tile)


def winograd_conv2d(
    images_NCHW: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
    tile: Tile = 4,
) -> Tensor:
    """What F.conv2d gives for a weight [K, C / groups, 3, 3] and stride 1, up to rounding.

    Float64 agrees to 1e-10 and better. Fewer bits lose more than the plain sum does, tile 4 more than tile 2, since its
    matrices have larger entries; the filters are transformed in float32 at least.
    Two-dimensional transforms are the Kronecker squares of the one-dimensional, so each is one matrix product.
    """
    count, channels, height, width = images_NCHW.shape
    filters = weight.shape[0]
    high, wide = height + 2 * padding[0] - KERNEL + 1, width + 2 * padding[1] - KERNEL + 1
    rows, columns = math.ceil(high / tile), math.ceil(wide / tile)
    side = tile + KERNEL - 1
    padded = F.pad(
        images_NCHW,
        (
            padding[1],
            columns * tile + KERNEL - 1 - width - padding[1],
            padding[0],
            rows * tile + KERNEL - 1 - height - padding[0],
        ),
    )
    tiles = F.unfold(padded, side, stride=tile).view(count, channels, side * side, rows * columns)
    inputs = _square(_INPUTS[tile], images_NCHW) @ tiles.permute(2, 1, 0, 3).reshape(side * side, -1)
    fine = weight if weight.dtype == torch.float64 else weight.float()
    taps = _square(_FILTERS[tile], fine) @ fine.reshape(-1, KERNEL * KERNEL).T
    products = torch.matmul(
        taps.to(inputs.dtype).view(side * side, groups, filters // groups, channels // groups),
        inputs.view(side * side, groups, channels // groups, -1),
    )
    outputs = _square(_PRODUCTS[tile], products) @ products.reshape(side * side, -1)
    blocks = outputs.view(tile * tile, filters, count, rows * columns).permute(2, 1, 0, 3)
    whole = F.fold(blocks.reshape(count, -1, rows * columns), (rows * tile, columns * tile), tile, stride=tile)
    cut = whole[:, :, :high, :wide]
    return cut if bias is None else cut + bias.to(cut.dtype).view(1, -1, 1, 1)


def to_winograd(model: nn.Module, tile: Tile = 4) -> nn.Module:
    """A copy of a model in which every 3x3 convolution of stride 1 is computed by F(tile x tile, 3x3).

    Others are left as they are: other kernels, strides, dilations, paddings that are not zeros. Weights made of
    something (masks, codebooks) become plain ones of the same values first.
    Raises ZooError for another tile, or for a model without such a convolution.
    """
    if tile not in _INPUTS:
        raise ZooError(f"tile={tile!r} was given; 2 for F(2x2, 3x3) or 4 for F(4x4, 3x3) is allowed.")
    copied = materialise(copy.deepcopy(model))
    found = [module for module in copied.modules() if fits(module)]
    if not found:
        raise ZooError("the model has no 3x3 convolution of stride 1; Winograd's filtering can replace nothing in it.")
    for module in found:
        module.__class__ = WinogradConv2d
        cast(WinogradConv2d, module).tile = tile
    return copied


def fits(module: nn.Module) -> bool:
    """Whether a module is a plain 3x3 convolution of stride 1 with zeros around it, in any number of groups."""
    return (
        type(module) in (nn.Conv2d, WinogradConv2d)
        and module.kernel_size == (KERNEL, KERNEL)
        and module.stride == module.dilation == (1, 1)
        and isinstance(module.padding, tuple)
        and module.padding_mode == "zeros"
    )


def _square(matrix: list[list[float]], like: Tensor) -> Tensor:
    """The Kronecker square: what transforms the rows and the columns of a tile at once."""
    one = torch.tensor(matrix, dtype=torch.float64)
    return torch.kron(one, one).to(like)
