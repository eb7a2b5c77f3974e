"""The optimizer of a recipe, and the moving average of the weights."""

import copy

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from zoo.errors import unknown
from zoo.recipes import Recipe


def make_optimizer(module: nn.Module, recipe: Recipe) -> Optimizer:
    """Optimizer over all trainable parameters; those of fewer than two dimensions are left out of weight decay.

    "sgd" (Nesterov) and "adamw" are PyTorch's; any other name is looked up in timm. Raises UnknownNameError.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.momentum, 0.999))
    import timm.optim

    known = {str(name) for name in timm.optim.list_optimizers()}
    if recipe.optimizer not in known:
        raise unknown("optimizer", recipe.optimizer, known | {"sgd", "adamw"})
    made: Optimizer = timm.optim.create_optimizer_v2(
        groups, opt=recipe.optimizer, lr=recipe.lr, momentum=recipe.momentum, weight_decay=0.0
    )
    return made


class WeightAverage:
    """Exponential moving average of a model's parameters and buffers, held in a copy of the model.

    The decay is ramped up as (1 + n) / (10 + n) after n updates, so that a short run is averaged too.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards `model`; integer buffers are copied."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        averaged: list[Tensor] = []
        current: list[Tensor] = []
        for mine, theirs in zip(_tensors(self.model), _tensors(model), strict=True):
            if mine.is_floating_point():
                averaged.append(mine)
                current.append(theirs.detach())
            else:
                mine.copy_(theirs)
        torch._foreach_lerp_(averaged, current, 1 - decay)


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
