"""What the tests of exports share: networks whose numbers are not those of a fresh initialisation, and comparisons."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.registry import build


def network_of(
    name: str, image_size: int = 32, *, in_chans: int = 3, num_classes: int = 10, seed: int = 0
) -> nn.Module:
    """A registered network, in eval mode, whose batch norms have statistics, scales and shifts of their own."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build(name, num_classes=num_classes, in_chans=in_chans, image_size=image_size)
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
                if module.weight is not None:
                    nn.init.uniform_(module.weight, 0.5, 1.5)
                    nn.init.normal_(module.bias, 0, 0.1)
    return model


def images(count: int, image: tuple[int, int, int], seed: int = 1) -> Tensor:
    """Normal noise, float32 [count, C, H, W]."""
    return torch.randn(count, *image, generator=torch.Generator().manual_seed(seed))


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """The largest difference as a share of the largest value wanted."""
    return float((found - wanted).abs().max() / wanted.abs().max())


class Mixed(nn.Module):
    """[N, 3, 12, 12] -> [N, 5] by every operator that integers know."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, stride=1, padding=1, groups=8)
        self.left, self.right = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 6, 3, padding=1)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.average = nn.AvgPool2d(3, 2, padding=1, count_include_pad=False)
        self.narrow = nn.Conv2d(20, 6, 3, padding=1, bias=False)
        self.hidden, self.head = nn.Linear(6 * 3 * 3, 12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = x + F.relu6(self.depthwise(x))
        x = self.pool(torch.cat([F.relu(self.left(x)), self.right(x)], 1))
        x = F.pad(x, (0, 0, 0, 0, 4, 6))
        x = self.narrow(self.average(x))
        return self.head(torch.tanh(self.hidden(torch.flatten(x, 1))))


def mixed(seed: int = 0) -> nn.Module:
    """`Mixed` in eval mode with statistics of its own."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Mixed().eval()
        model.norm.running_mean.normal_(0, 0.3)
        model.norm.running_var.uniform_(0.5, 1.5)
    return model
