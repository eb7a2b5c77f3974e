"""Uniform quantisation of weights: whole numbers of 1 to 8 bits on an even grid; of layers' inputs on request."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from zoo.compression.activations import quantize_inputs
from zoo.compression.forms import Form, Scaled, Signs
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
    straight_through,
    values_of,
)
from zoo.errors import CompressionError

Range = Literal["minmax", "mse"]
_CANDIDATES = 100  # clipping points tried for each grid
_EVERY = 20  # steps of training between two recomputations of the scales


@dataclass(frozen=True)
class Levels:
    """The whole numbers of a grid: low..high; those of 1 symmetric bit are -1 and 1, and 0 for what was pruned."""

    bits: int
    symmetric: bool

    @property
    def low(self) -> int:
        return -self.high if self.symmetric else 0

    @property
    def high(self) -> int:
        codes: int = 2**self.bits
        return max(1, codes // 2 - 1) if self.symmetric else codes - 1

    @property
    def is_sign(self) -> bool:
        return self.bits == 1 and self.symmetric


class Grid(Made):
    """weight = scale * (code - zero), code = clamp(round(latent / scale) + zero): float32, of any shape.

    latent: float32, trained by the straight-through estimator: its gradient is that of the weight, and 0 where it lies
    more than half a step outside of the grid (the largest weight, which sets the grid, is to learn too). scale: float32
    [C] or [1]; where it is learned, by the gradient of arXiv:1902.08153, equation 3, divided by sqrt(weights of a scale
    * high) as section 2.2 does. zero: int64, as scale. kept: bool, what was not pruned; the rest is 0.
    """

    latent: nn.Parameter
    scale: nn.Parameter
    zero: Tensor
    kept: Tensor

    def __init__(self, weight: Tensor, levels: Levels, *, per_channel: bool, clip: Range, learned: bool) -> None:
        super().__init__()
        self.levels = levels
        self.clip: Range = clip
        channels = len(weight) if per_channel else 1
        self.latent = nn.Parameter(weight.detach().clone())
        self.scale = nn.Parameter(weight.new_ones(channels), requires_grad=learned)
        self.register_buffer("zero", torch.zeros(channels, dtype=torch.int64, device=weight.device))
        self.register_buffer("kept", weight != 0)
        self.fit_range()

    @torch.no_grad()
    def fit_range(self) -> None:
        """Choose scale and zero for the latent weights as they are now."""
        rows = torch.where(self.kept, self.latent, 0.0).reshape(len(self.scale), -1)
        scale, zero = best_grid(rows, self.levels, self.clip)
        self.scale.copy_(scale)
        self.zero.copy_(zero)

    def forward(self) -> Tensor:
        scale, zero = self._scale(), _over(self.zero, self.latent)
        ratio = self.latent / scale + zero
        inside = ratio.clamp(self.levels.low - 0.5, self.levels.high + 0.5)
        codes = straight_through(self._codes(), inside)
        return torch.where(self.kept, (codes - zero) * scale, 0.0)

    def form(self) -> Form:
        """Scaled, its codes counted from the lowest; one symmetric bit with nothing pruned is Signs."""
        codes = torch.where(self.kept, self._codes().long(), _over(self.zero, self.latent)).cpu().contiguous()
        scale = self._scale().detach().flatten().cpu().clone()
        if self.levels.is_sign and bool(self.kept.all()):
            return Signs((codes > 0).long(), scale)
        return Scaled(codes - self.levels.low, scale, self.zero.cpu() - self.levels.low)

    def floats(self) -> Tensor:
        return self.scale

    @torch.no_grad()
    def settle(self) -> None:
        """Put the latent weights into the middle of their codes' steps, where a small change of scale leaves them."""
        self.latent.copy_(self())

    @torch.no_grad()
    def times(self, factors_C: Tensor) -> "Grid | None":
        """The grid of the same codes for the weight times a factor a channel, [C] or [1]; a scale of 0 becomes 1.

        None where a factor is negative and the codes are not symmetric, so that the codes of the product are others.
        """
        if not self.levels.symmetric and bool((factors_C < 0).any()):
            return None
        factors_C = factors_C.to(self.scale)
        scale = self._scale().flatten() * factors_C
        grid = copy.deepcopy(self)
        grid.latent = nn.Parameter(self() * _over(factors_C, self.latent))
        grid.scale = nn.Parameter(torch.where(scale == 0, 1.0, scale.abs()), requires_grad=self.scale.requires_grad)
        grid.zero = self.zero.expand(len(scale)).clone()
        grid.kept = self.kept & (_over(scale, self.latent) != 0)
        return grid

    def _scale(self) -> Tensor:
        """Positive, of the weight's number of dimensions, with its gradient scaled down."""
        positive = self.scale.clamp_min(torch.finfo(torch.float32).tiny)
        share = (self.latent.numel() / len(self.scale) * self.levels.high) ** -0.5
        return _over(straight_through(positive, positive * share), self.latent)

    @torch.no_grad()
    def _codes(self) -> Tensor:
        return nearest_codes(self.latent, self._scale(), _over(self.zero, self.latent), self.levels)


