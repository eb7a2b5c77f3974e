"""The ranked table as values: rows that join cost and accuracy, their order, the Pareto fronts and NetScore.

Numbers stay numbers here; `zoo.report` turns them into text. A value that cannot be had is None, and the row's
`missing` says why.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from operator import attrgetter
from typing import Any

from torch import nn

from zoo.cards import PACKED
from zoo.conditions import Kind, parse_where
from zoo.cost import Cost, cached_cost, measure
from zoo.data import DatasetInfo, dataset_info
from zoo.errors import ImageSizeError, ZooError, unknown
from zoo.registry import Architecture, architecture, architectures
from zoo.weights import Card, dataset_label, list_cards

BASELINES = ("lenet5", "vgg16_bn")  # what every ratio is taken to, in their form for the same data set
FRONTS = ("macs", "params", "bytes")  # the costs that accuracy is weighed against
RATIOS = tuple(f"{cost}_vs_{baseline}" for baseline in BASELINES for cost in FRONTS)
LATENCIES = ("milliseconds", "milliseconds_vs_lenet5")
UNTIMED = dict.fromkeys(LATENCIES, "nothing was timed; `zoo rank --latency` does it")

Model = str | nn.Module | tuple[str, nn.Module]
Image = tuple[int, int, int]


@dataclass(frozen=True)
class Row:
    """One model, with one set of weights at most, at one data set's image size.

    image is (channels, height, width). params are those of inference, auxiliary heads left out; macs, flops,
    activations and peak_activation_bytes are of one image. weight_bytes and flash_bytes follow from the parameters
    (`zoo.cost`), while bytes is the size of the stored file. top1, top1_mean and top1_std are shares, the latter two
    over `seeds` trainings. milliseconds: of one image, where `timed` of `rank` measured them. pareto_X: on the front of
    (top1, X). missing: column -> why it is None.
    """

    name: str
    dataset: str
    image: Image
    family: str | None = None
    role: str | None = None
    paper: str | None = None
    year: int | None = None
    params: int | None = None
    macs: int | None = None
    flops: int | None = None
    activations: int | None = None
    peak_activation_bytes: int | None = None
    weight_bytes: int | None = None
    flash_bytes: int | None = None
    tag: str | None = None
    bytes: int | None = None
    correct: int | None = None
    total: int | None = None
    top1: float | None = None
    seeds: int | None = None
    top1_mean: float | None = None
    top1_std: float | None = None
    netscore: float | None = None
    macs_vs_lenet5: float | None = None
    params_vs_lenet5: float | None = None
    bytes_vs_lenet5: float | None = None
    macs_vs_vgg16_bn: float | None = None
    params_vs_vgg16_bn: float | None = None
    bytes_vs_vgg16_bn: float | None = None
    milliseconds: float | None = None
    milliseconds_vs_lenet5: float | None = None
    pareto_macs: bool = False
    pareto_params: bool = False
    pareto_bytes: bool = False
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The name, followed by the tag where the weights carry one."""
        return f"{self.name}.{self.tag}" if self.tag else self.name


COLUMNS = tuple(f.name for f in fields(Row) if f.name != "missing")
TEXTS = frozenset({"name", "dataset", "family", "role", "paper", "tag"})
FLAGS = tuple(f"pareto_{cost}" for cost in FRONTS)
KINDS: dict[str, Kind] = {  # what a condition may speak of; an image is not one number
    name: str if name in TEXTS else bool if name in FLAGS else float for name in COLUMNS if name != "image"
}
COST_COLUMNS = ("params", "macs", "flops", "activations", "peak_activation_bytes", "weight_bytes", "flash_bytes")
CARD_COLUMNS = ("bytes", "correct", "total", "top1", "seeds", "top1_mean", "top1_std")
HIGHER_IS_BETTER = frozenset({"top1", "top1_mean", "correct", "netscore", "seeds", *FLAGS})


