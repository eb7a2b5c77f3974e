"""Plots, each written whole to an .svg or .png file. matplotlib is imported when one is asked for.

All raise MissingPackageError where matplotlib is not installed, and ZooError for any other ending of the file's name.
"""

import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import MissingPackageError, ZooError
from zoo.files import write_atomically
from zoo.report.numbers import percent_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

_STYLE: Any = {"svg.hashsalt": "zoo", "svg.fonttype": "none", "font.size": 9.0, "axes.grid": True, "grid.alpha": 0.3}


@contextmanager
def new_figure(path: str | Path, width: float, height: float, description: str | None = None) -> Iterator["Figure"]:
    """A figure of so many inches, written to the path when the block ends without an exception.

    description: kept in the file's metadata, which hold no date, so that the same numbers give the same file.
    """
    ending = Path(path).suffix.lower().removeprefix(".")
    if ending not in ("svg", "png"):
        raise ZooError(f"a plot cannot be written as {Path(path).name!r}; let its name end in .svg or .png.")
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingPackageError("plots need matplotlib: `pip install matplotlib` and run this again.") from None
    metadata = {"Date": None, "Creator": None} if ending == "svg" else {"Software": None}
    file = io.BytesIO()
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a class name in a script that the font lacks
        figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        figure.savefig(file, format=ending, metadata=metadata | ({"Description": description} if description else {}))
    write_atomically(path, file.getvalue())


def curves_plot(history: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Losses on the left and accuracies on the right over epochs, from one mapping an epoch.

    Every number whose key ends in "loss" or "top1" (a share) becomes a line over the epochs that have it.
    """
    with new_figure(path, 9, 3.6) as figure:
        for place, (ending, scale, title) in enumerate((("loss", 1, "loss"), ("top1", 100, "accuracy (%)")), start=1):
            axes = figure.add_subplot(1, 2, place)
            axes.set_xlabel("epoch")
            axes.set_ylabel(title)
            known = dict.fromkeys(key for entry in history for key, value in entry.items() if value is not None)
            keys = [key for key in known if key.endswith(ending)]
            for key in keys:
                points = [(entry["epoch"], scale * entry[key]) for entry in history if entry.get(key) is not None]
                axes.plot(*zip(*points, strict=True), marker=".", label=key.replace("_", " "))
            if keys:
                axes.legend()


def confusion_plot(confusion: "Tensor", classes: Sequence[str], path: str | Path) -> None:
    """Counts [K, K], true class down and predicted class across, shaded by their share of the true class."""
    counts = confusion.tolist()
    shares = [[n / max(1, sum(row)) for n in row] for row in counts]
    side = min(16.0, 2.5 + 0.5 * len(classes))
    with new_figure(path, side, side) as figure:
        axes = figure.add_subplot()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.grid(False)
        axes.set_xticks(range(len(classes)), classes, rotation=90)
        axes.set_yticks(range(len(classes)), classes)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        if len(classes) <= 20:
            for i, row in enumerate(counts):
                for j, n in enumerate(row):
                    colour = "white" if shares[i][j] > 0.5 else "0.2"
                    axes.text(j, i, str(n), ha="center", va="center", fontsize=7, color=colour)


def mistakes_sheet(
    images: "Tensor",
    true: "Tensor",
    predicted: "Tensor",
    probabilities: "Tensor",
    classes: Sequence[str],
    path: str | Path,
    *,
    most: int = 36,
) -> None:
    """The wrongly classified images of largest loss: uint8 [N, C, H, W], labels [N] twice, probabilities [N, K]."""
    wrong = (true != predicted).nonzero().flatten()
    belief = probabilities[wrong, true[wrong]].float()
    rows = wrong[belief.argsort(stable=True)[:most]].tolist()
    columns = min(6, max(1, len(rows)))
    lines = max(1, math.ceil(len(rows) / columns))
    with new_figure(path, 1.7 * columns + 0.4, 2.0 * lines + 0.4) as figure:
        figure.suptitle(f"{len(rows)} worst of {len(wrong)} mistakes in {len(true)}: true > predicted", fontsize=8)
        for place, row in enumerate(rows, start=1):
            axes = figure.add_subplot(lines, columns, place)
            axes.axis("off")
            pixels = images[row].permute(1, 2, 0).cpu().numpy()
            grey = pixels.shape[2] == 1
            axes.imshow(pixels[:, :, 0] if grey else pixels, cmap="gray" if grey else None, vmin=0, vmax=255)
            certainty = percent_text(float(probabilities[row, predicted[row]]))
            names = f"{classes[int(true[row])]} > {classes[int(predicted[row])]}"
            axes.set_title(f"#{row}\n{names}\n{certainty}", fontsize=7)
