"""The one trainer: `fit`, the objectives it learns from, and the checkpoints it resumes from."""

from zoo.training.loop import OnStep, Run, fit
from zoo.training.objectives import CrossEntropy, Objective

__all__ = ["CrossEntropy", "Objective", "OnStep", "Run", "fit"]
