"""Recipes: how a model is trained, as frozen values with a name.

A recipe is a plain value; `dataclasses.replace`, or `override(recipe, ["lr=0.1", "cutout=8"])` from the command line,
is the only way to change one.

What each gave where it was run (command, time, machine, accuracy) is written from the cards into the README, under
"Recipes". `mnist`, `quick` and `plain` are for CPUs and were chosen on held-out training images, as the log of the
benchmarks tells; `standard` and `long` are for accelerators, after published ones, and no stored weights are theirs.
One recipe serves plain and depthwise networks: what was best for one was best for the other.
"""

import dataclasses
import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from zoo.data.augment import Augment
from zoo.errors import RecipeError, unknown

Precision = Literal["fp32", "bf16"]
Schedule = Literal["cosine", "linear", "constant"]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a model is trained, the seed and the machine left out.

    lr: peak learning rate, reached after `warmup` (a share of all steps) and brought to zero by `schedule`.
    weight_decay: on weights of two dimensions and more only; never on biases, norms or scales.
    ema_decay: decay a step of the averaged weights, ramped up as (1 + n) / (10 + n); 0 keeps no average.
    clip_norm: largest norm of the gradient; 0 clips nothing.
    optimizer: "sgd" (Nesterov momentum), "adamw", or any name of timm's optimizers.
    """

    name: str
    epochs: int = 30
    batch_size: int = 128
    optimizer: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Schedule = "cosine"
    warmup: float = 0.1
    label_smoothing: float = 0.0
    ema_decay: float = 0.999
    clip_norm: float = 0.0
    precision: Precision = "fp32"
    channels_last: bool = True
    augment: Augment = field(default_factory=Augment)

    def __post_init__(self) -> None:
        for name, low, high in (
            ("epochs", 1, math.inf),
            ("batch_size", 1, math.inf),
            ("lr", 0, math.inf),
            ("momentum", 0, 1),
            ("weight_decay", 0, math.inf),
            ("warmup", 0, 1),
            ("label_smoothing", 0, 1),
            ("ema_decay", 0, 1),
            ("clip_norm", 0, math.inf),
        ):
            value = getattr(self, name)
            whole = name in ("epochs", "batch_size")
            if type(value) not in ((int,) if whole else (int, float)) or not low <= value <= high or value == math.inf:
                kind = "whole" if whole else "finite"
                raise RecipeError(f"{name}={value!r} was given; a {kind} number from {low} to {high} is allowed.")
        for name, allowed in (("schedule", get_args(Schedule)), ("precision", get_args(Precision))):
            if getattr(self, name) not in allowed:
                raise RecipeError(_choices(name, getattr(self, name), allowed))

    def lr_at(self, step: int, steps: int) -> float:
        """Learning rate of step `step` of `steps`: a pure function, so that a resumed run needs no schedule state."""
        progress = (step + 0.5) / steps
        if progress < self.warmup:
            return self.lr * progress / self.warmup
        rest = (progress - self.warmup) / max(1e-9, 1 - self.warmup)
        shape = {"cosine": 0.5 * (1 + math.cos(math.pi * rest)), "linear": 1 - rest, "constant": 1.0}
        return self.lr * shape[self.schedule]


DIGITS = Augment(rotation=10.0, translation=0.08, scaling=0.1)
SLIGHT = Augment(crop_padding=2, flip="alternating")
MILD = Augment(crop_padding=4, flip="alternating")
OBJECTS = Augment(crop_padding=4, flip="alternating", cutout=8)
# For short trainings: Muon, and an average over a hundred steps. benchmarks/LOG.md has what it gave over SGD.
MUON = Recipe("muon", optimizer="muon", lr=0.02, weight_decay=0.05, ema_decay=0.99, precision="bf16")

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        # Networks without batch norm (LeNet, plain VGG, AlexNet) on digits: a small rate, a long average.
        Recipe("mnist-plain", epochs=40, batch_size=128, lr=0.03, weight_decay=5e-4, augment=DIGITS),
        # Networks with batch norm on digits.
        replace(MUON, name="mnist", epochs=4, augment=DIGITS),
        # Networks with batch norm on objects: two CPU cores, under an hour for the small models.
        replace(MUON, name="quick", epochs=8, label_smoothing=0.1, augment=MILD),
        Recipe("standard", epochs=60, lr=0.1, label_smoothing=0.1, precision="bf16", augment=OBJECTS),
        Recipe("long", epochs=300, lr=0.1, label_smoothing=0.1, precision="bf16", augment=OBJECTS),
        # Networks without batch norm on objects.
        replace(MUON, name="plain", epochs=60, lr=0.01, clip_norm=1.0, precision="fp32", augment=SLIGHT),
        # One pass through a few batches: proves that a model trains.
        Recipe("smoke", epochs=1, batch_size=64, lr=0.02, ema_decay=0.9),
    )
}

_PLAIN = ("lenet_300_100", "lenet5", "lenet5_caffe", "alexnet", "vgg11", "vgg13", "vgg16", "vgg19", "branchy_lenet5")
DIGIT_SETS = ("mnist", "digits")
_OWN = {f.name for f in dataclasses.fields(Recipe)} - {"name", "augment"}
_AUGMENT = {f.name for f in dataclasses.fields(Augment)}
FIELDS = _OWN | _AUGMENT


def get_recipe(name: str) -> Recipe:
    """The recipe called `name`. Raises UnknownNameError with the nearest names."""
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]


def default_recipe(model: str, dataset: str) -> Recipe:
    """The named recipe that suits a model (with batch norm or without) and a data set (digits or objects)."""
    if dataset in DIGIT_SETS:
        return RECIPES["mnist-plain" if model in _PLAIN else "mnist"]
    return RECIPES["plain" if model in _PLAIN else "quick"]


def override(recipe: Recipe, settings: list[str]) -> Recipe:
    """`recipe` with "field=value" settings applied; a field of the augmentation is named like any other.

    Raises UnknownNameError for a field that does not exist, RecipeError for a value of the wrong type or range.
    """
    for setting in settings:
        name, equals, text = setting.partition("=")
        name = name.strip().replace("-", "_").removeprefix("augment.")
        if not equals:
            raise RecipeError(f"{setting!r} is no override; write it as field=value, for example lr=0.1.")
        if name in _OWN:
            recipe = replace(recipe, **{name: _parse(Recipe, name, text)})
        elif name in _AUGMENT:
            changed = replace(recipe.augment, **{name: _parse(Augment, name, text)})
            recipe = replace(recipe, augment=changed)
        else:
            raise unknown("field of a recipe", name, FIELDS)
    return recipe


def to_dict(recipe: Recipe) -> dict[str, object]:
    """Plain values, for cards and checkpoints; `from_dict` reads them back."""
    return dataclasses.asdict(recipe)


def from_dict(values: dict[str, object]) -> Recipe:
    """The recipe that `to_dict` wrote. Raises RecipeError when a field is missing, unknown or of the wrong type."""
    augment = values.get("augment")
    if not isinstance(augment, dict):
        raise RecipeError("a stored recipe has no 'augment'; it was not written by this program.")
    for owner, given in ((Recipe, values), (Augment, augment)):
        fields = {f.name for f in dataclasses.fields(owner)}
        if wrong := sorted(fields ^ given.keys()):
            raise RecipeError(f"a stored recipe does not fit this version: {wrong[0]!r} is missing or unknown.")
    return Recipe(**{**values, "augment": Augment(**augment)})  # type: ignore[arg-type]


def _choices(name: str, value: object, allowed: tuple[str, ...]) -> str:
    return f"{name}={value} was given; {' or '.join(map(repr, allowed))} is allowed."


def _parse(owner: type, name: str, text: str) -> Any:
    """`text` as the type that a field declares: bool, int, float, str or one of some literals."""
    kind = get_type_hints(owner)[name]
    text = text.strip()
    if get_origin(kind) is Literal:
        if text not in get_args(kind):
            raise RecipeError(_choices(name, text, get_args(kind)))
        return text
    if kind is bool:
        if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
            raise RecipeError(f"{name}={text} was given; true or false is allowed.")
        return text.lower() in ("true", "1", "yes")
    try:
        return kind(text)
    except ValueError:
        what = {int: "a whole number", float: "a number"}[kind]
        raise RecipeError(f"{name}={text} was given; {what} is allowed.") from None
