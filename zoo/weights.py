"""Weights: safetensors files in half precision, each with a card; saved, loaded, found and verified.

Weights of two dimensions and more are stored as float16, everything of fewer (biases, scales, running statistics) as
float32. Batch counters and auxiliary classifiers (`auxiliary.*`) are left out, and keep their values on loading. What a
file may fill in is decided by the model alone: its names, shapes and dtypes.

A packed file (`.zpk`, zoo.compression.container) holds a whole network, which may have fewer channels than the
registered one: `load_for_card` gives it, and `load_weights` fills a model of the same shape from it.
"""

import math
import os
from pathlib import Path

import torch
from torch import Tensor, nn

from zoo.cards import (
    FORMAT,
    PACKED,
    SUFFIXES,
    Card,
    SeedResult,
    card_stem,
    dataset_label,
    read_card,
    write_card,
)
from zoo.compression.container import load_packed
from zoo.compression.structure import AUXILIARY, stored_state
from zoo.cost import count_macs
from zoo.data import Dataset, dataset_info, load_dataset
from zoo.errors import WeightError, ZooError
from zoo.evaluation import evaluate
from zoo.registry import architecture, build
from zoo.strict import quoted
from zoo.tensorfile import TensorFile, check_fit, open_tensors, write_tensors

__all__ = [
    "FORMAT",
    "PACKED",
    "Card",
    "SeedResult",
    "build_for_card",
    "card_stem",
    "dataset_label",
    "find_card",
    "list_cards",
    "load_for_card",
    "load_weights",
    "read_card",
    "save_weights",
    "verify_card",
    "weights_folder",
    "weights_path",
    "write_card",
]

ENVIRONMENT = "ZOO_WEIGHTS"
FOLDER = "folder:"
CUT_SHORT = "cpu"  # tag of weights whose training was cut short, as two cores do it
LOSS_TOLERANCE = 1e-3  # of the loss: kernels of another machine add up in another order
OWN_WEIGHTS = "leave out num_classes, in_chans and image_size, or train your own weights"


def weights_folder() -> Path:
    """The zoo folder: $ZOO_WEIGHTS, else the one inside the installed package, else `weights/` of the repository."""
    if given := os.environ.get(ENVIRONMENT):
        folder = Path(given).expanduser()
        if not folder.is_dir():
            raise WeightError(f"{ENVIRONMENT} is {given!r}, which is not a folder; set it to one, or unset it.")
        return folder
    package = Path(__file__).resolve().parent
    installed = package / "_weights"
    return installed if installed.is_dir() else package.parent / "weights"


def list_cards(model: str | None = None, dataset: str | None = None) -> list[Card]:
    """Cards of the zoo folder, by stem; of one model or data set if given. Raises WeightError for a damaged one."""
    folder = weights_folder()
    cards = [_read_member(path) for path in sorted(folder.glob("*.json"))]
    return [card for card in cards if model in (None, card.model) and dataset in (None, card.dataset)]


def find_card(model: str, dataset: str, tag: str | None = None) -> Card:
    """The card of a model's weights for a data set.

    tag: None takes the weights without a tag or, where there are none, those tagged `cpu` (a training cut short stands
    in for the full one) or those of the only tag; "" the first alone.
    Raises WeightError that says which weights there are instead, or which of several to choose.
    """
    path = weights_folder() / f"{card_stem(model, dataset, tag or '')}.json"
    if os.path.lexists(path):
        return _read_member(path)
    tagged = sorted(path.parent.glob(f"{path.stem}.*.json")) if tag is None else []
    fitting = [path for path in tagged if _tag(path) == CUT_SHORT] or tagged
    if len(fitting) == 1:
        return _read_member(fitting[0])
    if tagged:
        raise WeightError(
            f"the weights of {model} for {dataset} have tags: {', '.join(repr(_tag(path)) for path in tagged)}; "
            f"give one of them, such as tag={_tag(tagged[0])!r}."
        )
    if "/" not in model:
        architecture(model)
    cards = list_cards()
    of_model = [card.stem for card in cards if card.model == model]
    of_dataset = [card.stem for card in cards if card.dataset == dataset]
    raise WeightError(
        f"there are no weights {path.stem!r}. For the model {model}: {', '.join(of_model) or 'none'}. "
        f"For the data set {dataset}: {', '.join(of_dataset) or 'none'}. "
        f"`zoo train {model} --dataset {dataset}` makes them."
    )