def rank(
    names_or_models: Sequence[Model] | None = None,
    *,
    dataset: str,
    by: Sequence[str] = ("macs",),
    where: str | None = None,
    family: str | None = None,
    top: int | None = None,
    cards: Sequence[Card] | None = None,
    timed: Callable[[list[Row]], list[Row]] | None = None,
) -> list[Row]:
    """Rows of the models given, by default of all, at a data set's image size, best first.

    names_or_models: registered names, `timm/...` or `torchvision/...` names, modules, or (label, module) pairs. None
        means all that are registered, and any other that weights are stored of.
    by: columns that decide in turn, the better value first (accuracy and NetScore: high; costs: low; text: A to Z);
        a leading "-" turns a column round. A missing value comes last either way.
    where: a condition over columns, as `zoo.conditions.parse_where` reads it.
    cards: the weights to join; by default those that ship with the package. A model with several gets a row for each.
    timed: measures latency; it is given the rows, those of other families left out, and fills in LATENCIES.

    Ratios are to LeNet-5 and VGG-16-bn of the same data set, whether or not they are among the models. Pareto marks
    are given among all the models asked for, before `where`, `family` and `top` leave any out.
    Raises UnknownNameError for a model, data set, column or family, ZooError for a condition that cannot be read.
    """
    keep = parse_where(where, KINDS) if where is not None else None
    for column in by:
        if column.removeprefix("-") not in COLUMNS:
            raise unknown("column", column.removeprefix("-"), COLUMNS)
    if top is not None and top < 1:
        raise ZooError(f"top={top} was asked for; give a number of rows of at least 1.")
    if family is not None and family not in (known := {a.family for a in architectures().values()}):
        raise unknown("family", family, known)
    rows = [row for row in collect(names_or_models, dataset=dataset, cards=cards) if family in (None, row.family)]
    if timed is not None:
        rows = timed(rows)
    for column in reversed(by):
        rows = _ordered(rows, column)
    return [row for row in rows if keep is None or keep(row)][:top]


def collect(
    names_or_models: Sequence[Model] | None = None, *, dataset: str, cards: Sequence[Card] | None = None
) -> list[Row]:
    """The rows of `rank`, whole and in the order the models came in."""
    info = dataset_info(dataset)
    stored = [card for card in (list_cards() if cards is None else cards) if card.dataset == dataset_label(dataset)]
    foreign = sorted({card.model for card in stored if "/" in card.model})
    models = [*architectures(), *foreign] if names_or_models is None else list(names_or_models)
    rows = [row for model in models for row in _rows_of(model, info, stored)]
    bases = {name: _rows_of(name, info, stored)[0] for name in BASELINES}
    return mark_fronts([_with_score(_with_ratios(row, bases)) for row in rows])


def mark_fronts(rows: Sequence[Row]) -> list[Row]:
    """The same rows with their three Pareto marks set among themselves."""
    macs, params, sizes = (pareto_front([(row.top1, getattr(row, cost)) for row in rows]) for cost in FRONTS)
    marks = zip(rows, macs, params, sizes, strict=True)
    return [replace(row, pareto_macs=m, pareto_params=p, pareto_bytes=b) for row, m, p, b in marks]


def pareto_front(points: Sequence[tuple[float | None, float | None]]) -> list[bool]:
    """Which of the (gain, cost) points no other beats: at least as good in both, and better in one.

    A point that lacks either value is not on the front and beats nobody; equal points stand or fall together.
    """
    whole = [(gain, cost) for gain, cost in points if gain is not None and cost is not None]
    return [
        gain is not None
        and cost is not None
        and not any(g >= gain and c <= cost and (g > gain or c < cost) for g, c in whole)
        for gain, cost in points
    ]


def netscore(top1: float, params: int, macs: int) -> float:
    """NetScore (arXiv:1806.05512, equation 1, with its alpha = 2, beta = gamma = 1/2), in decibels; higher is better.

    20 log10(a^2 / (sqrt(p) sqrt(m))), where a is the accuracy in percent, p the parameters in millions and m the
    multiply-accumulates of one image in thousands of millions. Another choice of units moves all scores by one
    constant and no rank. `top1` is a share above 0; params and macs are counts above 0 (ValueError otherwise).
    """
    if not (top1 > 0 and params > 0 and macs > 0):
        raise ValueError(f"NetScore needs positive values, not top1={top1}, params={params}, macs={macs}.")
    return 20 * math.log10((100 * top1) ** 2 / math.sqrt((params / 1e6) * (macs / 1e9)))


