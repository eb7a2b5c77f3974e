"""Which channels go: the least important of each family, as many as ratio, rounding and floor say."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from torch import nn

from zoo.compression.structured.graph import Family, Graph
from zoo.compression.structured.labels import FROZEN

STEPS = 12  # of the search for a budget: shares of channels in 4096ths


@dataclass(frozen=True)
class Size:
    """Multiply-accumulates of one image in the layers that can be cut, and parameters of the whole network."""

    macs: int
    params: int


def size_without(model: nn.Module, graph: Graph, removed: Collection[int]) -> Size:
    """The size that a network would have; counted from the graph, nothing is built."""
    params = sum(p.numel() for p in model.parameters())
    macs = 0
    for name, layer in graph.smaller(removed).items():
        before = graph.layers[name]
        macs += layer.macs
        outputs, all_outputs = len(layer.outputs), len(before.outputs)
        inputs, all_inputs = len(layer.inputs), len(before.inputs)
        alone = layer.kind in ("depthwise", "norm")
        for parameter in model.get_submodule(name).parameters(recurse=False):
            vector = alone or parameter.dim() == 1
            kept, whole = (outputs, all_outputs) if vector else (outputs * inputs, all_outputs * all_inputs)
            params -= parameter.numel() - parameter.numel() * kept // whole
    return Size(macs, params)


@dataclass(frozen=True)
class Chooser:
    """Lowest scores first. multiple_of, min_channels: of the channels that each layer keeps of a family.

    Families of which some class has no score are left alone.
    """

    graph: Graph
    scores: Mapping[int, float]
    multiple_of: int
    min_channels: int
    comparable: bool

    @property
    def families(self) -> list[Family]:
        """Those that can be judged."""
        return [f for f in self.graph.families if all(channel in self.scores for channel in f.channels)]

    def by_layer(self, ratio: Callable[[Family], float]) -> set[int]:
        """Of each family, its own share."""
        counts = {family: _share(len(family.channels), ratio(family)) for family in self.families}
        return {channel for family, count in counts.items() for channel in self._lowest(family, count)}

    def overall(self, ratio: float) -> set[int]:
        """The lowest of all families together. Norms of filters are divided by the mean of their family first.

        Equal scores go by their place within the family, so that an untrained network thins out evenly.
        """
        ranked: list[tuple[float, float, int]] = []
        for number, family in enumerate(self.families):
            mean = sum(self.scores[c] for c in family.channels) / len(family.channels)
            scale = 1.0 if self.comparable or mean == 0 else mean
            order = self._order(family)
            ranked += [(self.scores[c] / scale, place / len(order), number) for place, c in enumerate(order)]
        counts: dict[int, int] = {}
        for _, _, number in sorted(ranked)[: _share(len(ranked), ratio)]:
            counts[number] = counts.get(number, 0) + 1
        return {c for n, family in enumerate(self.families) for c in self._lowest(family, counts.get(n, 0))}

    def _lowest(self, family: Family, wanted: int) -> list[int]:
        """At most `wanted` classes: what stays is rounded up to `multiple_of` and to `min_channels`, at least one."""
        classes = self.graph.class_of(self.graph.layers[family.layers[0]].outputs)
        width = classes.count(family.channels[0])
        step = self.multiple_of // math.gcd(self.multiple_of, width)
        keep = max(len(family.channels) - wanted, math.ceil(self.min_channels / width), 1)
        keep = math.ceil(keep / step) * step
        return self._order(family)[: max(0, len(family.channels) - keep)]

    def _order(self, family: Family) -> list[int]:
        return sorted(family.channels, key=lambda channel: (self.scores[channel], channel))


def reach(choose: Callable[[float], set[int]], removed_share: Callable[[set[int]], float], ratio: float) -> set[int]:
    """The fewest channels whose removal reaches `ratio`; the most that can go where none does. By bisection."""
    low, high = 0.0, 1.0 - 0.5**STEPS
    best = choose(high)
    if removed_share(best) < ratio:
        return best
    for _ in range(STEPS):
        middle = (low + high) / 2
        removed = choose(middle)
        if removed_share(removed) >= ratio:
            best, high = removed, middle
        else:
            low = middle
    return best


def widths(graph: Graph, removed: Collection[int]) -> dict[str, tuple[int, int]]:
    """(channels kept, channels before) of each layer that loses some of its outputs."""
    after = graph.smaller(set(removed) - {FROZEN})
    pairs = {name: (len(after[name].outputs), len(layer.outputs)) for name, layer in graph.layers.items()}
    return {name: pair for name, pair in pairs.items() if pair[0] < pair[1]}


def _share(count: int, ratio: float) -> int:
    return math.floor(count * ratio + 1e-9)
