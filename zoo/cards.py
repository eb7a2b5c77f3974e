"""Cards: what is known of a weight file, as one JSON file of the same stem.

A card is read as if it were hostile: exactly these fields, each of its type, names that the registry knows, no path. It
runs nothing and points nowhere but at the file beside it.
"""

import json
import re
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any

from zoo.errors import UnknownNameError, WeightError
from zoo.files import write_atomically
from zoo.registry import architecture
from zoo.strict import RefusedError, parse_json, quoted, read_small, sentence

FORMAT = "zoo-weights-1"
PACKED = "zoo-packed-1"  # zoo.compression.container; params and macs of such a card are the packed network's own
SUFFIXES = {FORMAT: ".safetensors", PACKED: ".zpk"}  # of each format that this version reads
MAX_CARD_BYTES = 1 << 20
REMEDY = "write the card anew with `zoo train`, or get it again"
_FOREIGN = re.compile(r"(timm|torchvision)/[A-Za-z0-9_][A-Za-z0-9_.-]*")
_DATASET = re.compile(r"[a-z0-9_]+|folder:[^/\\?:\x00-\x1f]+")
_PLAIN = re.compile(r"[A-Za-z0-9_-]*")
_FILE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class SeedResult:
    """One training run of the recipe: how many test images its stored weights get right."""

    seed: int
    correct: int
    total: int

    @property
    def top1(self) -> float:
        """A share, 0 to 1."""
        return self.correct / self.total


@dataclass(frozen=True)
class Card:
    """Everything needed to use, judge and re-make one weight file.

    file: bare name of the file beside the card. tag: "" for a model's main weights.
    image: (C, H, W) it was trained on. mean, std: per channel, of pixels scaled to 0..1.
    params: those of inference, auxiliary heads left out. macs: of one image.
    correct, total, loss: of the stored file, re-read, on the test split; loss is the mean cross-entropy in nats.
    seeds: every run made of this recipe; the one with `seed` is the stored one. recipe: its name and all its fields.
    data_digest: split -> SHA-256 of its pixels and labels. seconds: of training. created: YYYY-MM-DD.
    """

    model: str
    dataset: str
    tag: str
    file: str
    format: str
    sha256: str
    file_bytes: int
    num_classes: int
    classes: tuple[str, ...]
    image: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    params: int
    macs: int
    correct: int
    total: int
    loss: float
    seed: int
    seeds: tuple[SeedResult, ...]
    recipe: Mapping[str, Any]
    epochs: int
    command: str
    commit: str
    versions: Mapping[str, str]
    device: str
    threads: int
    seconds: float
    data_digest: Mapping[str, str]
    data_note: str
    licence: str
    paper: str
    created: str
    note: str

    @property
    def stem(self) -> str:
        """Name of card and weights in a zoo folder: <model>.<dataset>[.<tag>]."""
        return card_stem(self.model, self.dataset, self.tag)

    @property
    def top1(self) -> float:
        """Share of the test images that the stored file gets right, 0 to 1."""
        return self.correct / self.total

    @property
    def accuracies(self) -> tuple[float, ...]:
        """The top-1 share of every seed."""
        return tuple(run.top1 for run in self.seeds)

    @property
    def top1_mean(self) -> float:
        """Mean share over the seeds."""
        return statistics.fmean(self.accuracies)

    @property
    def top1_std(self) -> float | None:
        """Sample standard deviation of the share over the seeds; None when there is one alone."""
        return statistics.stdev(self.accuracies) if len(self.seeds) > 1 else None


def card_stem(model: str, dataset: str, tag: str = "") -> str:
    """`<model>.<dataset>[.<tag>]`; what is not a letter, digit, `_` or `-` inside a part becomes `-`."""
    return ".".join(re.sub(r"[^A-Za-z0-9_-]", "-", part) for part in (model, dataset, tag) if part)


