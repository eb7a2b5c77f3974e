"""A real smaller network: the same modules with the same names, their weights cut to the channels that stay."""

from collections.abc import Collection
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from zoo.compression.forms import materialise
from zoo.compression.prune import Mask
from zoo.compression.structured.graph import Graph, read_graph
from zoo.compression.structured.labels import FROZEN, MismatchError
from zoo.compression.structured.tracer import Layer, trace
from zoo.compression.treat import put
from zoo.errors import CompressionError
from zoo.registry import Image


def dependency_graph(model: nn.Module, image: Image) -> Graph:
    """The graph of a network for images (C, H, W), proved by removing the first, then the last, of every family.

    Where the network's code expects the number it had (a view or a split of fixed size), they are frozen and told
    in `untreated`. Raises ImageSizeError for an image that does not pass, CompressionError where no proof is
    found.
    """
    plain = materialise(deepcopy(model))
    graph = read_graph(plain, image)
    for place in (0, -1):
        while (fault := _trial(plain, graph, place)) is not None:
            graph = _without(graph, fault)
    return graph


def shrink(model: nn.Module, graph: Graph, removed: Collection[int]) -> nn.Module:
    """A copy of `model` without the classes `removed`, proved to carry every other channel to where it belongs.

    Parametrized weights become plain ones of the same values. Raises CompressionError where a layer would lose every
    channel, or where the network's own code cannot run on fewer.
    """
    small = _cut(materialise(deepcopy(model)), graph, removed)
    try:
        _prove(small, graph, removed)
    except MismatchError as fault:
        raise CompressionError(
            f"the network cannot run without these channels: {fault.reason}; remove fewer, or name the layers."
        ) from fault
    return small


def keep_zeros(model: nn.Module, small: nn.Module) -> None:
    """Mask, in place, the zeros of those weights of `small` that an earlier stage had treated in `model`.

    So what was pruned stays zero when the smaller network is trained.
    """
    left = dict(small.named_modules())
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module, "weight"):
            layer = left.get(name)  # None in a block that was removed
            if isinstance(layer, (nn.Conv2d, nn.Linear)) and bool((layer.weight == 0).any()):
                put(layer, Mask(layer.weight, layer.weight != 0))


def _trial(model: nn.Module, graph: Graph, place: int) -> MismatchError | None:
    """What goes wrong without one class of every family that has more."""
    trial = [family.channels[place] for family in graph.families if len(family.channels) > 1]
    try:
        _prove(_cut(model, graph, trial), graph, trial)
    except MismatchError as fault:
        return fault
    return None


def _without(graph: Graph, fault: MismatchError) -> Graph:
    smaller = graph.frozen(fault.labels, f"the network's code asks for its number of channels ({fault.reason})")
    if smaller.families == graph.families:
        raise CompressionError(f"no channel can be removed safely: {fault.reason}.") from fault
    return smaller


def _prove(small: nn.Module, graph: Graph, removed: Collection[int]) -> None:
    """Trace the smaller network; every layer must read exactly the channels that it was cut for, or MismatchError."""
    graph.classes.sealed = True
    try:
        trace(small, graph.image, graph.classes, graph.smaller(removed))
    finally:
        graph.classes.sealed = False


def _cut(model: nn.Module, graph: Graph, removed: Collection[int]) -> nn.Module:
    """A copy of a network without parametrizations, cut."""
    small = deepcopy(model)
    gone = set(removed) - {FROZEN}
    for name, layer in graph.layers.items():
        module = small.get_submodule(name)
        inputs = [i for i, c in enumerate(graph.class_of(layer.inputs)) if c not in gone]
        outputs = [i for i, c in enumerate(graph.class_of(layer.outputs)) if c not in gone]
        if not inputs or not outputs:
            raise CompressionError(f"{name} would lose every channel; keep at least one.")
        if len(inputs) < len(layer.inputs) or len(outputs) < len(layer.outputs):
            _cut_layer(module, layer, inputs, outputs)
    return small


def _cut_layer(module: nn.Module, layer: Layer, inputs: list[int], outputs: list[int]) -> None:
    if isinstance(module, nn.Conv2d):
        _cut_convolution(module, layer, inputs, outputs)
    elif isinstance(module, nn.Linear):
        module.in_features, module.out_features = len(inputs), len(outputs)
        module.weight = _parameter(module.weight, outputs, inputs)
    elif isinstance(module, nn.modules.batchnorm._BatchNorm):
        module.num_features = len(outputs)
        for name in ("running_mean", "running_var"):
            buffer = getattr(module, name)
            if buffer is not None:
                setattr(module, name, buffer[outputs].clone())
        if module.weight is not None:
            module.weight = _parameter(module.weight, outputs)
    if isinstance(module.bias, Tensor):
        module.bias = _parameter(module.bias, outputs)


def _cut_convolution(module: nn.Conv2d, layer: Layer, inputs: list[int], outputs: list[int]) -> None:
    columns: list[int] | None = inputs
    if layer.kind == "depthwise":
        columns = None
        module.groups = len(inputs)
    elif layer.kind == "grouped":  # all groups lose the same places
        columns = [i for i in inputs if i < len(layer.inputs) // module.groups]
    module.in_channels, module.out_channels = len(inputs), len(outputs)
    module.weight = _parameter(module.weight, outputs, columns)


def _parameter(tensor: Tensor, rows: list[int], columns: list[int] | None = None) -> nn.Parameter:
    kept = tensor.detach()[rows]
    if columns is not None:
        kept = kept[:, columns]
    return nn.Parameter(kept.clone(memory_format=torch.preserve_format), requires_grad=tensor.requires_grad)
