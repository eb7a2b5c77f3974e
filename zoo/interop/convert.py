"""State dicts of torchvision and timm, renamed key by key into ours and checked before anything loads them."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from zoo.errors import WeightError, unknown
from zoo.interop import timm, torchvision
from zoo.registry import architecture

Source = Literal["torchvision", "timm"]

#    Library -> model -> their module path -> ours. A path that is absent has the same name in both.
MODULE_PATHS: dict[str, dict[str, dict[str, str]]] = {
    "torchvision": torchvision.MODULE_PATHS,
    "timm": timm.MODULE_PATHS,
}
COUNTER = ".num_batches_tracked"


def convert_state_dict(name: str, state_dict: Mapping[str, Tensor], *, source: Source) -> dict[str, Tensor]:
    """Rename a checkpoint of `source` into the published form of our model `name`; in our order, in our dtypes.

    A `module.` prefix is dropped. The numbers of classes and of input channels are those of the checkpoint. Counters
    of batches, which old files lack, become zero. Auxiliary heads are converted when they are there; without them load
    the result with `strict=False`. torchvision trained its googlenet and inception_v3 checkpoints with
    `transform_input=True`, that is on images normalised by mean 0.5 and deviation 0.5 in each channel, and so must
    the images be here: our models do not renormalise their input.

    Raises UnknownNameError for a wrong name or source; WeightError, naming the key, for what cannot be converted, is
    missing, unexpected or twice there, has a wrong shape or type, or is not finite.
    """
    arch = architecture(name)
    if source not in MODULE_PATHS:
        raise unknown("source of weights", source, MODULE_PATHS)
    if name not in MODULE_PATHS[source]:
        known = ", ".join(MODULE_PATHS[source])
        raise WeightError(f"no {source} checkpoint can be converted into {name!r}; {source} serves {known}.")
    label = f"the {source} checkpoint for {name}"
    renamed = _rename(state_dict, MODULE_PATHS[source][name], label)
    with torch.device("meta"):
        reference = arch.build(arch.num_classes, *arch.image[:2]).state_dict()
    classes, channels = _width_of_ends(renamed, reference, arch.num_classes, arch.image[0])
    with torch.device("meta"):
        expected = arch.build(classes, channels, arch.image[1]).state_dict()
    return _checked(renamed, expected, label)


def _rename(state_dict: Mapping[str, Tensor], paths: dict[str, str], label: str) -> dict[str, tuple[str, Tensor]]:
    """Our key -> (their key, value)."""
    renamed: dict[str, tuple[str, Tensor]] = {}
    for key, value in state_dict.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            kind = type(value).__name__
            raise WeightError(f"{label} holds {key!r}, a {kind}, not a tensor; give the state dict inside the file.")
        path, dot, leaf = key.removeprefix("module.").rpartition(".")
        ours = paths.get(path, path) + dot + leaf
        if ours in renamed:
            raise WeightError(f"{label} holds {renamed[ours][0]!r} and {key!r}, which are the same weight; keep one.")
        renamed[ours] = (key, value)
    return renamed


def _width_of_ends(
    renamed: dict[str, tuple[str, Tensor]], reference: dict[str, Tensor], num_classes: int, in_chans: int
) -> tuple[int, int]:
    """Classes and input channels of the checkpoint, or those given where its first or last layer is not there."""
    own = [key for key in reference if not key.startswith("auxiliary.")]
    first = next(key for key in own if key.endswith(".weight"))
    last = own[-1]
    if last in renamed and renamed[last][1].dim() == 1:
        num_classes = max(1, renamed[last][1].shape[0])
    if first in renamed and renamed[first][1].dim() == 4:
        in_chans = max(1, renamed[first][1].shape[1])
    return num_classes, in_chans


def _checked(renamed: dict[str, tuple[str, Tensor]], expected: dict[str, Tensor], label: str) -> dict[str, Tensor]:
    """The renamed tensors in our order and dtypes. Raises WeightError on the first fault."""
    heads = {key.split(".")[1] for key in renamed if key.startswith("auxiliary.")}
    wanted = {k: v for k, v in expected.items() if not k.startswith("auxiliary.") or k.split(".")[1] in heads}
    missing = [key for key in wanted if key not in renamed and not key.endswith(COUNTER)]
    if missing:
        raise WeightError(f"{label} lacks {_some(missing)} (our names); is it the file of another network?")
    unexpected = [theirs for ours, (theirs, _) in renamed.items() if ours not in wanted]
    if unexpected:
        raise WeightError(f"{label} holds {_some(unexpected)}, which the network has not; is it of another network?")
    converted: dict[str, Tensor] = {}
    for key, like in wanted.items():
        if key not in renamed:
            converted[key] = torch.zeros((), dtype=like.dtype)
            continue
        theirs, value = renamed[key]
        if value.shape != like.shape:
            raise WeightError(f"{theirs!r} of {label} is {_shape(value)}; the network needs {_shape(like)}.")
        if value.is_floating_point() != like.is_floating_point() or value.is_complex():
            raise WeightError(f"{theirs!r} of {label} is of type {value.dtype}; the network needs {like.dtype}.")
        if not bool(torch.isfinite(value).all()):
            raise WeightError(f"{theirs!r} of {label} holds values that are not finite; get the file again.")
        converted[key] = value.detach().to(like.dtype)
    return converted


def _some(keys: list[str]) -> str:
    """The first three keys and how many more there are."""
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(repr(key) for key in keys[:3]) + more


def _shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "a single number"
