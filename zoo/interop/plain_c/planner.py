"""Where each value of a network lies in one arena: offsets from lifetimes, as few bytes as can be found.

Three things need no memory of their own: a flattened map is the map; a function of one value works in place where
nobody reads its input again; the parts of a concatenation are computed where the whole lies, which in the order
channels, rows, columns is one stretch each.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from zoo.interop.operators import Concat, Flatten, Function
from zoo.interop.quantized import QuantizedNetwork, Step, Value

FEW = 6  # buffers of which every order is tried


@dataclass(frozen=True)
class Buffer:
    """Memory that is needed from one moment to another, both included."""

    size: int
    first: int
    last: int


@dataclass(frozen=True)
class Plan:
    """offsets: of every value in the arena but 16-bit logits. bytes: the arena's."""

    offsets: Mapping[str, int]
    bytes: int


def plan(network: QuantizedNetwork) -> Plan:
    """A place for every value: none is written over while it is still to be read."""
    places = _places(network)
    roots = sorted({root for root, _ in places.values()})
    sizes = {value.name: prod(value.shape) for value in _values(network)}
    moments = _moments(network)
    buffers = []
    for root in roots:
        members = [moments[name] for name, (owner, _) in places.items() if owner == root]
        buffers.append(Buffer(sizes[root], min(first for first, _ in members), max(last for _, last in members)))
    starts = dict(zip(roots, offsets(buffers), strict=True))
    found = {name: starts[root] + within for name, (root, within) in places.items()}
    return Plan(found, max(starts[root] + sizes[root] for root in roots))


def offsets(buffers: Sequence[Buffer]) -> list[int]:
    """An offset for each buffer: two that are needed at once do not overlap.

    Each in turn goes to the lowest gap that holds it, the largest first (arXiv:2001.03288, section 5); then one after
    the other is tried at the front, while that saves bytes. Of a few buffers all orders are tried: for some order the
    lowest gaps are the best places there are.
    """
    least = needed(buffers)
    order = sorted(range(len(buffers)), key=lambda i: (-buffers[i].size, buffers[i].first))
    best, placed = _placed(buffers, order)
    while best > least:
        for trial in _orders(order):
            reached, found = _placed(buffers, trial)
            if reached < best:
                best, placed, order = reached, found, trial
                break
        else:
            break
    return placed


def needed(buffers: Sequence[Buffer]) -> int:
    """Bytes alive at the fullest moment: no arena can be smaller."""
    return max((sum(b.size for b in buffers if b.first <= at.first <= b.last) for at in buffers), default=0)


def _orders(order: list[int]) -> Iterator[list[int]]:
    if len(order) <= FEW:
        yield from map(list, itertools.permutations(order))
        return
    for place in range(1, len(order)):
        yield [order[place], *order[:place], *order[place + 1 :]]


def _placed(buffers: Sequence[Buffer], order: Sequence[int]) -> tuple[int, list[int]]:
    """Bytes taken, and offsets: each buffer of the order in the lowest gap that holds it."""
    found: dict[int, int] = {}
    for number in order:
        mine = buffers[number]
        taken = sorted(
            (start, start + buffers[other].size)
            for other, start in found.items()
            if buffers[other].first <= mine.last and mine.first <= buffers[other].last
        )
        at = 0
        for start, end in taken:
            if start - at >= mine.size:
                break
            at = max(at, end)
        found[number] = at
    placed = [found[number] for number in range(len(buffers))]
    return max((at + b.size for at, b in zip(placed, buffers, strict=True)), default=0), placed


def _values(network: QuantizedNetwork) -> list[Value]:
    """All that lie in the arena: all but 16-bit logits."""
    return [v for v in (network.input, *(step.output for step in network.steps)) if v.grid.low >= 0]


def _moments(network: QuantizedNetwork) -> dict[str, tuple[int, int]]:
    """When each value is made and when it is read last. The image is made at 0, the output of the first step at 1."""
    found = {network.input.name: (0, 0)}
    for number, step in enumerate(network.steps, start=1):
        found[step.output.name] = (number, number)
        found |= {value.name: (found[value.name][0], number) for value in step.inputs}
    made, _ = found[network.output.name]
    return found | {network.output.name: (made, len(network.steps) + 1)}


def _places(network: QuantizedNetwork) -> dict[str, tuple[str, int]]:
    """For each value the one in whose memory it lies, itself if its own, and where in it."""
    sizes = {value.name: prod(value.shape) for value in _values(network)}
    places = {name: (name, 0) for name in sizes}

    def move(name: str, into: str, within: int) -> None:
        """All that lies in the memory of `name` lies in that of `into` from now on."""
        root, start = places[into]
        for other, (owner, at) in places.items():
            if owner == name:
                places[other] = (root, start + within + at)

    for step in network.steps:
        if isinstance(step.operator, Flatten) and step.output.name in sizes:
            move(step.output.name, step.inputs[0].name, 0)
        if isinstance(step.operator, Concat):
            for value, within in parts(step):
                if places[value.name] == (value.name, 0) and value.name != places[step.output.name][0]:
                    move(value.name, step.output.name, within)
    moments = _moments(network)
    for number, step in enumerate(network.steps, start=1):
        if isinstance(step.operator, Function):
            source, (root, _) = step.inputs[0].name, places[step.inputs[0].name]
            over = all(moments[name][1] <= number for name, (owner, _) in places.items() if owner == root)
            if over and sizes[root] == sizes[source]:
                move(root, step.output.name, 0)
    return places


def parts(step: Step) -> Iterator[tuple[Value, int]]:
    """The inputs of a concatenation, and where in its output each begins."""
    within = 0
    for value in step.inputs:
        yield value, within
        within += prod(value.shape)
