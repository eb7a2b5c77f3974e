"""Teachers by name, and objectives from words: what `zoo train --teacher resnet56 --objective soft-targets` means."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from zoo.compression import load_packed
from zoo.create import create_model
from zoo.data import Dataset
from zoo.errors import RecipeError, unknown
from zoo.recipes import Recipe
from zoo.registry import Image
from zoo.trained import named_card
from zoo.training.objectives import Hints, LogitRegression, Objective, SoftTargets, Teachers, check_teachers
from zoo.training.objectives.distillation import Average
from zoo.weights import load_for_card, read_card

OBJECTIVES = ("soft-targets", "logits", "hints")


@dataclass(frozen=True)
class Lesson:
    """How a student is taught.

    teachers: as `load_teacher` takes them. objective: one of OBJECTIVES. temperature, weight: of soft targets.
    average: of several teachers, "logits" or "probabilities". hint: "TEACHER_LAYER:STUDENT_LAYER", of hints, which soft
    targets follow after `hint_epochs`.
    """

    teachers: tuple[str, ...]
    objective: str = "soft-targets"
    temperature: float = 4.0
    weight: float = 0.9
    average: Average = "logits"
    hint: str | None = None
    hint_epochs: int = 1


def load_teacher(source: str, dataset: str) -> nn.Module:
    """A trained network: a model with stored weights (MODEL or MODEL@TAG), a `.zpk` file, a card, or a run folder.

    Raises what create_model, load_packed and read_card raise, and WeightError for a folder without one card.
    """
    if Path(source).suffix == ".zpk":
        return load_packed(source)[0]
    if (card_path := named_card(source)) is not None:
        card = read_card(card_path)
        return load_for_card(card, card_path.parent / card.file)
    name, _, tag = source.partition("@")
    return create_model(name, dataset=dataset, pretrained=True, tag=tag or None)


def make_objective(
    lesson: Lesson, student: nn.Module, image: Image, train: Dataset, recipe: Recipe
) -> tuple[Objective, Teachers]:
    """The objective, and the teachers that it asks; their answers are remembered where nothing changes the images.

    Raises RecipeError for a lesson that cannot be given, UnknownNameError for an objective or layer that is not there.
    """
    if lesson.objective not in OBJECTIVES:
        raise unknown("objective", lesson.objective, OBJECTIVES)
    if (lesson.hint is not None) != (lesson.objective == "hints"):
        raise RecipeError("hint=TEACHER_LAYER:STUDENT_LAYER and objective='hints' go together; give both or neither.")
    if not 1 <= lesson.hint_epochs < recipe.epochs and lesson.objective == "hints":
        raise RecipeError(
            f"hint_epochs={lesson.hint_epochs} was given; at least 1, and fewer than the {recipe.epochs} epochs of the "
            "recipe, are allowed."
        )
    networks = [load_teacher(source, train.name) for source in lesson.teachers]
    unchanged = recipe.augment == type(recipe.augment)()
    teachers = Teachers(networks, average=lesson.average, cache=unchanged)
    check_teachers(teachers, student, image)
    if lesson.objective == "logits":
        return LogitRegression(teachers), teachers
    soft = SoftTargets(
        teachers,
        temperature=lesson.temperature,
        weight=lesson.weight,
        label_smoothing=recipe.label_smoothing,
    )
    if lesson.hint is None:
        return soft, teachers
    theirs, colon, ours = lesson.hint.partition(":")
    if not colon:
        raise RecipeError(f"hint={lesson.hint!r} was given; write it as TEACHER_LAYER:STUDENT_LAYER.")
    steps = lesson.hint_epochs * (len(train) // recipe.batch_size)
    first = networks[0]
    return Hints(first, student, hint=theirs, guided=ours, image=image, steps=steps, then=soft), teachers


def describe(names: Sequence[str]) -> str:
    """The teachers in a few words."""
    return names[0] if len(names) == 1 else f"{len(names)} teachers ({', '.join(names)})"
