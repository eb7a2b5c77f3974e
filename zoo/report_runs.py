"""`zoo report`: gather what is known of the models and write it as one page.

Rows are those of `zoo rank`, layers those of `zoo show --layers`, cards those beside the weights. In a checkout of the
repository there is more: benchmarks/results/evidence.jsonl (training curves and confusions), receipts of compression,
and the blocks of the README with their plots. An installed package has none of these, and the page says so.
"""

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from zoo import __version__
from zoo.cards import Card
from zoo.compression import Receipt
from zoo.compression.receipts import LayerReceipt
from zoo.cost import cached_cost
from zoo.data import DATASETS, DatasetInfo, dataset_info, load_dataset
from zoo.data.cache import data_folder
from zoo.errors import ExportError, ImageSizeError, ZooError
from zoo.files import write_atomically
from zoo.ranking import Row, rank
from zoo.registry import architectures
from zoo.report import receipts_table
from zoo.report.page import page_html
from zoo.report.page.blocks import blocks, parts, table_plain
from zoo.report.page.networks import network_plain
from zoo.report.page.records import card_plain, cost_plain, set_plain, use_plain
from zoo.weights import dataset_label, list_cards, load_for_card, weights_path

FILE = "index.html"
TITLE = "Efficient image classifiers"
PAGE_BYTES = 2_900_000  # what the page may take
PICTURE_BYTES = 700_000  # of these, the plots of experiments
NETWORK_BYTES = 1_800_000  # and the networks that answer drawings
MOST_MACS = 50_000_000  # of a network that answers while one draws
DRAWN = (1, 28, 28)  # images that a drawing can stand for
DIGITS = tuple("0123456789")
SAMPLES = 2  # test images of each digit, for those who cannot draw
SHOWN_ELSEWHERE = ("ranking", "weights", "recipes")  # blocks of the README that are parts of the page by themselves

Plain = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What goes on the page. models: names; None for all. checkout: the repository's folder, where there is one."""

    out: Path
    datasets: tuple[str, ...] = ("mnist", "cifar10")
    models: tuple[str, ...] | None = None
    checkout: Path | None = None


def checkout() -> Path | None:
    """The repository that this package is run from, if it is."""
    root = Path(__file__).resolve().parent.parent
    return root if (root / "benchmarks" / "results").is_dir() else None


def run(job: Job, say: Callable[[str], None]) -> Path:
    """Write the page and return its path. Raises UnknownNameError for a model or data set, ZooError for none."""
    if not job.datasets:
        raise ZooError("no data set was given; give one or several, such as --dataset mnist,cifar10.")
    infos = [dataset_info(name) for name in job.datasets]
    content: Plain = {"title": TITLE, "version": __version__, "made": date.today().isoformat()}
    content |= {"sets": [], "costs": {}, "cards": {}, "uses": {}, "checkout": job.checkout is not None}
    cards: list[Card] = []
    for name, info in zip(job.datasets, infos, strict=True):
        say(f"ranking on {name}")
        rows = rank(job.models, dataset=name)
        content["sets"].append(set_plain(info, rows))
        content["costs"][info.name] = _costs(rows, info)
        found = _cards(rows, name)
        content["cards"] |= {card.stem: card_plain(card) for card in found.values()}
        content["uses"][info.name] = {row.label: use_plain(row.name, name, found.get(row.label)) for row in rows}
        cards += found.values()
    content["evidence"] = dict(_evidence(job.checkout, cards))
    content["receipts"] = dict(_receipts(job.checkout, cards))
    content["studies"] = list(_studies(job.checkout))
    room = PAGE_BYTES - len(page_html(content, TITLE).encode())
    content["drawing"] = _drawing(cards, infos, min(room, NETWORK_BYTES), say)
    path = job.out / FILE
    write_atomically(path, page_html(content, TITLE))
    return path


def _costs(rows: Sequence[Row], info: DatasetInfo) -> Plain:
    """By name, of the registered networks that take such images."""
    costs: Plain = {}
    for name in dict.fromkeys(row.name for row in rows if row.name in architectures()):
        try:
            cost = cached_cost(name, info.image, len(info.classes))
        except ImageSizeError:
            continue  # its row says why
        costs[name] = cost_plain(cost, name, len(info.classes))
    return costs


def _cards(rows: Sequence[Row], dataset: str) -> dict[str, Card]:
    """By the label of the row that each belongs to."""
    stored = {(card.model, card.tag): card for card in list_cards(dataset=dataset_label(dataset))}
    with_weights = [row for row in rows if row.bytes is not None]
    return {row.label: stored[row.name, row.tag or ""] for row in with_weights}


