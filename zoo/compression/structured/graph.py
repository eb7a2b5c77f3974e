"""The dependency graph: which channels of a network can only be removed together.

A class is a set of channels, of one layer or of many, that stand or fall as one: the two sides of a residual sum, a
depthwise filter and its input, the columns of a linear layer behind a flattened map. A family is the classes that the
same layers make; a ratio is a share of a family.
"""

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from torch import nn

from zoo.compression.stage import Workbench
from zoo.compression.structured.labels import FROZEN, Classes
from zoo.compression.structured.tracer import Layer, trace
from zoo.errors import CompressionError
from zoo.registry import Image, Origin


@dataclass(frozen=True)
class Family:
    """Classes made by the same layers. channels: one number, its smallest label, for each class."""

    layers: tuple[str, ...]
    channels: tuple[int, ...]


@dataclass(frozen=True)
class Graph:
    """What was found for one network and one size of image.

    layers: every layer that can be cut, with the labels of its channels. classes: label -> class, FROZEN for what
    stays. families: in order of the first layer. untreated: layer -> why channels that it touches have to stay.
    blocks: names of residual blocks, whose input is added to what they compute. image: (C, H, W) it was traced with.
    """

    layers: dict[str, Layer]
    classes: Classes
    untreated: dict[str, str]
    blocks: tuple[str, ...]
    image: Image
    families: tuple[Family, ...] = field(default=())

    def class_of(self, labels: tuple[int, ...]) -> tuple[int, ...]:
        """The class of each label."""
        return tuple(self.classes.find(label) for label in labels)

    def members(self, *channels: int) -> frozenset[tuple[str, str, int]]:
        """What goes with any of some classes: (layer, "in" | "out" | "feature", index)."""
        found, wanted = set(), set(channels)
        for name, layer in self.layers.items():
            sides = {"feature": layer.inputs} if layer.kind == "norm" else {"in": layer.inputs, "out": layer.outputs}
            for side, labels in sides.items():
                found |= {(name, side, i) for i, c in enumerate(self.class_of(labels)) if c in wanted}
        return frozenset(found)

    def smaller(self, removed: Collection[int]) -> dict[str, Layer]:
        """The layers as they are without some classes. Macs and shapes follow."""
        gone = set(removed) - {FROZEN}
        cut: dict[str, Layer] = {}
        for name, layer in self.layers.items():
            inputs = self._kept(layer.inputs, gone)
            outputs = self._kept(layer.outputs, gone)
            share, whole = len(outputs), len(layer.outputs)
            if layer.kind in ("dense", "grouped"):
                share, whole = share * len(inputs), whole * len(layer.inputs)
            cut[name] = Layer(layer.kind, inputs, outputs, layer.macs * share // whole)
        return cut

    def frozen(self, labels: Collection[int], reason: str) -> "Graph":
        """The graph in which the families of some labels stay; the layers that make them are told in `untreated`."""
        met = {self.classes.find(label) for label in labels}
        stuck = [family for family in self.families if met & set(family.channels)]
        makers = [name for family in stuck for name in family.layers]
        self.classes.freeze(channel for family in stuck for channel in family.channels)
        return replace(
            self,
            untreated=self.untreated | dict.fromkeys(makers, reason),
            families=_families(self.layers, self.classes),
        )

    def _kept(self, labels: tuple[int, ...], gone: set[int]) -> tuple[int, ...]:
        return tuple(label for label in labels if self.classes.find(label) not in gone)


def read_graph(model: nn.Module, image: Image) -> Graph:
    """Trace a network without parametrizations; `shrink.dependency_graph` also proves what was found.

    Raises ImageSizeError for an image (C, H, W) that does not pass.
    """
    classes = Classes()
    tracer, ends = trace(model, image, classes)
    classes.freeze(ends.tolist())
    untreated = _unseen(model, tracer.layers)
    for event in tracer.events:
        if any(classes.find(label) != FROZEN for label in event.labels):
            untreated.setdefault(event.layer or "(forward)", event.reason)
            classes.freeze(event.labels)
    families = _families(tracer.layers, classes)
    blocks = tuple(dict.fromkeys(tracer.blocks))
    return Graph(tracer.layers, classes, untreated, blocks, image, families)


def image_of(model: nn.Module, work: Workbench) -> Image:
    """The (C, H, W) to trace a network with: what it was built for, or else what it is trained on.

    Raises CompressionError where neither is known.
    """
    made = getattr(model, "zoo_origin", None)
    if isinstance(made, Origin):
        return made.image
    for images in (work.train, work.valid):
        if images is not None:
            return images.image
    raise CompressionError(
        "the size of image that this network takes is not known; give train=zoo.load_dataset(NAME, 'train')."
    )


def _unseen(model: nn.Module, layers: dict[str, Layer]) -> dict[str, str]:
    """Layers that were not met in the forward pass."""
    kinds = (nn.Conv2d, nn.Linear, nn.modules.batchnorm._BatchNorm)
    names = [name for name, module in model.named_modules() if isinstance(module, kinds) and name not in layers]
    return dict.fromkeys(names, "the forward pass does not use it, or not its own weight as a whole")


def _families(layers: dict[str, Layer], classes: Classes) -> tuple[Family, ...]:
    makers: dict[int, dict[str, None]] = {}
    for name, layer in layers.items():
        if layer.kind in ("dense", "grouped"):
            for label in layer.outputs:
                makers.setdefault(classes.find(label), {})[name] = None
    families: dict[tuple[str, ...], list[int]] = {}
    for channel, names in makers.items():
        if channel != FROZEN:
            families.setdefault(tuple(names), []).append(channel)
    return tuple(Family(names, tuple(channels)) for names, channels in families.items())
