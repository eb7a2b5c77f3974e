"""Cross-entropy, with label smoothing and auxiliary classifiers."""

from typing import Any, cast

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from zoo.training.objectives.base import Objective


class CrossEntropy(Objective):
    """Mean cross-entropy in nats, label smoothing as in arXiv:1512.00567, section 7.

    auxiliary_weight: weight of each auxiliary classifier of a model that has some (GoogLeNet: 0.3, arXiv:1409.4842) and
    does not say itself, by `auxiliary_weights`, what each of them weighs (early exits).
    """

    def __init__(self, label_smoothing: float = 0.0, auxiliary_weight: float = 0.3) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.auxiliary_weight = auxiliary_weight

    def forward(self, model: nn.Module, images_NCHW: Tensor, targets: Tensor) -> Tensor:
        auxiliary: list[Tensor] = []
        if hasattr(model, "forward_with_auxiliary"):
            logits_NK, auxiliary = cast(Any, model).forward_with_auxiliary(images_NCHW)
        else:
            logits_NK = model(images_NCHW)
        loss = self._loss(logits_NK, targets)
        weights = getattr(model, "auxiliary_weights", (self.auxiliary_weight,) * len(auxiliary))
        for weight, logits in zip(weights, auxiliary, strict=True):
            loss = loss + weight * self._loss(logits, targets)
        return loss

    def _loss(self, logits_NK: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(logits_NK.float(), targets, label_smoothing=self.label_smoothing)
