"""A network as a list of a dozen operators, for those who write it down in integers.

An operator holds what a device has to know of it and no weights; a node holds the operator, its weights, and the names
of what goes in and comes out. `zoo.interop.program` reads a network so, `zoo.interop.quantized` has the same operators
on integers.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Pair = tuple[int, int]


@dataclass(frozen=True)
class Convolution:
    """[C, H, W] -> [F, H', W']. padding: rows above and below, columns left and right. Depthwise: groups = C."""

    stride: Pair
    padding: Pair
    groups: int


@dataclass(frozen=True)
class Linear:
    """[C] -> [F]."""


@dataclass(frozen=True)
class MaxPool:
    """[C, H, W] -> [C, H', W']. ceil: a window may begin inside and end outside; what is outside does not count."""

    kernel: Pair
    stride: Pair
    padding: Pair
    ceil: bool


@dataclass(frozen=True)
class AveragePool:
    """[C, H, W] -> [C, H', W']. count_padding: whether the padding (never what `ceil` adds) counts as zeros."""

    kernel: Pair
    stride: Pair
    padding: Pair
    ceil: bool
    count_padding: bool


@dataclass(frozen=True)
class GlobalAverage:
    """[C, H, W] -> [C]: the mean of each map."""


@dataclass(frozen=True)
class Add:
    """Two of the same shape -> their sum."""


@dataclass(frozen=True)
class Concat:
    """[C1, H, W], [C2, H, W], ... -> [C1 + C2 + ..., H, W]."""


@dataclass(frozen=True)
class Flatten:
    """[C, H, W] -> [C * H * W]."""


@dataclass(frozen=True)
class Subsample:
    """[C, H, W] -> [C, H', W']: every `step`-th row and column, from the first."""

    step: Pair


@dataclass(frozen=True)
class PadChannels:
    """[C, H, W] -> [before + C + after, H, W]: maps of zeros round the others."""

    before: int
    after: int


@dataclass(frozen=True)
class Function:
    """The same function of every value: a name of FUNCTIONS."""

    name: str


Operator = (
    Convolution
    | Linear
    | MaxPool
    | AveragePool
    | GlobalAverage
    | Add
    | Concat
    | Flatten
    | Subsample
    | PadChannels
    | Function
)
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "relu6": F.relu6, "tanh": torch.tanh}
CLAMPS = {"relu": (0.0, float("inf")), "relu6": (0.0, 6.0)}  # functions that only cut off


@dataclass(frozen=True, eq=False)
class Node:
    """One operator at work. layer: the module it comes from, for messages. inputs, output: names of values.

    weight: float32 [F, C / groups, h, w] or [F, C]; bias: float32 [F]. clamp: a name of CLAMPS, applied to the result.
    """

    operator: Operator
    layer: str
    inputs: tuple[str, ...]
    output: str
    weight: Tensor | None = None
    bias: Tensor | None = None
    clamp: str | None = None


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes in the order in which they run. shapes: of every value, without the batch."""

    nodes: tuple[Node, ...]
    input: str
    output: str
    shapes: Mapping[str, tuple[int, ...]]

    def values(self, images_NCHW: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Name and float32 [N, ...] of every value, from the images on; each is let go when it was read last."""
        reads = Counter(name for node in self.nodes for name in node.inputs)
        held = {self.input: images_NCHW}
        yield self.input, images_NCHW
        for node in self.nodes:
            result = compute(node, [held[name] for name in node.inputs])
            for name in node.inputs:
                reads[name] -= 1
                if not reads[name]:
                    del held[name]
            held[node.output] = result
            yield node.output, result


def compute(node: Node, inputs: list[Tensor]) -> Tensor:
    """What an operator makes of float32 [N, ...], weights and clamp included."""
    operator, x = node.operator, inputs[0]
    if isinstance(operator, Convolution):
        assert node.weight is not None
        result = F.conv2d(x, node.weight, node.bias, operator.stride, operator.padding, groups=operator.groups)
    elif isinstance(operator, Linear):
        assert node.weight is not None
        result = F.linear(x, node.weight, node.bias)
    elif isinstance(operator, AveragePool):
        result = F.avg_pool2d(
            x, operator.kernel, operator.stride, operator.padding, operator.ceil, operator.count_padding
        )
    elif isinstance(operator, GlobalAverage):
        result = x.mean((2, 3))
    elif isinstance(operator, Add):
        result = x + inputs[1]
    elif isinstance(operator, Function):
        result = FUNCTIONS[operator.name](x)
    else:
        result = moved(operator, inputs)
    return result if node.clamp is None else FUNCTIONS[node.clamp](result)


def moved(operator: Operator, inputs: list[Tensor]) -> Tensor:
    """What an operator makes of [N, ...] that only picks and moves values, whatever they stand for."""
    x = inputs[0]
    if isinstance(operator, MaxPool):
        return F.max_pool2d(x, operator.kernel, operator.stride, operator.padding, ceil_mode=operator.ceil)
    if isinstance(operator, Concat):
        return torch.cat(inputs, 1)
    if isinstance(operator, Flatten):
        return x.flatten(1)
    if isinstance(operator, Subsample):
        return x[:, :, :: operator.step[0], :: operator.step[1]]
    assert isinstance(operator, PadChannels)
    return F.pad(x, (0, 0, 0, 0, operator.before, operator.after))
