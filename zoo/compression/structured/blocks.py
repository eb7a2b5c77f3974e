"""Whole layers: residual blocks, of which only the shortcut is left."""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from zoo.compression.forms import materialise
from zoo.compression.stage import Treated, Workbench
from zoo.compression.structured.graph import image_of, read_graph
from zoo.compression.structured.importance import labelled_batches
from zoo.compression.treat import check_number, fine_tune, finished
from zoo.cost.subject import blank_image
from zoo.data import Dataset
from zoo.errors import CompressionError, unknown
from zoo.registry import Image


@dataclass(frozen=True)
class DropLayers:
    """Remove whole residual blocks: an identity takes the place of each, so that only the shortcut is left.

    How: the blocks whose input is added to their result are found by tracing; one at a time, the one without which the
    loss on `samples` training images is least goes, `count` times. names: these blocks instead.
    Suggested: one or two of a deep network, then training. Costs: a pass over the samples for each block and removal.
    With other stages: before them.
    Raises CompressionError where there are not that many, UnknownNameError for a name that is no such block.
    """

    count: int = 1
    names: tuple[str, ...] = ()
    samples: int = 512
    epochs: int = 0

    def __post_init__(self) -> None:
        check_number("count", self.count, 1, 10_000, whole=True)
        check_number("samples", self.samples, 1, 1_000_000, whole=True)
        check_number("epochs", self.epochs, 0, 100_000, whole=True)

    def apply(self, model: nn.Module, work: Workbench) -> Treated:
        """The copy of a model with fewer blocks."""
        blocks = droppable(model, image_of(model, work))
        for name in self.names:
            if name not in blocks:
                raise unknown("residual block that can be removed", name, blocks)
        if len(blocks) < self.count:
            raise CompressionError(f"count={self.count} was given; the model has {len(blocks)} blocks that can go.")
        small = deepcopy(model).eval()
        gone = list(self.names)
        for name in gone:
            _replace(small, name)
        while not self.names and len(gone) < self.count:
            data = work.need_train("choosing blocks to remove")
            left = [name for name in blocks if name not in gone]
            losses = {name: loss_without(small, name, data, self.samples, work.seed) for name in left}
            gone.append(min(left, key=lambda name: losses[name]))
            _replace(small, gone[-1])
        fine_tune(small, work, self.epochs)
        small.train(model.training)
        return finished(small, dict.fromkeys(gone, "removed; an identity takes its place"), {})


def droppable(model: nn.Module, image: Image) -> tuple[str, ...]:
    """Names of the residual blocks in whose place an identity keeps every shape, in order of their calls."""
    plain = materialise(deepcopy(model)).eval()
    batch = blank_image(plain, image)
    found = []
    with torch.no_grad():
        shape = plain(batch).shape
        for name in read_graph(plain, image).blocks:
            if not name or not list(plain.get_submodule(name).parameters()):
                continue
            trial = deepcopy(plain)
            _replace(trial, name)
            try:
                if trial(batch).shape == shape:
                    found.append(name)
            except (RuntimeError, AttributeError, TypeError, ValueError):  # the network's code uses the block otherwise
                continue
    return tuple(found)


def loss_without(model: nn.Module, name: str, data: Dataset, samples: int, seed: int) -> float:
    """Mean cross-entropy in nats on so many images drawn by `seed`, of the network without one block."""
    trial = deepcopy(model)
    _replace(trial, name)
    total, images = 0.0, 0
    with torch.no_grad():
        for images_NCHW, labels_N in labelled_batches(trial, data, samples, seed):
            total += float(cross_entropy(trial(images_NCHW), labels_N, reduction="sum"))
            images += len(labels_N)
    return total / images


def _replace(model: nn.Module, name: str) -> None:
    parent, _, leaf = name.rpartition(".")
    model.get_submodule(parent).add_module(leaf, nn.Identity())
