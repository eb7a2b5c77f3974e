"""Weight sharing: a layer keeps a few values and, for each weight, which of them it is."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from zoo.compression.forms import Shared
from zoo.compression.stage import Treated, Workbench
from zoo.compression.treat import (
    Made,
    check_choice,
    check_number,
    choose,
    fine_tune,
    finished,
    layers_of,
    put,
    values_of,
)

Start = Literal["linear", "density", "random"]


class Codebook(Made):
    """weight = codebook[codes]. codes: int64, any shape. centroids: float32 [K], trained.

    The gradient of a centroid is the sum of the gradients of its weights (arXiv:1510.00149, section 3.3, equation 3).
    pinned: the codebook begins with a zero that is not trained, for the weights that were pruned.
    """

    codes: Tensor
    centroids: nn.Parameter

    def __init__(self, codes: Tensor, centroids: Tensor, *, pinned: bool) -> None:
        super().__init__()
        self.register_buffer("codes", codes.clone())
        self.centroids = nn.Parameter(centroids.detach().clone())
        self.pinned = pinned

    def codebook(self) -> Tensor:
        """The values that there are: [K], or [1 + K] with the zero first."""
        return torch.cat([self.centroids.new_zeros(1), self.centroids]) if self.pinned else self.centroids

    def forward(self) -> Tensor:
        # The gradient of index_select is found 50 times faster than that of indexing.
        return self.codebook().index_select(0, self.codes.reshape(-1)).reshape(self.codes.shape)

    def form(self) -> Shared:
        return Shared(self.codes.cpu().contiguous(), self.codebook().detach().cpu().clone())

    def floats(self) -> Tensor:
        return self.centroids


@dataclass(frozen=True)
class Share:
    """Replace the weights of a layer by 2^bits values found by k-means (Deep Compression, arXiv:1510.00149, section 3).

    How: Lloyd's iterations from `init`: "linear", evenly spaced from the smallest weight to the largest, keeps the rare
    large weights apart and is the best of the three in the paper (section 3.2); "density", at equal shares of the
    weights; "random", weights drawn at random. They stop when no weight changes its centroid, or after `iterations`.
    Then the centroids are trained for `epochs`, the codes staying as they are, at a peak rate of `lr`, in place of the
    recipe's: a centroid's gradient sums those of its weights, so take a tenth to a hundredth of the first training's.

    bits: 1 to 16, one for all or by name of layer, others being left out. Suggested: 8 for convolutions and 5 for
    linear layers (table 1), down to 3 with training. biases_bits: the same for the biases of treated layers; 0 leaves
    them. A tensor with fewer weights than 2^bits is left as it is; values that no weight takes are dropped.
    Costs: under a second for two million weights; the codebook takes 4 bytes a value.
    With other stages: after `Prune`, whose zeros stay, as one value more than 2^bits that is not trained. A model that
    was quantised before is shared again from the values that it has.
    Raises CompressionError for values out of range, UnknownNameError for a layer that does not exist.
    """

    bits: int | Mapping[str, int] = 5
    init: Start = "linear"
    iterations: int = 300
    epochs: int = 0
    lr: float | None = None
    biases_bits: int = 0
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for bits in values_of(self.bits):
            check_number("bits", bits, 1, 16, whole=True)
        check_choice("init", self.init, ("linear", "density", "random"))
        check_number("iterations", self.iterations, 0, 100_000, whole=True)
        check_number("epochs", self.epochs, 0, 100_000, whole=True)
        check_number("biases_bits", self.biases_bits, 0, 16, whole=True)

    def apply(self, model: nn.Module, work: Workbench) -> Treated:
        """The copy of a model with shared weights."""
        bits_by_name, untreated = choose(model, self.bits, self.skip)
        shared = copy.deepcopy(model)
        words: dict[str, str] = {}
        layers = layers_of(shared)
        for name, bits in bits_by_name.items():
            layer = layers[name]
            for tensor, label, count in (("weight", name, bits), ("bias", f"{name}.bias", self.biases_bits)):
                if count == 0 or getattr(layer, tensor) is None:
                    continue
                weight: Tensor = getattr(layer, tensor).detach()
                kept = int(torch.count_nonzero(weight))
                if kept < 2**count:
                    untreated[label] = (
                        f"has {kept:,} values other than zero, fewer than the {2**count:,} of {count} bits"
                    )
                    continue
                made = self._shared(weight, count, work.seed)
                put(layer, made, tensor)
                words[label] = f"{kept:,} weights share {len(made.centroids)} values"
        if words:
            fine_tune(shared, work, self.epochs, self.lr)
        return finished(shared, words, untreated)

    def _shared(self, weight: Tensor, bits: int, seed: int) -> Codebook:
        """The codebook of one tensor; codes of the zeros are 0."""
        flat = weight.flatten().cpu().numpy()
        kept = flat != 0
        pinned = not bool(kept.all())
        values = flat[kept]
        start = first_centroids(values, 2**bits, self.init, seed)
        centroids, labels = k_means(values, start, self.iterations)
        codes = np.zeros(flat.shape, np.int64)
        codes[kept] = labels + int(pinned)
        return Codebook(
            torch.from_numpy(codes).view(weight.shape), torch.from_numpy(centroids.astype(np.float32)), pinned=pinned
        )


def first_centroids(values: np.ndarray, count: int, init: Start, seed: int = 0) -> np.ndarray:
    """Where k-means starts: float64 [count] (arXiv:1510.00149, section 3.2)."""
    if init == "linear":
        return np.linspace(values.min(), values.max(), count, dtype=np.float64)
    if init == "density":
        return np.asarray(np.quantile(values, (np.arange(count) + 0.5) / count), np.float64)
    return np.random.default_rng(seed).choice(values, count, replace=False).astype(np.float64)


def k_means(values: np.ndarray, start: np.ndarray, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    """Lloyd's k-means of numbers: (centroids float64 [K], ascending; label of each value, int64 [N]).

    Exact: on sorted values a cluster is a range, and its sum a difference of two running sums, so that an iteration
    takes time in proportion to K log N. A centroid that loses all its values is dropped at the end, hence
    K <= len(start). A value halfway between two centroids goes to the upper one.
    """
    ordered = np.sort(values).astype(np.float64)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    centroids = np.unique(start.astype(np.float64))
    edges = _edges(ordered, centroids)
    for _ in range(iterations):
        counts = np.diff(edges)
        means = np.diff(sums[edges]) / np.maximum(counts, 1)
        centroids = np.where(counts > 0, means, centroids)
        before, edges = edges, _edges(ordered, centroids)
        if np.array_equal(before, edges):
            break
    centroids = centroids[np.diff(edges) > 0]
    return centroids, np.searchsorted(_halfway(centroids), values, side="right").astype(np.int64)


def _edges(ordered: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """int64 [K + 1]: cluster k is ordered[edges[k] : edges[k + 1]]."""
    inner = np.searchsorted(ordered, _halfway(centroids), side="left")
    return np.concatenate([[0], inner, [len(ordered)]])


def _halfway(centroids: np.ndarray) -> np.ndarray:
    middle: np.ndarray = (centroids[:-1] + centroids[1:]) / 2
    return middle
