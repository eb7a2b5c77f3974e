"""Models of timm and torchvision, created for any image and any number of classes like our own."""

import torch
from torch import nn

from zoo.errors import ImageSizeError, UnknownNameError, WeightError, unknown
from zoo.interop import timm, torchvision

LIBRARIES = {"timm": timm.create, "torchvision": torchvision.create}


def create_external(name: str, num_classes: int, in_chans: int, image_size: int, pretrained: bool) -> nn.Module:
    """The model `timm/<name>` or `torchvision/<name>`: float [N, in_chans, S, S] -> logits [N, num_classes].

    pretrained: with that library's default weights, which it fetches. The model comes in evaluation mode and returns
    one tensor in training mode too.

    Raises UnknownNameError with the nearest names; ImageSizeError where the network cannot take such an image;
    WeightError where its weights cannot be had.
    """
    library, slash, model_name = name.partition("/")
    if not slash:
        raise UnknownNameError(f"{name!r} names no library; write 'timm/{name}' or 'torchvision/{name}'.")
    if library not in LIBRARIES:
        raise unknown("library of models", library, LIBRARIES)
    for what, value in (("num_classes", num_classes), ("in_chans", in_chans), ("image_size", image_size)):
        if value < 1:
            raise ImageSizeError(f"{what}={value} was given for {name}; it must be at least 1.")
    try:
        model = LIBRARIES[library](model_name, num_classes, in_chans, image_size, pretrained)
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise WeightError(
            f"the weights of {name} cannot be had ({_first_line(error)}); check the network, or create it without."
        ) from error
    except AssertionError as error:
        raise _does_not_fit(name, in_chans, image_size, error) from error
    _try_one_image(model, name, in_chans, image_size)
    return model


def _try_one_image(model: nn.Module, name: str, in_chans: int, image_size: int) -> None:
    """Raise ImageSizeError if the network cannot take the image. A real image: not every operator knows `meta`."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    try:
        with torch.no_grad():
            model(torch.zeros(1, in_chans, image_size, image_size, device=device))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise _does_not_fit(name, in_chans, image_size, error) from error


def _does_not_fit(name: str, in_chans: int, image_size: int, error: Exception) -> ImageSizeError:
    image = f"{in_chans} x {image_size} x {image_size}"
    return ImageSizeError(f"{name} cannot take images of {image} ({_first_line(error)}); try larger ones, such as 224.")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
