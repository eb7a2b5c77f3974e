"""Named pipelines, for the command line and as examples: what to do, in the order in which it composes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from zoo.compression.calibrate import Calibrate
from zoo.compression.fold import FoldBatchNorm
from zoo.compression.pipeline import Code, Huffman
from zoo.compression.prune import Prune
from zoo.compression.quantize import Quantize
from zoo.compression.search import Auto
from zoo.compression.share import Share
from zoo.compression.stage import Stage
from zoo.compression.structure import AUXILIARY
from zoo.compression.structured.stage import PruneChannels
from zoo.compression.train import Train
from zoo.compression.treat import layers_of
from zoo.errors import CompressionError, unknown
from zoo.models.slimmable import Slimmable
from zoo.training.objectives import BatchNormL1

_FAST = ("fixed", "range")  # coders


@dataclass(frozen=True)
class Wishes:
    """What a person may ask of any named pipeline.

    density: share of weights, or of channels, that stays. bits: of a weight. epochs: of training in all; 0 for none.
    max_loss: share of accuracy that automatic choices may lose before training. max_bytes: of the weights instead.
    """

    density: float = 0.1
    bits: int = 5
    epochs: int = 4
    max_loss: float | None = None
    max_bytes: int | None = None

    @property
    def pruning_epochs(self) -> int:
        """Three quarters of the training follow the pruning."""
        return self.epochs - self.tuning_epochs

    @property
    def tuning_epochs(self) -> int:
        """The rest tunes what weights share."""
        return self.epochs // 4


def _deep_compression(wishes: Wishes) -> list[Stage]:
    """Prune, share, Huffman (arXiv:1510.00149); pruning is gradual where there is training."""
    schedule = "gradual" if wishes.pruning_epochs else "one-shot"
    return [
        Prune(wishes.density, schedule=schedule, epochs=wishes.pruning_epochs),  # type: ignore[arg-type]
        Share(wishes.bits, epochs=wishes.tuning_epochs, lr=1e-4),
        Huffman(),
    ]


def _auto(wishes: Wishes) -> list[Stage]:
    """Density and bits of each layer by its sensitivity."""
    loss = 0.02 if wishes.max_loss is None and wishes.max_bytes is None else wishes.max_loss
    return [Auto(loss, wishes.max_bytes, epochs=wishes.epochs), Code()]


def _slim(wishes: Wishes) -> list[Stage]:
    """Whole channels go, by the size of their filters (arXiv:1608.08710); what is left is faster too, in 8 bits."""
    return [PruneChannels(1 - wishes.density, epochs=wishes.epochs), Calibrate(), Quantize(8), Code()]


def _network_slimming(wishes: Wishes) -> list[Stage]:
    """Network slimming (arXiv:1708.06519): half of the training makes batch norms' scales small, half makes up for it.

    For networks with batch norm. Without training the scales are taken as they are.
    """
    before = wishes.epochs // 2
    prune = PruneChannels(1 - wishes.density, importance="bn", scope="global", epochs=wishes.epochs - before)
    return [*([Train(before, BatchNormL1(1e-4))] if before else []), prune, Code()]


def _shared(wishes: Wishes) -> list[Stage]:
    """Weight sharing alone, without any image."""
    return [Share(wishes.bits), Code()]


def _quantised(wishes: Wishes) -> list[Stage]:
    """A uniform grid for each filter, trained with the norms; their factors go into its scales."""
    return [Quantize(wishes.bits, epochs=wishes.epochs), FoldBatchNorm(), Code()]


PIPELINES: dict[str, Callable[[Wishes], list[Stage]]] = {
    "deep-compression": _deep_compression,
    "auto": _auto,
    "slim": _slim,
    "network-slimming": _network_slimming,
    "share": _shared,
    "quantize": _quantised,
}


def pipeline(name: str, wishes: Wishes) -> list[Stage]:
    """The stages of a named pipeline. Raises UnknownNameError, or CompressionError for a wish out of range."""
    if name not in PIPELINES:
        raise unknown("pipeline", name, PIPELINES)
    if wishes.epochs < 0:
        raise CompressionError(f"epochs={wishes.epochs} was given; 0 or more is allowed.")
    return PIPELINES[name](wishes)


def compact(model: nn.Module, *, digits: bool = False) -> list[Stage]:
    """How the zoo keeps a large network: codebooks of 8, 4 or 3 bits, fewer for the layers with more weights.

    Without training; of layers of a million weights the smallest three quarters go; batch-norm statistics are measured
    anew, on training images. A quarter to a tenth of half precision (benchmarks/LOG.md has what that costs). digits:
    the network tells digits apart, which one of half a million weights and more does as well with a third of them.
    The norms of a slimmable network belong to its widths and stay as they are, so it has codebooks of 8, 6 or 5 bits
    and keeps all weights. Classifiers for training only are left as they are. Coders that decode fast are enough: the
    others save half a percent and make loading several times as slow.
    """
    counts = {n: layer.weight.numel() for n, layer in layers_of(model).items() if not n.startswith(AUXILIARY)}
    if isinstance(model, Slimmable):
        return [Share(_by_size(counts, 2**15, (8, 6, 5))), Code(_FAST)]
    if digits and sum(counts.values()) >= 500_000:
        kept = {name: 0.35 if count < 2**18 else 0.15 for name, count in counts.items() if count >= 2**13}
        share = Share(_by_size(counts, 2**13, (8, 3, 3)))
    else:
        kept = {name: 0.25 for name, count in counts.items() if count >= 2**20}
        share = Share(_by_size(counts, 2**15, (8, 4, 3)))
    return [*([Prune(densities=kept)] if kept else []), share, Calibrate(), Code(_FAST)]


def _by_size(counts: Mapping[str, int], few: int, bits: tuple[int, int, int]) -> dict[str, int]:
    """Bits of layers with fewer than `few` weights, with fewer than 2^20, and with more."""
    return {name: bits[(count >= few) + (count >= 2**20)] for name, count in counts.items()}
