"""Switches: channels and residual blocks that learn, together with the weights, whether they are needed."""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from zoo.compression.fold import foldable
from zoo.compression.forms import materialise
from zoo.compression.stage import Treated, Workbench
from zoo.compression.structured.blocks import droppable
from zoo.compression.structured.graph import Family, Graph, image_of
from zoo.compression.structured.shrink import dependency_graph, keep_zeros, shrink
from zoo.compression.treat import check_number, fine_tune, finished, straight_through
from zoo.training.objectives import CrossEntropy, Objective, Penalty

HALF = 0.5  # a switch below is off


class Switches(nn.Module):
    """Numbers from 0, off, to 1, on, where all begin. values: float32 [K], trained. prices: float32 [K], of each."""

    prices: Tensor

    def __init__(self, prices: Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.ones_like(prices))
        self.register_buffer("prices", prices)

    def forward(self) -> Tensor:
        """What the parts of the network are multiplied by: [K + 1], the last for parts that have no switch."""
        within = straight_through(self.values.clamp(0, 1), self.values)  # at its bounds, clamp has no gradient
        return torch.cat([within, self.values.new_ones(1)])

    @torch.no_grad()
    def project(self) -> None:
        """Take values back to where they are allowed, so that the way back from a bound is short."""
        self.values.clamp_(0, 1)


class Switched(nn.Module):
    """weight = switch * weight, a switch for each index of dimension 0. places: int64 [C], of the switches."""

    places: Tensor

    def __init__(self, switches: Switches, places: Tensor) -> None:
        super().__init__()
        self.switches = switches
        self.register_buffer("places", places)

    def forward(self, weight: Tensor) -> Tensor:
        switched: Tensor = weight * self.switches()[self.places].reshape(-1, *[1] * (weight.ndim - 1))
        return switched


class SwitchedBlock(nn.Module):
    """A residual block, mixed with its own input: switch * block(x) + (1 - switch) * x."""

    def __init__(self, block: nn.Module, switches: Switches, place: int) -> None:
        super().__init__()
        self.block = block
        self.switches = switches
        self.place = place

    def forward(self, features: Tensor) -> Tensor:
        switch = self.switches()[self.place]
        mixed: Tensor = switch * self.block(features) + (1 - switch) * features
        return mixed


class SwitchPenalty(Penalty):
    """Sum over switches s of price * (linear * s + bimodal * s * (1 - s)): the regulariser of arXiv:1511.05497.

    The first term pays for what is on; the second is zero at both ends and drives each switch to one of them.
    """

    def __init__(self, linear: float, bimodal: float, base: Objective | None = None) -> None:
        super().__init__(base)
        self.linear = linear
        self.bimodal = bimodal

    def penalty(self, model: nn.Module) -> Tensor | float:
        total: Tensor | float = 0.0
        for switches in (module for module in model.modules() if isinstance(module, Switches)):
            s = switches()[:-1]
            total = total + (switches.prices * (self.linear * s + self.bimodal * s * (1 - s))).sum()
        return total


@dataclass(frozen=True)
class LearnSwitches:
    """Learn which channels and residual blocks are needed, then remove the others (arXiv:1511.05497, tri-state ReLU).

    How: channels that only go together (zoo.compression.structured) are multiplied by one trained switch, in the last
    weights and biases that make them, which for ReLU is as good as behind it; a residual block is mixed with its own
    input. Switches and weights are trained together for `epochs` under `SwitchPenalty`. Then channels whose switch is
    below a half are cut out, such blocks give way to their input, and other switches are multiplied into the weights.
    Of each family of channels the one with the largest switch stays, so that the network is not cut in two.
    Where we differ: the paper also switches an activation to the identity, so that two linear layers become one; that
    saves nothing between convolutions and batch norms, so here it is blocks that go. And the bimodal term grows from
    nothing to its full strength during training: all begin on, where it would hold them.

    linear: of the loss, what a channel costs that is on; a block costs as much as the channels within it. More removes
    more; suggested: 0.001 to 0.004. bimodal: about five times linear; with much less, switches end anywhere and larger
    weights make up for them. blocks: whether they have switches. lr: peak rate of training, in place of the recipe's.
    It is the switches' rate too, so take an adaptive optimizer and lr * steps of 4 or more; with SGD they mostly end
    all on or all off. Costs: a few more milliseconds a step. A channel that is quite off does not come back, for what
    it makes has no gradient.
    With other stages: first, and `Train` after it. Shared and quantised weights become plain ones of the same values,
    pruned weights stay zero.
    Raises CompressionError for values out of range, without images or a recipe, and where nothing can be switched off.
    """

    epochs: int = 10
    linear: float = 0.002
    bimodal: float = 0.01
    blocks: bool = True
    lr: float | None = None

    def __post_init__(self) -> None:
        check_number("epochs", self.epochs, 1, 100_000, whole=True)
        check_number("linear", self.linear, 0, 1000)
        check_number("bimodal", self.bimodal, 0, 1000)

    def apply(self, model: nn.Module, work: Workbench) -> Treated:
        """The smaller copy of a model."""
        learning = materialise(deepcopy(model)).eval()
        graph = dependency_graph(learning, image_of(model, work))
        places, untreated = switchable(learning, graph)
        blocks = self._blocks(learning, graph, untreated)
        if not places and not blocks:
            return finished(learning, {}, untreated or {"the model": "it has no channels that could go"})
        makers = last_makers(learning, graph)
        keep_zeros(model, learning)
        switches = add_switches(learning, graph, makers, places, blocks)
        smoothing = work.recipe.label_smoothing if work.recipe else 0.0
        penalty = SwitchPenalty(self.linear, 0.0, CrossEntropy(smoothing))

        def on_step(_model: nn.Module, step: int, steps: int) -> None:
            switches.project()
            penalty.bimodal = self.bimodal * (step + 1) / steps

        fine_tune(learning, work, self.epochs, self.lr, on_step, penalty)
        found = switches().tolist()
        words = {}
        for name, value in zip(blocks, found[len(places) :], strict=False):
            block = learning.get_submodule(name).block
            _swap(learning, name, block if value >= HALF else nn.Identity())  # type: ignore[arg-type]
            words[name] = f"{'kept' if value >= HALF else 'removed'}; its switch came to {value:.2f}"
        materialise(learning)
        small, kept = without_off(learning, graph, {channel: found[place] for channel, place in places.items()})
        keep_zeros(model, small)
        small.train(model.training)
        return finished(small, words | kept, untreated)

    def _blocks(self, model: nn.Module, graph: Graph, untreated: dict[str, str]) -> list[str]:
        """The residual blocks that get a switch; why others do not is added to `untreated`."""
        if not self.blocks:
            return []
        able = droppable(model, graph.image)
        outermost = [name for name in able if not any(name.startswith(f"{other}.") for other in able)]
        for name in graph.blocks:
            if name and name not in outermost:
                inside = name in able
                untreated[name] = "its block has a switch" if inside else "its input cannot stand for its output"
        return outermost


