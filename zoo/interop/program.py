"""From PyTorch's own program of a network to the operators of zoo.interop.operators."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import ExportError
from zoo.interop.deployable import layer_of, traced
from zoo.interop.operators import (
    CLAMPS,
    Add,
    AveragePool,
    Concat,
    Convolution,
    Flatten,
    Function,
    GlobalAverage,
    Graph,
    Linear,
    MaxPool,
    Node,
    Operator,
    PadChannels,
    Pair,
    Subsample,
)
from zoo.registry import Image


def read_graph(network: nn.Module, image: Image) -> Graph:
    """The operators of a `deployable` network.

    Raises ExportError naming the layer whose operator is none of these, and what `traced` raises.
    """
    program = traced(network, image)
    names = {**program.graph_signature.inputs_to_parameters, **program.graph_signature.inputs_to_buffers}
    state = {**dict(network.named_parameters()), **dict(network.named_buffers()), **program.constants}
    reader = _Reader(dict(names), state)
    for node in program.graph.nodes:
        reader.read(node)
    nodes = _with_clamps(reader.nodes, reader.output)
    return Graph(tuple(nodes), reader.input, reader.output, reader.shapes)


class _Reader:
    """Node by node of a program; what changes nothing gets no node, and its result the name of its input."""

    def __init__(self, names: dict[str, str], state: Mapping[str, Tensor]) -> None:
        self.names, self.state = names, state
        self.same: dict[str, str] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.nodes: list[Node] = []
        self.input = self.output = ""

    def read(self, node: torch.fx.Node) -> None:
        """Take in one node. Raises ExportError."""
        if node.op == "placeholder":
            if node.name not in self.names:
                self.input = self._new(node)
        elif node.op == "output":
            self.output = self._value(node.args[0][0])  # type: ignore[index]
        else:
            operator = _operator(node)
            if operator is None:
                self.same[node.name] = self._value(node.args[0])
            else:
                self._add(node, operator)

    def _add(self, node: torch.fx.Node, operator: Operator) -> None:
        weight = bias = None
        sources: Any = node.args[:1]
        if isinstance(operator, Convolution | Linear):
            weight, bias = self._tensor(node, 1), self._tensor(node, 2)
        elif isinstance(operator, Add):
            sources = node.args[:2]
        elif isinstance(operator, Concat):
            sources = node.args[0]
        inputs = tuple(self._value(source, node) for source in sources)
        if isinstance(operator, Subsample) and self.nodes and self.nodes[-1].output == inputs[0]:
            before = self.nodes[-1].operator
            if isinstance(before, Subsample) and inputs[0] != self.output:
                steps = (before.step[0] * operator.step[0], before.step[1] * operator.step[1])
                operator, inputs = Subsample(steps), self.nodes.pop().inputs
        self.nodes.append(Node(operator, layer_of(node), inputs, self._new(node), weight, bias))

    def _new(self, node: torch.fx.Node) -> str:
        self.same[node.name] = node.name
        self.shapes[node.name] = tuple(int(size) for size in node.meta["val"].shape[1:])
        return node.name

    def _value(self, source: Any, reader: torch.fx.Node | None = None) -> str:
        if not isinstance(source, torch.fx.Node) or source.name not in self.same:
            where = layer_of(reader) if reader is not None else "the network"
            raise ExportError(f"integers cannot express the layer {where}: it computes with a constant of its own.")
        return self.same[source.name]

    def _tensor(self, node: torch.fx.Node, index: int) -> Tensor | None:
        source = node.args[index] if len(node.args) > index else None
        if source is None:
            return None
        if not isinstance(source, torch.fx.Node) or source.name not in self.names:
            raise ExportError(
                f"integers cannot express the layer {layer_of(node)}: its weights are computed when it runs."
            )
        return self.state[self.names[source.name]].detach()


def _operator(node: torch.fx.Node) -> Operator | None:
    """The operator of a node, None for one that changes nothing. Raises ExportError naming its layer."""
    name = str(node.target).removeprefix("aten.").partition(".")[0]
    read = _READERS.get(name)
    given = [None if isinstance(argument, torch.fx.Node) else argument for argument in node.args]
    try:
        if read is None:
            raise _UnfitError(name)
        shape = tuple(node.args[0].meta["val"].shape[1:]) if isinstance(node.args[0], torch.fx.Node) else ()
        return read(given, shape)
    except _UnfitError as error:
        raise ExportError(
            f"integers cannot express the operator {error} of the layer {layer_of(node)}; "
            "export with --format onnx instead."
        ) from None


class _UnfitError(Exception):
    """An operator, or a way to use one, that is none of ours."""


def _pair(value: Any) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def _get(given: list[Any], index: int, default: Any) -> Any:
    return given[index] if len(given) > index else default


def _convolution(given: list[Any], shape: tuple[int, ...]) -> Operator:
    if isinstance(_get(given, 4, 0), str) or _pair(_get(given, 5, 1)) != (1, 1):
        raise _UnfitError("convolution with dilation or padding by name")
    return Convolution(_pair(_get(given, 3, 1)), _pair(_get(given, 4, 0)), _get(given, 6, 1))


def _max_pool(given: list[Any], shape: tuple[int, ...]) -> Operator:
    if _pair(_get(given, 4, 1)) != (1, 1):
        raise _UnfitError("max_pool2d with dilation")
    stride = _get(given, 2, None) or given[1]
    return MaxPool(_pair(given[1]), _pair(stride), _pair(_get(given, 3, 0)), _get(given, 5, False))


def _average_pool(given: list[Any], shape: tuple[int, ...]) -> Operator:
    if _get(given, 6, None) is not None:
        raise _UnfitError("avg_pool2d with a divisor")
    stride = _get(given, 2, None) or given[1]
    padding, ceil, counted = _pair(_get(given, 3, 0)), _get(given, 4, False), _get(given, 5, True)
    return AveragePool(_pair(given[1]), _pair(stride), padding, ceil, counted)


def _adaptive_pool(given: list[Any], shape: tuple[int, ...]) -> Operator | None:
    size, sides = _pair(given[1]), (int(shape[1]), int(shape[2]))
    if size == sides:
        return None
    if any(side % wanted for side, wanted in zip(sides, size, strict=True)):
        raise _UnfitError("adaptive_avg_pool2d with windows of several sizes")
    kernel = (sides[0] // size[0], sides[1] // size[1])
    return AveragePool(kernel, kernel, (0, 0), False, False)


def _mean(given: list[Any], shape: tuple[int, ...]) -> Operator:
    if sorted(axis % (len(shape) + 1) for axis in given[1]) != [2, 3] or _get(given, 2, False):
        raise _UnfitError("mean over other axes than height and width")
    return GlobalAverage()


def _add(given: list[Any], shape: tuple[int, ...]) -> Operator:
    return Add()


def _concat(given: list[Any], shape: tuple[int, ...]) -> Operator:
    if _get(given, 1, 0) not in (1, -3):
        raise _UnfitError("cat along other axes than the channels")
    return Concat()


def _flatten(given: list[Any], shape: tuple[int, ...]) -> Operator | None:
    if _get(given, 1, 0) != 1 or _get(given, 2, -1) not in (-1, len(shape)):
        raise _UnfitError("flatten that joins other axes")
    return Flatten() if len(shape) > 1 else None


def _slice(given: list[Any], shape: tuple[int, ...]) -> Operator | None:
    axis, start, end, step = (_get(given, i, default) for i, default in ((1, 0), (2, None), (3, None), (4, 1)))
    whole = start in (None, 0) and (end is None or axis == 0 or end >= shape[axis - 1])
    if not whole or (axis < 2 and step != 1):
        raise _UnfitError("slice that leaves out a part")
    return None if step == 1 else Subsample((step, 1) if axis == 2 else (1, step))


def _pad(given: list[Any], shape: tuple[int, ...]) -> Operator:
    amounts, value = list(given[1]), _get(given, 3, None)
    if len(amounts) != 6 or any(amounts[:4]) or _get(given, 2, "constant") != "constant" or value not in (None, 0):
        raise _UnfitError("pad of rows or columns, or with other values than zero")
    return PadChannels(amounts[4], amounts[5])


def _clipped(given: list[Any], shape: tuple[int, ...]) -> Operator:
    if (_get(given, 1, -1), _get(given, 2, 1)) != (0, 6):
        raise _UnfitError("hardtanh between other limits than 0 and 6")
    return Function("relu6")


def _function(name: str) -> Callable[[list[Any], tuple[int, ...]], Operator | None]:
    return lambda given, shape: Function(name)


def _nothing(given: list[Any], shape: tuple[int, ...]) -> Operator | None:
    return None


_READERS: dict[str, Callable[[list[Any], tuple[int, ...]], Operator | None]] = {
    "conv2d": _convolution,
    "linear": lambda given, shape: Linear(),
    "max_pool2d": _max_pool,
    "avg_pool2d": _average_pool,
    "adaptive_avg_pool2d": _adaptive_pool,
    "mean": _mean,
    "add": _add,
    "add_": _add,
    "cat": _concat,
    "flatten": _flatten,
    "slice": _slice,
    "pad": _pad,
    "hardtanh": _clipped,
    "hardtanh_": _clipped,
    "relu6": _function("relu6"),
    "relu": _function("relu"),
    "relu_": _function("relu"),
    "tanh": _function("tanh"),
    "dropout": _nothing,
    "alias": _nothing,
}


def _with_clamps(nodes: list[Node], output: str) -> list[Node]:
    """A function that only cuts off joins the layer before it, where nobody else reads that layer."""
    reads = Counter(name for node in nodes for name in node.inputs) + Counter([output])
    joined: dict[str, int] = {}
    kept: list[Node] = []
    for node in nodes:
        operator = node.operator
        place = joined.get(node.inputs[0])
        clamp = operator.name if isinstance(operator, Function) and operator.name in CLAMPS else None
        if clamp is not None and place is not None and kept[place].clamp is None and reads[node.inputs[0]] == 1:
            kept[place] = replace(kept[place], output=node.output, clamp=clamp)
            joined[node.output] = place
            continue
        kept.append(node)
        if isinstance(operator, Convolution | Linear | Add):
            joined[node.output] = len(kept) - 1
    return kept
