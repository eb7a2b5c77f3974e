"""What each operator does to channels: one rule for each kind, and a default that pins what it does not know."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.compression.structured.labels import FROZEN, aligned, along, compact, varied

if TYPE_CHECKING:
    from zoo.compression.structured.tracer import Tracer

ELEMENTWISE = frozenset(
    (
        *("relu", "relu6", "hardtanh", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "hardswish"),
        *("hardsigmoid", "sigmoid", "tanh", "softplus", "clamp", "clamp_min", "clamp_max", "neg", "abs", "sqrt"),
        *("rsqrt", "exp", "log", "erf", "pow", "square", "reciprocal", "sign", "round", "floor"),
        *("clone", "alias", "detach", "_to_copy", "lift_fresh", "contiguous"),
    )
)
COMBINING = frozenset(("add", "sub", "rsub", "mul", "div", "maximum", "minimum", "copy"))
CUTTING = frozenset(("slice", "select", "split", "split_with_sizes", "unbind"))
RESHAPING = frozenset(("view", "_unsafe_view", "reshape", "_reshape_alias"))
MOVING = CUTTING | RESHAPING | {"permute", "transpose", "t", "unsqueeze", "squeeze", "expand", "repeat", "flip"}
SPATIAL = frozenset(
    (
        *("max_pool2d_with_indices", "avg_pool2d", "_adaptive_avg_pool2d", "adaptive_max_pool2d"),
        *("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d", "reflection_pad2d", "replication_pad2d"),
    )
)
REDUCING = frozenset(("mean", "sum", "amax", "amin"))
NORMS = frozenset(
    ("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm", "miopen_batch_norm")
)
SHAPE_ONLY = frozenset(
    ("empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "new_empty", "new_zeros")
)


def follow(tracer: "Tracer", name: str, func: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
    """Label the output of one operator, joining or pinning what it combines."""
    plain = name[:-1] if name.endswith("_") and not name.startswith("__") else name
    in_place = plain != name
    handled = False
    if plain in ELEMENTWISE and all(tracer.of(a) is None for a in args[1:]):
        handled = _pass(tracer, args, output)
    elif plain in COMBINING and not (plain == "copy" and tracer.of(args[0]) is None):
        handled = _combine(tracer, args, output)
    elif name in MOVING:
        handled = _move(tracer, name, func, args, kwargs, output)
    elif name in ("cat", "stack"):
        handled = _concatenate(tracer, func, args, kwargs, output)
    elif name == "constant_pad_nd":
        handled = _pad(tracer, args, output)
    elif name == "as_strided_":
        handled = _restride(tracer, args, output)
    elif name in SPATIAL:
        handled = _pool(tracer, args, output)
    elif name in REDUCING:
        handled = _reduce(tracer, args, kwargs, output)
    elif name == "convolution":
        handled = _convolve(tracer, args, output)
    elif name in ("addmm", "mm"):
        handled = _multiply(tracer, args[1:] if name == "addmm" else args, args[0], output)
    elif name in NORMS:
        handled = _normalise(tracer, args, output)
    if not handled and (in_place or name not in SHAPE_ONLY):
        _pin_all(tracer, name, (args, kwargs), output)


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in nested lists, tuples and dictionaries, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from tensors(item)


def _pin_all(tracer: "Tracer", name: str, inputs: Any, output: Any) -> None:
    for tensor in tensors(inputs):
        labels = tracer.of(tensor)
        if labels is not None:
            tracer.pin(labels, f"{name} combines channels in a way that is not known")
    for tensor in tensors(output):
        tracer.give(tensor, torch.full((1,) * tensor.dim(), FROZEN))


def _pass(tracer: "Tracer", args: Any, output: Any) -> bool:
    labels = tracer.of(args[0])
    if labels is None:
        return False
    if any(isinstance(a, Tensor) and a.numel() > 1 for a in args[1:]):
        tracer.pin(labels, "a tensor of fixed size is combined with channels")
    tracer.give(next(tensors(output)), labels)
    return True


def _combine(tracer: "Tracer", args: Any, output: Tensor) -> bool:
    """Sums and products: channels that meet go together; a single channel spread over many has to stay."""
    rank = output.dim()
    operands = [a for a in args[:2] if isinstance(a, Tensor)]
    met: list[Tensor] = []
    for position, tensor in enumerate(operands):
        labels = tracer.of(tensor)
        if labels is None:
            continue
        labels = aligned(labels, rank)
        others = operands[:position] + operands[position + 1 :]
        if any(_spread(tracer, tensor, other, rank) for other in others):
            tracer.pin(labels, "one channel is spread over many")
            continue
        if any(tracer.of(t) is None and any(_size(t, dim, rank) > 1 for dim in varied(labels)) for t in others):
            tracer.pin(labels, "a tensor of fixed size is combined with channels")
        met.append(labels)
    for other in met[1:]:
        tracer.classes.join(met[0], other)
    result = torch.broadcast_tensors(*met)[0] if met else torch.full((1,) * rank, FROZEN)
    tracer.give(output, compact(result))
    return True


def _spread(tracer: "Tracer", tensor: Tensor, other: Tensor, rank: int) -> bool:
    """Whether a dimension of size 1 of `tensor` meets the channels of `other`."""
    labels = tracer.of(other)
    return labels is not None and any(_size(tensor, dim, rank) == 1 for dim in varied(aligned(labels, rank)))


def _size(tensor: Tensor, dim: int, rank: int) -> int:
    """Size along a dimension of the result that `tensor` is broadcast to."""
    own = dim - (rank - tensor.dim())
    return tensor.shape[own] if own >= 0 else 1


def _move(tracer: "Tracer", name: str, func: Any, args: Any, kwargs: dict[str, Any], output: Any) -> bool:
    """Operators that only move data: labels take the same way."""
    labels = tracer.of(args[0])
    if labels is None:
        return False
    full = labels.expand(args[0].shape)
    results = list(tensors(output))
    if name in CUTTING:
        _cut(tracer, name, labels, full, func, args, kwargs)
    moved = [full.reshape(output.shape)] if name in RESHAPING else list(tensors(func(full, *args[1:], **kwargs)))
    for result, new in zip(results, moved, strict=True):
        small = compact(new)
        dims = varied(small) if len(varied(small)) > len(varied(labels)) else []
        for dim in dims[:-1]:  # channels split in two dimensions: the first is a fixed number of groups
            tracer.classes.join(small, small.narrow(dim, 0, 1))
        tracer.give(result, small)
    return True


def _cut(
    tracer: "Tracer", name: str, labels: Tensor, full: Tensor, func: Any, args: Any, kwargs: dict[str, Any]
) -> None:
    """Channels cut into equal parts go together by their place in the part; other cuts pin them."""
    for dim in varied(labels):
        size = full.shape[dim]
        places = torch.arange(size).reshape([-1 if d == dim else 1 for d in range(full.dim())]).expand(full.shape)
        for part in tensors(func(places, *args[1:], **kwargs)):
            taken = part.unique()
            count, start = len(taken), int(taken[0]) if len(taken) else 0
            if count == size:
                continue
            whole = count > 0 and size % count == 0 and start % count == 0 and int(taken[-1]) == start + count - 1
            if not whole:
                tracer.pin(labels, f"{name} cuts channels at a place of its own")
                continue
            parts = labels.movedim(dim, 0).reshape(size // count, count, -1)
            tracer.classes.join(parts, parts[:1])


def _concatenate(tracer: "Tracer", func: Any, args: Any, kwargs: dict[str, Any], output: Tensor) -> bool:
    """Channels side by side keep their labels, at their offsets; along another dimension those aligned go together."""
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % output.dim()
    stacked = func._overloadpacket.__name__ == "stack"
    pieces = []
    for tensor in args[0]:
        labels = tracer.of(tensor)
        labels = torch.full((1,) * tensor.dim(), FROZEN) if labels is None else labels
        pieces.append((labels.unsqueeze(dim), 1) if stacked else (labels, tensor.shape[dim]))
    sizes = [max(labels.shape[d] for labels, _ in pieces) for d in range(output.dim())]
    joined = torch.cat([labels.expand([*sizes[:dim], size, *sizes[dim + 1 :]]) for labels, size in pieces], dim)
    small = compact(joined)
    if dim in varied(small) and len(varied(small)) > 1:
        tracer.classes.join(small, small.narrow(dim, 0, 1))
    tracer.give(output, small)
    return True


def _pad(tracer: "Tracer", args: Any, output: Tensor) -> bool:
    """Padding of height and width changes nothing; channels of zeros are a fixed number, and stay."""
    labels = tracer.of(args[0])
    if labels is None:
        return False
    pads = list(args[1])
    for pair in range(len(pads) // 2):
        dim = labels.dim() - 1 - pair
        single = dim == 1 and args[0].shape[1] == 1  # the last channel of a layer, which has none to differ from
        if dim not in varied(labels) and not single:
            pads[2 * pair : 2 * pair + 2] = [0, 0]
    if min(pads) < 0:
        return False
    tracer.give(output, compact(F.pad(labels, pads, value=FROZEN)))
    return True


def _restride(tracer: "Tracer", args: Any, output: Tensor) -> bool:
    """What pooling to one pixel does with maps stored channels last: of a row of numbers, each stays where it is."""
    labels = tracer.of(args[0])
    whole = output.untyped_storage().nbytes() == output.numel() * output.element_size()
    if labels is None or labels.dim() != output.dim() or not whole or sum(side > 1 for side in output.shape) > 1:
        return False
    tracer.give(output, labels)
    return True


def _pool(tracer: "Tracer", args: Any, output: Any) -> bool:
    vector = _vector(tracer, args[0], 4)
    if vector is None:
        return False
    tracer.give(next(tensors(output)), compact(vector.reshape(1, -1, 1, 1)))
    return True


def _reduce(tracer: "Tracer", args: Any, kwargs: dict[str, Any], output: Tensor) -> bool:
    labels = tracer.of(args[0])
    if labels is None:
        return False
    given = args[1] if len(args) > 1 else kwargs.get("dim")
    dims = range(labels.dim()) if given is None else [given] if isinstance(given, int) else given
    dims = [d % labels.dim() for d in dims or range(labels.dim())]
    if set(dims) & set(varied(labels)):
        return False
    tracer.give(output, labels if output.dim() == labels.dim() else labels.squeeze(tuple(dims)))
    return True


def _convolve(tracer: "Tracer", args: Any, output: Tensor) -> bool:
    image, weight, transposed, groups = args[0], args[1], args[6], args[8]
    owner = tracer.parameter_owner(weight)
    vector = _vector(tracer, image, 4)
    if owner is None or vector is None or transposed or not isinstance(owner[1], nn.Conv2d):
        return False
    depthwise = groups > 1 and groups == len(vector)
    if groups > 1 and not depthwise:
        in_groups = vector.reshape(groups, -1)
        tracer.classes.join(in_groups, in_groups[:1])
    kind = "depthwise" if depthwise else "grouped" if groups > 1 else "dense"
    macs = output[0].numel() * weight[0].numel()
    made = tracer.meet(owner[0], kind, vector, weight.shape[0], macs)
    if kind == "grouped":
        out_groups = made.reshape(groups, -1)
        tracer.classes.join(out_groups, out_groups[:1])
    tracer.give(output, compact(made.reshape(1, -1, 1, 1)))
    return True


def _multiply(tracer: "Tracer", operands: Any, bias: Tensor, output: Tensor) -> bool:
    """A linear layer: rows [N, in] by its weight, transposed."""
    rows, weight = operands[0], operands[1]
    owner = tracer.parameter_owner(weight)
    vector = _vector(tracer, rows, 2)
    fits = owner is not None and isinstance(owner[1], nn.Linear) and weight.shape == owner[1].weight.t().shape
    if owner is None or vector is None or not fits or (bias is not rows and tracer.of(bias) is not None):
        return False
    made = tracer.meet(owner[0], "dense", vector, weight.shape[1], output.numel() * weight.shape[0])
    tracer.give(output, compact(made.reshape(1, -1)))
    return True


def _normalise(tracer: "Tracer", args: Any, output: Any) -> bool:
    owner = tracer.parameter_owner(args[3]) or tracer.parameter_owner(args[1])
    vector = _vector(tracer, args[0], args[0].dim())
    if owner is None or vector is None or not isinstance(owner[1], nn.modules.batchnorm._BatchNorm):
        return False
    made = tracer.meet(owner[0], "norm", vector, len(vector), 0)
    tracer.give(next(tensors(output)), compact(made.reshape([1, -1, *[1] * (args[0].dim() - 2)])))
    return True


def _vector(tracer: "Tracer", tensor: Tensor, rank: int) -> Tensor | None:
    """Labels of each index of dimension 1; None where the tensor has another rank or changes along others too."""
    labels = tracer.of(tensor)
    if labels is None or labels.dim() != rank or set(varied(labels)) - {1}:
        return None
    return along(labels, tensor.shape[1])
