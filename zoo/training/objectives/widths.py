"""Learning at several widths at once."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from zoo.errors import RecipeError
from zoo.models.slimmable import Slimmable
from zoo.training.objectives.base import Objective


class EveryWidth(Objective):
    """The sum of the cross-entropies at every width of a slimmable network (arXiv:1812.08928, algorithm 1).

    distil: all widths but the widest learn from its answers to the same images instead of from the labels
    (arXiv:1903.05134, section 3.3). sandwich: not every width, but the widest, the narrowest and two drawn anew for
    each batch, so that any width between works (section 3.2); one of the two is drawn from the network's own widths,
    unlike in the paper, for these have statistics to keep. PyTorch's generator draws, which `fit` seeds for each step.
    The network is left at its widest. Raises RecipeError for one that is not slimmable.
    """

    def __init__(self, label_smoothing: float = 0.0, *, distil: bool = False, sandwich: bool = False) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.distil = distil
        self.sandwich = sandwich

    def forward(self, model: nn.Module, images_NCHW: Tensor, targets: Tensor) -> Tensor:
        if not isinstance(model, Slimmable):
            raise RecipeError(f"a {type(model).__name__} has one width; EveryWidth trains slimmable networks.")
        narrowest, *between, widest = model.widths
        if self.sandwich:
            own = [between[int(torch.randint(len(between), ()))]] if between else []
            between = [*own, narrowest + (widest - narrowest) * float(torch.rand(()))]
        model.set_width(widest)
        logits_NK = model(images_NCHW).float()
        loss = cross_entropy(logits_NK, targets, label_smoothing=self.label_smoothing)
        smoothing = self.label_smoothing
        if self.distil:
            targets, smoothing = logits_NK.detach().softmax(1), 0.0
        try:
            for width in (*between, narrowest):
                model.set_width(width)
                loss = loss + cross_entropy(model(images_NCHW).float(), targets, label_smoothing=smoothing)
        finally:
            model.set_width(widest)
        return loss
