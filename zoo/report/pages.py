"""Tables of everything but rankings: lists of models, one model, its layers, its weights, data, scores, checks."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from zoo.report.numbers import count_text, exact_text, image_text, percent_text, size_text
from zoo.report.tables import MISSING, Column, Table, Value

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.cost import Cost
    from zoo.data import Dataset
    from zoo.evaluation import Evaluation
    from zoo.registry import Architecture
    from zoo.weights import Card

_TITLES = {  # of facts whose name is not their title with underscores
    "macs": "MACs",
    "flops": "FLOPs",
    "training_macs": "training MACs",
    "params_used": "params at inference",
    "peak_activation_bytes": "peak memory fp32",
    "peak_activation_bytes_int8": "peak memory int8",
    "weight_bytes": "weights fp32",
    "flash_bytes": "flash int8",
    "peak_layer": "peak reached in",
    "num_classes": "classes",
    "top1": "top-1",
    "dataset": "data set",
}


def models_table(names: Sequence[str], known: Mapping[str, "Architecture"], cards: Sequence["Card"]) -> Table:
    """One row a model, with the data sets (and tags) that weights are stored for.

    known: the registered architectures; of a library's model only the name and the weights are shown.
    """
    columns = (
        Column("name", "model", right=False),
        Column("family", "family", 2, right=False),
        Column("role", "role", 3, right=False),
        Column("year", "year", 4),
        Column("paper", "paper", 5, right=False),
        Column("image", "published at", 6, right=False),
        Column("weights", "weights for", 1, right=False),
    )
    values: list[tuple[Value, ...]] = []
    texts: list[tuple[str, ...]] = []
    for name in names:
        stored = ", ".join(_weights_text(card) for card in cards if card.model == name)
        if name in known:
            a = known[name]
            values.append((name, a.family, a.role, a.year, a.paper, a.image, stored))
            texts.append((name, a.family, a.role, str(a.year), a.paper, image_text(a.image), stored))
        else:
            values.append((name, None, None, None, None, None, stored))
            texts.append((name, *[MISSING] * 5, stored))
    return Table(columns, tuple(values), tuple(texts), name="models")


def model_table(arch: "Architecture", cost: "Cost", num_classes: int) -> Table:
    """The facts and the cost of one architecture at one image size."""
    facts: dict[str, tuple[Value, str]] = {
        "name": (arch.name, arch.name),
        "family": (arch.family, arch.family),
        "role": (arch.role, arch.role),
        "paper": (arch.paper, arch.paper),
        "year": (arch.year, str(arch.year)),
        "published_image": (arch.image, image_text(arch.image)),
        "image": (cost.image, image_text(cost.image)),
        "num_classes": (num_classes, str(num_classes)),
    }
    for name in ("params", "params_used", "macs", "flops", "training_macs", "activations", "bit_operations"):
        facts[name] = (getattr(cost, name), exact_text(getattr(cost, name)))
    for name in ("peak_activation_bytes", "peak_activation_bytes_int8", "weight_bytes", "flash_bytes"):
        size = getattr(cost, name)
        facts[name] = (size, f"{exact_text(size)} ({size_text(size)})")
    facts["peak_layer"] = (cost.peak_layer, cost.peak_layer or "the network itself")
    if cost.unsupported:
        counted = {name: f"{name} ({u.calls} calls)" for name, u in cost.unsupported.items()}
        facts["operators_not_counted"] = (", ".join(counted), ", ".join(counted.values()))
    if cost.uncalled:
        facts["for_training_only"] = (", ".join(cost.uncalled), ", ".join(cost.uncalled))
    return facts_table(facts, name="model")


def facts_table(facts: Mapping[str, tuple[Value, str]], *, name: str, title: str = "") -> Table:
    """One fact a line: what it is, with its value for machines and its text for people."""
    return Table(
        (Column("fact", "", right=False), Column("value", "", right=False)),
        values=tuple((fact, value) for fact, (value, _) in facts.items()),
        texts=tuple((_TITLES.get(fact, fact.replace("_", " ")), text) for fact, (_, text) in facts.items()),
        name=name,
        title=title,
        keyed=True,
    )


def cost_table(cost: "Cost") -> Table:
    """Layer by layer in order of the first call; shares are of the whole network's. The text ends in a total."""
    columns = (
        Column("layer", "layer", right=False),
        Column("kind", "kind", 2, right=False),
        Column("output_shape", "output", 1, right=False),
        Column("params", "params"),
        Column("params_share", "of all", 4),
        Column("macs", "MACs"),
        Column("macs_share", "of all", 3),
        Column("activations", "activations", 5),
    )
    params = sum(layer.params for layer in cost.by_layer)
    values: list[tuple[Value, ...]] = []
    texts: list[tuple[str, ...]] = []
    for layer in cost.by_layer:
        shape = tuple(layer.output_shape[1:])
        shares = layer.params / max(1, params), layer.macs / max(1, cost.macs)
        values.append(
            (layer.name, layer.kind, shape, layer.params, shares[0], layer.macs, shares[1], layer.activations)
        )
        numbers = exact_text(layer.params), percent_text(shares[0]), exact_text(layer.macs), percent_text(shares[1])
        size = " x ".join(map(str, shape))
        texts.append((layer.name or "(itself)", layer.kind, size, *numbers, exact_text(layer.activations)))
    texts.append(("total", "", "", exact_text(params), "", exact_text(cost.macs), "", exact_text(cost.activations)))
    return Table(columns, tuple(values), tuple(texts), name="layers", title="Layers")


