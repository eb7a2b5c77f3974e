"""What the methods on weights share: which layers there are, a setting for each, and how a weight is replaced.

A weight that is made of something has one parametrization, a `Made`, which owns all of it: torch's own `original` is
not kept, so that nothing is stored, counted or trained twice.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from zoo.compression.forms import Form, HasSigns, own_class
from zoo.compression.stage import Treated, Workbench
from zoo.errors import CompressionError, unknown
from zoo.training import OnStep
from zoo.training.objectives import Objective

Layer = nn.Conv2d | nn.Linear
T = TypeVar("T")


class Made(nn.Module):
    """A parametrization that owns what its tensor is made of: `forward()` gives the tensor, `form()` what is stored."""

    def forward(self) -> Tensor:
        raise TypeError(f"{type(self).__name__} must define forward()")

    def form(self) -> Form:
        raise TypeError(f"{type(self).__name__} must define form()")

    def floats(self) -> Tensor | None:
        """The float32 numbers that a file has of it, themselves; None where they are not kept as such."""
        return None

    def right_inverse(self, tensor: Tensor) -> tuple[()]:
        """Called where a tensor is assigned; only one of the values that it has already can be."""
        if not torch.equal(tensor, self()):
            raise RuntimeError(f"a weight made by {type(self).__name__} cannot be assigned other values.")
        return ()


def straight_through(value: Tensor, source: Tensor) -> Tensor:
    """`value` exactly, with the gradient of `source` (the straight-through estimator, arXiv:1308.3432)."""
    return value.detach() + (source - source.detach())


def layers_of(model: nn.Module) -> dict[str, Layer]:
    """The convolutions (grouped and depthwise ones too) and linear layers of a model, by name, in its order.

    Raises CompressionError where there are none.
    """
    found: dict[str, Layer] = {n: m for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    if not found:
        raise CompressionError("the model has no convolution and no linear layer; there is nothing to compress in it.")
    return found


def choose(
    model: nn.Module, setting: T | Mapping[str, T], skip: Collection[str] = ()
) -> tuple[dict[str, T], dict[str, str]]:
    """(setting of each layer to treat, why each other part with weights is not treated).

    setting: one for all, or by name of layer; layers that it does not name are left out. skip: layers to leave out.
    Raises UnknownNameError for a layer that does not exist, CompressionError where there are no layers.
    """
    layers = layers_of(model)
    by_name = setting if isinstance(setting, Mapping) else dict.fromkeys(layers, setting)
    for name in (*by_name, *skip):
        if name not in layers:
            raise unknown("layer with weights", name, layers)
    chosen: dict[str, T] = {}
    reasons = _other_parts(model)
    for name, layer in layers.items():
        made = made_of(layer)
        if name in skip:
            reasons[name] = "left out, as asked"
        elif name not in by_name:
            reasons[name] = "left out: no setting names it"
        elif isinstance(layer, HasSigns):
            reasons[name] = f"a {type(layer).__name__} makes its weight binary by itself"
        elif made is not None and not isinstance(made, Made):
            reasons[name] = f"its weight is made by {type(made).__name__} already"
        else:
            chosen[name] = by_name[name]
    return chosen, reasons


def put(layer: Layer, made: Made, tensor: str = "weight") -> None:
    """Let `made` stand for a tensor of a layer, in place of whatever did before."""
    if parametrize.is_parametrized(layer):
        own_class(layer)
        if parametrize.is_parametrized(layer, tensor):
            parametrize.remove_parametrizations(layer, tensor)
    parameter = getattr(layer, tensor)
    made.to(parameter.device)
    with torch.no_grad():
        parameter.copy_(made())
    parametrize.register_parametrization(layer, tensor, made)


def finished(model: nn.Module, layers: dict[str, str], untreated: dict[str, str]) -> Treated:
    """The result of a stage. Raises CompressionError where it has treated nothing."""
    if not layers:
        told = "; ".join(f"{name}: {reason}" for name, reason in list(untreated.items())[:3])
        raise CompressionError(f"there is nothing to treat: {told}.")
    return Treated(model, layers, untreated)


def fine_tune(
    model: nn.Module,
    work: Workbench,
    epochs: int,
    lr: float | None = None,
    on_step: OnStep | None = None,
    objective: Objective | None = None,
) -> None:
    """Train a model in place by the workbench's recipe, for so many epochs; none for 0. lr: in place of the recipe's.

    Raises CompressionError where images or the recipe are missing.
    """
    if epochs == 0:
        return
    if work.recipe is None:
        raise CompressionError("fine-tuning needs a recipe; give recipe=zoo.recipes.get_recipe(NAME).")
    recipe = replace(work.recipe, epochs=epochs, lr=work.recipe.lr if lr is None else lr)
    work.fine_tune(model, recipe, objective=objective, on_step=on_step)


def check_number(name: str, value: object, low: float, high: float, *, whole: bool = False) -> None:
    """Raise CompressionError unless low <= value <= high."""
    kinds = (int,) if whole else (int, float)
    if type(value) not in kinds or not low <= value <= high:  # type: ignore[operator]
        kind = "whole number" if whole else "number"
        raise CompressionError(f"{name}={value!r} was given; a {kind} from {low} to {high} is allowed.")


def check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raise CompressionError unless a value is one of those allowed."""
    if value not in allowed:
        raise CompressionError(f"{name}={value!r} was given; {' or '.join(map(repr, allowed))} is allowed.")


def values_of(setting: T | Mapping[str, T]) -> list[T]:
    """All values of a setting that is one for all or by layer."""
    return list(setting.values()) if isinstance(setting, Mapping) else [setting]


def made_of(layer: Layer) -> nn.Module | None:
    """The last parametrization of a layer's weight."""
    if not parametrize.is_parametrized(layer, "weight"):
        return None
    last: nn.Module = cast(Any, layer).parametrizations["weight"][-1]
    return last


def _other_parts(model: nn.Module) -> dict[str, str]:
    """Modules with a weight of two dimensions or more that are neither convolution nor linear layer, and why not."""
    found = {}
    for name, module in model.named_modules():
        own = [p for p in module.parameters(recurse=False) if p.ndim >= 2]
        if own and not isinstance(module, (nn.Conv2d, nn.Linear)) and "parametrizations" not in name.split("."):
            found[name or "the model itself"] = f"a {type(module).__name__} is no convolution and no linear layer"
    return found
