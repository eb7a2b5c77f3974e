"""Half precision for what no other stage makes small: biases, norms, scales, codebooks."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from zoo.compression.forms import HasSigns
from zoo.compression.quantize import Grid
from zoo.compression.stage import Treated, Workbench
from zoo.compression.treat import Made, finished

_ERROR = 2.0**-11  # of rounding to float16, relative to the largest value


@dataclass(frozen=True)
class Halve:
    """Round what takes four bytes in the file to float16, which takes two; the network still computes in float32.

    How: biases, norms and their statistics, the scales of `Quantize`, the values of `Share`, weights that are pruned
    or as they were; a value changes by 2^-11 of the tensor's largest at most. A tensor that float16 has not so exactly
    (its largest value is beyond 65,504, or below 1e-4) keeps its four bytes, and so do the scales of binary
    weights and what the vector quantisers have made. Costs: nothing.
    With other stages: after all training, which would give the values their other digits back.
    Raises CompressionError where there is nothing to halve.
    """

    def apply(self, model: nn.Module, work: Workbench) -> Treated:
        """The rounded copy of a model."""
        halved = copy.deepcopy(model)
        words: dict[str, str] = {}
        untreated: dict[str, str] = {}
        for prefix, module in halved.named_modules():
            if "parametrizations" in prefix.split("."):
                continue
            for name, values in _floats(module).items():
                label = f"{prefix}.{name}".removeprefix(".").removesuffix(".weight")
                if values is None:
                    untreated[label] = "what its weight is made of is not rounded"
                elif not _halve(values):
                    untreated[label] = f"float16 does not have values as large or as small as those of {name}"
                else:
                    words[label] = f"{values.numel():,} values of 2 bytes"
        return finished(halved, words, untreated)


def _floats(module: nn.Module) -> dict[str, Tensor | None]:
    """What a file has as float32, by name of tensor: itself, or the values that it is made of; None for no such."""
    stored = module.state_dict().keys()
    own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    found: dict[str, Tensor | None] = {n: t for n, t in own if n in stored and t.dtype == torch.float32}
    if parametrize.is_parametrized(module):
        for name in module.parametrizations:  # type: ignore[union-attr]
            made = module.parametrizations[name][-1]  # type: ignore[index]
            if isinstance(made, Grid):
                made.settle()  # so that codes stay when scales change
            found[name] = made.floats() if isinstance(made, Made) else None
    if isinstance(module, HasSigns):
        found["weight"] = None
    return found


@torch.no_grad()
def _halve(values: Tensor) -> bool:
    """Round in place; False, and nothing changed, where float16 is not exact enough."""
    rounded = values.half().float()
    if not bool(((rounded - values).abs() <= _ERROR * values.abs().max()).all()):
        return False
    values.copy_(rounded)
    return True
