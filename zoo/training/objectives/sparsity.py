"""Penalties that make weights small together, so that pruning finds less to lose. Each adds to another objective.

What is penalised is `layer.weight`, whatever it is made of: a masked weight is penalised as it is used.
"""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from zoo.training.objectives.base import Objective
from zoo.training.objectives.cross_entropy import CrossEntropy

Axis = Literal["outgoing", "incoming"]


class Penalty(Objective):
    """base + penalty(model). base: cross-entropy by default. What each one is, its class says."""

    def __init__(self, base: Objective | None = None) -> None:
        super().__init__()
        self.base = base or CrossEntropy()

    def forward(self, model: nn.Module, images_NCHW: Tensor, targets: Tensor) -> Tensor:
        loss: Tensor = self.base(model, images_NCHW, targets)
        return loss + self.penalty(model)

    def penalty(self, model: nn.Module) -> Tensor | float:
        """A scalar, of the model as it is now."""
        raise TypeError(f"{type(self).__name__} must define penalty(model)")


class L1(Penalty):
    """weight * sum |w| over all weights of convolutions and linear layers (arXiv:1506.02626, section 3.1).

    Drives single weights to zero: better than L2 (weight decay) before pruning without training after it, worse with.
    weight: 1e-6 to 1e-4; of the recipe, set weight_decay to 0 for a fair comparison.
    Costs one pass over the weights a step.
    """

    def __init__(self, weight: float, base: Objective | None = None) -> None:
        super().__init__(base)
        self.weight = weight

    def penalty(self, model: nn.Module) -> Tensor | float:
        return self.weight * _sum(weight.abs().sum() for weight in _weights(model))


class GroupSparsity(Penalty):
    """weight * the sum of the L2 norms of groups of weights, without a factor for their size (arXiv:1608.03665).

    A whole group goes to zero or none of it. axis "incoming": a group is what enters one output channel, dimension 0 of
    the weight. axis "outgoing": what leaves one input channel, dimension 1; grouped convolutions are left out there,
    since their dimension 1 joins channels of all groups. weight: 1e-5 to 1e-3.
    """

    def __init__(self, weight: float, axis: Axis = "incoming", base: Objective | None = None) -> None:
        super().__init__(base)
        self.weight = weight
        self.axis: Axis = axis

    def penalty(self, model: nn.Module) -> Tensor | float:
        return self.weight * _sum(_group_norms(weight, self.axis) for weight in _weights(model, self.axis))


class DropNeuron(Penalty):
    """Penalties on what enters and what leaves each hidden neuron: DropNeuron, or DeepNeuron (arXiv:1606.07326).

    incoming: factor of the norms of what enters a neuron, over all layers but the last, whose neurons are the classes.
    outgoing: of what leaves one, over all layers but the first, whose inputs are the image. A neuron that loses either
    side can be removed. Layers count in the order of the model's modules, so this is meant for plain chains.
    Suggested: 1e-5 to 1e-3, both alike.
    """

    def __init__(self, incoming: float, outgoing: float, base: Objective | None = None) -> None:
        super().__init__(base)
        self.incoming = incoming
        self.outgoing = outgoing

    def penalty(self, model: nn.Module) -> Tensor | float:
        entering = _sum(_group_norms(weight, "incoming") for weight in list(_weights(model))[:-1])
        leaving = _sum(_group_norms(weight, "outgoing") for weight in list(_weights(model, "outgoing"))[1:])
        return self.incoming * entering + self.outgoing * leaving


class BatchNormL1(Penalty):
    """weight * sum |scale| over all batch norms: network slimming (arXiv:1708.06519, section 3).

    Channels whose scale goes to zero are pruned afterwards, by `PruneChannels(importance="bn", scope="global")`.
    weight: 1e-4 (VGG) or 1e-5 (ResNet), as in the paper. Batch norms without a trained scale do not count.
    """

    def __init__(self, weight: float, base: Objective | None = None) -> None:
        super().__init__(base)
        self.weight = weight

    def penalty(self, model: nn.Module) -> Tensor | float:
        norms = (module for module in model.modules() if isinstance(module, _BatchNorm) and module.affine)
        return self.weight * _sum(norm.weight.abs().sum() for norm in norms)


def _weights(model: nn.Module, axis: Axis = "incoming") -> Iterator[Tensor]:
    """The weights that have groups along an axis, in the model's order."""
    for module in model.modules():
        if isinstance(module, nn.Linear) or (
            isinstance(module, nn.Conv2d) and (axis == "incoming" or module.groups == 1)
        ):
            yield module.weight


def _group_norms(weight: Tensor, axis: Axis) -> Tensor:
    """Scalar: the L2 norms of all groups, summed; the gradient of a group of zeros is zero."""
    groups = weight.flatten(1) if axis == "incoming" else weight.transpose(0, 1).flatten(1)
    norms: Tensor = torch.linalg.vector_norm(groups, dim=1)
    return norms.sum()


def _sum(terms: Iterator[Tensor]) -> Tensor | float:
    return sum(terms, start=0.0)