def weights_path(card: Card) -> Path:
    """Where the weights of a card of the zoo folder are."""
    return weights_folder() / card.file


def save_weights(path: str | Path, model: nn.Module) -> None:
    """Write a model's weights atomically. Raises WeightError for a value that is not finite or overflows float16."""
    tensors = {}
    for name, tensor in stored_state(model).items():
        tensors[name] = tensor.detach().to(_stored_dtype(tensor))
        if tensors[name].dtype == torch.float16 and bool((tensors[name].isinf() & tensor.isfinite()).any()):
            raise WeightError(
                f"{path} is not written: the tensor {name!r} holds {float(tensor.abs().max()):g}, more than half "
                "precision can (65504); train with weight decay or a lower learning rate."
            )
    write_tensors(path, tensors, {"format": FORMAT})


def load_weights(model: nn.Module, path: str | Path, *, sha256: str | None = None) -> None:
    """Fill a model, in place, from a file; every check comes before the first value is changed.

    sha256: hex digest that the file must have (its card's), compared first.
    Raises FileFormatError for a broken file, WeightError for one that was changed or does not fit the model.
    """
    if Path(path).suffix == SUFFIXES[PACKED]:
        _load_same_shape(model, Path(path), sha256)
        return
    kept = stored_state(model)
    with open_tensors(path, sha256=sha256, follow_links=False) as file:
        _check_format(file)
        _check_sides(file, kept)
        check_fit(file, {name: (tensor.shape, (_stored_dtype(tensor),)) for name, tensor in kept.items()})
        tensors = file.read()
    with torch.no_grad():
        for name, tensor in kept.items():
            tensor.copy_(tensors[name])


def load_for_card(card: Card, path: str | Path) -> nn.Module:
    """The network of a card with the weights of its file, which is at `path`, in eval mode.

    Raises FileFormatError for a broken file, WeightError for one that is not the card's.
    """
    if card.format != PACKED:
        model = build_for_card(card)
        load_weights(model, path, sha256=card.sha256)
        return model
    model, info = load_packed(path, sha256=card.sha256)
    for what, on_card, found in (
        ("model", card.model, info.model),
        ("num_classes", card.num_classes, info.num_classes),
        ("image", card.image, info.image),
        ("dataset", card.dataset, info.dataset or card.dataset),
    ):
        if on_card != found:
            raise WeightError(
                f"{path} holds {what} {quoted(found)}; its card says {on_card}: take the card made for it."
            )
    return model


def build_for_card(card: Card) -> nn.Module:
    """The registered network of a card, freshly initialised, in eval mode; a packed file may hold a smaller one."""
    channels, size, _ = card.image
    if "/" in card.model:
        from zoo.interop import create_external

        return create_external(card.model, card.num_classes, channels, size, pretrained=False)
    return build(card.model, num_classes=card.num_classes, in_chans=channels, image_size=size)


def verify_card(path: str | Path, *, accuracy: bool, dataset: Dataset | None = None) -> list[str]:
    """What a card says otherwise than its weights, its model and its data set, in words; nothing means all is right.

    accuracy: whether to load the test split and count again what the stored file gets right, which must agree exactly.
    dataset: the test split to count on, instead of the one that the card names; a `folder:` card needs it.
    """
    path = Path(path)
    try:
        card = read_card(path)
    except ZooError as error:
        return [str(error)]
    differences = _data_differences(card)
    file = path.parent / card.file
    try:
        model = load_for_card(card, file)
    except ZooError as error:
        return [*differences, str(error)]
    differences = _model_differences(card, model) + differences
    differences += _differ("file_bytes", card.file_bytes, file.stat().st_size)
    return differences + (_accuracy_differences(card, model, dataset) if accuracy else [])


def _model_differences(card: Card, model: nn.Module) -> list[str]:
    params = sum(tensor.numel() for name, tensor in model.named_parameters() if not name.startswith(AUXILIARY))
    return _differ("params", card.params, params) + _differ("macs", card.macs, count_macs(model, card.image))


def _data_differences(card: Card) -> list[str]:
    if card.dataset.startswith(FOLDER):
        return []
    try:
        info = dataset_info(card.dataset)
    except ZooError as error:
        return [str(error)]
    names = ("image", "classes", "mean", "std")
    return [line for name in names for line in _differ(name, getattr(card, name), getattr(info, name))]


