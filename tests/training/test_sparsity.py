"""Sparsity penalties against numbers found by hand."""

import pytest
import torch
from torch import Tensor, nn

from zoo.training.objectives import L1, BatchNormL1, CrossEntropy, DropNeuron, GroupSparsity, Objective

ONE = torch.ones(1, 2), torch.zeros(1, dtype=torch.int64)


class Nothing(Objective):
    """A loss of one, whatever comes."""

    def forward(self, model: nn.Module, images_NCHW: Tensor, targets: Tensor) -> Tensor:
        return torch.ones(())


def loss_of(objective: Objective, model: nn.Module) -> float:
    return float(objective(model, *ONE).detach())


def linear(rows: list[list[float]]) -> nn.Linear:
    layer = nn.Linear(len(rows[0]), len(rows))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(rows))
        layer.bias.fill_(100)
    return layer


def chain() -> nn.Sequential:
    """Norms of rows: 5, 10 and 13; of columns: sqrt(45), sqrt(80) and 5, 12."""
    return nn.Sequential(linear([[3, -4], [6, 8]]), nn.ReLU(), linear([[-5, 12]]))


def test_l1_sums_magnitudes_of_weights_and_not_of_biases() -> None:
    assert loss_of(L1(0.1, Nothing()), chain()) == pytest.approx(1 + 0.1 * (3 + 4 + 6 + 8 + 5 + 12))


def test_groups_are_what_enters_or_what_leaves() -> None:
    assert loss_of(GroupSparsity(0.1, "incoming", Nothing()), chain()) == pytest.approx(1 + 0.1 * (5 + 10 + 13))
    columns = 45**0.5 + 80**0.5 + 5 + 12
    assert loss_of(GroupSparsity(0.1, "outgoing", Nothing()), chain()) == pytest.approx(1 + 0.1 * columns)


def test_the_groups_of_convolutions_are_channels() -> None:
    plain = nn.Conv2d(2, 1, 2, bias=False)
    depthwise = nn.Conv2d(2, 2, 1, groups=2, bias=False)
    with torch.no_grad():
        plain.weight.copy_(torch.tensor([[[[1.0, 1], [1, 1]], [[2, 2], [2, 2]]]]))
        depthwise.weight.fill_(7)
    model = nn.Sequential(plain, depthwise)
    assert loss_of(GroupSparsity(1.0, "incoming", Nothing()), model) == pytest.approx(1 + 20**0.5 + 14)
    assert loss_of(GroupSparsity(1.0, "outgoing", Nothing()), model) == pytest.approx(1 + 2 + 4)


def test_hidden_neurons_are_penalised_on_both_sides() -> None:
    """Rows of the first layer, columns of the last; the image and the classes have no neurons to drop."""
    assert loss_of(DropNeuron(0.1, 0.01, Nothing()), chain()) == pytest.approx(1 + 0.1 * (5 + 10) + 0.01 * (5 + 12))


def test_a_penalty_says_on_one_line_what_it_is() -> None:
    base = CrossEntropy(label_smoothing=0.1)
    expected = (
        "GroupSparsity(weight=0.5, axis='incoming', base=CrossEntropy(label_smoothing=0.1, auxiliary_weight=0.3))"
    )
    assert repr(GroupSparsity(0.5, base=base)) == expected
    base.helper = nn.Linear(1, 1)
    assert repr(base) == "CrossEntropy(label_smoothing=0.1, auxiliary_weight=0.3, helper=Linear)"


def test_batch_norm_scales() -> None:
    norm = nn.BatchNorm2d(3)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, -2, 0.5]))
    model = nn.Sequential(norm, nn.BatchNorm1d(2, affine=False), nn.Linear(2, 2))
    assert loss_of(BatchNormL1(0.1, Nothing()), model) == pytest.approx(1.35)


@pytest.mark.parametrize("objective", [L1(0.5), GroupSparsity(0.5), DropNeuron(0.5, 0.5), BatchNormL1(0.5)], ids=repr)
def test_zeros_have_a_finite_gradient_and_the_base_is_cross_entropy(objective: Objective) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2)).eval()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    loss = objective(model, *ONE)
    assert float(loss.detach()) == pytest.approx(float(CrossEntropy()(model, *ONE).detach()))
    loss.backward()
    assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in model.parameters())


def test_a_group_goes_to_zero_as_one() -> None:
    """Gradient descent on the penalty alone shrinks a row along itself, by the same length for every row."""
    model = chain()
    GroupSparsity(1.0, "incoming", Nothing())(model, *ONE).backward()
    first = model[0].weight.grad
    assert isinstance(first, Tensor)
    assert first.norm(dim=1).tolist() == pytest.approx([1, 1])
    assert first[0].tolist() == pytest.approx([0.6, -0.8])