def switchable(model: nn.Module, graph: Graph) -> tuple[dict[int, int], dict[str, str]]:
    """(class of channels -> number of its switch, why each other layer's channels get none)."""
    untreated = dict(graph.untreated)
    stuck: set[int] = set()
    for name, layer in graph.layers.items():
        if layer.kind == "norm" and model.get_submodule(name).weight is None:
            stuck |= set(graph.class_of(layer.outputs))
    channels: list[int] = []
    for family in graph.families:
        if stuck & set(family.channels):
            untreated |= dict.fromkeys(family.layers, "a batch norm without trained scales would undo its switches")
        else:
            channels += family.channels
    return {channel: place for place, channel in enumerate(channels)}, untreated


def last_makers(model: nn.Module, graph: Graph) -> list[str]:
    """The layers whose weights switches are multiplied into: all but convolutions that a batch norm alone reads."""
    fed = set(foldable(model, graph.image).values())
    return [name for name in graph.layers if name not in fed]


def add_switches(
    model: nn.Module, graph: Graph, makers: list[str], places: dict[int, int], blocks: list[str]
) -> Switches:
    """Put switches into a model: those of channels first, then those of blocks."""
    own = [sum(len(f.channels) for f in graph.families if _is_inside(f, name)) for name in blocks]
    device = next(model.parameters()).device
    switches = Switches(torch.tensor([1.0] * len(places) + [float(max(1, count)) for count in own], device=device))
    for name in makers:
        channels = graph.class_of(graph.layers[name].outputs)
        if not places.keys() & set(channels):
            continue
        layer = model.get_submodule(name)
        always_on = len(switches.values)
        own_places = torch.tensor([places.get(channel, always_on) for channel in channels], device=device)
        for tensor in ("weight", "bias"):
            if getattr(layer, tensor) is not None:
                parametrize.register_parametrization(layer, tensor, Switched(switches, own_places))
    for place, name in enumerate(blocks, len(places)):
        _swap(model, name, SwitchedBlock(model.get_submodule(name), switches, place))
    return switches


def without_off(model: nn.Module, graph: Graph, found: dict[int, float]) -> tuple[nn.Module, dict[str, str]]:
    """(the model without channels that are off, what each layer keeps).

    found: switches by class of `graph`, which was made before blocks were removed: classes are known by their makers.
    """
    by_maker = {
        (name, index): found[channel]
        for name, layer in graph.layers.items()
        for index, channel in enumerate(graph.class_of(layer.outputs))
        if layer.kind in ("dense", "grouped") and channel in found
    }
    graph = dependency_graph(model, graph.image)
    removed: set[int] = set()
    for family in graph.families:
        name = family.layers[0]
        values = {
            channel: by_maker[name, index]
            for index, channel in enumerate(graph.class_of(graph.layers[name].outputs))
            if (name, index) in by_maker and channel in family.channels
        }
        best = max(values, key=lambda channel: values[channel], default=None)
        removed |= {channel for channel, value in values.items() if value < HALF and channel != best}
    before, after = graph.layers, graph.smaller(removed)
    makers = {name for name, _ in by_maker}
    words = {n: f"kept {len(after[n].outputs):,} of {len(before[n].outputs):,} channels" for n in before if n in makers}
    return shrink(model, graph, removed), words


def _is_inside(family: Family, block: str) -> bool:
    return all(name.startswith(f"{block}.") for name in family.layers)


def _swap(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    model.get_submodule(parent).add_module(leaf, module)
