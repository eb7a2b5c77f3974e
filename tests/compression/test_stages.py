"""One contract over all methods on weights, alone and one after another."""

import copy
import os
import signal
from dataclasses import replace
from typing import Any

import pytest
import torch
from small_networks import LAYERS, RECIPE, network, weight, workbench
from torch import Tensor, nn

from zoo.compression.calibrate import Calibrate
from zoo.compression.forms import forms_of, materialise, values
from zoo.compression.prune import Prune
from zoo.compression.quantize import Quantize
from zoo.compression.share import Share
from zoo.compression.stage import Stage, Workbench
from zoo.compression.vectors import ProductQuantize, ResidualQuantize
from zoo.data import Dataset
from zoo.errors import CompressionError, UnknownNameError, ZooError

STAGES: dict[str, Any] = {
    "prune": Prune(0.3),
    "prune-global": Prune(0.3, scope="global"),
    "prune-random": Prune(0.3, criterion="random"),
    "prune-kernels": Prune(0.5, unit="kernel", norm="l2"),
    "prune-trained": Prune(0.3, epochs=1),
    "prune-iterative": Prune(0.2, schedule="iterative", rounds=2, epochs=1),
    "prune-gradual": Prune(0.2, schedule="gradual", epochs=2),
    "prune-dynamic": Prune(0.2, schedule="gradual", epochs=2, dynamic=True),
    "share": Share(3),
    "share-density": Share(3, init="density", biases_bits=2),
    "share-trained": Share(3, init="random", biases_bits=2, epochs=1, lr=0.001),
    "quantize": Quantize(8),
    "quantize-affine": Quantize(3, symmetric=False, per_channel=False, range="mse"),
    "quantize-signs": Quantize(1, range="mse"),
    "quantize-learned": Quantize(4, epochs=1),
    "quantize-recomputed": Quantize(4, symmetric=False, epochs=1, scales="recomputed", range="mse"),
    "quantize-activations": Quantize(8, activation_bits=8, calibration_images=200),
    "vectors": ProductQuantize(3, 3),
    "vectors-residual": ResidualQuantize(3, 2, 2, epochs=1, lr=0.001),
}
SPARSE = {name: stage for name, stage in STAGES.items() if not name.startswith(("prune", "vectors"))}


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in materialise(copy.deepcopy(model)).state_dict().items()}


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    """Whether two states are equal to the bit, signs of zeros included."""
    return ours.keys() == theirs.keys() and all(
        torch.equal(ours[n], theirs[n]) and torch.equal(torch.signbit(ours[n]), torch.signbit(theirs[n])) for n in ours
    )


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_a_stage_gives_a_new_model_whose_forms_are_its_weights(digits: tuple[Dataset, Dataset], stage: Stage) -> None:
    model = network()
    before = state(model)
    result = stage.apply(model, workbench(digits))
    assert same(state(model), before)
    assert set(result.layers) <= {*LAYERS, *(f"{name}.bias" for name in LAYERS)}
    assert {name.removesuffix(".bias") for name in result.layers | result.untreated} >= set(LAYERS)
    after = {name: values(form) for name, form in forms_of(result.model).items()}
    assert same(after, state(result.model))
    for name in result.layers:
        tensor = name if name.endswith("bias") else f"{name}.weight"
        assert not torch.equal(after[tensor], before[tensor]), name
    assert torch.isfinite(result.model(torch.zeros(1, 1, 8, 8))).all()


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_a_stage_is_a_function_of_its_seed(digits: tuple[Dataset, Dataset], stage: Stage) -> None:
    torch.manual_seed(1)
    first = stage.apply(network(), workbench(digits)).model
    torch.manual_seed(2)
    assert same(state(stage.apply(network(), workbench(digits)).model), state(first))


@pytest.mark.parametrize("stage", SPARSE.values(), ids=SPARSE)
def test_what_is_pruned_stays_zero(digits: tuple[Dataset, Dataset], stage: Stage) -> None:
    work = workbench(digits)
    pruned = Prune(0.5).apply(network(), work).model
    zeros = {name: weight(pruned, name) == 0 for name in LAYERS}
    treated = stage.apply(pruned, work).model
    work.fine_tune(treated, RECIPE)
    again = Prune(0.9).apply(treated, work).model
    for name in LAYERS:
        assert bool((weight(treated, name)[zeros[name]] == 0).all()), name
        assert bool((weight(again, name)[zeros[name]] == 0).all()), name
        assert 0.4 < float(zeros[name].float().mean()) < 0.6


