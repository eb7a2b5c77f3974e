"""Folding batch norm into the convolution before it: the same function with fewer numbers to store."""

from collections import Counter
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from zoo.compression.forms import materialise
from zoo.compression.quantize import Grid
from zoo.compression.stage import Treated, Workbench
from zoo.compression.structured.graph import image_of
from zoo.compression.structured.rules import NORMS, tensors
from zoo.compression.structured.shrink import keep_zeros
from zoo.compression.treat import layers_of, made_of, put
from zoo.cost.subject import blank_image, image_fits, left_as_it_was
from zoo.registry import Image


@dataclass(frozen=True)
class FoldBatchNorm:
    """Fold each BatchNorm2d into the convolution that alone feeds it (arXiv:1712.05877, section 3.2).

    How: weight * g / s and (bias - mean) * g / s + b, for the norm's scale g, shift b and running s = sqrt(var + eps).
    An identity takes the norm's place. Exact up to rounding in eval mode. With other stages: after all training, which
    needs the norms; before `Share`. A layer that `Quantize` has treated keeps its whole numbers, the norm's factors
    going into its scales, one a channel then; with a zero point that holds where no factor is negative. Other weights
    of compressed form become plain ones, since the fold changes their values; pruned weights stay zero.
    A model without batch norm is left as it is, and the receipt says so.
    """

    def apply(self, model: nn.Module, work: Workbench) -> Treated:
        """The copy of a model with its norms folded."""
        folded, pairs, factors = _folded(model, image_of(model, work))
        _keep_grids(model, folded, factors)
        left = [n for n, m in folded.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        layers = {convolution: f"took in {norm}" for norm, convolution in pairs.items()}
        untreated = dict.fromkeys(left, "no convolution feeds it, and it alone")
        return Treated(folded, layers, untreated if layers or left else {"the model": "has no batch norm"})


def fold_batch_norm(model: nn.Module, image: Image | None = None) -> nn.Module:
    """A copy of a model with its batch norms folded; as it is where there are none to fold.

    image: (C, H, W) to trace it with, needed for a network that was not built by its name.
    """
    return _folded(model, image or image_of(model, Workbench()))[0]


def foldable(model: nn.Module, image: Image) -> dict[str, str]:
    """Norm -> convolution, by name: both called once, and the convolution's output read by the norm alone."""
    recorder = _Recorder(model)
    batch = blank_image(model, image)
    with left_as_it_was(model), image_fits(model, image), recorder:
        recorder.read(model(batch))
    pairs = {}
    for norm, source in recorder.norms.items():
        convolution = recorder.makers.get(source)
        once = recorder.calls[norm] == 1 and convolution is not None and recorder.calls[convolution] == 1
        if once and convolution is not None and recorder.readers[source] == 1:
            pairs[norm] = convolution
    return pairs


class _Recorder(TorchDispatchMode):
    """Who makes each tensor and how often it is read. Tensors are kept, so that an identity is given once."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.makers: dict[int, str] = {}
        self.norms: dict[str, int] = {}
        self.readers: Counter[int] = Counter()
        self.calls: Counter[str] = Counter()
        self.kept: list[Tensor] = []
        self.owners: dict[int, str] = {}
        owned: Counter[int] = Counter()
        for name, module in model.named_modules():
            if isinstance(module, nn.Conv2d):
                self.owners[id(module.weight)] = name
                owned[id(module.weight)] += 1
            elif type(module) is nn.BatchNorm2d and module.running_mean is not None:
                self.owners[id(module.running_mean)] = name
        self.owners = {key: name for key, name in self.owners.items() if owned[key] <= 1}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        self.read((args, kwargs or {}))
        name = func._overloadpacket.__name__
        if name == "convolution" and not args[6] and id(args[1]) in self.owners:
            self.makers[id(output)] = self.owners[id(args[1])]
            self.calls[self.owners[id(args[1])]] += 1
        elif name in NORMS and id(args[3]) in self.owners:
            norm = self.owners[id(args[3])]
            self.norms[norm] = id(args[0])
            self.calls[norm] += 1
        self.kept += list(tensors(output))
        return output

    def read(self, value: Any) -> None:
        """Count a reading of every tensor in it."""
        for tensor in tensors(value):
            self.readers[id(tensor)] += 1
            self.kept.append(tensor)


def _folded(model: nn.Module, image: Image) -> tuple[nn.Module, dict[str, str], dict[str, Tensor]]:
    """(a folded copy with plain weights, norm -> convolution, float64 [C] by convolution: what took in its norm)."""
    folded = materialise(deepcopy(model))
    pairs = foldable(folded, image)
    factors = {convolution: _fold(folded, convolution, norm) for norm, convolution in pairs.items()}
    keep_zeros(model, folded)
    return folded, pairs, factors


def _keep_grids(model: nn.Module, folded: nn.Module, factors: dict[str, Tensor]) -> None:
    """Put the grids of `model` on the layers of `folded`, in place, where a grid can take the factors."""
    layers = layers_of(folded)
    for name, layer in layers_of(model).items():
        grid = made_of(layer)
        if isinstance(grid, Grid):
            scaled = grid.times(factors.get(name, torch.ones(1)))
            if scaled is not None:
                put(layers[name], scaled)


@torch.no_grad()
def _fold(model: nn.Module, convolution: str, norm: str) -> Tensor:
    """Fold one norm, in place: the factors of the channels."""
    layer, statistics = model.get_submodule(convolution), model.get_submodule(norm)
    weight, bias = _tensor(layer, "weight"), _tensor(layer, "bias")
    mean, var = _tensor(statistics, "running_mean"), _tensor(statistics, "running_var")
    gamma, beta = _tensor(statistics, "weight"), _tensor(statistics, "bias")
    if weight is None or mean is None or var is None or not isinstance(statistics, nn.BatchNorm2d):
        raise TypeError(f"{norm} has no statistics to fold into {convolution}")
    scale = (var.double() + statistics.eps).rsqrt()
    scale = scale if gamma is None else scale * gamma.double()
    shift = -mean.double() if bias is None else bias.double() - mean.double()
    shift = shift * scale if beta is None else shift * scale + beta.double()
    scaled = weight.double() * scale.reshape(-1, 1, 1, 1)
    weight.copy_(scaled.to(weight.dtype))
    layer.bias = nn.Parameter(shift.to(weight.dtype))
    parent, _, leaf = norm.rpartition(".")
    model.get_submodule(parent).add_module(leaf, nn.Identity())
    return scale


def _tensor(module: nn.Module, name: str) -> Tensor | None:
    value = getattr(module, name)
    return value if isinstance(value, Tensor) else None
