"""Training as a stage: what an objective makes small goes first."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_networks import RECIPE, network, weight, workbench
from torch import Tensor, nn

from zoo.compression import Prune, PruneChannels, Train
from zoo.compression.stage import Workbench
from zoo.data import Dataset
from zoo.errors import CompressionError
from zoo.training import fit
from zoo.training.objectives import L1, BatchNormL1, CrossEntropy, DropNeuron, GroupSparsity, Objective

Digits = tuple[Dataset, Dataset]


class Learned(CrossEntropy):
    """With a parameter of its own, which is trained too."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, model: nn.Module, images_NCHW: Tensor, targets: Tensor) -> Tensor:
        return super().forward(model, images_NCHW, targets) * self.scale.mean()


def test_it_is_the_one_trainer_and_leaves_the_model_and_the_objective_alone(digits: Digits) -> None:
    work, model, by_hand = workbench(digits), network(), network()
    objective = Learned()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    treated = Train(2, objective, lr=0.01).apply(model, work)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert float(objective.scale.detach()) == 1
    assert work.train is not None
    fit(by_hand, work.train, None, replace(RECIPE, epochs=2, lr=0.01), objective=objective, seed=0, device="cpu")
    for name, tensor in treated.model.state_dict().items():
        assert torch.equal(tensor, by_hand.state_dict()[name]), name
    assert treated.layers == {"the model": "trained for 2 epochs"}


def test_progress_is_told_where_it_is_asked_for(digits: Digits, capsys: pytest.CaptureFixture[str]) -> None:
    for spoken in (False, True):
        Train(1).apply(network(), replace(workbench(digits), spoken=spoken))
        assert ("epoch" in capsys.readouterr().err) == spoken


@pytest.mark.parametrize(
    ("objective", "measure"),
    [
        (L1(1e-2), lambda model: weight(model, "9").abs().sum()),
        (GroupSparsity(1e-1), lambda model: weight(model, "9").norm(dim=1).sum()),
        (DropNeuron(1e-1, 1e-1), lambda model: weight(model, "9").norm(dim=0).sum()),
        (BatchNormL1(1e-1), lambda model: weight(model, "1").abs().sum()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_penalties_make_small_what_they_name(digits: Digits, objective: Objective, measure: Any) -> None:
    work = workbench(digits)
    plain, penalised = (Train(2, chosen).apply(network(), work).model for chosen in (None, objective))
    assert float(measure(penalised)) < 0.95 * float(measure(plain))


def test_slimming_removes_the_channels_whose_scales_training_made_small(digits: Digits) -> None:
    work = workbench(digits)
    trained = Train(1, BatchNormL1(1e-3)).apply(network(), work).model
    with torch.no_grad():
        trained[1].weight[3:7] = 1e-4  # type: ignore[index,operator]
    treated = PruneChannels(0.25, importance="bn", scope="global").apply(trained, work)
    assert treated.layers["0"] == "kept 12 of 16 channels"


def test_what_was_pruned_stays_zero(digits: Digits) -> None:
    work = workbench(digits)
    sparse = Prune(0.2).apply(network(), work).model
    trained = Train(1, L1(1e-4)).apply(sparse, work).model
    assert torch.equal(weight(trained, "9") == 0, weight(sparse, "9") == 0)
    assert not torch.equal(weight(trained, "9"), weight(sparse, "9"))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Train(0), "epochs=0 was given; a whole number from 1"),
        (lambda: Train(1, "l1"), r"objective='l1' was given; an Objective such as L1\(1e-5\) is allowed"),  # type: ignore[arg-type]
        (lambda: Train(1).apply(network(), Workbench()), "fine-tuning needs a recipe"),
        (lambda: Train(1).apply(network(), Workbench(recipe=RECIPE)), "fine-tuning needs images"),
    ],
)
def test_what_cannot_be_done_is_one_clear_sentence(make: Any, said: str) -> None:
    with pytest.raises(CompressionError, match=said) as caught:
        make()
    assert "\n" not in str(caught.value)