def test_vectors_leave_a_pruned_layer_as_it_is(digits: tuple[Dataset, Dataset]) -> None:
    work = workbench(digits)
    pruned = Prune(densities={"9": 0.5}).apply(network(), work).model
    result = ProductQuantize(3, 3).apply(pruned, work)
    assert result.untreated["9"] == "has 2,560 weights that are zero, as pruned ones are, and would not be after this"
    assert torch.equal(weight(result.model, "9"), weight(pruned, "9"))
    assert "6" in result.layers


@pytest.mark.parametrize("second", ["prune", "share-density", "quantize", "quantize-activations", "vectors"])
@pytest.mark.parametrize("first", ["prune", "share-density", "quantize-affine", "quantize-activations", "vectors"])
def test_a_stage_after_another_leaves_the_first_model_whole(
    digits: tuple[Dataset, Dataset], first: str, second: str
) -> None:
    """Copies of a parametrized module share its class; a stage may neither add to it nor take from it."""
    work = workbench(digits)
    model = STAGES[first].apply(network(), work).model
    before = state(model)
    if first in ("prune", "quantize-affine") and second == "vectors":
        with pytest.raises(CompressionError, match=r"nothing to treat: 0: has \d+ weights that are zero"):
            STAGES[second].apply(model, work)
    else:
        after = STAGES[second].apply(model, work).model
        assert same({n: values(f) for n, f in forms_of(after).items()}, state(after))
    assert same(state(model), before)
    model(torch.zeros(1, 1, 8, 8))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: Prune(0), "density=0 was given; above 0 is allowed"),
        (lambda: Prune(1.5), "density=1.5 was given; a number from 0 to 1 is allowed"),
        (lambda: Prune(float("nan")), "density=nan was given"),
        (lambda: Prune(densities={"9": -1}), "9=-1 was given"),
        (lambda: Prune(scope="model"), "scope='model' was given; 'layer' or 'global' is allowed"),  # type: ignore[arg-type]
        (lambda: Prune(schedule="gradual"), "prunes while it trains; give epochs=1 or more"),
        (lambda: Prune(schedule="iterative", rounds=0, epochs=1), "rounds=0 was given; a whole number from 1"),
        (lambda: Prune(epochs=1, dynamic=True), "give schedule='gradual'"),
        (lambda: Prune(scope="global", densities={"9": 0.5}), "leave out densities and unit"),
        (lambda: Share(0), "bits=0 was given; a whole number from 1 to 16 is allowed"),
        (lambda: Share({"9": 17}), "bits=17 was given"),
        (lambda: Share(biases_bits=-1), "biases_bits=-1 was given"),
        (lambda: Share(init="even"), "init='even' was given; 'linear' or 'density' or 'random'"),  # type: ignore[arg-type]
        (lambda: Quantize(9), "bits=9 was given; a whole number from 1 to 8 is allowed"),
        (lambda: Quantize(2.0), "bits=2.0 was given; a whole number"),  # type: ignore[arg-type]
        (lambda: Quantize(activation_bits=1), "activation_bits=1 was given; a whole number from 2 to 8"),
        (lambda: Quantize(percentile=99.9), "percentile=99.9 was given; a number from 0.5 to 1"),
        (lambda: ProductQuantize(0, 4), "width=0 was given"),
        (lambda: ResidualQuantize(4, 4, 0), "levels=0 was given"),
        (lambda: Calibrate(batches=0), "batches=0 was given"),
    ],
)
def test_a_wrong_setting_is_one_clear_sentence(wrong: Any, says: str) -> None:
    with pytest.raises(CompressionError) as caught:
        wrong()
    assert says in str(caught.value)
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize(
    "stage",
    [Prune(densities={"8": 0.5}), Share({"90": 3}), Quantize(skip=("nine",)), ProductQuantize(bits={"weight": 3})],
    ids=str,
)
def test_a_layer_that_does_not_exist_is_named(stage: Stage) -> None:
    with pytest.raises(UnknownNameError, match=r"no layer with weights is called '\w+'.* Known: 0, 3, 6, 9"):
        stage.apply(network(), Workbench())