def dataset_label(name: str) -> str:
    """A data set's name as a card holds it: of a `folder:PATH`, the folder's own name alone."""
    kind, colon, path = name.partition(":")
    return f"{kind}:{Path(path.partition('?')[0]).resolve().name}" if colon else name


def write_card(path: str | Path, card: Card) -> None:
    """Write a card atomically, keys sorted. Raises WeightError if it could not be read back."""
    data = (json.dumps(_to_json(card), indent=2, sort_keys=True) + "\n").encode()
    try:
        _check(parse_json(data))
    except RefusedError as found:
        raise WeightError(f"{path} is not written, as none could read it: {found}; correct the value.") from None
    write_atomically(path, data)


def read_card(path: str | Path) -> Card:
    """Read a card. Raises WeightError for anything that is missing, surplus, of a wrong type or contradictory."""
    with sentence(path, REMEDY, WeightError):
        return _check(parse_json(read_small(path, MAX_CARD_BYTES, follow_links=False)))


def _to_json(card: Card) -> dict[str, Any]:
    data = {field.name: getattr(card, field.name) for field in fields(card)}
    data |= {name: list(data[name]) for name in ("classes", "image", "mean", "std")}
    data |= {name: dict(data[name]) for name in ("recipe", "versions", "data_digest")}
    data["top1"] = card.top1
    data["seeds"] = {
        "n": len(card.seeds),
        "mean": card.top1_mean,
        "std": card.top1_std,
        "runs": [{"seed": run.seed, "correct": run.correct, "total": run.total} for run in card.seeds],
    }
    return data


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _count(value: Any) -> bool:
    return type(value) is int and value >= 1


def _natural(value: Any) -> bool:
    return type(value) is int and value >= 0


def _number(value: Any) -> bool:
    return type(value) in (int, float) and value >= 0