def _rows_of(model: Model, info: DatasetInfo, cards: Sequence[Card]) -> list[Row]:
    """The row of a model, or its rows where it has several cards; ratios, score and marks are not yet set."""
    if not isinstance(model, str):
        label, module = model if isinstance(model, tuple) else (type(model).__name__, model)
        row = _with_cost(Row(label, info.name, info.image, missing=UNTIMED), partial(measure, module, info.image))
        return [_with_card(row, None, "a model given as a module has no weights of its own on record")]
    arch = None if "/" in model else architecture(model)
    row = _with_cost(_described(Row(model, info.name, info.image, missing=UNTIMED), arch), _counter(model, info))
    own = [card for card in cards if card.model == model]
    reason = f"no weights for {info.name} are stored"
    return [_with_card(row, card, reason) for card in sorted(own, key=lambda c: c.tag or "")] or [
        _with_card(row, None, reason)
    ]


def _counter(name: str, info: DatasetInfo) -> Callable[[], Cost]:
    """What counts a named model: from the cache if it is registered here, afresh if a library builds it."""
    if "/" not in name:
        return partial(cached_cost, name, info.image, len(info.classes))
    from zoo.create import create_model  # libraries' models alone need it, and it may import them

    return lambda: measure(create_model(name, dataset=info.name), info.image)


def _described(row: Row, arch: Architecture | None) -> Row:
    if arch is None:
        reason = "a library's model, not registered here"
        return replace(row, missing={**row.missing, **dict.fromkeys(("family", "role", "paper", "year"), reason)})
    return replace(row, family=arch.family, role=arch.role, paper=arch.paper, year=arch.year)


def _with_cost(row: Row, count: Callable[[], Cost]) -> Row:
    try:
        cost = count()
    except ImageSizeError as error:
        return replace(row, missing={**row.missing, **dict.fromkeys(COST_COLUMNS, str(error))})
    counts = {column: getattr(cost, column) for column in COST_COLUMNS}
    return replace(row, **counts | {"params": cost.params_used})


def _with_card(row: Row, card: Card | None, reason: str) -> Row:
    if card is None:
        return replace(row, missing={**row.missing, **dict.fromkeys(CARD_COLUMNS, reason)})
    if card.format == PACKED and card.params != row.params and row.params is not None:
        row = _as_cut(row, card)
    return replace(
        row,
        tag=card.tag or None,
        bytes=card.file_bytes,
        correct=card.correct,
        total=card.total,
        top1=card.top1,
        seeds=len(card.seeds),
        top1_mean=card.top1_mean,
        top1_std=card.top1_std,
        missing=row.missing if len(card.seeds) > 1 else {**row.missing, "top1_std": "one training has no spread"},
    )


def _as_cut(row: Row, card: Card) -> Row:
    """The row of a network that was made smaller than the one of its name: its card says what is left."""
    counts: dict[str, Any] = {"params": card.params, "macs": card.macs, "flops": 2 * card.macs}
    others = [column for column in COST_COLUMNS if column not in counts]
    change = "norms were folded in" if card.macs == row.macs else "channels were removed from"
    reason = f"of the whole network only; {change} this one"
    return replace(
        row, **counts | dict.fromkeys(others, None), missing={**row.missing, **dict.fromkeys(others, reason)}
    )


def _with_ratios(row: Row, bases: Mapping[str, Row]) -> Row:
    ratios: dict[str, Any] = {}
    missing = dict(row.missing)
    for column in RATIOS:
        cost, _, baseline = column.partition("_vs_")
        own, base = getattr(row, cost), getattr(bases[baseline], cost)
        if own is None:
            missing[column] = row.missing[cost]
        elif not base:
            missing[column] = f"{baseline} has no {cost} to compare with: {bases[baseline].missing.get(cost, 'none')}"
        else:
            ratios[column] = own / base
    return replace(row, **ratios, missing=missing)


def _with_score(row: Row) -> Row:
    needs = ("top1", "params", "macs")
    absent = next((row.missing[column] for column in needs if getattr(row, column) is None), None)
    if absent is None and all(getattr(row, column) for column in needs):
        return replace(row, netscore=netscore(*(getattr(row, column) for column in needs)))
    return replace(row, missing={**row.missing, "netscore": absent or "NetScore needs values above 0"})


def _ordered(rows: list[Row], column: str) -> list[Row]:
    """Rows sorted by one column, its better end (or with "-" its other end) first; rows without a value come last."""
    name = column.removeprefix("-")
    descending = (name in HIGHER_IS_BETTER) != column.startswith("-")
    having = [row for row in rows if getattr(row, name) is not None]
    lacking = [row for row in rows if getattr(row, name) is None]
    return sorted(having, key=attrgetter(name), reverse=descending) + lacking