def _accuracy_differences(card: Card, model: nn.Module, dataset: Dataset | None) -> list[str]:
    if dataset is None and card.dataset.startswith(FOLDER):
        return [f"accuracy: not measured, as no path is taken from a card; give the images of {card.dataset} yourself"]
    try:
        test = load_dataset(card.dataset, "test") if dataset is None else dataset
        found = evaluate(model, test)
    except ZooError as error:
        return [f"accuracy: not measured: {error}"]
    differences = digest_differences(card, test)
    differences += _differ("total", card.total, found.total) + _differ("correct", card.correct, found.correct)
    if not math.isclose(card.loss, found.loss, rel_tol=LOSS_TOLERANCE):
        differences += _differ("loss", card.loss, found.loss)
    return differences


def digest_differences(card: Card, data: Dataset) -> list[str]:
    """What tells the images of one split from those that a card is about: a line, or none."""
    return _differ(f"{data.split} digest", card.data_digest[data.split], data.digest)


def _differ(what: str, on_card: object, found: object) -> list[str]:
    return [] if on_card == found else [f"{what}: the card says {on_card}, found {found}"]


def _read_member(path: Path) -> Card:
    """A card of the zoo folder, whose own name and whose file's must be the card's stem."""
    card = read_card(path)
    if path.stem != card.stem or card.file != card.stem + SUFFIXES[card.format]:
        raise WeightError(
            f"{path} is the card of {card.stem!r} with the file {card.file!r}; in a zoo folder all three names agree: "
            "rename what differs."
        )
    return card


def _tag(path: Path) -> str:
    """Of the card of tagged weights, by its name."""
    return path.stem.rpartition(".")[2]


def _load_same_shape(model: nn.Module, path: Path, sha256: str | None) -> None:
    """Fill a model, in place, from a packed file that holds a network of the same names and shapes."""
    kept = stored_state(model)
    packed, info = load_packed(path, sha256=sha256)
    found = stored_state(packed)
    differing = [name for name in kept.keys() | found.keys() if _shape(kept, name) != _shape(found, name)]
    if differing:
        name = min(differing)
        raise WeightError(
            f"{path} holds a {info.model} whose {quoted(name)} is {_shape(found, name)}, the model's "
            f"{_shape(kept, name)}; take the network that is in the file: zoo.load_packed({path.name!r})."
        )
    with torch.no_grad():
        for name, tensor in kept.items():
            tensor.copy_(found[name])


def _shape(tensors: dict[str, Tensor], name: str) -> list[int] | None:
    return list(tensors[name].shape) if name in tensors else None


def _stored_dtype(tensor: Tensor) -> torch.dtype:
    if not tensor.is_floating_point():
        return tensor.dtype
    return torch.float16 if tensor.ndim >= 2 else torch.float32


def _check_format(file: TensorFile) -> None:
    found = file.metadata.get("format")
    if found == FORMAT:
        return
    if found is not None and found.startswith(FORMAT.rstrip("0123456789")):
        raise WeightError(f"{file.path} is of the format {quoted(found)}, newer than {FORMAT!r}; install a newer zoo.")
    raise WeightError(
        f"{file.path} is of the format {quoted(found)} instead of {FORMAT!r}; convert weights of other libraries "
        "with zoo.interop.convert_state_dict and zoo.weights.save_weights."
    )


def _check_sides(file: TensorFile, kept: dict[str, Tensor]) -> None:
    """Say in the user's terms what differs when a file is of the right model for other classes or another image."""
    if file.infos.keys() != kept.keys():
        return
    shapes = [(name, file.infos[name].shape, tuple(kept[name].shape)) for name in kept]
    differing = [(name, stored, built) for name, stored, built in shapes if stored != built]
    if not differing or any(len(stored) != len(built) for _, stored, built in differing):
        return
    stem = file.path.stem
    name, stored, built = differing[0]
    first = next(label for label, shape, _ in shapes if len(shape) >= 2)
    if len(differing) <= 2 and all(a[0] == stored[0] and a[1:] == b[1:] for _, a, b in differing):
        found = f"{stem} has {stored[0]} classes; the model was built with {built[0]}"
    elif name == first and len(stored) == 4 and (stored[0], *stored[2:]) == (built[0], *built[2:]):
        found = f"{stem} takes images of {stored[1]} channels; the model was built for {built[1]}"
    else:
        found = f"{stem} is for another image: its {name!r} is {list(stored)}, the model's {list(built)}"
    raise WeightError(f"{found}: {OWN_WEIGHTS}.")
