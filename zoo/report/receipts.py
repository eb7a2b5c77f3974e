"""Tables of what compression did: a line a stage, and a line a tensor."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zoo.report.numbers import count_text, exact_text, percent_text, size_text
from zoo.report.tables import MISSING, Column, Table, Value

if TYPE_CHECKING:
    from zoo.compression import Receipt


def receipts_table(receipts: Sequence["Receipt"]) -> Table:
    """One row a stage: the three sizes (dense, coded, values left), the accuracy on held-out images, the time."""
    columns = (
        Column("stage", "stage", right=False),
        Column("dense_bytes", "dense fp32", 1),
        Column("file_bytes", "file"),
        Column("ratio", "dense / file"),
        Column("params", "params", 1),
        Column("nonzero", "non-zero", 2),
        Column("bits_before", "bits before", 5),
        Column("bits_after", "bits after", 4),
        Column("top1_before", "held-out before", 3),
        Column("top1_after", "held-out after"),
        Column("milliseconds", "ms an image", 3),
        Column("seconds", "seconds", 4),
        Column("untreated", "not treated", 6),
    )
    values: list[tuple[Value, ...]] = []
    texts: list[tuple[str, ...]] = []
    first = receipts[0].dense_bytes if receipts else 0
    for r in receipts:
        name = r.stage.partition("(")[0]
        ratio = first / r.file_bytes
        tops = (r.top1_before, r.top1_after)
        bits = (r.bits_before, r.bits_after)
        times = (r.milliseconds, r.seconds)
        values.append(
            (r.stage, r.dense_bytes, r.file_bytes, ratio, r.params, r.nonzero, *bits, *tops, *times, len(r.untreated))
        )
        sizes = size_text(r.dense_bytes), size_text(r.file_bytes), f"{ratio:.1f}x"
        counts = count_text(r.params), count_text(r.nonzero), *map(count_text, bits)
        shares = (MISSING if top is None else percent_text(top) for top in tops)
        texts.append(
            (name, *sizes, *counts, *shares, f"{r.milliseconds:.2f}", f"{r.seconds:.0f}", str(len(r.untreated)))
        )
    unscored = {"top1_before": "no images were held out", "top1_after": "no images were held out"}
    reasons = tuple({} if r.top1_after is not None else unscored for r in receipts)
    return Table(columns, tuple(values), tuple(texts), name="receipts", title="Receipts", reasons=reasons)


def layers_table(receipt: "Receipt") -> Table:
    """One row a tensor of the file: how it is stored, what it takes, and what the stages say of it."""
    columns = (
        Column("name", "tensor", right=False),
        Column("values", "values"),
        Column("density", "density"),
        Column("form", "form", right=False),
        Column("coder", "coder", right=False),
        Column("alphabet", "codes", 2),
        Column("file_bytes", "bytes"),
        Column("bits_a_value", "bits a value", 1),
    )
    values: list[tuple[Value, ...]] = []
    texts: list[tuple[str, ...]] = []
    for layer in receipt.layers:
        values.append(
            (layer.name, layer.values, layer.density, layer.form, layer.coder, layer.alphabet, layer.file_bytes,
             layer.bits_a_value)
        )  # fmt: skip
        codes = str(layer.alphabet) if layer.alphabet else MISSING
        sizes = exact_text(layer.file_bytes), f"{layer.bits_a_value:.2f}"
        shown = percent_text(layer.density)
        texts.append((layer.name, exact_text(layer.values), shown, layer.form, layer.coder or MISSING, codes, *sizes))
    reasons = tuple(
        {} if layer.alphabet else {"alphabet": "its values are stored as they are"} for layer in receipt.layers
    )
    return Table(columns, tuple(values), tuple(texts), name="layers", title="Layers", reasons=reasons)
