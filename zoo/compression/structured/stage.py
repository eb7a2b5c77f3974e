"""Structured pruning as a stage: channels, filters and neurons."""

from collections.abc import Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

from torch import nn

from zoo.compression.forms import materialise
from zoo.compression.stage import Treated, Workbench
from zoo.compression.structured.choice import Chooser, reach, size_without, widths
from zoo.compression.structured.graph import Graph, image_of
from zoo.compression.structured.importance import COMPARABLE, IMPORTANCES, NEED_DATA, importance
from zoo.compression.structured.shrink import dependency_graph, keep_zeros, shrink
from zoo.compression.treat import check_choice, check_number, fine_tune, finished
from zoo.errors import CompressionError, unknown
from zoo.models.slimmable import Slimmable

TARGETS = ("channels", "macs", "params")


@dataclass(frozen=True)
class PruneChannels:
    """Remove filters, channels and neurons: what is left is a smaller network of ordinary layers.

    How: channels that must go together (residual sums, concatenations, depthwise filters) are found by tracing the
    network, scored by `importance` (see `structured.importance`), and the lowest are cut out. ratio: the share removed,
    0 to below 1; `ratios` gives one by layer instead and leaves other layers alone, but for those coupled to them.
    scope: "layer" removes the share of each family of coupled layers, "global" ranks all together. target: what the
    ratio is a share of: "channels", or the network's "macs" or "params", reached by a search. multiple_of,
    min_channels: of what a layer keeps, where it has as many. samples: images for apoz and taylor. epochs: of training
    afterwards, by the workbench's recipe.
    Suggested: l1 at ratio 0.3 to 0.5 with training, or bn, global, after training with an L1 penalty on the scales.
    Costs: a few forward passes. With other stages: first; shared and quantised weights become plain ones of the same
    values, pruned weights stay zero.
    Raises CompressionError for what is out of range or cannot be cut, UnknownNameError for a layer that is not there.
    """

    ratio: float = 0.5
    ratios: Mapping[str, float] | None = None
    importance: str = "l1"
    scope: Literal["layer", "global"] = "layer"
    target: Literal["channels", "macs", "params"] = "channels"
    multiple_of: int = 1
    min_channels: int = 1
    samples: int = 512
    epochs: int = 0

    def __post_init__(self) -> None:
        for name, ratio in {"ratio": self.ratio, **(self.ratios or {})}.items():
            if type(ratio) not in (int, float) or not 0 <= ratio < 1:
                raise CompressionError(f"{name}={ratio!r} was given; a share from 0 to below 1 is allowed.")
        if self.importance not in IMPORTANCES:
            raise unknown("importance", self.importance, IMPORTANCES)
        check_choice("scope", self.scope, ("layer", "global"))
        check_choice("target", self.target, TARGETS)
        for name in ("multiple_of", "min_channels", "samples"):
            check_number(name, getattr(self, name), 1, 1_000_000, whole=True)
        check_number("epochs", self.epochs, 0, 100_000, whole=True)
        if self.ratios is not None and (self.scope, self.target) != ("layer", "channels"):
            raise CompressionError("ratios by layer are shares of channels; leave out scope and target.")

    def apply(self, model: nn.Module, work: Workbench) -> Treated:
        """The smaller copy of a model."""
        if isinstance(model, Slimmable):
            raise CompressionError(
                "a slimmable network has fewer channels at its own widths; prune a plain one, which "
                "zoo.dynamic.extract_width cuts out of it."
            )
        plain = materialise(deepcopy(model)).eval()
        graph = dependency_graph(plain, image_of(model, work))
        data = work.need_train(f"importance={self.importance!r}") if self.importance in NEED_DATA else None
        scores = importance(plain, graph, self.importance, data=data, samples=self.samples, seed=work.seed)
        chooser = Chooser(graph, scores, self.multiple_of, self.min_channels, self.importance in COMPARABLE)
        untreated = dict(graph.untreated)
        for family in graph.families:
            if family not in chooser.families:
                untreated |= dict.fromkeys(family.layers, f"importance={self.importance!r} cannot judge its channels")
        removed = self._choose(plain, chooser, untreated)
        small = shrink(plain, graph, removed)
        keep_zeros(model, small)
        fine_tune(small, work, self.epochs)
        small.train(model.training)
        kept = widths(graph, removed)
        return finished(small, {name: f"kept {k:,} of {n:,} channels" for name, (k, n) in kept.items()}, untreated)

    def _choose(self, model: nn.Module, chooser: Chooser, untreated: dict[str, str]) -> set[int]:
        if self.ratios is not None:
            by_family = _by_family(model, chooser.graph, self.ratios)
            return chooser.by_layer(lambda family: by_family.get(family.layers, 0.0))

        def at(ratio: float) -> set[int]:
            return chooser.overall(ratio) if self.scope == "global" else chooser.by_layer(lambda _: ratio)

        if self.target == "channels":
            return at(self.ratio)

        def size(removed: Collection[int]) -> int:
            found = size_without(model, chooser.graph, removed)
            return found.macs if self.target == "macs" else found.params

        def share(removed: set[int]) -> float:
            return 1 - size(removed) / size(())

        removed = reach(at, share, self.ratio)
        if share(removed) < self.ratio:
            untreated["(target)"] = (
                f"{share(removed):.1%} of {self.target} removed, no more can be; {self.ratio:.1%} asked"
            )
        return removed


def _by_family(model: nn.Module, graph: Graph, ratios: Mapping[str, float]) -> dict[tuple[str, ...], float]:
    """The ratio of each family of which some layer is named."""
    makers = {name for family in graph.families for name in family.layers}
    chosen: dict[tuple[str, ...], float] = {}
    for name, ratio in ratios.items():
        if name not in makers:
            if name in graph.layers:
                reason = graph.untreated.get(name, "they are the network's outputs, or are fixed by what reads them")
                raise CompressionError(f"{name!r} cannot lose channels: {reason}.")
            raise unknown("layer whose channels can be removed", name, makers)
        for family in graph.families:
            if name in family.layers and chosen.setdefault(family.layers, ratio) != ratio:
                raise CompressionError(
                    f"{name!r} is given {ratio}, but shares channels with a layer that is given "
                    f"{chosen[family.layers]}; give {', '.join(family.layers)} the same ratio."
                )
    return chosen
