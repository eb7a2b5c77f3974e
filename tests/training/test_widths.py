"""Learning at several widths at once, against the plain networks of these widths."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from scenarios import RECIPE, STEPS, fingerprint, newest, same, stir, world
from slimmable_networks import build, enter, slimmable
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import zoo
from zoo.dynamic.width import extract_width
from zoo.errors import RecipeError
from zoo.models.slimmable import Slimmable
from zoo.training.objectives import EveryWidth
from zoo.training.optimizer import WeightAverage

IMAGE = (3, 8, 8)
GENERATOR = torch.Generator().manual_seed(2)
IMAGES = torch.randn(16, *IMAGE, generator=GENERATOR, dtype=torch.float64)
LABELS = torch.randint(4, (16,), generator=GENERATOR)
EVERY = {"every width": {}, "distilled": {"distil": True}, "sandwich": {"distil": True, "sandwich": True}}


@pytest.fixture(autouse=True)
def small_family(monkeypatch: pytest.MonkeyPatch) -> None:
    enter(monkeypatch)


def network() -> Slimmable:
    """In training mode, float64."""
    model = slimmable(IMAGE, num_classes=4).double().train()
    assert isinstance(model, Slimmable)
    return model


def gradients_of_plain(model: Slimmable, loss_of: Callable[[float, Tensor], Tensor]) -> tuple[float, dict[str, Tensor]]:
    """The summed loss, and gradients of the shared weights, by one plain network a width."""
    total, gradients = 0.0, {n: torch.zeros_like(p) for n, p in model.network.named_parameters() if p.ndim > 1}
    for width in reversed(model.widths):
        plain = extract_width(model, width).double().train()
        loss = loss_of(width, plain(IMAGES))
        loss.backward()
        total += float(loss.detach())
        for name, parameter in plain.named_parameters():
            if parameter.ndim > 1:
                assert parameter.grad is not None
                gradients[name][tuple(map(slice, parameter.shape))] += parameter.grad
    return total, gradients


def check(model: Slimmable, objective: EveryWidth, loss_of: Callable[[float, Tensor], Tensor]) -> None:
    expected, gradients = gradients_of_plain(model, loss_of)
    loss = objective(model, IMAGES, LABELS)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-6)  # the objective's logits are float32
    for name, parameter in model.network.named_parameters():
        if parameter.ndim > 1:
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-6)


def test_it_is_the_sum_over_plain_networks() -> None:
    check(network(), EveryWidth(0.1), lambda _, logits_NK: cross_entropy(logits_NK, LABELS, label_smoothing=0.1))


def test_distilled_widths_learn_from_the_widest_alone() -> None:
    answers: list[Tensor] = []

    def loss_of(width: float, logits_NK: Tensor) -> Tensor:
        if width == 1.0:
            answers.append(logits_NK.detach().softmax(1))
            return cross_entropy(logits_NK, LABELS, label_smoothing=0.1)
        return -(answers[0] * logits_NK.log_softmax(1)).sum(1).mean()

    check(network(), EveryWidth(0.1, distil=True), loss_of)


def visited(model: Slimmable, objective: EveryWidth, seed: int, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Widths at which the network was run."""
    seen: list[float] = []
    forward = Slimmable.forward
    with monkeypatch.context() as patch:
        patch.setattr(Slimmable, "forward", lambda self, images: seen.append(self.width) or forward(self, images))
        torch.manual_seed(seed)
        objective(model, IMAGES, LABELS)
    return seen


def test_a_sandwich_is_the_ends_and_two_that_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    model, objective = network(), EveryWidth(sandwich=True)
    drawn = [visited(model, objective, seed, monkeypatch) for seed in range(20)]
    assert all(len(widths) == 4 and widths[0] == 1.0 and widths[-1] == 0.25 for widths in drawn)
    assert {widths[1] for widths in drawn} == {0.5, 0.75}, "its own, whose statistics are kept so"
    between = [widths[2] for widths in drawn]
    assert 0.25 <= min(between) < 0.35
    assert 0.8 < max(between) <= 1
    assert len(set(between)) == 20
    assert visited(model, objective, 3, monkeypatch) == drawn[3], "by PyTorch's generator"


@pytest.mark.parametrize("settings", EVERY.values(), ids=[*EVERY])
def test_the_network_is_left_at_its_widest(settings: dict[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    model, objective = network(), EveryWidth(**settings)
    model.set_width(0.5)
    objective(model, IMAGES, LABELS)
    assert model.width == 1.0

    def fail(self: Slimmable, images_NCHW: Tensor) -> Tensor:
        if self.width == 0.25:
            raise RuntimeError("no memory")
        return self.network(images_NCHW)  # type: ignore[no-any-return]

    monkeypatch.setattr(Slimmable, "forward", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        objective(model, IMAGES, LABELS)
    assert model.width == 1.0


def test_a_network_of_one_width_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"^a Tiny has one width; EveryWidth trains slimmable networks\.$"):
        EveryWidth()(build("tiny_100", IMAGE, 4), IMAGES.float(), LABELS)


def train(folder: Path, settings: dict[str, bool], *, stop_at: int | None = None, resume: bool = False) -> nn.Module:
    """One sitting; stop_at: it ends with an exception after so many steps, and a checkpoint of each step before."""
    images, valid = world()
    model = slimmable(IMAGE, num_classes=4)

    def step_done(model: nn.Module, step: int, steps: int) -> None:
        stir(model, step, steps)
        if step == stop_at:
            raise KeyboardInterrupt

    objective = EveryWidth(0.1, **settings)
    zoo.fit(model, images, valid, RECIPE, objective=objective, out_dir=folder, resume=resume, device="cpu",
            on_step=step_done, checkpoint_seconds=0.0)  # fmt: skip
    return model


@pytest.mark.parametrize("settings", EVERY.values(), ids=[*EVERY])
def test_an_interrupted_run_ends_in_the_state_of_the_whole_one(settings: dict[str, bool], tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", settings)
    assert newest(tmp_path / "whole")["step"] == STEPS
    for stop in (3, 10):
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "parts", settings, stop_at=stop, resume=stop > 3)
    ended = train(tmp_path / "parts", settings, resume=True)
    assert same(newest(tmp_path / "parts"), newest(tmp_path / "whole"))
    assert fingerprint(ended) == fingerprint(whole)
    assert isinstance(ended, Slimmable)
    assert ended.width == 1.0


def test_a_slimmable_network_learns_at_every_width_by_default(tmp_path: Path) -> None:
    images, _ = world()
    one, other = slimmable(IMAGE, num_classes=4), slimmable(IMAGE, num_classes=4)
    zoo.fit(one, images, None, RECIPE, device="cpu")
    zoo.fit(other, images, None, RECIPE, objective=EveryWidth(RECIPE.label_smoothing), device="cpu")
    assert fingerprint(one) == fingerprint(other)


def test_the_average_holds_every_width_s_statistics() -> None:
    model = network()
    average = WeightAverage(model, 0.5)
    before: dict[str, Any] = {name: tensor.clone() for name, tensor in average.model.state_dict().items()}
    EveryWidth()(model, IMAGES, LABELS)
    average.update(model)
    for name, tensor in average.model.state_dict().items():
        expected = before[name] + (1 - 1 / 10) * (model.state_dict()[name] - before[name])
        torch.testing.assert_close(tensor, expected)
    changed = (
        average.model.get_buffer("network.features.0.1.running_mean") != before["network.features.0.1.running_mean"]
    )
    assert changed.all(), "of all widths"
