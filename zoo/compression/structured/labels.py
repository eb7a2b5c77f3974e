"""Labels: which channel each element of an activation belongs to, and which of them can only go together.

A label is a whole number given to one output channel of one layer. A label tensor has the rank of the activation
[1, ...] that it describes; a dimension along which labels do not change has size 1, so that it broadcasts. Operators
that only move data move labels by the very same call. Labels that an operator combines are joined in one class; class
FROZEN holds those that have to stay.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

FROZEN = 0


class MismatchError(Exception):
    """A smaller network does not carry the channels that its layers expect; `labels` are those that met the fault."""

    def __init__(self, labels: Iterable[int], reason: str) -> None:
        super().__init__(reason)
        self.labels = frozenset(labels)
        self.reason = reason


class Classes:
    """Union-find over labels. Sealed, it learns no more: joining or freezing is a MismatchError then."""

    def __init__(self) -> None:
        self.parents = [FROZEN]
        self.sealed = False

    def fresh(self, count: int) -> Tensor:
        """New labels, each a class of its own: int64 [count]."""
        start = len(self.parents)
        self.parents.extend(range(start, start + count))
        return torch.arange(start, start + count)

    def find(self, label: int) -> int:
        """The class of a label: the smallest label in it, so that FROZEN wins."""
        root = label
        while self.parents[root] != root:
            root = self.parents[root]
        while self.parents[label] != root:
            self.parents[label], label = root, self.parents[label]
        return root

    def join(self, one: Tensor, other: Tensor) -> None:
        """Join the classes of two label tensors element by element; they broadcast."""
        left, right = torch.broadcast_tensors(one, other)
        pairs = torch.stack([left.reshape(-1), right.reshape(-1)], 1).unique(dim=0)
        for first, second in pairs[pairs[:, 0] != pairs[:, 1]].tolist():
            a, b = self.find(first), self.find(second)
            if a != b and self.sealed:
                raise MismatchError(pairs.flatten().tolist(), "channels meet that did not belong together")
            self.parents[max(a, b)] = min(a, b)

    def free(self, labels: Tensor) -> list[int]:
        """Those labels that are not frozen."""
        return [label for label in labels.unique().tolist() if self.find(label) != FROZEN]

    def freeze(self, labels: Iterable[int]) -> None:
        """Put labels into the class of those that stay."""
        for label in labels:
            self.parents[self.find(label)] = FROZEN


def compact(labels: Tensor) -> Tensor:
    """The same labels with every dimension along which they do not change cut to size 1."""
    for dim, size in enumerate(labels.shape):
        if size > 1 and (labels.stride(dim) == 0 or bool((labels == labels.narrow(dim, 0, 1)).all())):
            labels = labels.narrow(dim, 0, 1)
    return labels


def varied(labels: Tensor) -> list[int]:
    """The dimensions along which compact labels change."""
    return [dim for dim, size in enumerate(labels.shape) if size > 1]


def along(labels: Tensor, size: int) -> Tensor:
    """Compact labels that change along one dimension at most, as a vector: int64 [size]."""
    return labels.reshape(-1).expand(size)


def aligned(labels: Tensor, rank: int) -> Tensor:
    """With leading dimensions of size 1 up to `rank`, as broadcasting adds them."""
    return labels.reshape((1,) * (rank - labels.dim()) + tuple(labels.shape))
