"""Uniform quantisation: grids, clipping, gradients, and the rounding of inputs."""

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
from small_networks import LAYERS, network, weight, workbench
from torch import Tensor, nn

from zoo.compression.activations import InputGrid, quantize_inputs
from zoo.compression.forms import Scaled, Signs, forms_of, values
from zoo.compression.prune import Prune
from zoo.compression.quantize import Grid, Levels, Quantize, best_grid, nearest_codes
from zoo.compression.stage import Workbench
from zoo.data import Dataset


def grid(rows: list[list[float]], bits: int, symmetric: bool = True, **settings: Any) -> Grid:
    options: dict[str, Any] = {"per_channel": True, "clip": "minmax", "learned": True} | settings
    return Grid(torch.tensor(rows), Levels(bits, symmetric), **options)


def test_symmetric_codes_by_hand() -> None:
    """Three bits: -3..3; scales 3/3 and 6/3; 2.5 rounds to the even 2, 1.6 to 2."""
    made = grid([[3.0, -2.5, 1.6, 0.4], [6.0, -6.0, 0.0, 3.1]], 3)
    assert made().tolist() == [[3, -2, 2, 0], [6, -6, 0, 4]]
    form = made.form()
    assert isinstance(form, Scaled)
    assert (form.codes - form.zero[:, None]).tolist() == [[3, -2, 2, 0], [3, -3, 0, 2]]
    assert form.scale.tolist() == [1, 2]
    assert int(form.codes.min()) >= 0


def test_affine_codes_by_hand() -> None:
    """Two bits over -1..2: scale 1, zero 1; a row above zero still has zero as a value of its grid."""
    made = grid([[-1.0, 2.0, 0.9, 0.2], [1.0, 3.0, 2.0, 0.4]], 2, symmetric=False)
    assert made().tolist() == [[-1, 2, 1, 0], [1, 3, 2, 0]]
    form = made.form()
    assert isinstance(form, Scaled)
    assert form.zero.tolist() == [1, 0]
    assert form.codes.tolist() == [[0, 3, 2, 1], [1, 3, 2, 0]]


def test_one_symmetric_bit_is_a_sign_and_the_mean_magnitude() -> None:
    """The scale of least error is the mean of the magnitudes (arXiv:1603.05279, equation 6), here on a grid of 100."""
    made = grid([[1.0, -2.0, 3.0, -2.0]], 1, clip="mse")
    assert made().abs().unique().tolist() == pytest.approx([2.0], abs=0.02)
    assert made().sign().tolist() == [[1, -1, 1, -1]]
    assert isinstance(made.form(), Signs)
    pruned = grid([[1.0, 0.0, 3.0, 0.0]], 1, clip="mse")
    assert pruned().tolist() == [[pytest.approx(2.0, abs=0.02), 0, pytest.approx(2.0, abs=0.02), 0]]
    assert isinstance(pruned.form(), Scaled)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", range(1, 9))
def test_every_width_and_zeros_survive(bits: int, symmetric: bool) -> None:
    pruned = Prune(0.5).apply(network(), Workbench()).model
    result = Quantize(bits, symmetric=symmetric, range="mse").apply(pruned, Workbench())
    for name in LAYERS:
        before, after = weight(pruned, name), weight(result.model, name)
        assert bool((after[before == 0] == 0).all())
        form = forms_of(result.model)[f"{name}.weight"]
        assert torch.equal(values(form), after)
        assert isinstance(form, Scaled)
        assert int(form.codes.max() - form.codes.min()) <= (2 if bits == 1 and symmetric else 2**bits - 1)


def test_more_bits_are_nearer() -> None:
    model = network()
    errors = [
        float((weight(Quantize(bits).apply(model, Workbench()).model, "9") - weight(model, "9")).square().sum())
        for bits in range(2, 9)
    ]
    assert all(later < earlier / 3 for earlier, later in pairwise(errors[1:]))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_mse_clips_where_the_error_is_least(bits: int, symmetric: bool) -> None:
    """Against the error of each of a hundred spans, computed one at a time."""
    rows = torch.randn(3, 400, generator=torch.Generator().manual_seed(0))
    levels = Levels(bits, symmetric)

    def error(scale: Tensor, zero: Tensor) -> Tensor:
        codes = nearest_codes(rows, scale[:, None], zero[:, None], levels)
        return ((codes - zero[:, None]) * scale[:, None] - rows).square().sum(1)

    best = error(*best_grid(rows, levels, "mse"))
    assert bool((best < 0.9 * error(*best_grid(rows, levels, "minmax"))).all())
    for share in torch.arange(1, 101) / 100:
        clipped = rows * 1.0
        low, high = rows.amin(1).clamp_max(0) * share, rows.amax(1).clamp_min(0) * share
        clipped = clipped.clamp(low[:, None], high[:, None])
        assert bool((best <= error(*best_grid(clipped, levels, "minmax")) * 1.001).all())


