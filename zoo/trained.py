"""A trained network by any of its names, with what it takes to use it: classes and preprocessing, as its card says."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from zoo.cards import Card, dataset_label, read_card
from zoo.compression import load_packed
from zoo.data import Preprocess, dataset_info
from zoo.errors import WeightError
from zoo.registry import architecture, architectures
from zoo.weights import find_card, list_cards, load_for_card, weights_path

NOT_CARDS = ("run.json", "receipts.json")


@dataclass(frozen=True, eq=False)
class Trained:
    """A network in eval mode, ready for images.

    name: what it was asked for as. dataset: what it was trained on. classes: in the order of its logits.
    card: None of a packed file alone.
    """

    name: str
    network: nn.Module
    dataset: str
    classes: tuple[str, ...]
    preprocess: Preprocess
    card: Card | None = None


def load_trained(source: str, dataset: str | None = None) -> Trained:
    """A trained network with its classes and its preprocessing.

    source: a model with stored weights (MODEL or MODEL@TAG, of `dataset`), a card, a `.zpk` file or a run folder.
    dataset: for anything but a name only to be compared with, and to tell what a `.zpk` file without a card is about.
    Raises WeightError where that is not known or not so, and what find_card, read_card and load_for_card raise.
    """
    path = Path(source)
    packed = path.suffix == ".zpk"
    card_path = path.with_suffix(".json") if packed else named_card(source)
    if card_path is None:
        card = _stored_card(source, dataset)
        return _with_card(source, load_for_card(card, weights_path(card)), card)
    if packed and not card_path.exists():
        return _without_card(source, dataset)
    card = read_card(card_path)
    _agree(source, card.dataset, dataset)
    return _with_card(source, load_for_card(card, path if packed else card_path.parent / card.file), card)


def named_card(source: str) -> Path | None:
    """The file of the card that a path names, itself or through its run folder; None for any other path.

    A model's name is the model, also where a folder is called so: that one is ./NAME.
    Raises WeightError for a folder without exactly one.
    """
    path = Path(source)
    if path.suffix == ".json":
        return path
    if source in architectures() or not path.is_dir():
        return None
    cards = [file for file in sorted(path.glob("*.json")) if file.name not in NOT_CARDS]
    if len(cards) != 1:
        raise WeightError(f"{path} holds {len(cards)} cards; name the card, or the folder of a finished run.")
    return cards[0]


def _stored_card(source: str, dataset: str | None) -> Card:
    """Of MODEL or MODEL@TAG."""
    name, _, tag = source.partition("@")
    if dataset is not None:
        dataset_info(dataset)
        return find_card(name, dataset_label(dataset), tag or None)
    if "/" not in name:
        architecture(name)
    known = sorted({card.dataset for card in list_cards(model=name)})
    raise WeightError(
        f"it is not known which weights of {name} to take; give --dataset with one of {', '.join(known)}."
        if known
        else f"there are no weights of {name}; `zoo train {name}` makes some."
    )


def _with_card(source: str, network: nn.Module, card: Card) -> Trained:
    return Trained(source, network, card.dataset, card.classes, Preprocess(card.image, card.mean, card.std), card)


def _without_card(source: str, dataset: str | None) -> Trained:
    """A packed file alone: what its images and classes are follows from the data set that it, or the caller, names."""
    network, info = load_packed(source)
    if info.dataset:
        _agree(source, info.dataset, dataset)
    name = dataset or info.dataset
    if not name or (dataset is None and name.startswith("folder:")):
        raise WeightError(f"{source} has no card beside it and does not say what it was trained on; give --dataset.")
    facts = dataset_info(name)
    if (len(facts.classes), facts.image) != (info.num_classes, info.image):
        raise WeightError(
            f"{source} has {info.num_classes} classes and images {list(info.image)}; {name} has {len(facts.classes)} "
            f"and {list(facts.image)}: give the data set that it was trained on."
        )
    return Trained(source, network, name, facts.classes, Preprocess(facts.image, facts.mean, facts.std))


def _agree(source: str, found: str, asked: str | None) -> None:
    if asked is not None and dataset_label(asked) != found:
        raise WeightError(f"{source} was trained on {found}, and --dataset {asked} was given; leave it out.")
