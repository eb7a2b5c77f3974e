"""What a network learns by where nothing else is asked for."""

from torch import nn

from zoo.models.slimmable import Slimmable
from zoo.training.objectives.base import Objective
from zoo.training.objectives.cross_entropy import CrossEntropy
from zoo.training.objectives.widths import EveryWidth


def default_objective(model: nn.Module, label_smoothing: float) -> Objective:
    """Cross-entropy, at every width of a network that has several."""
    if isinstance(model, Slimmable):
        return EveryWidth(label_smoothing)
    return CrossEntropy(label_smoothing)
