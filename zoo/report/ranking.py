"""Tables of ranked rows: one row a model, or side by side."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from zoo.errors import unknown
from zoo.report.numbers import count_text, exact_text, image_text, percent_text, ratio_text, score_text, size_text
from zoo.report.tables import MISSING, Column, Table, Value

if TYPE_CHECKING:
    from zoo.ranking import Row

Show = Callable[[Any], str]

# column -> (title, text of a value, when to leave it out for want of width: 0 never, the highest first)
_LOOKS: dict[str, tuple[str, Show, int]] = {
    "name": ("model", str, 0),
    "dataset": ("data set", str, 9),
    "image": ("image", image_text, 9),
    "family": ("family", str, 9),
    "role": ("role", str, 9),
    "paper": ("paper", str, 9),
    "year": ("year", str, 9),
    "tag": ("tag", str, 9),
    "params": ("params", count_text, 1),
    "macs": ("MACs", count_text, 1),
    "flops": ("FLOPs", count_text, 8),
    "activations": ("activations", count_text, 8),
    "peak_activation_bytes": ("peak memory", size_text, 8),
    "weight_bytes": ("weights fp32", size_text, 8),
    "flash_bytes": ("flash int8", size_text, 8),
    "bytes": ("file", size_text, 3),
    "top1": ("top-1", percent_text, 1),
    "correct": ("correct", exact_text, 8),
    "total": ("of", exact_text, 8),
    "seeds": ("seeds", str, 8),
    "top1_mean": ("top-1 mean", percent_text, 8),
    "top1_std": ("top-1 std", percent_text, 8),
    "netscore": ("NetScore", score_text, 5),
    "macs_vs_lenet5": ("MACs / LeNet-5", ratio_text, 6),
    "params_vs_lenet5": ("params / LeNet-5", ratio_text, 6),
    "bytes_vs_lenet5": ("file / LeNet-5", ratio_text, 7),
    "macs_vs_vgg16_bn": ("MACs / VGG-16", ratio_text, 6),
    "params_vs_vgg16_bn": ("params / VGG-16", ratio_text, 6),
    "bytes_vs_vgg16_bn": ("file / VGG-16", ratio_text, 7),
    "milliseconds": ("ms an image", lambda ms: f"{ms:.3g}", 4),
    "milliseconds_vs_lenet5": ("time / LeNet-5", ratio_text, 4),
    "pareto_macs": ("front MACs", lambda flag: "yes" if flag else "", 8),
    "pareto_params": ("front params", lambda flag: "yes" if flag else "", 8),
    "pareto_bytes": ("front file", lambda flag: "yes" if flag else "", 8),
    "pareto": ("Pareto", str, 2),
}
_DEFAULT = (
    "name", "params", "macs", "bytes", "milliseconds", "milliseconds_vs_lenet5", "top1", "pareto", "netscore",
    "params_vs_lenet5", "macs_vs_lenet5", "params_vs_vgg16_bn", "macs_vs_vgg16_bn",
)  # fmt: skip
_FRONT_LETTERS = {"macs": "M", "params": "P", "bytes": "F"}
_NOTES = {
    "pareto": "Pareto: no other model here is as accurate with fewer MACs (M), fewer params (P) or a smaller file (F)",
    "netscore": "NetScore: arXiv:1806.05512, in decibels, with parameters in M and MACs in G",
    "macs": "MACs: multiply-accumulates of one image in convolutions, linear layers and matrix products",
    "milliseconds": "ms an image: PyTorch as it is, one thread, one image a call, all models alternating (zoo latency)",
}
_EXACT = frozenset({"params", "macs", "flops", "activations", "bytes"}) | {n for n in _LOOKS if n.endswith("_bytes")}
_TEXT_COLUMNS = {"name", "dataset", "image", "family", "role", "paper", "tag", "pareto"}


def ranking_table(rows: Sequence["Row"], columns: Sequence[str] | None = None, *, whole: bool = False) -> Table:
    """One row a model. columns: which and in what order; by default a choice for reading or, if `whole`, all there are.

    "pareto" gathers the three marks in one; a choice for reading has latency only where something was timed.
    Raises UnknownNameError for any other name that is no column of a row.
    """
    if columns is None and whole:
        columns = [name for name in _LOOKS if name != "pareto"]
    names = columns or [name for name in _DEFAULT if _shown(name, rows)]
    for name in names:
        if name not in _LOOKS:
            raise unknown("column", name, _LOOKS)
    shown = tuple(Column(n, _LOOKS[n][0], 0 if columns else _LOOKS[n][2], n not in _TEXT_COLUMNS) for n in names)
    return Table(
        shown,
        values=tuple(tuple(_value(row, name) for name in names) for row in rows),
        texts=tuple(tuple(_text(row, name) for name in names) for row in rows),
        name="ranking",
        reasons=tuple({**row.missing, **_pareto_reason(row)} for row in rows),
        notes=_NOTES,
    )


def comparison_table(rows: Sequence["Row"]) -> Table:
    """The rows side by side, a column each, exact; in brackets the ratio to the first."""
    labels = [row.label for row in rows]
    titles = [label if labels.count(label) == 1 else f"{label} ({i})" for i, label in enumerate(labels, start=1)]
    left_out = ("name", "tag", "dataset", "pareto")
    names = [name for name in _LOOKS if name not in left_out and "_vs_" not in name and _shown(name, rows)]
    return Table(
        (Column("measure", "measure", right=False), *(Column(title, title) for title in titles)),
        values=tuple((name, *(_value(row, name) for row in rows)) for name in names),
        texts=tuple((_LOOKS[name][0], *(_compared(row, rows[0], name) for row in rows)) for name in names),
        name="comparison",
        title=f"{rows[0].dataset}, one image of {image_text(rows[0].image)}" if rows else "",
        reasons=tuple({t: row.missing.get(n, "") for t, row in zip(titles, rows, strict=True)} for n in names),
        keyed=True,
    )


def _shown(name: str, rows: Sequence["Row"]) -> bool:
    """Whether a column belongs into a table for reading that nobody chose the columns of."""
    return not name.startswith("milliseconds") or any(row.milliseconds is not None for row in rows)


def _value(row: "Row", name: str) -> Value:
    if name != "pareto":
        value: Value = getattr(row, name)
        return value
    if row.top1 is None:
        return None
    return " ".join(cost for cost in _FRONT_LETTERS if getattr(row, f"pareto_{cost}"))


def _text(row: "Row", name: str) -> str:
    value = None if name.startswith("pareto") and row.top1 is None else _value(row, name)
    if value is None:
        return "" if name == "tag" else MISSING
    if name == "name":
        return row.label
    if name == "pareto":
        return "".join(letter for cost, letter in _FRONT_LETTERS.items() if getattr(row, f"pareto_{cost}"))
    return _LOOKS[name][1](value)


def _pareto_reason(row: "Row") -> dict[str, str]:
    return {"pareto": row.missing["top1"]} if "top1" in row.missing else {}


def _compared(row: "Row", first: "Row", name: str) -> str:
    value, base = getattr(row, name), getattr(first, name)
    if value is None:
        return MISSING
    counted = (
        isinstance(value, int) and not isinstance(value, bool) and name not in ("year", "seeds", "correct", "total")
    )
    if not counted:
        return _LOOKS[name][1](value)
    return exact_text(value) + (f" ({ratio_text(value / base)})" if base and row is not first else "")
