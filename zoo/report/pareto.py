"""The picture of a ranking: accuracy over one cost, every model labelled, the Pareto front drawn.

The upright axis is the error on a log scale, ticked in accuracy: 89, 93 and 96 % stand as far apart as they are worth.
"""

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
_LEAST_ERROR = 0.01  # per cent: one image of ten thousand
_COLOURS = {"front": "tab:blue", "beaten": "0.25", "open": "tab:red", "published": "tab:orange"}  # in order of placing
_LOOK = 2  # raised when the same points are drawn otherwise, so that older plots count as stale

Box = tuple[float, float, float, float]  # left, bottom, right, top, in pixels


@dataclass(frozen=True)
class Reference:
    """A figure published elsewhere, to be drawn beside ours.

    top1: a share, single view. params, macs: None where they are not known. open_weights: whether a checkpoint under an
    open licence can be had. source: where the figure is from.
    """

    name: str
    dataset: str
    top1: float
    params: int | None
    macs: int | None
    open_weights: bool
    source: str


@dataclass(frozen=True)
class Point:
    """One model as it is drawn; kind: "front", "beaten", "open" or "published"."""

    label: str
    cost: float
    percent: float
    kind: str

    @property
    def error(self) -> float:
        """Percent of the images that are wrong, as drawn: a log axis has no place for none."""
        return max(100 - self.percent, _LEAST_ERROR)


def pareto_plot(
    rows: Sequence["Row"], path: str | Path, *, x: str = "macs", references: Sequence[Reference] = ()
) -> int:
    """Draw the rows over the cost `x` (a key of COST_AXES) on a log axis. Returns how many rows are left out.

    Rows without an accuracy, or without that cost, are left out, and the plot says how many. references: figures of the
    same data set to draw beside them, where that cost is known; they have no part in the front. The file carries the
    digest `plot_digest` of what was drawn, so that a stale plot is told without comparing pixels.
    """
    points = _points(rows, x)
    left_out = len(rows) - len(points)
    others = _published(references, x)
    title, _ = COST_AXES[x]
    with new_figure(path, 9, 7, f"zoo:{plot_digest(rows, x, references)}") as figure:
        axes = figure.add_subplot()
        axes.set_xlabel(title)
        axes.set_ylabel("top-1 accuracy on the test set (%)")
        if left_out:
            axes.set_title(f"{left_out} of {len(rows)} models not drawn: no weights yet", fontsize=8, loc="right")
        if points or others:
            _draw(axes, points, others, x)
            figure.draw_without_rendering()  # settles the layout that the labels are measured in
            _place_labels(axes, [*points, *others])
    return left_out


def plot_digest(rows: Sequence["Row"], x: str, references: Sequence[Reference] = ()) -> str:
    """SHA-256, in hex, of the points that `pareto_plot` would draw and of how many rows there are."""
    points = [*_points(rows, x), *_published(references, x)]
    content = [_LOOK, x, len(rows), [[p.label, p.cost, p.percent, p.kind] for p in points]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _points(rows: Sequence["Row"], x: str) -> list[Point]:
    if x not in COST_AXES:
        raise unknown("axis", x, COST_AXES)
    whole = [(row, cost) for row in rows if row.top1 is not None and (cost := getattr(row, x))]
    kind = {True: "front", False: "beaten"}
    return _in_order([Point(r.label, cost, 100 * (r.top1 or 0), kind[getattr(r, f"pareto_{x}")]) for r, cost in whole])


def _published(references: Sequence[Reference], x: str) -> list[Point]:
    """Those whose cost is known; the bytes of a file never are."""
    known = [(r, cost) for r in references if (cost := getattr(r, x, None))]
    return _in_order(
        [Point(r.name, cost, 100 * r.top1, "open" if r.open_weights else "published") for r, cost in known]
    )


def _in_order(points: list[Point]) -> list[Point]:
    return sorted(points, key=lambda p: (p.cost, p.percent, p.label))


def _draw(axes: "Axes", points: Sequence[Point], others: Sequence[Point], x: str) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

    axes.set_xscale("log")
    axes.set_yscale("log")
    for kind, marker, words in (
        ("open", "s", "published elsewhere, weights openly licensed"),
        ("published", "D", "published elsewhere"),
    ):
        group = [p for p in others if p.kind == kind]
        if group:
            costs, errors = [p.cost for p in group], [p.error for p in group]
            axes.scatter(costs, errors, s=20, marker=marker, facecolors="none", edgecolors=_COLOURS[kind], label=words)
    rest = [p for p in points if p.kind == "beaten"]
    if rest:
        axes.scatter([p.cost for p in rest], [p.error for p in rest], s=22, color="0.55", label="beaten by another")
    front = [p for p in points if p.kind == "front"]
    costs, errors = [p.cost for p in front], [p.error for p in front]
    axes.step(costs, errors, where="post", color=_COLOURS["front"], marker="o", markersize=5, label="Pareto front")
    axes.margins(0.12, 0.08)
    tick_text = COST_AXES[x][1]
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: re.sub(r"\.0+(?= )", "", tick_text(value))))
    axes.xaxis.set_minor_formatter(NullFormatter())
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(FixedLocator(_error_ticks(low, high)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda error, _: f"{100 - error:.5g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(high, low)  # the fewest errors on top
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)  # above, where no mark can be


def _error_ticks(low: float, high: float) -> list[float]:
    """Errors between two, in per cent: of one digit, or of two where there are not three of those."""
    for digits in (range(10, 100, 10), range(10, 100)):
        errors = (round(digit * 10.0**power, 6) for power in range(-3, 2) for digit in digits)
        found = [error for error in errors if low <= error <= high]
        if len(found) >= 3:
            break
    return found


def _place_labels(axes: "Axes", points: Sequence[Point]) -> None:
    """Write each label at the first free place around its mark, or where it covers least; far ones get a line."""
    scale = axes.figure.dpi / 72
    marks = [tuple(axes.transData.transform((p.cost, p.error))) for p in points]
    edge = _MARK * scale
    taken: list[Box] = [(x - edge, y - edge, x + edge, y + edge) for x, y in marks]
    taken += _steps([mark for mark, point in zip(marks, points, strict=True) if point.kind == "front"], _LINE * scale)
    frame = _box(axes.get_window_extent())
    for point, mark in sorted(zip(points, marks, strict=True), key=lambda pair: list(_COLOURS).index(pair[0].kind)):
        place, colour = (point.cost, point.error), _COLOURS[point.kind]
        fontsize = 8 if point.kind in ("front", "beaten") else 7
        text = axes.annotate(
            point.label, place, (0, 0), textcoords="offset points", fontsize=fontsize, va="bottom", color=colour
        )
        extent = text.get_window_extent()
        size = extent.width + 2 * scale, extent.height
        places = _places(mark, size, scale, _UPWARD if point.kind == "front" else _DOWNWARD)
        box, distance = min(places, key=lambda place: (_covered(place[0], taken, frame), place[1]))
        taken.append(box)
        text.set_position(((box[0] - mark[0]) / scale, (box[1] - mark[1]) / scale))
        if distance > _DISTANCES[0]:
            near = min(max(mark[0], box[0]), box[2]), min(max(mark[1], box[1]), box[3])
            start = axes.transData.inverted().transform(near)
            line = axes.plot([start[0], point.cost], [start[1], point.error], color="0.6", linewidth=0.6, zorder=0)
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
