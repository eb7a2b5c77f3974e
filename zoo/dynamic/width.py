"""Plain networks cut out of a slimmable one (arXiv:1812.08928), at any width (arXiv:1903.05134)."""

import torch
from torch import Tensor, nn

from zoo import registry
from zoo.compression.calibrate import re_estimate_batch_norm
from zoo.compression.structure import apply
from zoo.data import Dataset
from zoo.errors import RecipeError
from zoo.models.slimmable import Slimmable, SlimmableConv2d, SlimmableLinear, SwitchableBatchNorm2d


def extract_width(
    model: nn.Module,
    width: float,
    train: Dataset | None = None,
    *,
    batches: int = 20,
    batch_size: int = 250,
    seed: int = 0,
) -> nn.Module:
    """The ordinary network that a slimmable one is at a width, with weights of its own, in eval mode.

    At a width that was trained it is the registered network of that width, and its logits are the slimmable one's bit
    for bit. At one in between it is the widest registered network with fewer channels, as structured pruning leaves
    it, so that a packed file (`zoo.compress`, `zoo.save_packed`) holds it and a plain one does not; the statistics of
    its batch norms are measured on `train`, images that were trained on, as many as batches * batch_size
    (arXiv:1903.05134, section 3.4; suggested: 1,000 images and more).
    Raises RecipeError for a network that is not slimmable, a width out of range, or one in between without images.
    """
    if not isinstance(model, Slimmable):
        raise RecipeError(f"a {type(model).__name__} has one width; give a slimmable network.")
    least, greatest = model.widths[0], model.widths[-1]
    if not least <= width <= greatest:
        raise RecipeError(f"width={width!r} was given; any from {least:g} to {greatest:g} is allowed.")
    made = registry.origin(model)
    name = model.names.get(width, model.names[greatest])
    plain = registry.build(name, num_classes=made.num_classes, in_chans=made.in_chans, image_size=made.image_size)
    if width in model.names:
        _fill(plain, model, width)
        return plain
    if train is None:
        known = ", ".join(f"{each:g}" for each in model.widths)
        raise RecipeError(f"width {width:g} is none of {known}, which have statistics; give train, to measure them on.")
    apply(plain, {"folded": False, "shapes": _shapes(model, width)})
    _fill(plain, model, width)
    re_estimate_batch_norm(plain, train, batches=batches, batch_size=batch_size, seed=seed)
    return plain


def _shapes(model: Slimmable, width: float) -> dict[str, list[int]]:
    """Sizes of every layer at a width, as `zoo.compression.structure` describes them."""
    return {
        name: [layer.place(width).stop - layer.place(width).start]
        if isinstance(layer, SwitchableBatchNorm2d)
        else list(layer.sizes(width))
        for name, layer in model.network.named_modules()
        if isinstance(layer, SlimmableConv2d | SlimmableLinear | SwitchableBatchNorm2d)
    }


@torch.no_grad()
def _fill(plain: nn.Module, model: Slimmable, width: float) -> None:
    """Give a plain network, in place, the numbers that the slimmable one computes with at a width."""
    for name, layer in plain.named_modules():
        source = model.network.get_submodule(name)
        for key, tensor in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]:
            if tensor.ndim:  # a batch counter counts nothing here
                theirs: Tensor = getattr(source, key)
                here = source.place(width) if isinstance(source, SwitchableBatchNorm2d) else slice(tensor.shape[0])
                tensor.copy_(theirs[(here, *map(slice, tensor.shape[1:]))])
