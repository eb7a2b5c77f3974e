"""The rules of `fit`, each on a network of a few hundred weights."""

import json
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from scenarios import RECIPE, STEPS, STEPS_AN_EPOCH, fingerprint, images, network, newest, train, world
from torch import Tensor, nn

import zoo
from zoo.data import Augment, Dataset
from zoo.errors import CheckpointError, MissingPackageError, RecipeError, UnknownNameError
from zoo.evaluation import evaluate
from zoo.recipes import Recipe, override
from zoo.training import CrossEntropy, Objective, fit
from zoo.training.batches import Batches

PLAIN = Recipe("plain", epochs=2, batch_size=8, lr=0.05, ema_decay=0.0, channels_last=False)


def run(model: nn.Module, recipe: Recipe = PLAIN, **arguments: Any) -> zoo.Run:
    train_set, valid = world()
    return fit(model, train_set, arguments.pop("valid", valid), recipe, device="cpu", **arguments)


def test_digits_are_never_flipped() -> None:
    recipe = override(PLAIN, ["flip=random"])
    with pytest.raises(RecipeError, match=r"flips images.*squares.*set flip=none"):
        fit(network(), images(16, mirrored=False), None, recipe, device="cpu")


def test_a_batch_must_fit_into_the_data() -> None:
    with pytest.raises(
        RecipeError, match="squares has 7 training images, fewer than one batch of 8; set batch_size to 7"
    ):
        fit(network(), images(7), None, PLAIN, device="cpu")


def test_an_unknown_optimizer_is_named_with_its_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"no optimizer is called 'adamv'. Did you mean 'adam"):
        run(network(), replace(PLAIN, optimizer="adamv"))


def test_on_step_is_called_after_each_step_with_its_number() -> None:
    seen: list[tuple[int, int]] = []
    weights: list[Tensor] = []
    model = network()

    def note(trained: nn.Module, step: int, steps: int) -> None:
        assert trained is model
        assert trained.training
        seen.append((step, steps))
        weights.append(trained.get_parameter("0.weight").detach().clone())

    run(model, on_step=note)
    assert seen == [(step, 12) for step in range(12)]
    assert not weights[0].equal(network().get_parameter("0.weight"))  # the first step is already taken
    assert all(not one.equal(other) for one, other in pairwise(weights))


def test_what_comes_back(tmp_path: Path) -> None:
    model = network()
    result = run(model, RECIPE, out_dir=tmp_path)
    assert (result.step, result.steps, result.stopped) == (STEPS, STEPS, None)
    assert not any(module.training for module in model.modules())
    assert result.evaluation is not None
    again = evaluate(model, world()[1])
    assert (again.correct, again.total) == (result.evaluation.correct, 21)
    assert again.confusion.equal(result.evaluation.confusion)
    assert result.history[-1]["valid_top1"] == again.top1
    assert [entry["epoch"] for entry in result.history] == [1, 2, 3]
    assert [entry["step"] for entry in result.history] == [6, 12, 18]
    assert result.history[-1]["lr"] == RECIPE.lr_at(STEPS - 1, STEPS)
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()] == result.history
    assert result.images_per_second > 0
    assert {path.suffix for path in tmp_path.iterdir()} == {".jsonl", ".safetensors"}


def test_it_learns(capsys: pytest.CaptureFixture[str]) -> None:
    model = network()
    result = run(model, override(RECIPE, ["epochs=25", "mixup=0", "cutout=0", "flip=none", "crop_padding=0"]))
    assert result.evaluation is not None
    assert result.evaluation.top1 > 0.9
    assert capsys.readouterr() == ("", "")  # nothing is said unless asked for


def test_without_validation_nothing_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(network(), valid=None)
    assert result.evaluation is None
    assert [entry["valid_top1"] for entry in result.history] == [None, None]


def test_a_stopped_run_is_not_scored_again() -> None:
    result = run(network(), max_minutes=0)
    assert (result.stopped, result.step, result.evaluation) == ("max_minutes", 1, None)


def test_the_first_step_by_hand() -> None:
    """One step of SGD with Nesterov momentum, decay on weights only, against the formula."""
    recipe = replace(PLAIN, epochs=1, weight_decay=0.01, schedule="constant", warmup=0.0)
    train_set, _ = world()
    model = network(norm=False)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    pixels, labels = Batches(train_set, recipe, 0, torch.device("cpu"))(0)
    model.train()
    grads = torch.autograd.grad(nn.functional.cross_entropy(model(pixels), labels), list(model.parameters()))
    run(model, recipe, max_minutes=0)
    for (name, parameter), grad in zip(model.named_parameters(), grads, strict=True):
        decayed = grad + (0.01 * start[name] if parameter.ndim >= 2 else 0)
        expected = start[name] - 0.05 * (decayed + 0.9 * decayed)
        torch.testing.assert_close(parameter.detach(), expected)


