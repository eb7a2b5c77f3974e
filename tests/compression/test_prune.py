"""Pruning: which weights go, when, and that they stay away."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from small_networks import LAYERS, RECIPE, network, weight, workbench
from torch import Tensor, nn

from zoo.compression.prune import Mask, Prune, largest
from zoo.compression.stage import Workbench
from zoo.compression.treat import put
from zoo.data import Dataset


def linear(rows: list[list[float]]) -> nn.Sequential:
    layer = nn.Linear(len(rows[0]), len(rows), bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(rows))
    return nn.Sequential(layer)


def masks(model: nn.Module) -> dict[str, Mask]:
    found: dict[str, Any] = {n: m for n, m in model.named_modules() if isinstance(m, Mask)}
    return {name.split(".parametrizations")[0]: mask for name, mask in found.items()}


def test_the_smallest_magnitudes_of_each_layer_go() -> None:
    result = Prune(0.5).apply(linear([[0.1, -3.0, 2.0], [-0.2, 0.3, -4.0]]), Workbench())
    assert weight(result.model, "0").tolist() == [[0, -3, 2], [0, 0, -4]]
    assert result.layers == {"0": "kept 3 of 6 weights"}


def test_a_global_scope_ranks_all_layers_together_and_empties_none() -> None:
    model = nn.Sequential(linear([[0.1, -0.2], [0.3, 0.4]]), linear([[5.0, 6.0], [7.0, -8.0]]))
    result = Prune(0.5, scope="global").apply(model, Workbench())
    assert torch.count_nonzero(weight(result.model, "1.0")) == 4
    assert weight(result.model, "0.0").flatten().tolist() == pytest.approx([0, 0, 0, 0.4])


@pytest.mark.parametrize(("norm", "kept"), [("l1", 0), ("l2", 1)])
def test_kernels_are_ranked_by_their_norm(norm: Any, kept: int) -> None:
    """l1: 4 > 3; l2: 2 < 3."""
    layer = nn.Conv2d(1, 2, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[[[1.0, 1], [1, 1]]], [[[3, 0.001], [0.001, 0.001]]]]))
    result = Prune(0.5, unit="kernel", norm=norm).apply(nn.Sequential(layer), Workbench())
    assert [int(n) for n in (weight(result.model, "0") != 0).sum((1, 2, 3))] == [4 * (kept == 0), 4 * (kept == 1)]


def test_random_pruning_is_another_choice() -> None:
    by_magnitude = weight(Prune(0.3).apply(network(), Workbench()).model, "9")
    by_chance = weight(Prune(0.3, criterion="random").apply(network(), Workbench()).model, "9")
    assert torch.count_nonzero(by_magnitude) == torch.count_nonzero(by_chance) == 1536
    shared = ((by_magnitude != 0) & (by_chance != 0)).sum() / 1536
    assert 0.25 < float(shared) < 0.35


def test_at_least_one_weight_stays_and_ties_do_not_add() -> None:
    assert largest(torch.ones(7), 0.01).sum() == 1
    assert largest(torch.ones(3, 4), 0.5).sum() == 6


def test_a_sparser_layer_stays_as_sparse() -> None:
    once = Prune(0.1).apply(network(), Workbench()).model
    again = Prune(0.5).apply(once, Workbench())
    assert again.layers["9"] == "kept 512 of 5,120 weights"
    assert torch.equal(masks(again.model)["9"].mask, masks(once)["9"].mask)


@pytest.mark.parametrize(
    "stage", [Prune(0.2, epochs=1), Prune(0.2, schedule="gradual", epochs=2, dynamic=True)], ids=str
)
def test_momentum_and_weight_decay_revive_nothing(digits: tuple[Dataset, Dataset], stage: Prune) -> None:
    """The recipe has momentum 0.9 and weight decay 0.05; the gradients of the dense weights are not zero."""
    work = workbench(digits)
    pruned = stage.apply(network(), work).model
    zeros = {name: weight(pruned, name) == 0 for name in LAYERS}
    seen: list[bool] = []

    def watch(model: nn.Module, step: int, steps: int) -> None:
        seen.append(all(bool((weight(model, name)[zeros[name]] == 0).all()) for name in LAYERS))

    before = {name: weight(pruned, name).clone() for name in LAYERS}
    work.fine_tune(pruned, RECIPE, on_step=watch)
    assert len(seen) == 4
    assert all(seen)
    for name in LAYERS:
        after = weight(pruned, name)
        assert torch.count_nonzero(after) == torch.count_nonzero(before[name]) == round(0.2 * after.numel())
        assert not torch.equal(after, before[name])


def test_an_iterative_run_keeps_the_same_share_each_round(
    digits: tuple[Dataset, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []
    monkeypatch.setattr(
        "zoo.compression.prune.fine_tune", lambda model, *_: found.append(int(torch.count_nonzero(weight(model, "9"))))
    )
    Prune(0.125, schedule="iterative", rounds=3, epochs=1).apply(network(), workbench(digits))
    assert found == [2560, 1280, 640]


def densities_of(digits: tuple[Dataset, Dataset], monkeypatch: pytest.MonkeyPatch, stage: Prune) -> list[Tensor]:
    """The mask of the last layer after each of ten steps of a gradual run that moves its weights about."""
    seen: list[Tensor] = []

    def steps(model: nn.Module, work: Workbench, epochs: int, lr: float | None, on_step: Any) -> None:
        mask = masks(model)["9"]
        for step in range(10):
            with torch.no_grad():
                mask.dense.copy_(mask.dense.flatten().roll(1000).view(mask.dense.shape))
            on_step(model, step, 10)
            seen.append(mask.mask.clone())

    monkeypatch.setattr("zoo.compression.prune.fine_tune", steps)
    stage.apply(network(), workbench(digits))
    return seen


def test_a_gradual_run_follows_the_cubic_schedule(
    digits: tuple[Dataset, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    """density = 0.1 + 0.9 (1 - t)^3 until half of the steps are done, then 0.1; a static mask only shrinks."""
    seen = densities_of(digits, monkeypatch, Prune(0.1, schedule="gradual", epochs=1, ramp=0.5))
    expected = [0.1 + 0.9 * (1 - t / 5) ** 3 for t in range(1, 6)] + [0.1] * 5
    assert [int(mask.sum()) for mask in seen] == [round(5120 * density) for density in expected]
    assert not any(bool((later & ~earlier).any()) for earlier, later in pairwise(seen))


def test_in_a_dynamic_run_weights_come_back_until_the_ramp_is_over(
    digits: tuple[Dataset, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = densities_of(digits, monkeypatch, Prune(0.1, schedule="gradual", epochs=1, ramp=0.5, dynamic=True))
    back = [bool((later & ~earlier).any()) for earlier, later in pairwise(seen)]
    assert back == [True] * 4 + [False] * 5
    assert int(seen[-1].sum()) == 512


@pytest.mark.parametrize("reviving", [False, True])
def test_the_gradient_reaches_pruned_weights_in_a_dynamic_run_alone(reviving: bool) -> None:
    model = linear([[1.0, -2.0], [3.0, 4.0]])
    mask = Mask(weight(model, "0"), torch.tensor([[True, False], [False, True]]))
    mask.reviving = reviving
    put(model[0], mask)  # type: ignore[arg-type]
    (model[0].weight * torch.tensor([[1.0, 2], [3, 4]])).sum().backward()  # type: ignore[operator,union-attr]
    assert mask.dense.grad is not None
    assert mask.dense.grad.tolist() == ([[1, 2], [3, 4]] if reviving else [[1, 0], [0, 4]])
    assert weight(model, "0").tolist() == [[1, 0], [0, 4]]
    assert not torch.signbit(weight(model, "0")).any()


def test_the_final_density_holds_for_averaged_weights(digits: tuple[Dataset, Dataset]) -> None:
    """The average that fit keeps is one update of the masks behind where the ramp ends with the run."""
    stage = Prune(0.2, schedule="gradual", epochs=1, ramp=1.0)
    assert stage.apply(network(), workbench(digits)).layers["9"] == "kept 1,024 of 5,120 weights"
