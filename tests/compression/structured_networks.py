"""Small networks, one for each way in which channels hang together, and what the tests of structured pruning share."""

from collections.abc import Collection
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.compression.structured import Graph

IMAGE = (3, 12, 12)


class Residual(nn.Module):
    """A sum of two layers, and one of their result with another's."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.inner, self.outer = nn.Conv2d(8, 6, 3, padding=1), nn.Conv2d(6, 8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = x + self.outer(F.relu(self.inner(x)))
        return self.head(x.mean((2, 3)))


class Concatenated(nn.Module):
    """Two branches of different widths side by side, read at an offset, with a norm over both."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 6, 3), nn.Conv2d(3, 10, 3)
        self.norm, self.last = nn.BatchNorm2d(16), nn.Conv2d(16, 8, 3)
        self.head = nn.Linear(8 * 4 * 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.left(x), self.right(x)], 1)
        x = F.max_pool2d(F.relu(self.norm(x)), 2, ceil_mode=True)
        return self.head(torch.flatten(F.pad(self.last(x), (0, 1, 1, 0)), 1))


class Depthwise(nn.Module):
    """Depthwise filters, one and two for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.one = nn.Conv2d(8, 8, 3, groups=8, bias=False)
        self.two = nn.Conv2d(8, 16, 3, groups=8)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.adaptive_avg_pool2d(F.relu6(self.two(self.one(self.stem(x)))), 1).flatten(1))


class Grouped(nn.Module):
    """A convolution of four groups: each has to lose as many channels as the others."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.middle = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 24, 3, groups=4)
        self.head = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.silu(self.middle(self.stem(x))).mean((2, 3)))


class Repeated(nn.Module):
    """One convolution called twice: what it reads and what it makes go together."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.again, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.again(F.relu(self.again(self.stem(x)))).mean((2, 3)))


class Shuffled(nn.Module):
    """Channel shuffle and chunks, as in ShuffleNet-v2."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.side = nn.Conv2d(3, 16, 1), nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = shuffle(self.stem(x))
        one, two = x.chunk(2, 1)
        return self.head(shuffle(torch.cat([one, F.relu(self.side(two))], 1)).mean((2, 3)))


def shuffle(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class Excited(nn.Module):
    """Squeeze and excite: a gate of each channel, by convolutions and by linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3)
        self.down, self.up = nn.Conv2d(12, 4, 1), nn.Conv2d(4, 12, 1)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.stem(x))
        gate = torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))
        return self.head((x * gate).mean((2, 3)))


class Padded(nn.Module):
    """A shortcut padded with channels of zeros (ResNet's option A): the padding is fixed, the middle is free."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 16, 1), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = self.wide(x) + F.pad(x[:, :, ::1, ::1], (0, 0, 0, 0, 4, 4))
        return self.head(x.mean((2, 3)))


NETWORKS = (Residual, Concatenated, Depthwise, Grouped, Repeated, Shuffled, Excited, Padded)


def roughened(model: nn.Module, seed: int = 0) -> nn.Module:
    """In double precision and eval mode, with norms and biases that are not those of a fresh network."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double().eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor in (*module.parameters(), module.running_mean, module.running_var):
                tensor.data.copy_(torch.rand(tensor.shape, generator=generator, dtype=torch.float64) + 0.5)
        elif isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            module.bias.data.copy_(torch.randn(module.bias.shape, generator=generator, dtype=torch.float64))
    return model


def part(graph: Graph, ratio: float, seed: int = 0) -> set[int]:
    """A random share of every family, at least one class of each left."""
    generator = torch.Generator().manual_seed(seed)
    chosen: set[int] = set()
    for family in graph.families:
        count = min(int(len(family.channels) * ratio), len(family.channels) - 1)
        order = torch.randperm(len(family.channels), generator=generator)[:count]
        chosen |= {family.channels[i] for i in order.tolist()}
    return chosen


def silenced(model: nn.Module, graph: Graph, removed: Collection[int]) -> nn.Module:
    """A copy whose filters, biases and norms make zeros of the channels `removed`."""
    quiet = deepcopy(model)
    for name, side, index in graph.members(*removed):
        if side != "in":
            for parameter in quiet.get_submodule(name).parameters(recurse=False):
                parameter.data[index] = 0
    return quiet
