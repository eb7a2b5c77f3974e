"""Rows, costs and cards as the page has them: plain values, and every number's text from `zoo.report`."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from zoo.cost import Cost
from zoo.data import DatasetInfo
from zoo.registry import build
from zoo.report.numbers import exact_text, image_text, percent_text
from zoo.report.ranking import ranking_table
from zoo.report.tables import footnotes, table_json

if TYPE_CHECKING:
    from zoo.cards import Card
    from zoo.ranking import Row


def set_plain(info: DatasetInfo, rows: Sequence["Row"]) -> dict[str, Any]:
    """One data set: its rows as `zoo rank --format json` has them, and the text of each of their cells."""
    table = ranking_table(rows, whole=True)
    return {
        "name": info.name,
        "image": list(info.image),
        "image_text": image_text(info.image),
        "classes": list(info.classes),
        "columns": [{"name": c.name, "title": c.title, "right": c.right} for c in table.columns],
        "rows": json.loads(table_json(table)),
        "texts": [list(texts) for texts in table.texts],
        "notes": footnotes(table),
    }


def cost_plain(cost: Cost, name: str, num_classes: int) -> dict[str, Any]:
    """What a network costs layer by layer: [name, kind, output shape, params, macs, activations] each.

    peak_row: the layer where memory peaks or, where that is a pooling or an activation, the last layer before it.
    """
    counts = ("params_used", "macs", "activations", "peak_activation_bytes", "peak_activation_bytes_int8")
    return {
        **{count: getattr(cost, count) for count in counts},
        "training_macs": cost.training_macs,
        "weight_bytes": cost.weight_bytes,
        "flash_bytes": cost.flash_bytes,
        "peak_layer": cost.peak_layer,
        "peak_row": _peak_row(cost, name, num_classes),
        "layers": [
            [layer.name, layer.kind, list(layer.output_shape[1:]), layer.params, layer.macs, layer.activations]
            for layer in cost.by_layer
        ],
    }


def _peak_row(cost: Cost, name: str, num_classes: int) -> int | None:
    names = [layer.name for layer in cost.by_layer]
    if cost.peak_layer in names:
        return names.index(cost.peak_layer)
    with torch.device("meta"):
        network = build(name, num_classes=num_classes, in_chans=cost.image[0], image_size=cost.image[1])
    order = [module for module, _ in network.named_modules()]
    before = order[: order.index(cost.peak_layer)]
    return max((row for row, layer in enumerate(names) if layer in before), default=None)


def card_plain(card: "Card") -> dict[str, Any]:
    """What a card says, as pairs of what and how much, in groups."""
    runs = [f"seed {run.seed}: {exact_text(run.correct)} of {exact_text(run.total)}" for run in card.seeds]
    spread = "one training has no spread" if card.top1_std is None else percent_text(card.top1_std)
    recipe = {name: value for name, value in card.recipe.items() if name not in ("name", "augment")}
    augment = {
        name: value for name, value in dict(card.recipe.get("augment") or {}).items() if value not in (0, "none")
    }
    return {
        "stem": card.stem,
        "accuracy": [
            ["top-1", f"{percent_text(card.top1)} ({exact_text(card.correct)} of {exact_text(card.total)})"],
            ["loss", f"{card.loss:.4f} nats"],
            ["trainings", "; ".join(runs)],
            ["mean, spread", f"{percent_text(card.top1_mean)}, {spread}"],
        ],
        "file": [
            ["file", f"{card.file} ({exact_text(card.file_bytes)} bytes)"],
            ["SHA-256", card.sha256],
            ["licence", card.licence],
            ["made", card.created],
            ["versions", ", ".join(f"{name} {version}" for name, version in card.versions.items())],
        ],
        "recipe": [
            ["recipe", str(card.recipe["name"])],
            ["epochs", str(card.epochs)],
            ["took", f"{card.seconds / 60:.0f} minutes on {card.device} (threads: {card.threads})"],
            ["command", card.command],
            ["commit", card.commit],
            ["settings", _listed(recipe)],
            ["augmentation", _listed(augment) or "none"],
            ["note", "; ".join(filter(None, (card.note, card.data_note))) or "none"],
        ],
    }


def use_plain(name: str, dataset: str, card: "Card | None") -> list[list[str]]:
    """[what, code] of the ways to get a network, with its stored weights if there are any."""
    if card is None:
        built = f'import zoo\n\nmodel = zoo.create_model("{name}", dataset="{dataset}")  # no weights stored'
        return [["Python", built], ["Train it", f"zoo train {name} --dataset {dataset}"]]
    tag = f', tag="{card.tag}"' if card.tag else ""
    loaded = (
        f'import zoo\n\nmodel = zoo.create_model("{name}", dataset="{dataset}", pretrained=True{tag})\n'
        f'logits = model(zoo.preprocess("{dataset}")("image.png"))'
    )
    source = f"{name}@{card.tag}" if card.tag else name
    return [["Python", loaded], ["Shell", f"zoo predict {source} --dataset {dataset} image.png"]]


def _listed(fields: dict[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in fields.items())
