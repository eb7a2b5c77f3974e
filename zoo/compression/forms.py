"""Forms: what a tensor is made of once it is compressed, and the exact values that this stands for.

A form is the meeting point of methods and files. A method's parametrization answers `form()`; the container stores
forms and no other thing; `values(form)` is the one place where a form becomes a tensor, the same operations in the
same order on writing and on reading, so that a file gives back the same bits.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


@dataclass(frozen=True)
class Plain:
    """The values themselves: float32 or float16, or any whole numbers."""

    tensor: Tensor

    @property
    def shape(self) -> torch.Size:
        """Of the tensor that it stands for."""
        return self.tensor.shape

    @property
    def bits(self) -> int:
        """Width of one weight where it is multiplied."""
        return 32


@dataclass(frozen=True)
class Shared:
    """Indices into one codebook: int64 [any shape] and float32 [K]. Zeros of a pruned tensor are an entry of it."""

    codes: Tensor
    codebook: Tensor

    @property
    def shape(self) -> torch.Size:
        """Of the tensor that it stands for."""
        return self.codes.shape

    @property
    def bits(self) -> int:
        """Width of one index: ceil(log2 K), at least 1."""
        return max(1, (len(self.codebook) - 1).bit_length())


@dataclass(frozen=True)
class Scaled:
    """Whole numbers on a grid: value = scale * (code - zero), with one scale and zero, or one for each index of dim 0.

    codes: int64 [any shape]. scale: float32 [1] or [C]. zero: int64, as scale.
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor

    @property
    def shape(self) -> torch.Size:
        """Of the tensor that it stands for."""
        return self.codes.shape

    @property
    def bits(self) -> int:
        """Width of the largest code, at least 1."""
        return max(1, int(self.codes.max()).bit_length()) if self.codes.numel() else 1


@dataclass(frozen=True)
class Signs:
    """One bit a weight: scale where the code is 1 and -scale where it is 0, one scale for each index of dim 0, or one.

    codes: int64 of 0 and 1 [any shape]. scale: float32 [1] or [C], none negative.
    """

    codes: Tensor
    scale: Tensor

    @property
    def shape(self) -> torch.Size:
        """Of the tensor that it stands for."""
        return self.codes.shape

    @property
    def bits(self) -> int:
        """Width of one weight."""
        return 1


@dataclass(frozen=True)
class Vectors:
    """Product or residual quantisation (arXiv:1412.6115): a matrix [R, C] cut into S column blocks of width D = C / S.

    codes: int64 [L, R, S]; codebooks: float32 [L, S, K, D]. Block s of row r is the sum over the L levels of
    codebooks[l, s, codes[l, r, s]]; L = 1 is product quantisation. `size` is the shape of the tensor, whose first
    dimension is R and whose others multiply to C.
    """

    codes: Tensor
    codebooks: Tensor
    size: tuple[int, ...]

    @property
    def shape(self) -> torch.Size:
        """Of the tensor that it stands for."""
        return torch.Size(self.size)

    @property
    def bits(self) -> int:
        """Width of one weight where it is multiplied: an entry of a codebook, for an index names a whole block."""
        return 32


Form = Plain | Shared | Scaled | Signs | Vectors


@runtime_checkable
class HasForm(Protocol):
    """A parametrization that knows what its tensor is made of."""

    def form(self) -> Form:
        """The form, detached, on the CPU."""
        ...


@runtime_checkable
class HasSigns(Protocol):
    """A layer that binarises its own `weight` (zoo.models.xnor): the signs and scales are all that it reads of it."""

    def weight_signs(self) -> tuple[Tensor, Tensor]:
        """`codes` and `scale` of the Signs that the weight stands for, detached, on the CPU."""
        ...


def values(form: Form) -> Tensor:
    """The tensor that a form stands for: float32, except that a plain one keeps its dtype."""
    if isinstance(form, Plain):
        return form.tensor
    if isinstance(form, Shared):
        return form.codebook.take(form.codes)
    if isinstance(form, Signs):
        scale = form.scale.reshape(-1, *[1] * (form.codes.ndim - 1))
        return torch.where(form.codes == 1, scale, -scale)
    if isinstance(form, Scaled):
        shape = (-1, *[1] * (form.codes.ndim - 1))
        return (form.codes - form.zero.reshape(shape)).to(torch.float32) * form.scale.reshape(shape)
    levels = [
        torch.stack([book[codes[:, block]] for block, book in enumerate(books)], 1)
        for codes, books in zip(form.codes, form.codebooks, strict=True)
    ]
    total = levels[0]
    for level in levels[1:]:
        total = total + level
    return total.reshape(form.size)


def forms_of(model: nn.Module) -> dict[str, Form]:
    """The form of every tensor of a model's state, under the names of the network without parametrizations.

    Where the last parametrization of a tensor has no form, and where there is none, it is plain; the weight of a layer
    that has signs is its signs.
    """
    forms: dict[str, Form] = {}
    for prefix, module in model.named_modules():
        if _inside_parametrization(prefix):
            continue
        lead = f"{prefix}." if prefix else ""
        if parametrize.is_parametrized(module):
            lists = module.parametrizations
            for name in lists:
                last = lists[name][-1]
                known = isinstance(last, HasForm)
                forms[lead + name] = last.form() if known else Plain(getattr(module, name).detach().cpu().clone())
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        kept = module.state_dict().keys()
        forms |= {lead + name: Plain(tensor.detach().cpu().clone()) for name, tensor in own if name in kept}
        if isinstance(module, HasSigns):
            forms[f"{lead}weight"] = Signs(*module.weight_signs())
    return forms


def materialise(model: nn.Module) -> nn.Module:
    """Turn every parametrized tensor of a model into an ordinary one of the same values, in place; returns it."""
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            own_class(module)
            for name in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    return model


def own_class(module: nn.Module) -> None:
    """Give a parametrized module a class that no other module has, before a parametrization of it is put or removed.

    The properties of parametrized tensors live on the class, which a deep copy shares with its original: removed from
    one, they are gone from the other.
    """
    shared = type(module)
    module.__class__ = type(shared.__name__, shared.__bases__, dict(shared.__dict__))


def _inside_parametrization(prefix: str) -> bool:
    return "parametrizations" in prefix.split(".")