def test_scales_are_per_channel_or_one() -> None:
    one = Quantize(8, per_channel=False).apply(network(), Workbench())
    assert one.layers["9"] == "5,120 weights of 8 bits, 1 scales"
    many = Quantize({"3": 8}).apply(network(), Workbench())
    assert many.layers == {"3": "144 weights of 8 bits, 16 scales"}


def test_straight_through_gradients_of_weight_and_scale() -> None:
    """arXiv:1902.08153, equations 3 and 5, at scale 1 and codes -3..3, with the factor 1 / sqrt(4 * 3)."""
    made = grid([[3.0, -2.4, 1.7, 5.0]], 3)
    with torch.no_grad():
        made.scale.fill_(1.0)
    (made() * torch.tensor([[1.0, 10, 100, 1000]])).sum().backward()
    assert made.latent.grad is not None
    assert made.scale.grad is not None
    assert made.latent.grad.tolist() == [[1, 10, 100, 0]]
    expected = 1 * (3 - 3) + 10 * (-2 + 2.4) + 100 * (2 - 1.7) + 1000 * 3
    assert float(made.scale.grad) == pytest.approx(expected / 12**0.5, rel=1e-5)


def test_a_channel_of_zeros_stays_one() -> None:
    made = grid([[0.0, 0.0], [1.0, -1.0]], 4)
    assert made().tolist() == [[0, 0], [1, -1]]
    assert made.scale[0] == 1


@pytest.mark.parametrize("scales", ["learned", "recomputed"])
def test_training_moves_scales_and_codes(digits: tuple[Dataset, Dataset], scales: Any) -> None:
    work = workbench(digits)
    model = network()
    after = Quantize(3, epochs=1, scales=scales).apply(model, work).model
    made: Any = after.get_submodule("9.parametrizations.weight.0")
    assert not torch.equal(made.scale, grid_of(Quantize(3).apply(model, work).model).scale)
    assert made.scale.requires_grad == (scales == "learned")
    if scales == "recomputed":
        assert float(made.scale[0]) == pytest.approx(float(made.latent[0].detach().abs().max()) / 3)


def grid_of(model: nn.Module) -> Any:
    return model.get_submodule("9.parametrizations.weight.0")


def test_weights_that_are_not_finite_are_refused() -> None:
    model = network()
    with torch.no_grad():
        model[0].weight[0] = float("inf")  # type: ignore[index,operator]
    with pytest.raises(Exception, match="0 has weights that are not finite"):
        Quantize().apply(model, Workbench())


def test_inputs_are_rounded_between_their_limits(digits: tuple[Dataset, Dataset]) -> None:
    work = workbench(digits)
    plain = Quantize(8).apply(network(), work).model
    result = Quantize(8, activation_bits=4, percentile=1.0, calibration_images=512).apply(network(), work)
    assert result.untreated["activations"] == "inputs are rounded to 4 bits here; a file stores weights alone"
    assert forms_of(result.model).keys() == forms_of(plain).keys()
    seen: list[Tensor] = []
    moved = copy.deepcopy(result.model)
    layer = moved.get_submodule("9")
    layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = 4 * torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    moved(images)
    assert len(seen[0].unique()) <= 16
    assert len(seen[0].unique()) > 8
    assert 0 in seen[0]
    assert not torch.equal(result.model(images), plain(images))
    assert torch.equal(result.model(images), moved(images))


def test_calibration_gives_the_widest_limits_and_restores_the_mode(digits: tuple[Dataset, Dataset]) -> None:
    train = workbench(digits).need_train("a test")
    model = network()
    model[1].train()  # type: ignore[index]
    modes = [module.training for module in model.modules()]
    quantize_inputs(model, ["0"], 8, train, 512, 1.0, 0)
    found: Any = model.get_submodule("0.input_grid")
    mean, std = train.mean[0], train.std[0]
    some = train.images.float() / 255
    assert float(found.low) == pytest.approx((float(some.min()) - mean) / std, rel=1e-5)
    assert float(found.high) <= (float(some.max()) - mean) / std + 1e-5
    assert [m.training for n, m in model.named_modules() if "input_grid" not in n] == modes
    quantize_inputs(model, ["0"], 8, train, 512, 0.9, 0)
    assert len(model[0]._forward_pre_hooks) == 1  # type: ignore[index]
    narrow: Any = model.get_submodule("0.input_grid")
    assert float(narrow.high) < float(found.high)


def test_inputs_are_rounded_to_the_nearest_with_a_gradient_inside() -> None:
    made = InputGrid(2, 1.0)
    made(torch.tensor([-1.0, 2.0]))
    made.measuring = False
    features = torch.tensor([-3.0, -0.6, 0.2, 1.4, 9.0], requires_grad=True)
    rounded = made(features)
    assert rounded.tolist() == [-1, -1, 0, 1, 2]
    rounded.sum().backward()
    assert features.grad is not None
    assert features.grad.tolist() == [0, 1, 1, 1, 0]