def _lines(path: Path) -> list[Mapping[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _evidence(root: Path | None, cards: Sequence[Card]) -> Iterator[tuple[str, Plain]]:
    """By stem, the epochs and the confusion of the very files that are stored."""
    if root is None:
        return
    stored = {card.sha256: card.stem for card in cards}
    for line in _lines(root / "benchmarks" / "results" / "evidence.jsonl"):
        if line["sha256"] in stored:
            yield stored[line["sha256"]], {key: line[key] for key in ("epochs", "confusion") if key in line}


def _receipts(root: Path | None, cards: Sequence[Card]) -> Iterator[tuple[str, Plain]]:
    """By stem, the table of stages of every result that is the stored file."""
    if root is None:
        return
    results = [line for path in sorted((root / "benchmarks" / "results").glob("*.jsonl")) for line in _lines(path)]
    made = {(r["model"], r["variant"], r["file_bytes"], r["correct"]): r for r in results if r.get("receipts")}
    for card in cards:
        result = made.get((card.model, card.tag, card.file_bytes, card.correct))
        if result is not None:
            yield card.stem, table_plain(receipts_table([_receipt(plain) for plain in result["receipts"]]))


def _receipt(plain: Mapping[str, Any]) -> Receipt:
    """Its layers were told in fewer words by older results; the table of stages does not need them."""
    layers: tuple[LayerReceipt, ...] = ()
    return Receipt(**{**plain, "layers": layers})


def _studies(root: Path | None) -> Iterator[Plain]:
    """The README's blocks of results, as they stand, each with the sentence before it."""
    if root is None:
        return
    left = PICTURE_BYTES
    for name, lead, body in blocks((root / "README.md").read_text()):
        found = parts(body)
        if name.partition("-")[0] in SHOWN_ELSEWHERE or not any("table" in part for part in found):
            continue
        for part in found:
            if "path" in part:
                data = (root / part.pop("path")).read_bytes()
                left -= len(data)
                part["svg"] = base64.b64encode(data).decode() if left >= 0 else None
        yield {"name": name, "lead": lead, "parts": found}


def _drawing(
    cards: Sequence[Card], infos: Sequence[DatasetInfo], room: int, say: Callable[[str], None]
) -> Plain | None:
    """Networks that answer drawings, smallest first while there is room, and images to try; None without such data."""
    info = next((info for info in infos if info.image == DRAWN and info.classes == DIGITS), None)
    if info is None:
        return None
    smallest: dict[str, Card] = {}
    for card in sorted(
        (c for c in cards if c.dataset == info.name and c.macs <= MOST_MACS), key=lambda c: c.file_bytes
    ):
        smallest.setdefault(card.model, card)
    written: list[Plain] = []
    left_out: dict[str, str] = {}
    for card in smallest.values():
        say(f"writing down {card.stem}")
        try:
            plain = network_plain(load_for_card(card, weights_path(card)), card.image)
        except ExportError as error:
            left_out[card.stem] = str(error)
            continue
        facts = {"bytes": card.file_bytes, "macs": card.macs, "correct": card.correct, "total": card.total}
        written.append({"stem": card.stem, "mean": card.mean[0], "std": card.std[0], **facts, **plain})
    chosen = []
    for network in sorted(written, key=lambda plain: len(json.dumps(plain))):
        size = len(json.dumps(network))
        if size > room:
            left_out[network["stem"]] = "it does not fit on the page"
            continue
        room -= size
        chosen.append(network)
    order = sorted(chosen, key=lambda network: network["macs"])
    return {"dataset": info.name, "networks": order, "left_out": left_out, "samples": _samples(info.name)}


def _samples(dataset: str) -> list[Plain]:
    """The first test images of each class, if they are there already: a page is no reason to fetch them."""
    if dataset in DATASETS and dataset != "digits" and not (data_folder() / dataset / "test.safetensors").exists():
        return []
    test = load_dataset(dataset, "test")
    labels = test.labels.tolist()
    rows = [[i for i, label in enumerate(labels) if label == digit][:SAMPLES] for digit in range(len(DIGITS))]
    return [
        {"label": labels[i], "row": i, "pixels": base64.b64encode(test.images[i].numpy().tobytes()).decode()}
        for group in zip(*rows, strict=False)
        for i in group
    ]