def cards_table(cards: Sequence["Card"]) -> Table:
    """One row a weight file: what it scores, what it weighs, how it was made."""
    columns = (
        Column("stem", "weights", right=False),
        Column("top1", "top-1"),
        Column("correct", "correct"),
        Column("total", "of", 1),
        Column("seeds", "seeds", 3),
        Column("top1_mean", "mean", 3),
        Column("top1_std", "std", 3),
        Column("bytes", "file", 2),
        Column("params", "params", 2),
        Column("macs", "MACs", 2),
        Column("epochs", "epochs", 4),
        Column("recipe", "recipe", 5, right=False),
        Column("licence", "licence", 6, right=False),
    )
    values: list[tuple[Value, ...]] = []
    texts: list[tuple[str, ...]] = []
    for c in cards:
        counts = (c.top1, c.correct, c.total, len(c.seeds), c.top1_mean, c.top1_std)
        made = (c.epochs, str(c.recipe["name"]), c.licence)
        values.append((c.stem, *counts, c.file_bytes, c.params, c.macs, *made))
        spread = MISSING if c.top1_std is None else percent_text(c.top1_std)
        scores = percent_text(c.top1), exact_text(c.correct), exact_text(c.total), str(len(c.seeds))
        sizes = size_text(c.file_bytes), count_text(c.params), count_text(c.macs)
        texts.append((c.stem, *scores, percent_text(c.top1_mean), spread, *sizes, *map(str, made)))
    reasons = tuple({} if c.top1_std is not None else {"top1_std": "one training has no spread"} for c in cards)
    return Table(columns, tuple(values), tuple(texts), name="weights", title="Weights", reasons=reasons)


def recipes_table(cards: Sequence["Card"]) -> Table:
    """What each recipe gave where it was run: command, time, machine and accuracy, from the cards, recipe by recipe."""
    columns = (
        Column("recipe", "recipe", right=False),
        Column("stem", "weights", right=False),
        Column("epochs", "epochs"),
        Column("minutes", "minutes"),
        Column("threads", "threads", 2),
        Column("device", "machine", 1, right=False),
        Column("top1", "top-1"),
        Column("command", "command", 3, right=False),
    )
    values: list[tuple[Value, ...]] = []
    texts: list[tuple[str, ...]] = []
    for c in sorted(cards, key=lambda card: (str(card.recipe["name"]), card.stem)):
        name = str(c.recipe["name"])
        values.append((name, c.stem, c.epochs, c.seconds / 60, c.threads, c.device, c.top1, c.command))
        took = str(c.epochs), f"{c.seconds / 60:.0f}", str(c.threads), c.device
        texts.append((name, c.stem, *took, percent_text(c.top1), c.command))
    return Table(columns, tuple(values), tuple(texts), name="recipes", title="Recipes")


