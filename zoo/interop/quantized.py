"""A network in whole numbers, as a device without floating point runs it, and what it computes to the last bit.

The scheme is that of arXiv:1712.05877: a value is scale * (code - zero). What goes from operator to operator is uint8;
weights are int8, symmetric, with one scale for each filter; a bias is int32 of the scale (inputs times weights); sums
are int32; a sum is brought to the next scale by a multiplication with a whole number and a shift (section 2.2). The
logits are int16.

This is the form that the writers of ONNX and C read, and the reference that they are held against: `QuantizedNetwork`
is a list of `Step`s, each an operator of zoo.interop.operators with its numbers. `zoo.interop.calibration` makes one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.data import normalize
from zoo.interop.operators import (
    Add,
    AveragePool,
    Convolution,
    Function,
    GlobalAverage,
    Linear,
    Operator,
    moved,
)
from zoo.registry import Image

MANTISSA_BITS = 31
MOST_SHIFT = 62  # sums of 32 bits times 31 bits stay within 63
ADD_SHIFT = 20  # of sums of two, in 64 bits
EXACT_FLOAT32 = 1 << 24  # whole numbers up to here are exact in float32, and so are their sums


@dataclass(frozen=True)
class Grid:
    """value = scale * (code - zero), codes from low to high. scale: a number that float32 has exactly."""

    scale: float
    zero: int
    low: int = 0
    high: int = 255

    def codes(self, values: Tensor) -> Tensor:
        """The nearest codes, int32, of float values; halves go to the even one, as in ONNX."""
        found = torch.round(values / self.scale) + self.zero
        return found.clamp(self.low, self.high).to(torch.int32)

    def values(self, codes: Tensor) -> Tensor:
        """Float32 of codes."""
        return (codes - self.zero).to(torch.float32) * self.scale


@dataclass(frozen=True)
class Value:
    """What one step hands to others. shape: without the batch."""

    name: str
    shape: tuple[int, ...]
    grid: Grid


@dataclass(frozen=True, eq=False)
class Rescale:
    """round(sum * multiplier / 2^shift), halves upwards: (sum * multiplier + 2^(shift - 1)) >> shift in 64 bits.

    multipliers: int64 [F] or [1], of at most 31 bits; shifts: int64, as many, from 1 to 62.
    """

    multipliers: Tensor
    shifts: Tensor

    def __call__(self, sums: Tensor) -> Tensor:
        """Of whole numbers [N, F, ...]."""
        shape = (1, -1, *[1] * (sums.ndim - 2))
        shifts = self.shifts.reshape(shape)
        half = torch.ones_like(shifts) << (shifts - 1)
        return (sums.to(torch.int64) * self.multipliers.reshape(shape) + half) >> shifts


@dataclass(frozen=True, eq=False)
class Weights:
    """codes: int8 [F, C / groups, h, w] or [F, C]. scales: float32 [F]. bias: int32 [F]."""

    codes: Tensor
    scales: Tensor
    bias: Tensor


@dataclass(frozen=True, eq=False)
class Step:
    """One operator on codes. layer: the module of the network that it comes from.

    inputs, output: the values. Operators that only move values, and the average of windows, have inputs and output on
    one grid. clamp: lowest and highest code of the output, which a ReLU makes narrower than its grid.
    Of convolutions and linear layers: weights, and one rescale from their sums to the output.
    Of Add: a rescale for each input; of GlobalAverage: one from the sum over the map.
    Of Function: table, uint8 [256], the output for each code.
    """

    operator: Operator
    layer: str
    inputs: tuple[Value, ...]
    output: Value
    clamp: tuple[int, int]
    weights: Weights | None = None
    rescales: tuple[Rescale, ...] = ()
    table: Tensor | None = None

    def run(self, codes: Sequence[Tensor]) -> Tensor:
        """Codes int32 [N, ...] of the inputs -> those of the output."""
        found = self._sums(codes) + self.output.grid.zero
        return found.clamp(*self.clamp).to(torch.int32)

    def _sums(self, codes: Sequence[Tensor]) -> Tensor:
        """The output's codes less its zero, before they are clamped."""
        operator = self.operator
        inputs = [code - value.grid.zero for code, value in zip(codes, self.inputs, strict=True)]
        if isinstance(operator, Convolution | Linear):
            return self.rescales[0](self._products(inputs[0]))
        if isinstance(operator, GlobalAverage):
            return self.rescales[0](inputs[0].sum((2, 3)))
        if isinstance(operator, Add):
            multipliers = [int(rescale.multipliers) for rescale in self.rescales]
            total = inputs[0].to(torch.int64) * multipliers[0] + inputs[1].to(torch.int64) * multipliers[1]
            return (total + (1 << (ADD_SHIFT - 1))) >> ADD_SHIFT
        if isinstance(operator, AveragePool):
            return _average(operator, inputs[0])
        if isinstance(operator, Function):
            assert self.table is not None
            return self.table.to(torch.int32)[codes[0].long()] - self.output.grid.zero
        return moved(operator, [x.float() for x in inputs]).to(torch.int32)

    def _products(self, x: Tensor) -> Tensor:
        """int64 sums of products and bias, computed in floating point where that is exact."""
        assert self.weights is not None
        weights, bias = self.weights.codes, self.weights.bias
        grid = self.inputs[0].grid
        largest = max(grid.high - grid.zero, grid.zero - grid.low)
        bound = int((weights.abs().to(torch.int64).flatten(1).sum(1) * largest).max())
        dtype = torch.float32 if bound < EXACT_FLOAT32 else torch.float64
        operator = self.operator
        if isinstance(operator, Convolution):
            sums = F.conv2d(
                x.to(dtype), weights.to(dtype), None, operator.stride, operator.padding, groups=operator.groups
            )
        else:
            sums = F.linear(x.to(dtype), weights.to(dtype))
        return sums.to(torch.int64) + bias.reshape(1, -1, *[1] * (sums.ndim - 2))


