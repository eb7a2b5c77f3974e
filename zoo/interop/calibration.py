"""From a network and training images to whole numbers: which range of each value gets the 256 codes.

Three ways to choose a range are tried (arXiv:2004.09602, section 5.2, names two of them): all that was seen, all but a
share of the largest, and the range whose rounding errors have the least mean square. The one is taken whose logits
come nearest to the network's own on training images that were not calibrated on. Test images play no part.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zoo.cost.subject import blank_image, image_fits
from zoo.data import Dataset, normalize
from zoo.errors import ExportError
from zoo.interop.deployable import deployable
from zoo.interop.operators import (
    CLAMPS,
    FUNCTIONS,
    Add,
    AveragePool,
    Concat,
    Convolution,
    Flatten,
    Function,
    GlobalAverage,
    Graph,
    Linear,
    MaxPool,
    Node,
    PadChannels,
    Subsample,
)
from zoo.interop.program import read_graph
from zoo.interop.quantized import Grid, QuantizedNetwork, Rescale, Step, Value, Weights, add_rescale, rescale
from zoo.registry import Image

TIED = (MaxPool, AveragePool, Concat, Flatten, Subsample, PadChannels)  # codes go through as they are
ENDS = (Convolution, Linear, GlobalAverage)  # their sums are fine enough for logits of 16 bits
LARGEST_WEIGHT = 127
LARGEST_LOGIT = 2**15 - 1
HEADROOM = 2.0  # of the logits over the largest that calibration met
BINS = 2048
BATCH = 100
SHRINKAGE = tuple(1 - step / 50 for step in range(40))  # parts of a range that the least square is looked for in
LARGEST_BIAS = 2**30
TINIEST_SCALE = 1e-12


@dataclass(frozen=True)
class Calibration:
    """images: training images to measure ranges on; others: further ones, to choose the method on."""

    images: int = 500
    others: int = 300
    methods: tuple[str, ...] = ("largest", "99.99 %", "least square")
    seed: int = 0


@dataclass(frozen=True)
class Choice:
    """The method taken, and for each method the mean square of the logits' errors on the images to choose on."""

    method: str
    errors: Mapping[str, float]


def quantize(
    model: nn.Module, train: Dataset, calibration: Calibration | None = None
) -> tuple[QuantizedNetwork, Choice]:
    """The network in whole numbers; the model stays as it is.

    train: the training images it learnt from.
    Raises ExportError naming a layer that cannot be expressed, or saying in what the images do not fit.
    """
    plan = calibration or Calibration()
    _check_fit(model, train)
    network = deployable(model, train.image)
    graph = read_graph(network, train.image)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(plan.seed))
    measured, held_out = train.subset(order[: plan.images]), train.subset(order[plan.images :][: plan.others])
    if len(held_out) == 0:
        raise ExportError(
            f"{train.name} has {len(train)} training images; calibration takes {plan.images}, and some beside them."
        )
    statistics = measure_ranges(graph, measured)
    images_NCHW = normalize(held_out.images, held_out.mean, held_out.std)
    with torch.no_grad():
        wanted_NK = torch.cat([network(batch) for batch in images_NCHW.split(BATCH)])
    found: dict[str, tuple[float, QuantizedNetwork]] = {}
    for method in plan.methods:
        candidate = in_integers(graph, {name: seen.range(method) for name, seen in statistics.items()}, train.image)
        logits_NK = torch.cat([candidate(batch) for batch in images_NCHW.split(BATCH)])
        found[method] = (float((logits_NK - wanted_NK).double().square().mean()), candidate)
    best = min(found, key=lambda method: found[method][0])
    return found[best][1], Choice(best, {method: error for method, (error, _) in found.items()})


def _check_fit(model: nn.Module, train: Dataset) -> None:
    """Raise ExportError for images of other channels, size or number of classes than the network's."""
    made = getattr(model, "zoo_origin", None)
    if made is not None and made.image != train.image:
        raise ExportError(
            f"the images of {train.name} are {_by(train.image)}, the network takes {_by(made.image)}; "
            "calibrate with the data set that it was trained on."
        )
    with torch.no_grad(), image_fits(model, train.image):
        classes = model(blank_image(model, train.image)).shape[1]
    if classes != train.num_classes:
        raise ExportError(
            f"{train.name} has {train.num_classes} classes, the network {classes}; "
            "calibrate with the data set that it was trained on."
        )


def _by(image: Image) -> str:
    return " x ".join(map(str, image))


class Seen:
    """What values a tensor took: the smallest, the largest, and a histogram between the two."""

    def __init__(self) -> None:
        self.low, self.high = float("inf"), float("-inf")
        self.counts = torch.zeros(BINS, dtype=torch.float64)

    def widen(self, values: Tensor) -> None:
        """Take in the limits of some values."""
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))

    def count(self, values: Tensor) -> None:
        """Take in some values, of which all have been widened to."""
        if self.high > self.low:
            self.counts += torch.histc(values.float(), BINS, self.low, self.high).double()

    def range(self, method: str) -> tuple[float, float]:
        """The range that a method of `Calibration.methods` chooses."""
        if method == "largest" or self.high <= self.low:
            return self.low, self.high
        if method == "least square":
            return self._least_square()
        share = float(method.removesuffix("%")) / 100
        reached = self.counts.cumsum(0) / self.counts.sum()
        edges = torch.linspace(self.low, self.high, BINS + 1, dtype=torch.float64)
        above = int((reached < share).sum())
        below = int((reached <= 1 - share).sum()) if self.low < 0 else 0
        return float(edges[below]), float(edges[min(above + 1, BINS)])

    def _least_square(self) -> tuple[float, float]:
        """Both limits drawn in by the same part, so that rounding inside and cutting off outside err least."""
        width = (self.high - self.low) / BINS
        centres = self.low + (torch.arange(BINS, dtype=torch.float64) + 0.5) * width

        def error(part: float) -> float:
            grid = grid_of(self.low * part, self.high * part)
            return float(((grid.values(grid.codes(centres)) - centres).square() * self.counts).sum())

        part = min(SHRINKAGE, key=error)
        return self.low * part, self.high * part


