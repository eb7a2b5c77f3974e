"""The registry: name -> Architecture. A dictionary with manners.

A builder is a function whose name *is* the model's name and whose three defaults *are* the published network:

    @register(family="squeezenet", paper="arXiv:1602.07360", year=2016, role="efficient")
    def squeezenet1_1(num_classes: int = 1000, in_chans: int = 3, image_size: int = 224) -> nn.Module: ...
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import import_module
from typing import Literal

import torch
from torch import nn

from zoo.errors import ImageSizeError, UnknownNameError, ZooError, unknown
from zoo.layers import SMALL_IMAGE

Role = Literal["baseline", "efficient", "yardstick"]
Builder = Callable[[int, int, int], nn.Module]
Image = tuple[int, int, int]


@dataclass(frozen=True)
class Architecture:
    """One registered network.

    image: (channels, height, width) and num_classes of the published form.
    build: (num_classes, in_chans, image_size) -> module that maps float [N, C, H, W] to logits [N, num_classes].
    """

    name: str
    family: str
    paper: str
    year: int
    role: Role
    image: Image
    num_classes: int
    build: Builder


_ARCHITECTURES: dict[str, Architecture] = {}


def register(*, family: str, paper: str, year: int, role: Role) -> Callable[[Builder], Builder]:
    """Enter the decorated builder under its own name. A name that is taken is an error."""

    def enter(build: Builder) -> Builder:
        name = build.__name__
        if name in _ARCHITECTURES:
            raise ZooError(f"a model called {name!r} is registered already; give the new builder another name.")
        num_classes, channels, size = (p.default for p in inspect.signature(build).parameters.values())
        _ARCHITECTURES[name] = Architecture(name, family, paper, year, role, (channels, size, size), num_classes, build)
        return build

    return enter


@dataclass(frozen=True)
class Origin:
    """The arguments that a network was built with."""

    name: str
    num_classes: int
    in_chans: int
    image_size: int

    @property
    def image(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.in_chans, self.image_size, self.image_size


def architectures() -> dict[str, Architecture]:
    """Every registered architecture by name, in order of registration: baselines first, then by year."""
    import_module("zoo.models")
    return dict(_ARCHITECTURES)


def architecture(name: str) -> Architecture:
    """The architecture called `name`. Raises UnknownNameError with the nearest names."""
    known = architectures()
    if name not in known:
        raise unknown("model", name, known, "zoo list")
    return known[name]


def match(pattern: str = "*", *, family: str | None = None) -> list[str]:
    """Names that fit a shell pattern and a family, in order of registration."""
    known = architectures()
    families = {a.family for a in known.values()}
    if family is not None and family not in families:
        raise unknown("family", family, families)
    return [n for n, a in known.items() if fnmatchcase(n, pattern) and family in (None, a.family)]


def build(
    name: str, *, num_classes: int | None = None, in_chans: int | None = None, image_size: int | None = None
) -> nn.Module:
    """Build a registered network; what is not given is taken from its published form. Freshly initialised, eval mode.

    Raises UnknownNameError, or ImageSizeError naming the stage that fails and the least size that works.
    """
    arch = architecture(name)
    classes = arch.num_classes if num_classes is None else num_classes
    channels = arch.image[0] if in_chans is None else in_chans
    size = arch.image[1] if image_size is None else image_size
    for what, value in (("num_classes", classes), ("in_chans", channels), ("image_size", size)):
        if value < 1:
            raise ImageSizeError(f"{what}={value} was given for {name}; it must be at least 1.")
    promised = 28 <= size <= SMALL_IMAGE or size >= arch.image[1]  # and so tested; the proof would cost a second
    failure = None if promised else _failing_stage(arch, classes, channels, size)
    if failure is not None:
        least = next((s for s in range(size + 1, 513) if _failing_stage(arch, classes, channels, s) is None), None)
        advice = f"give images of at least {least} x {least}" if least else "no larger size works either"
        raise ImageSizeError(f"an image of {size} x {size} is too small for {name}: it fails at {failure}; {advice}.")
    model = arch.build(classes, channels, size).eval()
    model.zoo_origin = Origin(name, classes, channels, size)  # type: ignore[assignment]  # copies have it too
    return model


def origin(model: nn.Module) -> Origin:
    """What a network, or a compressed copy of it, was built as. Raises UnknownNameError for one built elsewhere."""
    found = getattr(model, "zoo_origin", None)
    if not isinstance(found, Origin):
        raise UnknownNameError(
            f"this {type(model).__name__} was not built by its name, so no file could say how to build it again; "
            "make it with zoo.create_model, or register it."
        )
    return found


def _failing_stage(arch: Architecture, num_classes: int, in_chans: int, image_size: int) -> str | None:
    """Name of the first stage that cannot take this image, or None. Runs on the meta device: shapes only, no memory."""
    entered: list[str] = []
    with torch.device("meta"), torch.no_grad():
        try:
            model = arch.build(num_classes, in_chans, image_size).eval()
        except RuntimeError:
            return "its first linear layer"
        for label, module in model.named_modules():
            if label and not list(module.children()):
                module.register_forward_pre_hook(lambda _m, _x, label=label: entered.append(label))
        try:
            model(torch.empty(1, in_chans, image_size, image_size))
        except RuntimeError:
            return repr(entered[-1]) if entered else "its input"
    return None
