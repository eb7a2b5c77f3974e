"""Two counts of multiply-accumulates that share no code: fvcore's, and torch.utils.flop_counter's.

fvcore reads a TorchScript trace. Its default rules stay as they are where they are exact; rules are added for what it
does not know (scaled_dot_product_attention, padding="same", baddbmm, mv, dot) and replaced for matmul (fails on
vectors, undercounts broadcasting) and einsum (rounds to four digits). Its total adds norms and pooling, so `macs` sums
the operators named in MATRIX_OPERATORS alone.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from zoo.cost.records import Unsupported
from zoo.cost.subject import blank_image, image_fits, left_as_it_was, plain_model
from zoo.errors import MissingPackageError, ZooError
from zoo.registry import Image

Handle = Callable[[list[Any], list[Any]], int]
Shape = Sequence[int]

ATTENTION = "scaled_dot_product_attention"

# fvcore's names for its counts; `_convolution` is reported as "conv".
MATRIX_OPERATORS = frozenset(
    ("conv", "_convolution_mode", "linear", "addmm", "mm", "bmm", "baddbmm", "matmul", "einsum", "mv", "dot", ATTENTION)
)

# Operators that move data and that fvcore does not leave out by itself.
MOVES = frozenset(
    f"aten::{name}"
    for name in (
        *("alias", "channel_shuffle", "clone", "dropout_", "expand_as", "fill_", "im2col", "movedim", "pad"),
        *("pixel_shuffle", "pixel_unshuffle", "repeat", "reshape_as", "swapaxes", "unflatten", "unfold", "view_as"),
    )
)


def _attention_flops(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    """Two products: queries with keys, and their weights with values."""
    return 2 * prod(query) * key[-2] + 2 * prod(query[:-1]) * key[-2] * value[-1]


# torch's formulas count a multiplication and an addition; these are missing from its registry, attention before 2.15.
TORCH_FORMULAS: dict[Any, Callable[..., int]] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten.mv: lambda matrix, vector, *_, **__: 2 * prod(matrix),
    torch.ops.aten.dot: lambda one, other, *_, **__: 2 * prod(one),
}


@dataclass(frozen=True)
class FvcoreCount:
    """macs: of MATRIX_OPERATORS. total: by fvcore's default rules, None where they fail. unsupported: by operator."""

    macs: int
    total: int | None
    unsupported: dict[str, Unsupported]


def count_macs(model: nn.Module, image: Image) -> int:
    """Multiply-accumulates of one image (C, H, W) by torch.utils.flop_counter alone; the meta device will do.

    Neither needs fvcore nor touches the model. Raises ImageSizeError and ZooError like `measure`.
    """
    model = plain_model(model)
    batch = blank_image(model, image)
    counter = FlopCounterMode(display=False, custom_mapping=TORCH_FORMULAS)
    with left_as_it_was(model), image_fits(model, image), counter:
        model(batch)
    return counter.get_total_flops() // 2


def operator_macs(packet: Any, args: Sequence[Any], kwargs: dict[str, Any], output: Any) -> int | None:
    """Multiply-accumulates of one call of an aten operator by torch's formulas; None if it multiplies no matrices."""
    if packet in TORCH_FORMULAS:
        return int(TORCH_FORMULAS[packet](*(a.shape for a in args if isinstance(a, Tensor)))) // 2
    formula = flop_registry.get(packet)
    return None if formula is None else int(formula(*args, **kwargs, out_val=output)) // 2


