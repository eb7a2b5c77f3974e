"""The picture of a ranking: accuracy over one cost, every model labelled, the Pareto front drawn."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import unknown
from zoo.report.numbers import count_text, size_text
from zoo.report.plots import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

    from zoo.ranking import Row

COST_AXES = {  # column -> (axis title, tick text)
    "macs": ("multiply-accumulates of one image (MACs)", count_text),
    "params": ("parameters", count_text),
    "bytes": ("bytes of the weight file", size_text),
}
_UPWARD = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))  # nothing lies beyond a front
_DOWNWARD = ((1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1))
_DISTANCES = (6, 14, 24, 36, 50)  # points from a mark to its label
_MARK = 4  # points from the middle of a mark to its edge
_LINE = 1  # points from the middle of a line to its edge

Box = tuple[float, float, float, float]  # left, bottom, right, top, in pixels


@dataclass(frozen=True)
class Point:
    """One model as it is drawn."""

    label: str
    cost: float
    percent: float
    on_front: bool


def pareto_plot(rows: Sequence["Row"], path: str | Path, *, x: str = "macs") -> int:
    """Draw the rows over the cost `x` (a key of COST_AXES) on a log axis. Returns how many rows are left out.

    Rows without an accuracy, or without that cost, are left out, and the plot says how many. The file carries the
    digest `plot_digest` of what was drawn, so that a stale plot is told without comparing pixels.
    """
    points = _points(rows, x)
    left_out = len(rows) - len(points)
    title, _ = COST_AXES[x]
    with new_figure(path, 9, 6, f"zoo:{plot_digest(rows, x)}") as figure:
        axes = figure.add_subplot()
        axes.set_xlabel(title)
        axes.set_ylabel("top-1 accuracy on the test set (%)")
        if left_out:
            axes.set_title(f"{left_out} of {len(rows)} models not drawn: no weights yet", fontsize=8, loc="right")
        if points:
            _draw(axes, points, x)
            figure.draw_without_rendering()  # settles the layout that the labels are measured in
            _place_labels(axes, points)
    return left_out


def plot_digest(rows: Sequence["Row"], x: str) -> str:
    """SHA-256, in hex, of the points that `pareto_plot` would draw and of how many rows there are."""
    content = [x, len(rows), [[p.label, p.cost, p.percent, p.on_front] for p in _points(rows, x)]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _points(rows: Sequence["Row"], x: str) -> list[Point]:
    if x not in COST_AXES:
        raise unknown("axis", x, COST_AXES)
    whole = [(row, cost) for row in rows if row.top1 is not None and (cost := getattr(row, x))]
    points = [Point(row.label, cost, 100 * (row.top1 or 0), getattr(row, f"pareto_{x}")) for row, cost in whole]
    return sorted(points, key=lambda p: (p.cost, p.percent, p.label))


def _draw(axes: "Axes", points: Sequence[Point], x: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    front = [p for p in points if p.on_front]
    rest = [p for p in points if not p.on_front]
    axes.set_xscale("log")
    axes.scatter([p.cost for p in rest], [p.percent for p in rest], s=22, color="0.55", label="beaten by another")
    costs, percents = [p.cost for p in front], [p.percent for p in front]
    axes.step(costs, percents, where="post", color="tab:blue", marker="o", markersize=5, label="Pareto front")
    axes.margins(0.12, 0.1)
    tick_text = COST_AXES[x][1]
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: re.sub(r"\.0+(?= )", "", tick_text(value))))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)  # above, where no mark can be


def _place_labels(axes: "Axes", points: Sequence[Point]) -> None:
    """Write each label at the first free place around its mark, or where it covers least; far ones get a line."""
    scale = axes.figure.dpi / 72
    marks = [tuple(axes.transData.transform((p.cost, p.percent))) for p in points]
    edge = _MARK * scale
    taken: list[Box] = [(x - edge, y - edge, x + edge, y + edge) for x, y in marks]
    taken += _steps([mark for mark, point in zip(marks, points, strict=True) if point.on_front], _LINE * scale)
    frame = _box(axes.get_window_extent())
    for point, mark in sorted(zip(points, marks, strict=True), key=lambda pair: not pair[0].on_front):
        place = (point.cost, point.percent)
        text = axes.annotate(point.label, place, (0, 0), textcoords="offset points", fontsize=8, va="bottom")
        extent = text.get_window_extent()
        size = extent.width + 2 * scale, extent.height
        places = _places(mark, size, scale, _UPWARD if point.on_front else _DOWNWARD)
        box, distance = min(places, key=lambda place: (_covered(place[0], taken, frame), place[1]))
        taken.append(box)
        text.set_position(((box[0] - mark[0]) / scale, (box[1] - mark[1]) / scale))
        if point.on_front:
            text.set_color("tab:blue")
        if distance > _DISTANCES[0]:
            near = min(max(mark[0], box[0]), box[2]), min(max(mark[1], box[1]), box[3])
            start = axes.transData.inverted().transform(near)
            line = axes.plot([start[0], point.cost], [start[1], point.percent], color="0.6", linewidth=0.6, zorder=0)
            line[0].set_in_layout(False)


def _steps(corners: Sequence[Sequence[float]], half: float) -> list[Box]:
    """The boxes of the front's level and upright strokes, from one corner's level to the next corner."""
    boxes: list[Box] = []
    for (x, y), (next_x, next_y) in pairwise(corners):
        boxes.append((x, y - half, next_x, y + half))
        boxes.append((next_x - half, y, next_x + half, next_y))
    return boxes


def _places(
    mark: Sequence[float], size: tuple[float, float], scale: float, directions: Sequence[tuple[int, int]]
) -> Iterator[tuple[Box, float]]:
    """Boxes of a label's size around a mark, with their distance in points, the nearest first."""
    width, height = size
    for distance in _DISTANCES:
        for across, up in directions:
            gap = distance * scale * (0.7 if across and up else 1)
            left = mark[0] + across * gap - (width if across < 0 else width / 2 if not across else 0)
            bottom = mark[1] + up * gap - (height if up < 0 else height / 2 if not up else 0)
            yield (left, bottom, left + width, bottom + height), distance


def _box(extent: "Bbox") -> Box:
    return extent.x0, extent.y0, extent.x1, extent.y1


def _covered(box: Box, taken: Sequence[Box], frame: Box) -> float:
    """Pixels of `box` that lie on what is taken or outside the frame."""
    outside = (box[2] - box[0]) * (box[3] - box[1]) - _overlap(box, frame)
    return round(outside + sum(_overlap(box, other) for other in taken), 3)


def _overlap(a: Box, b: Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
