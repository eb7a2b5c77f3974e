"""Recipes: typed overrides, checked values, schedules, and a round trip through plain values."""

import dataclasses
import json
import math
from typing import Any

import pytest

from zoo.data import Augment
from zoo.errors import RecipeError, UnknownNameError
from zoo.recipes import RECIPES, Recipe, default_recipe, from_dict, get_recipe, override, to_dict

BASE = Recipe("base")


@pytest.mark.parametrize("name", RECIPES)
def test_every_named_recipe_is_valid_and_comes_back(name: str) -> None:
    recipe = get_recipe(name)
    assert recipe.name == name
    assert from_dict(json.loads(json.dumps(to_dict(recipe)))) == recipe
    rates = [recipe.lr_at(step, 200) for step in range(200)]
    assert all(0 < rate <= recipe.lr for rate in rates)
    assert max(rates) > 0.95 * recipe.lr
    assert rates[-1] < 0.01 * recipe.lr


def test_an_unknown_recipe_is_named_with_its_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"no recipe is called 'quik'. Did you mean 'quick'"):
        get_recipe("quik")


@pytest.mark.parametrize(
    ("model", "dataset", "expected"),
    [
        ("lenet5", "mnist", "mnist-plain"),
        ("squeezenet1_1", "mnist", "mnist"),
        ("lenet5", "digits", "mnist-plain"),
        ("vgg16", "cifar10", "plain"),
        ("vgg16_bn", "cifar10", "quick"),
        ("timm/resnet18", "folder:pets", "quick"),
    ],
)
def test_the_recipe_that_suits(model: str, dataset: str, expected: str) -> None:
    assert default_recipe(model, dataset) is RECIPES[expected]


def test_no_recipe_for_digits_flips() -> None:
    assert {RECIPES[name].augment.flip for name in ("mnist", "mnist-plain", "smoke")} == {"none"}


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("lr=0.2", {"lr": 0.2}),
        (" lr = 2e-1 ", {"lr": 0.2}),
        ("epochs=7", {"epochs": 7}),
        ("batch-size=32", {"batch_size": 32}),
        ("optimizer=lion", {"optimizer": "lion"}),
        ("schedule=linear", {"schedule": "linear"}),
        ("precision=bf16", {"precision": "bf16"}),
        ("channels_last=false", {"channels_last": False}),
        ("channels_last=YES", {"channels_last": True}),
        ("channels_last=0", {"channels_last": False}),
        ("cutout=8", {"augment": Augment(cutout=8)}),
        ("augment.cutout=8", {"augment": Augment(cutout=8)}),
        ("flip=alternating", {"augment": Augment(flip="alternating")}),
        ("mixup=0.2", {"augment": Augment(mixup=0.2)}),
    ],
)
def test_an_override_has_the_type_of_its_field(setting: str, expected: dict[str, Any]) -> None:
    changed = override(BASE, [setting])
    assert changed == dataclasses.replace(BASE, **expected)
    for name, value in expected.items():
        assert type(getattr(changed, name)) is type(value)
    assert Recipe("base") == BASE


def test_every_field_can_be_set_from_its_own_text() -> None:
    for field in dataclasses.fields(Recipe):
        if field.name not in ("name", "augment"):
            assert override(BASE, [f"{field.name}={getattr(BASE, field.name)}"]) == BASE
    for field in dataclasses.fields(Augment):
        assert override(BASE, [f"{field.name}={getattr(BASE.augment, field.name)}"]) == BASE


