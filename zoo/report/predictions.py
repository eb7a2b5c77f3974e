"""Tables of predictions: for people an image a line, for programs a line an image and model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zoo.report.numbers import percent_text
from zoo.report.tables import MISSING, Column, Table, Value

if TYPE_CHECKING:
    from zoo.prediction import Prediction


def predictions_table(predictions: Sequence["Prediction"], models: Sequence[str], *, whole: bool = False) -> Table:
    """What models, by name and in the order of the answers, say of images.

    whole: for programs, a row an image and model; otherwise models stand side by side.
    """
    named = max((len(answer) for prediction in predictions for answer in prediction.answers), default=1)
    return _long(predictions, models, named) if whole else _wide(predictions, models, named)


def _long(predictions: Sequence["Prediction"], models: Sequence[str], top: int) -> Table:
    names = [f"{what}_{rank}" for rank in range(1, top + 1) for what in ("class", "probability")]
    values: list[tuple[Value, ...]] = []
    reasons: list[dict[str, str]] = []
    for prediction in predictions:
        for model, answer in zip(models, prediction.answers or ((),) * len(models), strict=True):
            cells = [cell for guess in answer for cell in guess]
            values.append((prediction.image, model, *cells, *(None for _ in names[len(cells) :])))
            fewer = f"{model} has {len(answer)} classes"
            reasons.append(dict.fromkeys(names[len(cells) :], prediction.fault or fewer))
    return Table(
        tuple(Column(name, name.replace("_", " "), right=False) for name in ("image", "model", *names)),
        tuple(values),
        tuple(tuple(_text(value) for value in row) for row in values),
        name="predictions",
        reasons=tuple(reasons),
    )


def _wide(predictions: Sequence["Prediction"], models: Sequence[str], top: int) -> Table:
    columns = [Column("image", "image", right=False)]
    for model in models:
        columns += [
            Column(f"{model}_{rank}", model if rank == 1 else _ordinal(rank), rank - 1, right=False)
            for rank in range(1, top + 1)
        ]
    texts = []
    for prediction in predictions:
        cells: list[str] = [prediction.image]
        for answer in prediction.answers or ((),) * len(models):
            shown = [f"{guess.label} {percent_text(guess.probability)}" for guess in answer]
            cells += shown + [MISSING] * (top - len(shown))
        texts.append(tuple(cells))
    return Table(tuple(columns), tuple(texts), tuple(texts), name="predictions")


def _text(value: Value) -> str:
    if value is None:
        return MISSING
    return percent_text(value) if isinstance(value, float) else str(value)


def _ordinal(rank: int) -> str:
    return {2: "2nd", 3: "3rd"}.get(rank, f"{rank}th")