def datasets_table(splits: Sequence["Dataset"]) -> Table:
    """One row a split: how many images of which size, how many of each class at the least and most, and the digest."""
    columns = (
        Column("split", "split", right=False),
        Column("images", "images"),
        Column("image", "image", 1, right=False),
        Column("classes", "classes"),
        Column("fewest", "fewest a class", 3),
        Column("most", "most a class", 3),
        Column("inexact_images", "inexact", 4),
        Column("bytes", "in memory", 2),
        Column("sha256", "SHA-256", 5, right=False),
    )
    values: list[tuple[Value, ...]] = []
    texts: list[tuple[str, ...]] = []
    for d in splits:
        counts = d.labels.bincount(minlength=d.num_classes).tolist()
        numbers = d.num_classes, min(counts), max(counts), len(d.inexact_rows)
        values.append((d.split, len(d), d.image, *numbers, d.images.numel(), d.digest))
        size = size_text(d.images.numel())
        texts.append((d.split, exact_text(len(d)), image_text(d.image), *map(exact_text, numbers), size, d.digest[:12]))
    return Table(columns, tuple(values), tuple(texts), name="data", title=splits[0].name if splits else "")


def evaluation_table(evaluation: "Evaluation", *, model: str, dataset: str, split: str) -> Table:
    """How many of how many, the share, and the loss."""
    e = evaluation
    facts: dict[str, tuple[Value, str]] = {
        "model": (model, model),
        "dataset": (dataset, dataset),
        "split": (split, split),
        "correct": (e.correct, exact_text(e.correct)),
        "total": (e.total, exact_text(e.total)),
        "top1": (e.top1, percent_text(e.top1)),
        "loss": (e.loss, f"{e.loss:.4f}"),
    }
    return facts_table(facts, name="evaluation")


def confusion_table(confusion: "Tensor", classes: Sequence[str]) -> Table:
    """Counts [K, K]: a row for each true class, a column for each predicted one."""
    counts = confusion.tolist()
    return Table(
        (Column("true", "true \\ predicted", right=False), *(Column(name, name) for name in classes)),
        values=tuple((name, *row) for name, row in zip(classes, counts, strict=True)),
        texts=tuple((name, *map(str, row)) for name, row in zip(classes, counts, strict=True)),
        name="confusion",
        title="Confusion",
        keyed=True,
    )


def verification_table(differences: Mapping[str, Sequence[str]]) -> Table:
    """One row a weight file: green, or how it differs from its card."""
    said = {stem: "; ".join(found) for stem, found in differences.items()}
    return Table(
        (
            Column("stem", "weights", right=False),
            Column("verdict", "verdict", right=False),
            Column("differences", "", right=False),
        ),
        values=tuple((stem, "red" if text else "green", text) for stem, text in said.items()),
        texts=tuple((stem, "red" if text else "green", text) for stem, text in said.items()),
        name="verification",
    )


def speed_table(results: Sequence[Mapping[str, object]]) -> Table:
    """One row a comparison of the trainer's speed: the median ratio of rounds, and the lowest and highest."""
    columns = (
        Column("comparison", "comparison", right=False),
        Column("model", "model", right=False),
        Column("ratio_median", "median ratio"),
        Column("ratio_low", "lowest"),
        Column("ratio_high", "highest"),
        Column("rounds", "rounds"),
    )
    values = tuple(tuple(result[column.name] for column in columns) for result in results)
    texts = tuple((*map(str, row[:2]), *(f"{ratio:.2f}" for ratio in row[2:5]), str(row[5])) for row in values)
    return Table(columns, values, texts, name="trainer-speed")  # type: ignore[arg-type]


def _weights_text(card: "Card") -> str:
    return f"{card.dataset} ({card.tag})" if card.tag else card.dataset
