"""The two layers of a foreign network that depend on the data set: the first convolution and the classifier."""

import torch
from torch import nn

from zoo.errors import ImageSizeError


def replace_first_convolution(model: nn.Module, in_chans: int) -> None:
    """Let `model` take images of `in_chans` channels, in place.

    Each new kernel is the mean of the old ones over their channels, scaled so that an image that repeats one value in
    all channels gives the same output. Raises ImageSizeError for a network without a convolution.
    """
    found = next(((path, m) for path, m in model.named_modules() if isinstance(m, nn.Conv2d)), None)
    if found is None or found[1].groups != 1:
        raise ImageSizeError(f"{type(model).__name__} has no plain first convolution, so it takes 3 channels only.")
    path, old = found
    new = nn.Conv2d(
        in_chans,
        old.out_channels,
        _pair(old.kernel_size),
        _pair(old.stride),
        old.padding if isinstance(old.padding, str) else _pair(old.padding),
        _pair(old.dilation),
        bias=old.bias is not None,
        padding_mode=old.padding_mode,
    )
    with torch.no_grad():
        new.weight.copy_(old.weight.mean(1, keepdim=True) * (old.in_channels / in_chans))
        if new.bias is not None and old.bias is not None:
            new.bias.copy_(old.bias)
    model.set_submodule(path, new)


def replace_classifier(model: nn.Module, old_classes: int, num_classes: int) -> None:
    """Put a fresh last layer of `num_classes` outputs in the place of the one of `old_classes`, in place."""
    path, old = [
        (path, m)
        for path, m in model.named_modules()
        if (isinstance(m, nn.Linear) and m.out_features == old_classes)
        or (isinstance(m, nn.Conv2d) and m.out_channels == old_classes)
    ][-1]
    if isinstance(old, nn.Linear):
        model.set_submodule(path, nn.Linear(old.in_features, num_classes, bias=old.bias is not None))
    else:
        assert isinstance(old, nn.Conv2d), "only linear layers and convolutions were looked for"
        model.set_submodule(path, nn.Conv2d(old.in_channels, num_classes, _pair(old.kernel_size)))


def _pair(values: tuple[int, ...]) -> tuple[int, int]:
    height, width = values
    return height, width