def require_fvcore() -> Any:
    """fvcore.nn. Raises MissingPackageError where it is not installed."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=r"`torch\.jit\.script` is deprecated"
        )  # raised by fvcore's own import
        try:
            import fvcore.nn
        except ImportError as error:
            raise MissingPackageError(
                "measuring a model needs the package fvcore, which is not installed; run `pip install fvcore`."
            ) from error
    return fvcore.nn


def count_with_fvcore(model: nn.Module, batch: Tensor) -> FvcoreCount:
    """fvcore's count of one batch [1, C, H, W]; `model` is in eval mode and is left with fvcore's hooks removed."""
    default = _analysis(model, batch)
    try:
        total: int | None = _exact(default.total())
        names = default.unsupported_ops()
    except (AssertionError, IndexError, NotImplementedError):
        total = None
        failed = _analysis(model, batch).set_op_handle(**_exact_handles())
        failed.total()
        names = failed.unsupported_ops()
    exact = _exact_handles()
    missing = {name: calls for name, calls in names.items() if name not in exact and name not in MOVES}
    analysis = _analysis(model, batch).set_op_handle(**exact, **{name: _estimate(name) for name in missing})
    counts = {name: _exact(number) for name, number in analysis.by_operator().items()}
    return FvcoreCount(
        macs=sum(number for name, number in counts.items() if name in MATRIX_OPERATORS),
        total=total,
        unsupported={
            n: Unsupported(calls, counts.get(n.split("::", 1)[-1], 0)) for n, calls in sorted(missing.items())
        },
    )


def _analysis(model: nn.Module, batch: Tensor) -> Any:
    analysis = require_fvcore().FlopCountAnalysis(model, batch)
    return analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")


def _exact(number: float) -> int:
    """A count as an integer. numpy hides some behind floats, which hold integers exactly up to 2**53 only."""
    if number != int(number) or (isinstance(number, float) and number > 2**53):
        raise ZooError(f"fvcore counted {number!r}, which is no exact integer; use zoo.cost.count_macs for this model.")
    return int(number)


def _shape(value: Any) -> list[int]:
    """Shape of a value of the TorchScript graph; [] where it is not a tensor of known shape."""
    return list(value.type().sizes()) if value.isCompleteTensor() else []


def _exact_handles() -> dict[str, Handle]:
    """Rules added to fvcore's or put in their place, by TorchScript operator; (inputs, outputs) -> macs."""
    return {
        "aten::matmul": lambda i, o: prod(_shape(o[0])) * _shape(i[0])[-1],
        "aten::einsum": lambda i, _: einsum_macs(i[0].toIValue(), [_shape(v) for v in i[1].node().inputs()]),
        "aten::_convolution_mode": lambda i, o: prod(_shape(i[1])) * _shape(o[0])[0] * prod(_shape(o[0])[2:]),
        "aten::baddbmm": lambda i, o: prod(_shape(o[0])) * _shape(i[1])[-1],
        "aten::mv": lambda i, _: prod(_shape(i[0])),
        "aten::dot": lambda i, _: prod(_shape(i[0])),
        f"aten::{ATTENTION}": lambda i, _: _attention_macs(*(_shape(v) for v in i[:3])),
    }


def _attention_macs(query: Shape, key: Shape, value: Shape) -> int:
    """Query [..., L, E] by key [..., S, E], then the scores by value [..., S, V]."""
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def einsum_macs(equation: str, shapes: Sequence[Shape]) -> int:
    """Multiply-accumulates of an einsum as torch carries it out: operands contracted from the left, pair by pair.

    A label that one operand alone has and nobody needs later is summed before it is multiplied; a pair without a
    contracted label is an elementwise product, which counts 0.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = [_labels(term, len(shape)) for term, shape in zip(left.split(","), shapes, strict=True)]
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        for label, size in zip(term, shape, strict=True):
            sizes[label] = max(size, sizes.get(label, 1))
    dots = [label for label in sizes if label.startswith(".")]
    every = [label for term in terms for label in term]
    implicit = {label for label in every if every.count(label) == 1} | set(dots)
    wanted = (set(right.replace(".", "")) | (set(dots) if "." in right else set())) if arrow else implicit
    macs, done = 0, set(terms[0])
    for position, term in enumerate(terms[1:], start=1):
        later = wanted.union(*terms[position + 1 :])
        contracted = {label for label in done & set(term) if label not in later}
        kept = (done | set(term)) & later
        macs += prod(sizes[label] for label in kept | contracted) if contracted else 0
        done = kept
    return macs


def _labels(term: str, rank: int) -> list[str]:
    """One label a dimension; those an ellipsis stands for are numbered from the right, so that operands line up."""
    before, dots, after = term.partition("...")
    hidden = rank - len(before) - len(after) if dots else 0
    return [*before, *(f".{n}" for n in range(hidden, 0, -1)), *after]


def _estimate(operator: str) -> Handle:
    """A handle that counts one operation an element of the larger of first input and output; see `Unsupported`."""

    def estimate(inputs: list[Any], outputs: list[Any]) -> int:
        read, made = ((prod(_shape(v[0])) if v and v[0].isCompleteTensor() else 0) for v in (inputs, outputs))
        if "_pool" not in operator or "adaptive" in operator:
            return max(read, made)
        window = [v.toIValue() for v in inputs[1].node().inputs()] or inputs[1].toIValue()
        return made * int(prod(window))

    return estimate
