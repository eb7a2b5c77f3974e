"""Vector quantisation: runs of weights are replaced, together, by the nearest run of a codebook."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from zoo.compression.forms import Vectors, values
from zoo.compression.stage import Treated, Workbench
from zoo.compression.treat import Made, check_number, choose, fine_tune, finished, layers_of, put, values_of

_ACCIDENTAL = 1e-3  # share of zeros up to which nobody has pruned a weight: half precision rounds some to zero
_AT_ONCE = 1 << 24  # distances in memory together: 64 MiB


class VectorCodebooks(Made):
    """The weight that `Vectors` stands for. codes: int64 [L, R, S]. codebooks: float32 [L, S, K, D], trained."""

    codes: Tensor
    codebooks: nn.Parameter

    def __init__(self, codes: Tensor, codebooks: Tensor, size: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("codes", codes.clone())
        self.codebooks = nn.Parameter(codebooks.detach().clone())
        self.size = size

    def forward(self) -> Tensor:
        return values(Vectors(self.codes, self.codebooks, self.size))

    def form(self) -> Vectors:
        return Vectors(
            self.codes.cpu().contiguous(),
            self.codebooks.detach().cpu().clone(memory_format=torch.contiguous_format),
            self.size,
        )


@dataclass(frozen=True)
class ResidualQuantize:
    """Sums of codebook entries stand for runs of weights (Gong et al., arXiv:1412.6115).

    How: a weight becomes a matrix, one row an output, and is cut into blocks of `width` columns, as in product
    quantisation; k-means over the rows finds 2^bits entries for each block. What these leave over is coded in the same
    way, `levels` times. The paper's residual quantisation is the case of one block as wide as the matrix.
    Then the entries are trained for `epochs` at a peak rate of `lr`, in place of the recipe's; the codes stay.

    width, bits: one for all layers, or bits by name of layer, others being left out. A weight costs levels * bits /
    width bits, and each block a codebook of levels * 2^bits * width * 4 bytes, which is most of the file where there
    are few rows. Suggested: width 4, bits 6, for linear layers of 500 outputs and more.
    Costs: `iterations` of k-means over all blocks together, some seconds a million weights.
    With other stages: instead of `Share` and `Quantize`. A pruned layer is left as it is, for its zeros would not stay;
    so is one with fewer outputs than entries, and one whose columns are no multiple of the width.
    Raises CompressionError for values out of range, UnknownNameError for a layer that does not exist.
    """

    width: int = 4
    bits: int | Mapping[str, int] = 6
    levels: int = 2
    iterations: int = 30
    epochs: int = 0
    lr: float | None = None
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_number("width", self.width, 1, 1_000_000, whole=True)
        for bits in values_of(self.bits):
            check_number("bits", bits, 1, 12, whole=True)
        check_number("levels", self.levels, 1, 16, whole=True)
        check_number("iterations", self.iterations, 0, 100_000, whole=True)
        check_number("epochs", self.epochs, 0, 100_000, whole=True)

    def apply(self, model: nn.Module, work: Workbench) -> Treated:
        """The copy of a model with weights made of codebook entries."""
        bits_by_name, untreated = choose(model, self.bits, self.skip)
        coded = copy.deepcopy(model)
        words: dict[str, str] = {}
        layers = layers_of(coded)
        for name, bits in bits_by_name.items():
            weight = layers[name].weight.detach()
            reason = self._why_not(weight, bits)
            if reason is not None:
                untreated[name] = reason
                continue
            put(layers[name], self._coded(weight, bits, work.seed))
            blocks = prod(weight.shape[1:]) // self.width
            words[name] = f"{blocks:,} blocks of {self.width} columns, {self.levels} x {2**bits} entries each"
        if words:
            fine_tune(coded, work, self.epochs, self.lr)
        return finished(coded, words, untreated)

    def _why_not(self, weight: Tensor, bits: int) -> str | None:
        rows, columns = len(weight), prod(weight.shape[1:])
        zeros = int((weight == 0).sum())
        if zeros > _ACCIDENTAL * weight.numel():
            return f"has {zeros:,} weights that are zero, as pruned ones are, and would not be after this"
        if columns % self.width:
            return f"its {columns:,} columns are no multiple of the width {self.width}"
        if rows < 2**bits:
            return f"has {rows:,} outputs, fewer than the {2**bits:,} entries of {bits} bits"
        return None

    def _coded(self, weight: Tensor, bits: int, seed: int) -> VectorCodebooks:
        rest_SRD = weight.reshape(len(weight), -1, self.width).transpose(0, 1).float().cpu().contiguous()
        codes, codebooks = [], []
        for level in range(self.levels):
            book_SKD, codes_SR = vector_k_means(rest_SRD, 2**bits, self.iterations, seed + level)
            rest_SRD = rest_SRD - _entries(book_SKD, codes_SR)
            codes.append(codes_SR.transpose(0, 1))
            codebooks.append(book_SKD)
        return VectorCodebooks(torch.stack(codes), torch.stack(codebooks), tuple(weight.shape))


@dataclass(frozen=True)
class ProductQuantize:
    """One codebook entry stands for a run of weights (Gong et al., arXiv:1412.6115).

    `ResidualQuantize` of one level; what is said there holds. Suggested: width 2 to 4, bits 5 to 8: 1 to 4 bits a
    weight and 16 to 24 times smaller linear layers at about a point of accuracy, in the paper's figures on ImageNet.
    """

    width: int = 4
    bits: int | Mapping[str, int] = 6
    iterations: int = 30
    epochs: int = 0
    lr: float | None = None
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._residual()

    def apply(self, model: nn.Module, work: Workbench) -> Treated:
        """The copy of a model with weights made of codebook entries."""
        return self._residual().apply(model, work)

    def _residual(self) -> ResidualQuantize:
        return ResidualQuantize(self.width, self.bits, 1, self.iterations, self.epochs, self.lr, self.skip)


def vector_k_means(points_SRD: Tensor, count: int, iterations: int, seed: int) -> tuple[Tensor, Tensor]:
    """Lloyd's k-means in each of S blocks apart: (centroids float32 [S, K, D], label of each point int64 [S, R]).

    It starts from `count` different rows drawn at random, and stops when no label changes. A centroid that loses all
    its points stays where it was.
    """
    generator = torch.Generator().manual_seed(seed)
    first = torch.randperm(points_SRD.shape[1], generator=generator)[:count]
    centroids_SKD = points_SRD[:, first].clone()
    labels_SR = _nearest(points_SRD, centroids_SKD)
    for _ in range(iterations):
        index_SRD = labels_SR[..., None].expand_as(points_SRD)
        sums_SKD = torch.zeros_like(centroids_SKD).scatter_add_(1, index_SRD, points_SRD)
        counts_SK = torch.zeros_like(centroids_SKD[..., 0])
        counts_SK.scatter_add_(1, labels_SR, torch.ones_like(points_SRD[..., 0]))
        means_SKD = sums_SKD / counts_SK.clamp_min(1)[..., None]
        centroids_SKD = torch.where(counts_SK[..., None] > 0, means_SKD, centroids_SKD)
        before, labels_SR = labels_SR, _nearest(points_SRD, centroids_SKD)
        if torch.equal(before, labels_SR):
            break
    return centroids_SKD, labels_SR


def _nearest(points_SRD: Tensor, centroids_SKD: Tensor) -> Tensor:
    """Label of the nearest centroid of each point: int64 [S, R], a few blocks at a time."""
    blocks = max(1, _AT_ONCE // (points_SRD.shape[1] * centroids_SKD.shape[1]))
    parts = zip(points_SRD.split(blocks), centroids_SKD.split(blocks), strict=True)
    return torch.cat([torch.cdist(points, centroids).argmin(2) for points, centroids in parts])


def _entries(book_SKD: Tensor, codes_SR: Tensor) -> Tensor:
    """The entry of each point: [S, R, D]."""
    return book_SKD.gather(1, codes_SR[..., None].expand(-1, -1, book_SKD.shape[2]))