@torch.no_grad()
def measure_ranges(graph: Graph, data: Dataset) -> dict[str, Seen]:
    """What every value of a graph was on some images. Values that share their codes share what was seen."""
    shared = _ties(graph)
    seen = {name: Seen() for name in set(shared.values())}
    batches = [normalize(batch, data.mean, data.std) for batch in data.images.split(BATCH)]
    for take in (Seen.widen, Seen.count):
        for batch_NCHW in batches:
            for name, values in graph.values(batch_NCHW):
                take(seen[shared[name]], values)
    return {name: seen[shared[name]] for name in shared}


def in_integers(graph: Graph, ranges: Mapping[str, tuple[float, float]], image: Image) -> QuantizedNetwork:
    """The network whose values have the 256 codes between the limits given for each."""
    grids = {name: grid_of(*limits) for name, limits in ranges.items()}
    makers = {node.output: node for node in graph.nodes}
    end = graph.output
    wide = {end}
    while isinstance(makers[end].operator, Flatten):
        end = makers[end].inputs[0]
        wide.add(end)
    if isinstance(makers[end].operator, ENDS):
        largest = max(map(abs, ranges[graph.output])) or 1.0
        logits = Grid(_float32(HEADROOM * largest / LARGEST_LOGIT), 0, -LARGEST_LOGIT - 1, LARGEST_LOGIT)
        grids |= dict.fromkeys(wide, logits)
    values = {name: Value(name, graph.shapes[name], grid) for name, grid in grids.items()}
    steps = tuple(_step(node, tuple(values[name] for name in node.inputs), values[node.output]) for node in graph.nodes)
    return QuantizedNetwork(image, values[graph.input], values[graph.output], steps)


def grid_of(low: float, high: float) -> Grid:
    """256 codes between two limits, drawn apart to enclose zero, which has a code of its own."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = _float32(max((high - low) / 255, TINIEST_SCALE))
    return Grid(scale, max(0, min(255, round(-low / scale))))


def _step(node: Node, inputs: tuple[Value, ...], output: Value) -> Step:
    operator, grid = node.operator, output.grid
    weights: Weights | None = None
    rescales: tuple[Rescale, ...] = ()
    table: Tensor | None = None
    source = inputs[0].grid
    if isinstance(operator, Convolution | Linear):
        weights = _weights(node, source.scale)
        rescales = (rescale(weights.scales.double() * source.scale / grid.scale),)
    elif isinstance(operator, GlobalAverage):
        area = inputs[0].shape[1] * inputs[0].shape[2]
        rescales = (rescale(torch.tensor([source.scale / (area * grid.scale)], dtype=torch.float64)),)
    elif isinstance(operator, Add):
        rescales = tuple(add_rescale(value.grid.scale / grid.scale) for value in inputs)
    elif isinstance(operator, Function):
        codes = torch.arange(256)
        table = grid.codes(FUNCTIONS[operator.name](source.values(codes))).to(torch.uint8)
    return Step(operator, node.layer, inputs, output, _clamp(node, grid), weights, rescales, table)


def _clamp(node: Node, grid: Grid) -> tuple[int, int]:
    """Lowest and highest code that the node's clamp lets through."""
    if node.clamp is None:
        return grid.low, grid.high
    low, high = (min(limit / grid.scale, float(grid.high)) for limit in CLAMPS[node.clamp])
    return max(grid.low, round(low) + grid.zero), min(grid.high, round(high) + grid.zero)


def _weights(node: Node, source_scale: float) -> Weights:
    """int8 weights, a scale a filter: the largest magnitude over 127, or larger where the bias would not fit."""
    weight = node.weight
    assert weight is not None
    bias = torch.zeros(len(weight)) if node.bias is None else node.bias
    scales = weight.abs().flatten(1).amax(1) / LARGEST_WEIGHT
    scales = torch.where(scales > 0, scales, torch.ones_like(scales))
    scales = torch.maximum(scales, bias.abs() / (source_scale * LARGEST_BIAS))
    codes = torch.round(weight / scales.reshape(-1, *[1] * (weight.ndim - 1))).clamp(-LARGEST_WEIGHT, LARGEST_WEIGHT)
    steps = scales.double() * source_scale
    return Weights(codes.to(torch.int8), scales, torch.round(bias.double() / steps).to(torch.int32))


def _ties(graph: Graph) -> dict[str, str]:
    """For each value the name of one that it shares its codes with, its own if with none."""
    parents = {name: name for name in graph.shapes}

    def find(name: str) -> str:
        while parents[name] != name:
            name = parents[name]
        return name

    for node in graph.nodes:
        if isinstance(node.operator, TIED):
            for name in node.inputs:
                parents[find(name)] = find(node.output)
    used: Sequence[str] = [graph.input, *(node.output for node in graph.nodes)]
    return {name: find(name) for name in used}


def _float32(number: float) -> float:
    """The nearest number that float32 has, for files keep scales in that."""
    return float(torch.tensor(number, dtype=torch.float32))