@pytest.mark.parametrize("stage", [Prune(), Share(), Quantize(), ProductQuantize()], ids=str)
def test_a_model_with_nothing_to_treat_is_refused(stage: Stage) -> None:
    with pytest.raises(CompressionError, match="no convolution and no linear layer"):
        stage.apply(nn.Sequential(nn.Flatten(), nn.ReLU()), Workbench())
    everything = replace(stage, skip=LAYERS)  # type: ignore[type-var]
    with pytest.raises(CompressionError, match="nothing to treat: 0: left out, as asked; 3: left out, as asked;"):
        everything.apply(network(), Workbench())


@pytest.mark.parametrize(
    ("stage", "says"),
    [
        (Prune(epochs=1), "fine-tuning needs"),
        (Share(3, epochs=1), "fine-tuning needs"),
        (Quantize(activation_bits=8), "calibrating activations needs images"),
        (Calibrate(), "re-estimating batch-norm statistics needs images"),
    ],
    ids=str,
)
def test_what_needs_images_says_so(stage: Stage, says: str) -> None:
    with pytest.raises(ZooError, match=says):
        stage.apply(network(), Workbench())


def test_training_without_a_recipe_says_so(digits: tuple[Dataset, Dataset]) -> None:
    with pytest.raises(CompressionError, match="fine-tuning needs a recipe; give recipe="):
        Prune(epochs=1).apply(network(), replace(workbench(digits), recipe=None))


def test_what_is_left_out_is_listed_with_its_reason() -> None:
    model = nn.Sequential(network(), nn.Embedding(3, 4), nn.ConvTranspose2d(2, 2, 3))
    result = Prune(densities={"0.9": 0.5, "0.6": 0.5}, skip=("0.6",)).apply(model, Workbench())
    assert list(result.layers) == ["0.9"]
    assert result.layers["0.9"] == "kept 2,560 of 5,120 weights"
    assert result.untreated["0.6"] == "left out, as asked"
    assert result.untreated["0.0"] == "left out: no setting names it"
    assert result.untreated["1"] == "a Embedding is no convolution and no linear layer"
    assert result.untreated["2"] == "a ConvTranspose2d is no convolution and no linear layer"


def test_a_weight_made_by_others_is_left_as_it_is() -> None:
    model = network()
    nn.utils.parametrizations.orthogonal(model[9])  # type: ignore[index,arg-type]
    result = Share(3).apply(model, Workbench())
    assert result.untreated["9"] == "its weight is made by _Orthogonal already"


def test_a_made_weight_cannot_be_assigned() -> None:
    layer: Any = Prune(0.5).apply(network(), Workbench()).model.get_submodule("9")
    with pytest.raises(RuntimeError, match="made by Mask cannot be assigned other values"):
        layer.weight = torch.ones(10, 512)


@pytest.mark.parametrize(("sent", "leaves"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_ends_a_stage_that_trains(
    sent: signal.Signals, leaves: type[BaseException], digits: tuple[Dataset, Dataset]
) -> None:
    """A half-trained network would be packed as if it were trained."""
    work = workbench(digits)
    stage = Prune(0.3, schedule="gradual", epochs=2)
    steps: list[int] = []

    class Told(Workbench):
        def fine_tune(self, model: nn.Module, recipe: Any, *, objective: Any = None, on_step: Any = None) -> None:
            def heard(model: nn.Module, step: int, count: int) -> None:
                steps.append(step)
                on_step(model, step, count)
                os.kill(os.getpid(), sent)

            super().fine_tune(model, recipe, objective=objective, on_step=heard)

    with pytest.raises(leaves) as caught:
        stage.apply(network(), Told(work.train, work.valid, work.recipe, work.seed, work.device))
    assert len(steps) < 4
    if leaves is SystemExit:
        assert caught.value.code == 143
