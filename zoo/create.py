"""Models by name: built, sized for a data set, and filled with stored weights."""

from fnmatch import fnmatchcase

from torch import nn

from zoo.data import dataset_info
from zoo.errors import WeightError
from zoo.registry import build, match
from zoo.weights import OWN_WEIGHTS, find_card, list_cards, load_for_card, weights_path

EXTERNAL_SIZES = (1000, 3, 224)  # classes, channels, pixels a side of a timm or torchvision model, if none is given


def list_models(
    pattern: str = "*", *, family: str | None = None, dataset: str | None = None, pretrained: bool = False
) -> list[str]:
    """Names of registered models, in order of registration.

    pattern: a shell pattern. dataset: a data set that must exist; every model can be built for every one.
    pretrained: only models with stored weights, and of these only those for `dataset` if it is given.
    Raises UnknownNameError for a family or data set that does not exist.
    """
    names = match(pattern, family=family)
    if dataset is not None:
        dataset_info(dataset)
    if not pretrained:
        return names
    stored = {card.model for card in list_cards(dataset=dataset)}
    foreign = sorted(name for name in stored if "/" in name and family is None and fnmatchcase(name, pattern))
    return [name for name in names if name in stored] + foreign


def create_model(
    name: str,
    *,
    dataset: str | None = None,
    num_classes: int | None = None,
    in_chans: int | None = None,
    image_size: int | None = None,
    pretrained: bool = False,
    tag: str | None = None,
) -> nn.Module:
    """Build a model in eval mode: float [N, C, H, W] -> logits [N, num_classes].

    name: a registered model, or `timm/<name>` or `torchvision/<name>`.
    dataset: fills in what is not given of num_classes, in_chans and image_size; without it they are the published ones.
    pretrained: load the stored weights for `dataset`, or those called `tag`; the sizes are then those of their card.
        For a model of timm or torchvision without a data set: that library's own weights.
    Raises UnknownNameError, ImageSizeError or WeightError.
    """
    foreign = "/" in name
    if pretrained and (dataset is not None or not foreign):
        return _pretrained(name, dataset, tag, num_classes, in_chans, image_size)
    if tag is not None:
        raise WeightError(f"tag={tag!r} names stored weights; give pretrained=True and a dataset with it.")
    if dataset is not None:
        info = dataset_info(dataset)
        num_classes = len(info.classes) if num_classes is None else num_classes
        in_chans = info.image[0] if in_chans is None else in_chans
        image_size = info.image[1] if image_size is None else image_size
    if foreign:
        from zoo.interop import create_external

        given = (num_classes, in_chans, image_size)
        classes, channels, size = (p if g is None else g for g, p in zip(given, EXTERNAL_SIZES, strict=True))
        return create_external(name, classes, channels, size, pretrained)
    return build(name, num_classes=num_classes, in_chans=in_chans, image_size=image_size)


def _pretrained(
    name: str,
    dataset: str | None,
    tag: str | None,
    num_classes: int | None,
    in_chans: int | None,
    image_size: int | None,
) -> nn.Module:
    if dataset is None:
        stored = sorted({card.dataset for card in list_cards(model=name)})
        raise WeightError(
            f"pretrained=True needs a dataset; there are weights of {name} for {', '.join(stored) or 'none'}."
        )
    card = find_card(name, dataset, tag)
    for what, given, trained in (
        ("num_classes", num_classes, card.num_classes),
        ("in_chans", in_chans, card.image[0]),
        ("image_size", image_size, card.image[1]),
    ):
        if given not in (None, trained):
            raise WeightError(f"{card.stem} has {what}={trained}; {what}={given} was given: {OWN_WEIGHTS}.")
    return load_for_card(card, weights_path(card))
