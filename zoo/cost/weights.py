"""What the parameters of a network are, seen through parametrizations, and what memory is called.

A compressed weight counts as the tensor that its form stands for (zoo.compression.forms), however it is stored.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize


@dataclass(frozen=True)
class Weight:
    """A parameter as the network sees it, or the tensor that a form (zoo.compression.forms) stands for in its place.

    layer: qualified name of the module that it belongs to. tensor: through its parametrization, if that keeps the size.
    storages: of what it is made of: the parameter itself, or all parameters and buffers behind the form.
    """

    layer: str
    tensor: Tensor
    storages: tuple[int, ...]


def weights_of(model: nn.Module) -> list[Weight]:
    """Every parameter, but one tensor for all that is behind a form."""
    modules = dict(model.named_modules())
    formed: list[Weight] = []
    behind: set[int] = set()
    for name, module in modules.items():
        for tensor, parts in _parametrizations(module).items():
            if _has_form(parts):
                made_of = tuple(storage(t) for t in (*parts.parameters(), *parts.buffers()))
                formed.append(Weight(name, getattr(module, tensor).detach(), made_of))
                behind.update(made_of)
    plain = [
        Weight(owner(name.rpartition(".")[0]), _as_read(modules, name, parameter), (storage(parameter),))
        for name, parameter in model.named_parameters()
        if storage(parameter) not in behind
    ]
    return plain + formed


def bits_of_form(module: nn.Module) -> int | None:
    """What the form of a compressed weight says (zoo.compression.forms); None for a weight without one."""
    parts = _parametrizations(module).get("weight")
    return int(parts[-1].form().bits) if parts is not None and _has_form(parts) else None


def storage(tensor: Tensor) -> int:
    """The name of a tensor's memory, the same for all views of it."""
    return int(tensor.untyped_storage()._cdata)


def owner(name: str) -> str:
    """Qualified name of the module that a parametrization's module belongs to; any other name unchanged."""
    return name.partition(".parametrizations.")[0].removesuffix(".parametrizations")


def _parametrizations(module: nn.Module) -> dict[str, Any]:
    """The parametrizations of each parametrized tensor of a module, by its name."""
    return dict(module.parametrizations) if parametrize.is_parametrized(module) else {}  # type: ignore[arg-type]


def _has_form(parts: Any) -> bool:
    """Whether the last of some parametrizations knows what its tensor is made of."""
    return hasattr(parts[-1], "form")


def _as_read(modules: dict[str, nn.Module], name: str, parameter: Tensor) -> Tensor:
    """The parameter as the forward pass sees it: through its parametrization, where that keeps the size."""
    layer, marker, rest = name.partition(".parametrizations.")
    if not marker:
        return parameter
    value: Any = getattr(modules[layer], rest.partition(".")[0])
    return value if isinstance(value, Tensor) and value.numel() == parameter.numel() else parameter
