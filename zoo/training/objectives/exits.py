"""Learning at several depths at once."""

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from zoo.errors import RecipeError
from zoo.models.branchy import EarlyExits
from zoo.training.objectives.base import Objective


class JointExits(Objective):
    """The weighted sum of the cross-entropies of all exits, the last one's among them (arXiv:1709.01686, equation 2).

    The weights are the model's own, `loss_weights`. Raises RecipeError for a network without exits.
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, model: nn.Module, images_NCHW: Tensor, targets: Tensor) -> Tensor:
        if not isinstance(model, EarlyExits):
            raise RecipeError(f"a {type(model).__name__} has one exit; JointExits trains networks with several.")
        losses = [
            weight * cross_entropy(logits_NK.float(), targets, label_smoothing=self.label_smoothing)
            for weight, logits_NK in zip(model.loss_weights, model.forward_exits(images_NCHW), strict=True)
        ]
        return sum(losses[1:], losses[0])
