"""The one contract of an objective."""

from torch import Tensor, nn


class Objective(nn.Module):
    """A module that turns a model and a batch into a loss; its own parameters, if any, are trained with the model's.

    forward(model, images_NCHW float, targets int64 [N] or soft float [N, K]) -> scalar loss, the mean over the batch.
    """

    def forward(self, model: nn.Module, images_NCHW: Tensor, targets: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__name__} must define forward(model, images, targets)")