@dataclass(frozen=True)
class Quantize:
    """Round weights to whole numbers of 1 to 8 bits (arXiv:1806.08342, section 2), and layers' inputs on request.

    How: value = scale * (code - zero), with one scale for each output channel or one for the layer. symmetric: zero = 0
    and codes of both signs, -127..127 at 8 bits; else codes 0..255 with a zero point, better for one-sided weights.
    Zero is always a value of the grid, so pruned weights stay zero. One symmetric bit is a sign and a scale.
    range: what the grid spans: "minmax" all weights; "mse" the span, of 100 tried, of least squared error, which clips
    large weights; it matters at 5 bits and fewer (arXiv:1810.05723).
    epochs: training through the rounding, by the straight-through estimator (arXiv:1308.3432). scales: "learned" with
    the weights (LSQ, arXiv:1902.08153), or "recomputed" from them every 20 steps and at the end. lr: peak rate, in
    place of the recipe's; a tenth of the rate of the first training is usual.

    bits: one for all or by name of layer, others being left out. Suggested: 8 without training, 4 with "mse" and a few
    epochs, 2 with many. activation_bits: also round the input of each treated layer, to 2 to 8 bits, between
    percentiles of what `calibration_images` training images give (percentile=1: from the least to the largest). The
    file stores weights alone, so a model read from it computes with unrounded inputs; the result says so.
    Costs: 4 bytes a scale; with "mse" a second or two a million weights. Fewer bits do not run faster by themselves.
    With other stages: after `Prune`; instead of `Share`; before `FoldBatchNorm`, so that training has the norms.
    Raises CompressionError for values out of range.
    """

    bits: int | Mapping[str, int] = 8
    per_channel: bool = True
    symmetric: bool = True
    range: Range = "minmax"
    epochs: int = 0
    scales: Literal["learned", "recomputed"] = "learned"
    lr: float | None = None
    activation_bits: int | None = None
    percentile: float = 0.9999
    calibration_images: int = 1000
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for bits in values_of(self.bits):
            check_number("bits", bits, 1, 8, whole=True)
        check_choice("range", self.range, ("minmax", "mse"))
        check_choice("scales", self.scales, ("learned", "recomputed"))
        check_number("epochs", self.epochs, 0, 100_000, whole=True)
        if self.activation_bits is not None:
            check_number("activation_bits", self.activation_bits, 2, 8, whole=True)
        check_number("percentile", self.percentile, 0.5, 1)
        check_number("calibration_images", self.calibration_images, 1, 10_000_000, whole=True)

    def apply(self, model: nn.Module, work: Workbench) -> Treated:
        """The quantised copy of a model."""
        bits_by_name, untreated = choose(model, self.bits, self.skip)
        quantized = copy.deepcopy(model)
        learned = self.epochs > 0 and self.scales == "learned"
        grids: dict[str, Grid] = {}
        words: dict[str, str] = {}
        layers = layers_of(quantized)
        for name, bits in bits_by_name.items():
            weight = layers[name].weight.detach()
            if not torch.isfinite(weight).all():
                raise CompressionError(f"{name} has weights that are not finite; nothing can be rounded to them.")
            levels = Levels(bits, self.symmetric)
            made = Grid(weight, levels, per_channel=self.per_channel, clip=self.range, learned=learned)
            put(layers[name], made)
            grids[name] = made
            words[name] = f"{weight.numel():,} weights of {bits} bits, {len(made.scale):,} scales"
        if grids and self.activation_bits is not None:
            images = work.need_train("calibrating activations")
            quantize_inputs(
                quantized,
                list(grids),
                self.activation_bits,
                images,
                self.calibration_images,
                self.percentile,
                work.seed,
            )
            untreated["activations"] = (
                f"inputs are rounded to {self.activation_bits} bits here; a file stores weights alone"
            )
        if grids:
            self._train(quantized, work, grids)
        return finished(quantized, words, untreated)

    def _train(self, model: nn.Module, work: Workbench, grids: dict[str, Grid]) -> None:
        if self.epochs == 0:
            return
        if self.scales == "learned":
            fine_tune(model, work, self.epochs, self.lr)
            return

        def recompute(model: nn.Module, step: int, steps: int) -> None:
            if step % _EVERY == 0:
                for grid in grids.values():
                    grid.fit_range()

        fine_tune(model, work, self.epochs, self.lr, recompute)
        for grid in grids.values():
            grid.fit_range()