@dataclass(frozen=True, eq=False)
class QuantizedNetwork:
    """Steps in the order in which they run. Called with float [N, C, H, W] it gives float32 logits [N, K]."""

    image: Image
    input: Value
    output: Value
    steps: tuple[Step, ...]

    def __call__(self, images_NCHW: Tensor) -> Tensor:
        return self.output.grid.values(self.run(self.input.grid.codes(images_NCHW)))

    def run(self, codes_NCHW: Tensor) -> Tensor:
        """Codes of the logits, int32 [N, K], for those of the images."""
        held = {self.input.name: codes_NCHW}
        last = {value.name: number for number, step in enumerate(self.steps) for value in step.inputs}
        for number, step in enumerate(self.steps):
            held[step.output.name] = step.run([held[value.name] for value in step.inputs])
            for name in {value.name for value in step.inputs if last[value.name] == number}:
                del held[name]
        return held[self.output.name]

    def pixel_codes(self, mean: Sequence[float], std: Sequence[float]) -> Tensor:
        """uint8 [C, 256]: the input's code for each pixel 0..255 of each channel."""
        pixels = torch.arange(256, dtype=torch.uint8).expand(1, len(mean), 1, 256)
        return self.input.grid.codes(normalize(pixels, mean, std))[0, :, 0].to(torch.uint8)


def rescale(ratios: Tensor) -> Rescale:
    """The multipliers of 31 bits and the shifts that come nearest to positive ratios, float64 [F]."""
    exponents = torch.frexp(ratios).exponent
    shifts = (MANTISSA_BITS - exponents.to(torch.int64)).clamp(1, MOST_SHIFT)
    multipliers = torch.round(ratios * torch.exp2(shifts.double())).to(torch.int64)
    return Rescale(multipliers.clamp_max(2**MANTISSA_BITS - 1), shifts)


def add_rescale(ratio: float) -> Rescale:
    """Of one input of a sum of two: all have the same shift."""
    return Rescale(torch.tensor([round(ratio * 2**ADD_SHIFT)]), torch.tensor([ADD_SHIFT]))


def _average(operator: AveragePool, x: Tensor) -> Tensor:
    """The mean of each window, halves away from zero; whole numbers below 2^24 are exact in float32."""
    window = (operator.kernel, operator.stride, operator.padding, operator.ceil)
    sums = F.avg_pool2d(x.float(), *window, True, 1).round().to(torch.int64)
    counts = window_counts(operator, (x.shape[2], x.shape[3]))
    return torch.sign(sums) * ((2 * sums.abs() + counts) // (2 * counts))


def window_counts(operator: AveragePool, size: tuple[int, int]) -> Tensor:
    """How many pixels each window of a map of this size is averaged over: int64 [H', W']."""
    window = (operator.kernel, operator.stride, operator.padding, operator.ceil)
    ones = torch.ones(1, *size)
    inside = F.avg_pool2d(ones, *window, True, 1)
    counts = inside / F.avg_pool2d(ones, *window, True) if operator.count_padding else inside
    return counts[0].round().to(torch.int64)
