"""Learning from teachers: what each objective is, whom it leaves untouched, and that a student really learns by it."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import train_cli
from zoo.create import create_model
from zoo.data import Dataset
from zoo.errors import RecipeError, UnknownNameError, WeightError, ZooError
from zoo.evaluation import agreement, evaluate
from zoo.recipes import Recipe
from zoo.teachers import Lesson, load_teacher, make_objective
from zoo.training import fit
from zoo.training.objectives import Hints, LogitRegression, SoftTargets, Teachers, check_teachers
from zoo.weights import read_card

RECIPE = Recipe("lesson", epochs=12, batch_size=64, lr=0.05, clip_norm=1.0, ema_decay=0.0, channels_last=False)


class Answers(nn.Module):
    """Gives the same logits for whatever it is asked, and counts how often it is."""

    def __init__(self, logits_NK: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits_NK)
        self.asked = 0

    def forward(self, images_NCHW: Tensor) -> Tensor:
        self.asked += 1
        return self.logits[: len(images_NCHW)]


def answers(seed: int = 0) -> Answers:
    return Answers(3 * torch.randn(4, 5, generator=torch.Generator().manual_seed(seed)))


IMAGES = torch.randn(4, 1, 2, 2, generator=torch.Generator().manual_seed(9))
TARGETS = torch.tensor([0, 3, 1, 1])


def lenet() -> nn.Module:
    torch.manual_seed(0)
    return create_model("lenet_300_100", dataset="digits")


@pytest.fixture(scope="module")
def teacher(digits: tuple[Dataset, Dataset]) -> nn.Module:
    """A network that knows the digits."""
    model = lenet()
    fit(model, digits[0], None, RECIPE, device="cpu")
    assert evaluate(model, digits[1]).top1 > 0.9
    return model


# what the objectives are ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_soft_targets_are_what_the_paper_says(temperature: float, weight: float) -> None:
    student, theirs = answers(1), answers(2)
    found = SoftTargets(Teachers([theirs]), temperature=temperature, weight=weight)(student, IMAGES, TARGETS)
    p = (theirs.logits / temperature).softmax(1)
    q = (student.logits / temperature).softmax(1)
    divergence = (p * (p.log() - q.log())).sum(1).mean()
    hard = -student.logits.log_softmax(1)[range(4), TARGETS].mean()
    assert torch.allclose(found, (1 - weight) * hard + weight * temperature**2 * divergence, atol=1e-6)


def test_hot_soft_targets_come_to_logit_regression() -> None:
    """arXiv:1503.02531, section 2.1: hot, the gradient is that of logits without their means, over K."""
    student, theirs = answers(1), answers(2)
    SoftTargets(Teachers([theirs]), temperature=1e3, weight=1.0)(student, IMAGES, TARGETS).backward()
    difference = (student.logits - theirs.logits).detach()
    centred = difference - difference.mean(1, keepdim=True)
    assert torch.allclose(student.logits.grad, centred / 5 / 4, atol=1e-3)
    student.logits.grad = None
    LogitRegression(Teachers([theirs]))(student, IMAGES, TARGETS).backward()
    assert torch.allclose(student.logits.grad, difference / 4, atol=1e-6)


def test_several_teachers_are_averaged_in_either_way() -> None:
    a, b = answers(1), answers(2)
    probabilities = torch.stack([a.logits.softmax(1), b.logits.softmax(1)])
    geometric = Teachers([a, b]).log_probabilities(IMAGES, 1.0).exp()
    root = probabilities.prod(0).sqrt()
    assert torch.allclose(geometric, root / root.sum(1, keepdim=True), atol=1e-6)
    arithmetic = Teachers([a, b], average="probabilities").log_probabilities(IMAGES, 1.0).exp()
    assert torch.allclose(arithmetic, probabilities.mean(0), atol=1e-6)
    assert torch.equal(Teachers([a, b]).logits(IMAGES), (a.logits + b.logits) / 2)


def test_remembered_answers_are_asked_for_once() -> None:
    one = answers(1)
    teachers = Teachers([one], cache=True)
    first = teachers.answers(IMAGES)
    again = teachers.answers(IMAGES.flip(0))
    assert one.asked == 1
    assert torch.equal(again, first.flip(1))
    teachers.answers(IMAGES + 1e-3)
    assert one.asked == 2
    without = answers(1)
    for _ in range(2):
        Teachers([without]).answers(IMAGES)
    assert without.asked == 2


def test_agreement_counts_answers_right_or_wrong() -> None:
    assert agreement(torch.eye(4), torch.eye(4)[[0, 1, 3, 2]]) == 0.5


# training ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", [lambda t: SoftTargets(t, weight=1.0), LogitRegression], ids=["soft", "logits"])
def test_a_student_learns_without_one_true_label(
    objective: Any, teacher: nn.Module, digits: tuple[Dataset, Dataset]
) -> None:
    train, test = digits
    false = replace(train, labels=(train.labels + 1) % 10)
    before = [p.clone() for p in teacher.parameters()]
    student = lenet()
    fit(student, false, None, replace(RECIPE, lr=0.02), objective=objective(Teachers([teacher])), device="cpu")
    assert evaluate(student, test).top1 > 0.85
    assert all(torch.equal(a, b) for a, b in zip(before, teacher.parameters(), strict=True))


def hints(teacher: nn.Module, student: nn.Module, steps: int) -> Hints:
    soft = SoftTargets(Teachers([teacher]), weight=1.0)
    return Hints(teacher, student, hint="1", guided="1", image=(1, 28, 28), steps=steps, then=soft)


def test_hints_train_what_is_below_them_then_all(teacher: nn.Module, digits: tuple[Dataset, Dataset]) -> None:
    train, test = digits
    steps = len(train) // RECIPE.batch_size
    student = create_model("lenet_300_100", dataset="digits")
    before = {name: p.clone() for name, p in student.named_parameters()}
    objective = hints(teacher, student, steps=steps)
    regressor = objective.regressor.weight.clone()
    fit(student, train, None, replace(RECIPE, epochs=1), objective=objective, device="cpu")
    changed = {name for name, p in student.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"1.weight", "1.bias"}
    assert not torch.equal(objective.regressor.weight, regressor)
    assert objective.steps_done == steps

    fit(student, train, None, replace(RECIPE, lr=0.02), objective=objective, device="cpu")
    assert {name for name, p in student.named_parameters() if not torch.equal(p, before[name])} == set(before)
    assert evaluate(student, test).top1 > 0.85


def test_a_resumed_run_knows_its_phase(teacher: nn.Module, digits: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    """Stopped in its second phase and resumed, it ends with the bits of the run that was not."""
    train, _ = digits
    recipe = replace(RECIPE, epochs=3)
    steps = len(train) // RECIPE.batch_size
    results = []
    for stops in ((), (steps // 2, steps + 2)):
        student = lenet()
        folder = tmp_path / str(len(stops))
        for number in range(len(stops) + 1):
            student = lenet()
            objective = hints(teacher, student, steps=steps)
            last = stops[number] if number < len(stops) else None
            run = fit(student, train, None, recipe, objective=Stopping(objective, last), device="cpu",
                      out_dir=folder, resume=number > 0)  # fmt: skip
        assert run.stopped is None
        results.append(student.state_dict())
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


class Stopping(nn.Module):
    """Asks the process to stop in step `last`, counted from the beginning of the run."""

    def __init__(self, inner: nn.Module, last: int | None) -> None:
        super().__init__()
        self.inner = inner
        self.last = last
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
        import os
        import signal

        self.seen += 1
        if self.last is not None and int(self.seen) == self.last:
            os.kill(os.getpid(), signal.SIGTERM)
        loss: Tensor = self.inner(model, images, targets)
        return loss


def test_maps_of_two_sizes_are_averaged_down() -> None:
    torch.manual_seed(0)
    small = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2), nn.Flatten(), nn.Linear(2 * 3 * 3, 5))
    large = nn.Sequential(nn.Conv2d(1, 7, 3), nn.Flatten(), nn.Linear(7 * 6 * 6, 5))
    soft = SoftTargets(Teachers([large]))
    objective = Hints(large, small, hint="0", guided="0", image=(1, 8, 8), steps=1, then=soft)
    images = torch.randn(2, 1, 8, 8)
    found = objective(small, images, TARGETS[:2])
    theirs = F.adaptive_avg_pool2d(large[0](images), (3, 3))
    assert torch.allclose(found, F.mse_loss(objective.regressor(small[0](images)), theirs) / 2)
    assert not [name for name in objective.state_dict() if name.startswith("teacher")]


# bad input -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Teachers([]), "no teacher to learn from"),
        (lambda: Teachers([answers()], average="votes"), "average='votes' was given; 'logits' or 'probabilities'"),
        (lambda: SoftTargets(Teachers([answers()]), temperature=0), "temperature=0 was given; a number above 0"),
        (lambda: SoftTargets(Teachers([answers()]), temperature=math.nan), "temperature=nan was given"),
        (lambda: SoftTargets(Teachers([answers()]), weight=1.5), "weight=1.5 was given; a share from 0 to 1"),
        (
            lambda: check_teachers(
                Teachers([create_model("lenet5", num_classes=7)]), create_model("lenet5"), (1, 32, 32)
            ),
            "has 7 classes and the student 10",
        ),
        (
            lambda: check_teachers(
                Teachers([create_model("lenet5", dataset="cifar10")]), create_model("lenet5"), (1, 32, 32)
            ),
            "does not take the student's images of",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_taught(make: Any, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        make()


@pytest.mark.parametrize(
    ("hint", "guided", "words"),
    [
        ("0", "1", "the teacher's layer '0' gives no hint|is of shape"),
        ("9", "1", "no layer of the teacher is called '9'"),
        ("1", "9", "no layer of the student is called '9'"),
    ],
)
def test_hints_that_cannot_be(hint: str, guided: str, words: str) -> None:
    vector, maps = lenet(), nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3), nn.Flatten(), nn.Linear(1152, 10))
    soft = SoftTargets(Teachers([vector]))
    with pytest.raises((RecipeError, UnknownNameError), match=words):
        Hints(maps if hint == "0" else vector, lenet(), hint=hint, guided=guided, image=(1, 28, 28), steps=1, then=soft)
    with pytest.raises(RecipeError, match="steps=0 was given"):
        Hints(vector, lenet(), hint="1", guided="1", image=(1, 28, 28), steps=0, then=soft)


@pytest.mark.parametrize(
    ("lesson", "words"),
    [
        ({"objective": "soft"}, "no objective is called 'soft'. Did you mean 'soft-targets'"),
        ({"objective": "hints"}, "go together; give both or neither"),
        ({"hint": "1:1"}, "go together; give both or neither"),
        ({"objective": "hints", "hint": "1"}, "write it as TEACHER_LAYER:STUDENT_LAYER"),
        ({"objective": "hints", "hint": "1:1", "hint_epochs": 12}, "fewer than the 12 epochs"),
        ({"objective": "hints", "hint": "1:1", "hint_epochs": 0}, "at least 1"),
        ({"teachers": ("lenet55",)}, "no model is called 'lenet55'"),
        ({"teachers": ("nowhere.zpk",)}, "nowhere.zpk"),
    ],
)
def test_lessons_that_cannot_be_given(
    lesson: dict[str, Any], words: str, teacher: nn.Module, digits: tuple[Dataset, Dataset], monkeypatch: Any
) -> None:
    import zoo.teachers

    real = zoo.teachers.load_teacher
    monkeypatch.setattr(zoo.teachers, "load_teacher", lambda n, d: teacher if n == "known" else real(n, d))
    with pytest.raises((ZooError, OSError), match=words):
        make_objective(Lesson(**({"teachers": ("known",)} | lesson)), lenet(), (1, 28, 28), digits[0], RECIPE)


# the command ---------------------------------------------------------------------------------------------------------


def test_the_command_teaches_and_the_card_says_by_whom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZOO_DATA", str(digits_root))
    small = ["lenet_300_100", "--dataset", "digits", "--recipe", "smoke", "--valid-images", "0", "--device", "cpu"]
    assert train_cli.main(small) == 0
    first = "runs/train/1-lenet_300_100-digits"
    taught = [*small, "--teacher", first, "--temperature", "2", "--seed", "3"]
    assert train_cli.main(taught) == 0
    said = capsys.readouterr().err
    assert f"--teacher {first}" in said
    assert "--temperature 2.0" in said
    assert "taught by runs/train/1-lenet_300_100-digits, with whom it agrees on " in said
    second = Path("runs/train/2-lenet_300_100-digits")
    card = read_card(second / "lenet_300_100.digits.json")
    assert "with whom it agrees on" in card.note
    assert f"--teacher {first}" in card.command
    assert train_cli.main(["--resume", str(second)]) == 0
    assert train_cli.main(["--resume", str(second), "--temperature", "3"]) == 2
    assert "was begun with temperature=2.0, and 3.0 was given now" in capsys.readouterr().err
    assert train_cli.main([*small, "--temperature", "3"]) == 2
    assert "--temperature was given without a --teacher" in capsys.readouterr().err
    with pytest.raises(WeightError, match="holds 0 cards"):
        load_teacher(str(tmp_path), "digits")