def nearest_codes(values: Tensor, scale: Tensor, zero: Tensor, levels: Levels) -> Tensor:
    """The codes of the nearest values of a grid, as float32 whole numbers of the shape of `values`."""
    if levels.is_sign:
        return torch.where(values < 0, -1.0, 1.0)
    return ((values / scale).round() + zero).clamp(levels.low, levels.high)


def best_grid(rows_CN: Tensor, levels: Levels, clip: Range) -> tuple[Tensor, Tensor]:
    """(scale float32 [C], zero int64 [C]) for the values of each row; a row of zeros gets a scale of 1."""
    if clip == "minmax":
        return _grid(rows_CN, 1.0, levels)
    best_scale, best_zero = _grid(rows_CN, 1.0, levels)
    least = _squared_error(rows_CN, best_scale, best_zero, levels)
    for candidate in range(1, _CANDIDATES):
        scale, zero = _grid(rows_CN, candidate / _CANDIDATES, levels)
        error = _squared_error(rows_CN, scale, zero, levels)
        better = error < least
        least = torch.where(better, error, least)
        best_scale = torch.where(better, scale, best_scale)
        best_zero = torch.where(better, zero, best_zero)
    return best_scale, best_zero


def _grid(rows_CN: Tensor, share: float, levels: Levels) -> tuple[Tensor, Tensor]:
    """The grid that spans a share of the range of each row, zero included."""
    if levels.symmetric:
        scale = rows_CN.abs().amax(1) * share / levels.high
        zero = torch.zeros_like(scale)
    else:
        low, high = rows_CN.amin(1).clamp_max(0) * share, rows_CN.amax(1).clamp_min(0) * share
        scale = (high - low) / levels.high
        zero = (-low / torch.where(scale > 0, scale, 1.0)).round().clamp(0, levels.high)
    return torch.where(scale > 0, scale, 1.0), zero.long()


def _squared_error(rows_CN: Tensor, scale: Tensor, zero: Tensor, levels: Levels) -> Tensor:
    """[C]. Zeros of a row cost nothing: they are on the grid or were pruned."""
    scale, zero = scale[:, None], zero[:, None]
    rounded = (nearest_codes(rows_CN, scale, zero, levels) - zero) * scale
    return torch.where(rows_CN != 0, rounded - rows_CN, 0.0).square().sum(1)


def _over(channel_values: Tensor, weight: Tensor) -> Tensor:
    """[C] or [1] in the number of dimensions of a weight, to be multiplied with it."""
    return channel_values.reshape(-1, *[1] * (weight.ndim - 1))
