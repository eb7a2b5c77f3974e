"""Structure: how a network differs in shape from the one that the registry builds under its name, and back.

A network may have lost channels, neurons or whole layers (structured pruning), and its batch norms may have been folded
into the convolutions before them. A description holds only what differs, and describes nothing that is larger than
the registered network:

    {"folded": bool, "shapes": {module name: sizes}}

folded: every BatchNorm2d is an Identity and every Conv2d has a bias, but for the modules that `shapes` names.
sizes: of a Conv2d [in, out, groups], of a Linear [in, out], of a BatchNorm2d [features], of an Identity []. A 1 or 0
behind the sizes of a Conv2d or Linear says that it has a bias, or has none, where that is not as the rest has it.

Auxiliary classifiers (`auxiliary.*`) serve training only and take no part.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from zoo.errors import CompressionError, ZooError
from zoo.registry import Image, Origin, architecture
from zoo.strict import RefusedError, quoted

AUXILIARY = "auxiliary."  # what every key of a classifier for training only begins with
MAX_SIDE = 1 << 16  # of an image, and of the number of its channels and classes
_KINDS = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.Identity)
_Layer = nn.Conv2d | nn.Linear | nn.BatchNorm2d | nn.Identity


def stored_state(model: nn.Module) -> dict[str, Tensor]:
    """The part of a model's state that a file holds, sharing its memory: no auxiliary heads, no batch counters."""
    return {name: tensor for name, tensor in model.state_dict().items() if is_stored(name)}


def is_stored(name: str) -> bool:
    """Whether a file holds the tensor of this name."""
    return not name.startswith(AUXILIARY) and name.rpartition(".")[2] != "num_batches_tracked"


def describe(model: nn.Module, name: str, num_classes: int, image: Image) -> dict[str, Any]:
    """What differs in a model's shape from the registered network `name`, ready for JSON, in the shorter way.

    Raises CompressionError for a model that cannot be described: a module is missing or of another kind.
    """
    ways = []
    for folded in (False, True):
        network = build_meta(name, num_classes, image)
        if folded:
            _fold(network)
        ways.append({"folded": folded, "shapes": _differences(model, network, name)})
    return min(ways, key=lambda way: len(json.dumps(way["shapes"])))


def _differences(model: nn.Module, network: nn.Module, name: str) -> dict[str, list[int]]:
    """Sizes of the modules of a model that are not as in `network`."""
    shapes: dict[str, list[int]] = {}
    gone: tuple[str, ...] = ()
    for label, layer in _layers(network):
        if gone and label.startswith(gone):
            continue
        own = _module(model, label, name)
        if isinstance(own, nn.Identity) and not isinstance(layer, nn.Identity):
            shapes[label] = []
            gone += (f"{label}.",)
        elif isinstance(layer, _KINDS):
            sizes = _sizes(own)
            if sizes is None:
                kind = type(own).__name__
                raise CompressionError(f"the model cannot be packed as a {name}: its {label!r} is a {kind}.")
            differs = _bias(own) != _bias(layer)
            if sizes != _sizes(layer) or differs:
                shapes[label] = [*sizes, *([_bias(own)] if differs else [])]
    return shapes


def apply(model: nn.Module, description: Mapping[str, Any]) -> None:
    """Give a freshly built network, in place, the shape described; what is left of a tensor are its first rows.

    Raises RefusedError for a description that is not one, names what does not exist, changes nothing or would grow.
    """
    if not isinstance(description, dict) or description.keys() != {"folded", "shapes"}:
        raise RefusedError("its structure is not described by exactly folded and shapes")
    folded, shapes = description["folded"], description["shapes"]
    if type(folded) is not bool or not isinstance(shapes, dict):
        raise RefusedError("its structure is not a truth value for folded and sizes by name for shapes")
    bounds = {label: layer for label, layer in _layers(model) if isinstance(layer, _KINDS)}
    limits = {label: _sizes(layer) for label, layer in bounds.items()}
    if folded:
        _fold(model)
    for label, sizes in shapes.items():
        if not isinstance(sizes, list) or not all(type(side) is int and side >= 0 for side in sizes):
            raise RefusedError(f"the sizes of {quoted(label)} are {quoted(sizes)} instead of whole numbers")
        _reshape(model, label, sizes, bounds.get(label), limits.get(label))


def skeleton(name: str, num_classes: int, image: Image, description: Mapping[str, Any]) -> nn.Module:
    """The network described, on the meta device: shapes without memory.

    Raises RefusedError where there is none; whether its layers fit together, `check_runs` tells.
    """
    if not all(1 <= side <= MAX_SIDE for side in (num_classes, *image)) or image[1] != image[2]:
        raise RefusedError(f"its image {quoted(list(image))} and {num_classes} classes are not sizes of a network")
    with _described():
        model = build_meta(name, num_classes, image)
    apply(model, description)
    return model


def check_runs(model: nn.Module, num_classes: int, image: Image) -> None:
    """Raise RefusedError unless a network in eval mode gives [1, num_classes] for an image, here one of zeros."""
    device = next(model.parameters()).device
    with _described(), torch.no_grad():
        logits_NK = model(torch.zeros(1, *image, device=device))
    if logits_NK.shape != (1, num_classes):
        raise RefusedError(f"the network gives {list(logits_NK.shape)[1:]} numbers instead of {num_classes}")


def build_meta(name: str, num_classes: int, image: Image) -> nn.Module:
    """`build_plain` on the meta device."""
    with torch.device("meta"), _Unfilled():
        return build_plain(name, num_classes, image)


