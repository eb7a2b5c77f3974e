"""What the tests of methods treat: a small network with every kind of layer, and a workbench to train it on."""

from dataclasses import replace

import torch
from torch import nn

from zoo.compression.stage import Workbench
from zoo.data import Dataset
from zoo.recipes import Recipe

RECIPE = Recipe("few", epochs=1, batch_size=128, lr=0.05, momentum=0.9, weight_decay=0.05, ema_decay=0.9)


def network() -> nn.Module:
    """[N, 1, 8, 8] -> [N, 10] through a plain, a depthwise and a grouped convolution, batch norm and a linear layer."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1, stride=2, groups=4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(512, 10),
        ).eval()


LAYERS = ("0", "3", "6", "9")


def workbench(digits: tuple[Dataset, Dataset], seed: int = 0) -> Workbench:
    """The first 512 digits at 8 x 8 pixels, and a recipe with momentum and a strong weight decay."""
    train = digits[0].subset(torch.arange(512))
    train = replace(train, images=train.images[:, :, 2:26:3, 2:26:3].contiguous())
    return Workbench(train=train, recipe=RECIPE, seed=seed, device="cpu")


def weight(model: nn.Module, name: str) -> torch.Tensor:
    """The weight of a layer, as it is used."""
    tensor: torch.Tensor = model.get_submodule(name).weight.detach()  # type: ignore[union-attr,assignment,operator]
    return tensor
