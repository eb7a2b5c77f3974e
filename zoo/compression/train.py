"""Training as a stage: to make weights small before what prunes them, or to recover after it."""

import copy
from dataclasses import dataclass

from torch import nn

from zoo.compression.stage import Treated, Workbench
from zoo.compression.treat import check_number, fine_tune
from zoo.errors import CompressionError
from zoo.training.objectives import Objective


@dataclass(frozen=True)
class Train:
    """Train for `epochs` by the workbench's recipe, under an objective: a penalty, before the stage that prunes by it.

        [Train(20, BatchNormL1(1e-4)), PruneChannels(0.5, importance="bn", scope="global", epochs=20)]
        [Train(20, GroupSparsity(1e-4)), PruneChannels(0.5, importance="l2", scope="global", epochs=20)]
        [Train(20, L1(1e-5)), Prune(0.1, epochs=20)]

    The first is network slimming (arXiv:1708.06519). objective: cross-entropy, with the recipe's label smoothing, by
    default; one that is given says for itself what it adds its penalty to. lr: peak rate, in place of the recipe's.
    With other stages: anywhere; masks, codebooks and grids stay and are trained with.
    Raises CompressionError for values out of range, and without images or a recipe.
    """

    epochs: int
    objective: Objective | None = None
    lr: float | None = None

    def __post_init__(self) -> None:
        check_number("epochs", self.epochs, 1, 100_000, whole=True)
        if self.objective is not None and not isinstance(self.objective, Objective):
            raise CompressionError(f"objective={self.objective!r} was given; an Objective such as L1(1e-5) is allowed.")

    def apply(self, model: nn.Module, work: Workbench) -> Treated:
        """The trained copy of a model."""
        trained = copy.deepcopy(model)
        fine_tune(trained, work, self.epochs, self.lr, objective=copy.deepcopy(self.objective))
        trained.train(model.training)
        return Treated(trained, {"the model": f"trained for {self.epochs} epochs"})