def test_the_gradient_is_clipped() -> None:
    recipe = replace(PLAIN, momentum=0.0, weight_decay=0.0, schedule="constant", warmup=0.0, clip_norm=1e-3)
    model = network(norm=False)
    start = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    run(model, recipe, max_minutes=0)
    moved = nn.utils.parameters_to_vector(model.parameters()).detach() - start
    assert float(moved.norm()) == pytest.approx(0.05 * 1e-3, rel=1e-3)


def test_the_average_by_hand() -> None:
    recipe = replace(PLAIN, ema_decay=0.8)
    model = network()
    average = {name: t.clone() for name, t in model.state_dict().items()}

    def follow(trained: nn.Module, step: int, _steps: int) -> None:
        decay = min(0.8, (1 + step) / (10 + step))
        for name, tensor in trained.state_dict().items():
            if tensor.is_floating_point():
                average[name] = decay * average[name] + (1 - decay) * tensor
            else:
                average[name] = tensor.clone()

    run(model, recipe, on_step=follow)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, average[name], rtol=1e-5, atol=1e-6)
    assert int(model.state_dict()["1.num_batches_tracked"]) == 12


class Scaled(Objective):
    """Cross-entropy of logits times a learnt scale: an objective with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, model: nn.Module, images_NCHW: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(images_NCHW) * self.scale, targets)


def test_parameters_of_an_objective_are_trained_and_kept(tmp_path: Path) -> None:
    objective = Scaled()
    run(network(), objective=objective, out_dir=tmp_path)
    assert objective.scale.item() != 1
    assert float(newest(tmp_path)["learner"]["objective.scale"]) == objective.scale.item()


class WithAuxiliary(nn.Module):
    """A network with a second classifier for training only."""

    def __init__(self) -> None:
        super().__init__()
        self.main = network()
        self.auxiliary = nn.Linear(3 * 64, 4)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        logits: Tensor = self.main(images_NCHW)
        return logits

    def forward_with_auxiliary(self, images_NCHW: Tensor) -> tuple[Tensor, list[Tensor]]:
        return self(images_NCHW), [self.auxiliary(images_NCHW.flatten(1))]


def test_auxiliary_classifiers_are_trained() -> None:
    model = WithAuxiliary()
    before = model.auxiliary.weight.detach().clone()
    run(model)
    assert not model.auxiliary.weight.equal(before)


def test_the_auxiliary_loss_is_weighted() -> None:
    model = WithAuxiliary().eval()
    pixels, labels = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(5) % 4
    logits, (extra,) = model.forward_with_auxiliary(pixels)
    expected = nn.functional.cross_entropy(logits, labels) + 0.3 * nn.functional.cross_entropy(extra, labels)
    torch.testing.assert_close(CrossEntropy()(model, pixels, labels), expected)


def test_label_smoothing_and_soft_labels() -> None:
    pixels, labels = torch.randn(4, 3, 8, 8), torch.arange(4)
    model = network().eval()
    log = model(pixels).log_softmax(1)
    hard = -(0.9 * log[range(4), labels] + 0.1 * log.mean(1)).mean()
    torch.testing.assert_close(CrossEntropy(0.1)(model, pixels, labels), hard)
    torch.testing.assert_close(CrossEntropy()(model, pixels, torch.eye(4)), -log.diagonal().mean())


def test_an_objective_must_say_what_it_is() -> None:
    with pytest.raises(TypeError, match=r"Objective must define forward\(model, images, targets\)"):
        Objective()(network(), torch.zeros(1), torch.zeros(1))


def test_bfloat16_trains_and_differs(tmp_path: Path) -> None:
    one, other = network(), network()
    run(one)
    result = run(other, replace(PLAIN, precision="bf16"))
    assert result.step == 12
    assert all(p.dtype is torch.float32 for p in other.parameters())
    assert fingerprint(one) != fingerprint(other)


def test_channels_last_changes_the_layout_only(tmp_path: Path) -> None:
    one, other = network(norm=False), network(norm=False)  # dropout draws in the order of memory
    run(one)
    run(other, replace(PLAIN, channels_last=True))
    assert other.get_parameter("0.weight").is_contiguous(memory_format=torch.channels_last)
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_through_the_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil
    import warnings

    if not any(shutil.which(compiler) for compiler in ("c++", "g++", "clang++")):
        pytest.skip("torch.compile needs a C++ compiler")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    one, other = network(norm=False), network(norm=False)
    run(one)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own
        run(other, compile=True, out_dir=tmp_path / "run")
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)
    assert "model.0.weight" in newest(tmp_path / "run")["learner"]  # names know nothing of the compiler


def test_tensorboard_is_asked_for_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    seen: list[int] = []
    with pytest.raises(MissingPackageError, match=r"pip install 'zoo\[tracking\]'"):
        run(network(), tensorboard=True, on_step=lambda _model, step, _steps: seen.append(step))
    assert seen == []


def test_more_epochs_on_a_finished_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path)
    capsys.readouterr()
    _, more = train(tmp_path, settings=["epochs=5"], resume=True)
    assert more.step == 5 * STEPS_AN_EPOCH
    assert [entry["epoch"] for entry in more.history] == [1, 2, 3, 4, 5]
    assert "the run of 3 epochs is finished; it goes on to 5" in capsys.readouterr().err
    _, same_again = train(tmp_path, settings=["epochs=5"], resume=True)
    assert (same_again.step, same_again.stopped) == (30, None)
    assert same_again.evaluation is not None


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        (["lr=0.1"], r"recipe\.lr=0\.05, and 0\.1 was given"),
        (["mixup=0.3"], r"recipe\.augment\.mixup=0\.2, and 0\.3 was given"),
        (["epochs=2"], r"recipe\.epochs=3, and 2 was given"),
        (["epochs=9"], r"recipe\.epochs=3, and 9 was given"),  # not finished yet
        (["optimizer=adamw"], r"recipe\.optimizer='sgd', and 'adamw'"),
    ],
)
def test_a_conflict_names_both_values(tmp_path: Path, settings: list[str], match: str) -> None:
    train(tmp_path, stop_at=4)
    with pytest.raises(CheckpointError, match=match):
        train(tmp_path, settings=settings, resume=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 12),
        ("train", images(51, seed=8)),
        ("train", images(60)),
        ("valid", images(21, seed=9)),
        ("valid", None),
    ],
)
def test_another_seed_or_other_data_are_a_conflict(tmp_path: Path, name: str, value: Any) -> None:
    train(tmp_path, stop_at=4)
    given: dict[str, Any] = {"train": world()[0], "valid": world()[1], "seed": 11, name: value}
    with pytest.raises(CheckpointError, match=name):
        fit(
            network(), given["train"], given["valid"], RECIPE, seed=given["seed"], device="cpu", out_dir=tmp_path,
            resume=True,
        )  # fmt: skip


def test_another_part_of_the_same_data_is_a_conflict(tmp_path: Path) -> None:
    """The digest of a subset is that of the whole it was cut from."""
    train(tmp_path, stop_at=4)
    part = world()[0].subset(range(48))
    with pytest.raises(CheckpointError, match="train_images=51, and 48"):
        fit(network(), part, world()[1], RECIPE, seed=11, device="cpu", out_dir=tmp_path, resume=True)


def test_another_network_is_a_conflict(tmp_path: Path) -> None:
    train(tmp_path, stop_at=4)
    with pytest.raises(CheckpointError, match="another network") as caught:
        train(tmp_path, norm=False, resume=True)
    assert "\n" not in str(caught.value)


def test_a_new_run_never_mixes_with_an_old_one(tmp_path: Path) -> None:
    train(tmp_path, stop_at=4)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(CheckpointError, match="holds the checkpoints of a run; resume it, or take another folder"):
        train(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_batch_that_cannot_be_shared(nursery: Any, tmp_path: Path) -> None:
    births = nursery.run("trained", tmp_path, count=3, folder=str(tmp_path / "run"))
    assert births.statuses == [1, 1, 1]
    assert "a batch of 8 cannot be shared by 3 processes; use a multiple of 3" in births.output()


@pytest.mark.slow
def test_the_digits_are_learnt(digits: tuple[Dataset, Dataset]) -> None:
    torch.manual_seed(0)
    model = zoo.create_model("lenet5", dataset="digits")
    recipe = Recipe("test", epochs=10, batch_size=64, lr=0.05, ema_decay=0.98, augment=Augment(translation=0.05))
    result = fit(model, digits[0], digits[1], recipe, device="cpu")
    assert result.evaluation is not None
    assert result.evaluation.top1 > 0.9


def test_no_environment_of_a_launcher_is_needed() -> None:
    assert "WORLD_SIZE" not in os.environ
    assert run(network(), max_minutes=0).step == 1