def build_plain(name: str, num_classes: int, image: Image) -> nn.Module:
    """The registered network for square images, in eval mode; whether the image is too small is not looked into."""
    model = architecture(name).build(num_classes, image[0], image[1]).eval()
    model.zoo_origin = Origin(name, num_classes, image[0], image[1])  # type: ignore[assignment]
    return model


class _Unfilled(TorchFunctionMode):
    """Skips random initialisation: the meta device has nothing to fill, and its kernels take seconds to import."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.normal_, Tensor.uniform_) or getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


@contextmanager
def _described() -> Iterator[None]:
    """Turn what PyTorch or a builder raises for sizes that do not work out into RefusedError."""
    try:
        yield
    except (ArithmeticError, IndexError, RuntimeError, TypeError, ValueError, ZooError) as error:
        reason = quoted(str(error).strip().split("\n")[0], 200)
        raise RefusedError(f"the network that it describes cannot be built ({reason})") from None


def _layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Name and module of every part of a network but for auxiliary classifiers."""
    for label, module in model.named_modules():
        if label and not f"{label}.".startswith(AUXILIARY):
            yield label, module


def _module(model: nn.Module, label: str, name: str) -> nn.Module:
    """The module called `label`, or the Identity in whose place it would stand."""
    module = model
    for part in label.split("."):
        if isinstance(module, nn.Identity):
            return module
        inner = module._modules.get(part)
        if inner is None:
            raise CompressionError(f"the model cannot be packed as a {name}: it has no {label!r}.")
        module = inner
    return module


def _sizes(module: nn.Module) -> list[int] | None:
    if isinstance(module, nn.Conv2d):
        return [module.in_channels, module.out_channels, module.groups]
    if isinstance(module, nn.Linear):
        return [module.in_features, module.out_features]
    if isinstance(module, nn.BatchNorm2d):
        return [module.num_features]
    return [] if isinstance(module, nn.Identity) else None


def _bias(module: nn.Module) -> int:
    return int(isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None)


def _fold(model: nn.Module) -> None:
    for label, layer in list(_layers(model)):
        if isinstance(layer, nn.BatchNorm2d):
            _replace(model, label)
        elif isinstance(layer, nn.Conv2d):
            _set_bias(layer, True)


def _replace(model: nn.Module, label: str) -> None:
    parent, _, leaf = label.rpartition(".")
    model.get_submodule(parent).add_module(leaf, nn.Identity())


def _set_bias(layer: nn.Conv2d | nn.Linear, wanted: bool) -> None:
    if wanted and layer.bias is None:
        layer.bias = nn.Parameter(layer.weight.new_zeros(layer.weight.shape[0]))
    elif not wanted:
        layer.bias = None


def _reshape(model: nn.Module, label: str, sizes: list[int], bound: _Layer | None, limit: list[int] | None) -> None:
    """Give one module the sizes described. bound, limit: what the registered network has there, and its sizes."""
    try:
        module = model.get_submodule(label)
    except AttributeError:
        raise RefusedError(f"its structure names {quoted(label)}, which the network does not have") from None
    if not label or f"{label}.".startswith(AUXILIARY):
        raise RefusedError(f"its structure names {quoted(label)}, which has none")
    if not sizes and not isinstance(bound, nn.Identity):
        if isinstance(module, nn.Identity):
            raise RefusedError(f"its structure gives {quoted(label)} the sizes that it has")
        _replace(model, label)
        return
    if limit is None or bound is None or isinstance(bound, nn.Identity):
        raise RefusedError(f"its structure gives sizes to {quoted(label)}, which takes none")
    if isinstance(bound, nn.BatchNorm2d) and isinstance(module, nn.Identity):  # one that folding left
        parent, _, leaf = label.rpartition(".")
        model.get_submodule(parent).add_module(leaf, bound)
    rank = len(limit)
    extra = sizes[rank:]
    if len(sizes) < rank or (extra and (isinstance(bound, nn.BatchNorm2d) or extra not in ([0], [1]))):
        raise RefusedError(f"the sizes of {quoted(label)} are {quoted(sizes)} instead of {rank} numbers")
    if any(not 1 <= side <= most for side, most in zip(sizes[:rank], limit, strict=True)):
        raise RefusedError(f"the sizes of {quoted(label)} are {quoted(sizes)}, not within {limit}")
    if sizes[:rank] == limit and module is bound and (not extra or extra[0] == _bias(bound)):
        raise RefusedError(f"its structure gives {quoted(label)} the sizes that it has")
    _shrink(bound, label, sizes[:rank])
    if extra and not isinstance(bound, nn.BatchNorm2d):
        _set_bias(bound, bool(extra[0]))


def _shrink(layer: nn.Conv2d | nn.Linear | nn.BatchNorm2d, label: str, sizes: list[int]) -> None:
    """Cut a layer's tensors to their first rows and columns."""
    if isinstance(layer, nn.BatchNorm2d):
        (layer.num_features,) = sizes
        rows, columns = sizes[0], 0
    elif isinstance(layer, nn.Linear):
        layer.in_features, layer.out_features = columns, rows = sizes
    else:
        columns, rows, groups = sizes
        if columns % groups or rows % groups or columns // groups > layer.weight.shape[1]:
            raise RefusedError(f"{quoted(label)} cannot have {columns} and {rows} channels in {groups} groups")
        layer.in_channels, layer.out_channels, layer.groups = sizes
        columns //= groups
    for name, tensor in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]:
        if not tensor.ndim:
            continue  # the batch counter
        part = tensor.detach()[:rows, :columns] if tensor.ndim > 1 else tensor.detach()[:rows]
        setattr(layer, name, nn.Parameter(part.clone()) if isinstance(tensor, nn.Parameter) else part.clone())
