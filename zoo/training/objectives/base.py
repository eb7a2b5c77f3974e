"""The one contract of an objective."""

from torch import Tensor, nn


class Objective(nn.Module):
    """A module that turns a model and a batch into a loss; its own parameters, if any, are trained with the model's.

    forward(model, images_NCHW float, targets int64 [N] or soft float [N, K]) -> scalar loss, the mean over the batch.
    """

    def forward(self, model: nn.Module, images_NCHW: Tensor, targets: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__name__} must define forward(model, images, targets)")

    def __repr__(self) -> str:
        """On one line, for receipts and cards: settings, objectives within, and the kind of anything else."""
        own = {name: value for name, value in vars(self).items() if name[0] != "_" and name != "training"}
        shown = {
            name: repr(value) if isinstance(value, str | int | float | tuple | Objective) else type(value).__name__
            for name, value in [*own.items(), *self.named_children()]
        }
        return f"{type(self).__name__}({', '.join(f'{name}={text}' for name, text in shown.items())})"