def test_the_last_of_several_overrides_counts() -> None:
    assert override(BASE, ["lr=0.2", "cutout=3", "lr=0.3", "mixup=1"]) == dataclasses.replace(
        BASE, lr=0.3, augment=Augment(cutout=3, mixup=1)
    )


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("lr", r"'lr' is no override; write it as field=value"),
        ("epochs=1.5", r"epochs=1\.5 was given; a whole number is allowed"),
        ("epochs=", r"epochs= was given; a whole number"),
        ("epochs=0", r"epochs=0 was given; a whole number from 1"),
        ("lr=high", r"lr=high was given; a number is allowed"),
        ("lr=nan", r"lr=nan was given; a finite number"),
        ("lr=inf", r"lr=inf was given; a finite number"),
        ("momentum=1.1", r"momentum=1\.1 was given; a finite number from 0 to 1"),
        ("schedule=step", r"schedule=step was given; 'cosine' or 'linear' or 'constant' is allowed"),
        ("precision=fp16", r"precision=fp16 was given; 'fp32' or 'bf16'"),
        ("channels_last=maybe", r"channels_last=maybe was given; true or false"),
        ("flip=up", r"flip=up was given; 'none' or 'random' or 'alternating'"),
        ("cutout=-1", r"cutout=-1 was given"),
    ],
)
def test_a_wrong_value_says_what_is_allowed(setting: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        override(BASE, [setting])


@pytest.mark.parametrize(("setting", "near"), [("learning_rte=1", ""), ("epoch=1", "epochs"), ("cutoff=3", "cutout")])
def test_a_wrong_field_is_named_with_its_nearest(setting: str, near: str) -> None:
    with pytest.raises(UnknownNameError, match=f"no field of a recipe is called .*{near}"):
        override(BASE, [setting])


@pytest.mark.parametrize("field", ["name", "augment"])
def test_what_a_recipe_is_called_cannot_be_set(field: str) -> None:
    with pytest.raises(UnknownNameError):
        override(BASE, [f"{field}=x"])


@pytest.mark.parametrize(
    "changed",
    [
        {"epochs": 1.5}, {"epochs": True}, {"lr": "0.1"}, {"lr": None}, {"schedule": "step"}, {"precision": "fp64"},
        {"batch_size": 0}, {"warmup": -0.1}, {"ema_decay": 2}, {"clip_norm": math.inf}, {"weight_decay": math.nan},
    ],
)  # fmt: skip
def test_a_recipe_checks_itself(changed: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=next(iter(changed))):
        dataclasses.replace(BASE, **changed)
    with pytest.raises(RecipeError):
        from_dict({**to_dict(BASE), **changed})


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda values: values.pop("lr"), "'lr' is missing or unknown"),
        (lambda values: values.update(more=1), "'more' is missing or unknown"),
        (lambda values: values.pop("augment"), "no 'augment'"),
        (lambda values: values.update(augment=3), "no 'augment'"),
        (lambda values: values["augment"].pop("flip"), "'flip' is missing or unknown"),
        (lambda values: values["augment"].update(spin=1), "'spin' is missing or unknown"),
    ],
)
def test_a_stored_recipe_that_does_not_fit(damage: Any, says: str) -> None:
    values = json.loads(json.dumps(to_dict(BASE)))
    damage(values)
    with pytest.raises(RecipeError, match=says):
        from_dict(values)


def test_a_recipe_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        BASE.lr = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("cosine", [0.25, 0.75, 0.5 * (1 + math.cos(math.pi * 0.25)), 0.5 * (1 + math.cos(math.pi * 0.75))]),
        ("linear", [0.25, 0.75, 0.75, 0.25]),
        ("constant", [0.25, 0.75, 1, 1]),
    ],
)
def test_schedules_by_hand(schedule: Any, expected: list[float]) -> None:
    """Four steps, read at their middles; the first half is warm-up."""
    recipe = Recipe("test", lr=2.0, warmup=0.5, schedule=schedule)
    assert [recipe.lr_at(step, 4) for step in range(4)] == pytest.approx([2 * share for share in expected])


@pytest.mark.parametrize("warmup", [0.0, 1.0])
def test_the_ends_of_warmup(warmup: float) -> None:
    rates = [Recipe("test", lr=1.0, warmup=warmup).lr_at(step, 10) for step in range(10)]
    assert rates == sorted(rates, reverse=warmup == 0)
    assert all(math.isfinite(rate) and rate > 0 for rate in rates)
