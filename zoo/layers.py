"""What three families or more share, and nothing else."""

import torch
from torch import Tensor, nn

SMALL_IMAGE = 64  # pixels; up to this size a network takes its small-image form


def is_small(image_size: int) -> bool:
    """Whether a square image of this many pixels a side asks for the small-image form."""
    return image_size <= SMALL_IMAGE


def scaled(channels: int, width: float, divisor: int = 8) -> int:
    """`channels * width` rounded to a multiple of `divisor`, never down by more than a tenth (MobileNet-v2's rule)."""
    rounded = max(divisor, int(channels * width + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels * width else rounded


class ConvNormAct(nn.Sequential):
    """Convolution, batch norm, activation: [N, in, H, W] -> [N, out, H', W']. Padding keeps the size at stride 1."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int | tuple[int, int] | None = None,
        groups: int = 1,
        eps: float = 1e-5,
        activation: type[nn.Module] | None = nn.ReLU,
    ) -> None:
        height, width = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        same = (height // 2, width // 2) if padding is None else padding
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, out_channels, (height, width), stride, same, groups=groups, bias=False),
            nn.BatchNorm2d(out_channels, eps=eps),
        ]
        if activation is not None:
            layers.append(activation(inplace=True))
        super().__init__(*layers)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """On a CPU under autocast, a strided grouped convolution is computed in single precision.

        PyTorch's bfloat16 kernel for the gradient of its input is 5 to 45 times slower (benchmarks/LOG.md).
        """
        if not (images_NCHW.is_cpu and torch.is_autocast_enabled("cpu") and _is_strided_and_grouped(self[0])):
            output_NCHW: Tensor = super().forward(images_NCHW)
            return output_NCHW
        with torch.autocast("cpu", enabled=False):
            features_NCHW: Tensor = self[0](images_NCHW.float()).to(torch.get_autocast_dtype("cpu"))
        for layer in list(self)[1:]:
            features_NCHW = layer(features_NCHW)
        return features_NCHW


def _is_strided_and_grouped(convolution: nn.Module) -> bool:
    """Whether it is a convolution of several groups that lowers the resolution."""
    return isinstance(convolution, nn.Conv2d) and convolution.groups > 1 and max(convolution.stride) > 1


class GlobalAveragePool(nn.Module):
    """Mean over height and width: [N, C, H, W] -> [N, C] (arXiv:1312.4400, section 3.2)."""

    def forward(self, features_NCHW: Tensor) -> Tensor:
        return features_NCHW.mean((2, 3))


class Branches(nn.ModuleDict):
    """Named branches side by side, joined along the channels: [N, C, H, W] -> [N, sum of theirs, H', W']."""

    def forward(self, features_NCHW: Tensor) -> Tensor:
        return torch.cat([branch(features_NCHW) for branch in self.values()], 1)


def init_weights(model: nn.Module) -> nn.Module:
    """He initialisation by fan-out for convolutions (arXiv:1502.01852), small normal for linear layers; in place."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
    return model
