"""The picture of an experiment: measurements as lines or marks, in panels that share the upright axis."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.report.plots import new_figure

if TYPE_CHECKING:
    from matplotlib.axis import Axis

_LOOK = 1  # raised when the same points are drawn otherwise, so that older plots count as stale
_WIDTH, _HEIGHT = 4.6, 3.8  # inches a panel
_IN_A_ROW = 3  # panels, at most


@dataclass(frozen=True)
class Line:
    """Points (x, y) under one label. joined: whether a stroke goes from each to the next."""

    label: str
    points: tuple[tuple[float, float], ...]
    joined: bool = True


@dataclass(frozen=True)
class Panel:
    """One pair of axes. Lines of one label have one colour in all panels."""

    lines: tuple[Line, ...]
    x: str
    title: str = ""
    log_x: bool = False


@dataclass(frozen=True)
class Picture:
    """Panels, three in a row, and what goes up: `y` is the title of that axis."""

    panels: tuple[Panel, ...]
    y: str
    log_y: bool = False

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of what is drawn."""
        return hashlib.sha256(json.dumps([_LOOK, asdict(self)]).encode()).hexdigest()


def lines_plot(picture: Picture, path: str | Path) -> None:
    """Draw a picture. The file carries its digest, so that a stale plot is told without comparing pixels."""
    labels = list(dict.fromkeys(line.label for panel in picture.panels for line in panel.lines))
    columns, rows = min(len(picture.panels), _IN_A_ROW), math.ceil(len(picture.panels) / _IN_A_ROW)
    with new_figure(path, _WIDTH * columns + 0.4, _HEIGHT * rows, f"zoo:{picture.digest}") as figure:
        first = None
        for place, panel in enumerate(picture.panels, start=1):
            axes = figure.add_subplot(rows, columns, place, sharey=first)
            first = first or axes
            if place % columns == 1 % columns:
                axes.set_ylabel(picture.y)
            axes.set_title(panel.title, fontsize=9)
            axes.set_xlabel(panel.x)
            for line in panel.lines:
                axes.plot(
                    *zip(*line.points, strict=True),
                    marker="o",
                    markersize=4,
                    label=line.label,
                    linestyle="-" if line.joined else "",
                    color=f"C{labels.index(line.label) % 10}",
                )
            if panel.log_x:
                axes.set_xscale("log")
                _plain_ticks(axes.xaxis, [x for line in panel.lines for x, _ in line.points])
            axes.legend(fontsize=8)
        if first is not None and picture.log_y:
            first.set_yscale("log")
            heights = [y for panel in picture.panels for line in panel.lines for _, y in line.points]
            _plain_ticks(first.yaxis, heights)


def _plain_ticks(axis: "Axis", values: Sequence[float]) -> None:
    """Numbers without exponents, enough of them where the values lie close together; far apart, powers of ten."""
    if max(values) > 1e6 * min(values):
        return
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    narrow = max(values) < 30 * min(values)
    axis.set_major_locator(LogLocator(subs=(1, 1.2, 1.5, 2, 3, 5, 7) if narrow else (1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(NullFormatter())