def _list_of(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and bool(value) and all(check(item) for item in value)


def _texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _matches(pattern: re.Pattern[str]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _run(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != {"seed", "correct", "total"}:
        return False
    return _natural(value["seed"]) and _natural(value["correct"]) and _count(value["total"])


def _day(value: Any) -> bool:
    try:
        return bool(date.fromisoformat(value).isoformat() == value)
    except (TypeError, ValueError):
        return False


def _digests(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"train", "test"} and all(map(_matches(_DIGEST), value.values()))


# field -> (what it must be, in words; the check)
_FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "model": ("the name of a model", _text),
    "dataset": ("the name of a data set, a folder's without its path", _matches(_DATASET)),
    "tag": ("letters, digits, _ or -", _matches(_PLAIN)),
    "file": ("a bare file name", _matches(_FILE)),
    "format": ("the name of a format", _text),
    "sha256": ("64 hexadecimal digits", _matches(_DIGEST)),
    "file_bytes": ("a whole number from 1", _count),
    "num_classes": ("a whole number from 1", _count),
    "classes": ("a list of names", _list_of(_text)),
    "image": ("[channels, height, width]", _list_of(_count)),
    "mean": ("a list of numbers from 0", _list_of(_number)),
    "std": ("a list of numbers above 0", _list_of(lambda value: _number(value) and value > 0)),
    "params": ("a whole number from 0", _natural),
    "macs": ("a whole number from 0", _natural),
    "correct": ("a whole number from 0", _natural),
    "total": ("a whole number from 1", _count),
    "top1": ("a share", _number),
    "loss": ("a number from 0", _number),
    "seed": ("a whole number from 0", _natural),
    "seeds": ("n, mean, std and runs", lambda v: isinstance(v, dict) and v.keys() == {"n", "mean", "std", "runs"}),
    "recipe": ("a recipe's name and fields", lambda value: isinstance(value, dict) and _text(value.get("name"))),
    "epochs": ("a whole number from 0", _natural),
    "command": ("a command", _text),
    "commit": ("a text", lambda value: isinstance(value, str)),
    "versions": ("texts by name", _texts),
    "device": ("a text", _text),
    "threads": ("a whole number from 1", _count),
    "seconds": ("a number from 0", _number),
    "data_digest": ("64 hexadecimal digits for train and for test", _digests),
    "data_note": ("a text", lambda value: isinstance(value, str)),
    "licence": ("a licence", _text),
    "paper": ("a text", lambda value: isinstance(value, str)),
    "created": ("a day as YYYY-MM-DD", _day),
    "note": ("a text", lambda value: isinstance(value, str)),
}


def _check(data: Any) -> Card:
    """The card that parsed JSON holds. Raises RefusedError."""
    if not isinstance(data, dict):
        raise RefusedError("it is not a JSON object")
    if isinstance(data.get("format"), str) and data["format"] not in SUFFIXES:
        raise RefusedError(
            f"its format is {quoted(data['format'])}, and this version of zoo reads {', '.join(SUFFIXES)}"
        )
    for what, names in (("lacks", _FIELDS.keys() - data.keys()), ("has the unknown", data.keys() - _FIELDS.keys())):
        if names:
            raise RefusedError(f"it {what} field {', '.join(quoted(name) for name in sorted(names)[:3])}")
    for name, (wanted, check) in _FIELDS.items():
        if not check(data[name]):
            raise RefusedError(f"its field {name!r} is {quoted(data[name])} instead of {wanted}")
    runs = data["seeds"]["runs"]
    if not _list_of(_run)(runs):
        raise RefusedError(f"its runs are {quoted(runs)} instead of a list of seed, correct and total")
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in data.items()}
    del values["top1"]  # derived, and compared below
    card = Card(**(values | {"seeds": tuple(SeedResult(**run) for run in runs)}))
    _check_consistent(card, data)
    return card


def _check_consistent(card: Card, data: Mapping[str, Any]) -> None:
    """Raise RefusedError where two fields of a card contradict each other, or a name is none of ours."""
    try:
        if not _FOREIGN.fullmatch(card.model):
            architecture(card.model)
    except UnknownNameError as error:
        raise RefusedError(str(error).rstrip(".")) from None
    written, derived = data["seeds"], _to_json(card)["seeds"]
    own = [run for run in card.seeds if run.seed == card.seed]
    for holds, found in (
        (Path(card.file).suffix == SUFFIXES[card.format], f"its file {card.file!r} is not {SUFFIXES[card.format]}"),
        (len(card.classes) == card.num_classes, f"it names {len(card.classes)} classes of {card.num_classes}"),
        (len(set(card.classes)) == len(card.classes), "it names a class twice"),
        (len(card.image) == 3, f"its image is {quoted(list(card.image))} instead of [channels, height, width]"),
        (len(card.mean) == len(card.std) == card.image[0], f"mean and std are not those of {card.image[0]} channels"),
        (all(run.correct <= run.total for run in card.seeds), "a run has more images correct than tested"),
        (card.correct <= card.total, f"{card.correct} of {card.total} images are said to be correct"),
        (data["top1"] == card.top1, f"its top1 {data['top1']} is not {card.correct} / {card.total}"),
        (len({run.seed for run in card.seeds}) == len(card.seeds), "two of its runs have the same seed"),
        (own == [SeedResult(card.seed, card.correct, card.total)], f"its runs lack its own result, seed {card.seed}"),
        (_same(written, derived), "n, mean or std of its seeds is not that of its runs"),
    ):
        if not holds:
            raise RefusedError(found)


def _same(written: Mapping[str, Any], derived: Mapping[str, Any]) -> bool:
    """Whether the figures agree to 12 places: the last bits of a mean may differ between Python versions."""
    if type(written["n"]) is not int or written["n"] != derived["n"]:
        return False
    pairs = [(written[name], derived[name]) for name in ("mean", "std")]
    return all(a is b is None or (_number(a) and _number(b) and abs(a - b) < 1e-12) for a, b in pairs)
