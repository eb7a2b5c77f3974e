"""Rounding of what enters a layer, between limits measured on images."""

import torch
from torch import Tensor, nn

from zoo.compression.calibrate import sample_batches
from zoo.compression.treat import straight_through
from zoo.data import Dataset

_SAMPLE = 100_000  # values of one batch that percentiles are taken of


class InputGrid(nn.Module):
    """Rounds a tensor to 2^bits even steps between two limits that enclose zero (arXiv:1806.08342, section 2.1).

    While `measuring` it lets everything through and keeps the widest limits that any batch has shown: the values at
    `percentile` of its sorted values, from below and from above. Limits are no part of the state, for no file has them.
    """

    low: Tensor
    high: Tensor

    def __init__(self, bits: int, percentile: float) -> None:
        super().__init__()
        self.steps = 2**bits - 1
        self.percentile = percentile
        self.measuring = True
        self.register_buffer("low", torch.zeros(()), persistent=False)
        self.register_buffer("high", torch.zeros(()), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        if self.measuring:
            self._widen(features.detach().float().flatten())
            return features
        scale = (self.high - self.low).clamp_min(torch.finfo(torch.float32).tiny) / self.steps
        zero = (-self.low / scale).round()
        codes = ((features / scale).round() + zero).clamp(0, self.steps)
        inside = features.clamp(-zero * scale, (self.steps - zero) * scale)
        return straight_through(((codes - zero) * scale).to(features.dtype), inside.to(features.dtype))

    def _widen(self, values: Tensor) -> None:
        some = values[:: max(1, len(values) // _SAMPLE)] if self.percentile < 1 else values
        ordered = some.sort().values
        last = len(ordered) - 1
        self.high.copy_(torch.maximum(self.high, ordered[round(self.percentile * last)]))
        self.low.copy_(torch.minimum(self.low, ordered[last - round(self.percentile * last)]))


def quantize_inputs(
    model: nn.Module, names: list[str], bits: int, train: Dataset, images: int, percentile: float, seed: int
) -> None:
    """Round the inputs of the named layers, in place, between limits measured on so many training images.

    The rounding is a submodule `input_grid` of the layer, called by a hook that holds nothing: it is copied, moved and
    trained with the layer. A layer that has one already gets another.
    """
    grids = []
    for name in names:
        layer = model.get_submodule(name)
        if not hasattr(layer, "input_grid"):
            layer.register_forward_pre_hook(_round_input)
        grid = InputGrid(bits, percentile).to(next(layer.parameters()).device)
        layer.add_module("input_grid", grid)
        grids.append(grid)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    device = next(model.parameters()).device
    with torch.no_grad():
        for batch_NCHW in sample_batches(train, -(-images // 100), min(100, images), seed, device):
            model(batch_NCHW)
    for module, mode in modes:
        module.training = mode
    for grid in grids:
        grid.measuring = False


def _round_input(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    rounded: Tensor = layer.input_grid(inputs[0])  # type: ignore[operator]
    return (rounded, *inputs[1:])
