"""What is learned from: an objective returns the loss of one batch."""

from zoo.training.objectives.base import Objective
from zoo.training.objectives.cross_entropy import CrossEntropy

__all__ = ["CrossEntropy", "Objective"]
