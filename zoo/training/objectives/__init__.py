"""What is learned from: an objective returns the loss of one batch."""

from zoo.training.objectives.base import Objective
from zoo.training.objectives.cross_entropy import CrossEntropy
from zoo.training.objectives.default import default_objective
from zoo.training.objectives.distillation import Hints, LogitRegression, SoftTargets, Teachers, check_teachers
from zoo.training.objectives.sparsity import L1, BatchNormL1, DropNeuron, GroupSparsity, Penalty
from zoo.training.objectives.widths import EveryWidth

__all__ = [
    "L1",
    "BatchNormL1",
    "CrossEntropy",
    "DropNeuron",
    "EveryWidth",
    "GroupSparsity",
    "Hints",
    "LogitRegression",
    "Objective",
    "Penalty",
    "SoftTargets",
    "Teachers",
    "check_teachers",
    "default_objective",
]
