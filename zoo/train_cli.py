"""`python train.py` and `zoo train`: parse, build, fit, save.

python train.py squeezenet1_1 --dataset cifar10
python train.py lenet5 --dataset mnist --set lr=0.05 --set epochs=20 --seed 1
python train.py --resume runs/train/1-lenet5-mnist
torchrun --nproc-per-node 2 train.py lenet5 --dataset mnist
"""

import argparse
import dataclasses
import difflib
import platform
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from zoo import recipes, runs
from zoo.create import create_model
from zoo.data import Dataset, describe, load_dataset, split_validation
from zoo.errors import CheckpointError, RecipeError, UnknownNameError, ZooError
from zoo.recipes import Recipe
from zoo.registry import origin
from zoo.teachers import OBJECTIVES, Lesson, make_objective
from zoo.training.distributed import choose_device, processes
from zoo.training.loop import Run, check, fit
from zoo.training.objectives import Objective, Teachers

_LESSON = ("objective", "temperature", "teacher_weight", "teacher_average", "hint", "hint_epochs")
# What a resumed run may be given anew: how it is computed and kept and for how long, never what is computed.
_FREE = ("device", "threads", "compile", "max_minutes", "checkpoint_seconds", "tensorboard", "pack")
_PLAIN_DEFAULTS: dict[str, Any] = {
    "seed": 0,
    "tag": "",
    "valid_images": None,
    "device": None,
    "threads": None,
    "compile": False,
    "max_minutes": None,
    "checkpoint_seconds": 60.0,
    "tensorboard": False,
    "pack": False,
    "teacher": [],
    "objective": None,
    "temperature": 4.0,
    "teacher_weight": 0.9,
    "teacher_average": "logits",
    "hint": None,
    "hint_epochs": 1,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; exit status 0, or 2 for wrong use. A run stopped by a signal leaves with 128 + its number."""
    try:
        given = _parse(list(sys.argv[1:] if arguments is None else arguments))
        with subnormals_flushed():
            return _train(given)
    except ZooError as error:
        _say(f"zoo: error: {' '.join(str(error).split())}")
        return 2
    except KeyboardInterrupt:
        _say("interrupted; the last checkpoint is intact, go on with --resume.")
        return 130
    except OSError as error:
        if error.errno is None:
            raise
        place = error.filename or "while writing the run"
        _say(f"zoo: error: {error.strerror} ({place}); the last checkpoint is intact, go on with --resume.")
        return 1


@contextmanager
def subnormals_flushed() -> Iterator[None]:
    """Let a CPU round subnormal numbers to zero while inside: late in a training there are many, and each is slow.

    Threads inherit this when they are made, so it comes before the first parallel operation, in every process of a run
    and in every resumed one: all compute the same bits.
    """
    before = float(torch.tensor(1e-40) * 1) == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def _train(given: dict[str, Any]) -> int:
    resumed: Path | None = given.pop("resume", None)
    options = _options(given, resumed)
    device = choose_device(options["device"])
    if options["threads"]:
        torch.set_num_threads(options["threads"])
    recipe = _recipe(options, resumed)
    options["recipe"] = recipe.name
    with processes(device) as team:
        say = _say if team.is_main else _silent
        crowd = "1 process" if team.count == 1 else f"{team.count} processes"
        say(f"python {platform.python_version()}, torch {torch.__version__}, {runs.device_name(device)}, "
            f"{torch.get_num_threads()} threads, {crowd}")  # fmt: skip
        command = _command(options, recipe, team.count)
        say(command)
        model, train, valid = _subject(options)
        say(describe(options["dataset"]))
        check(train, recipe)  # before there is a folder
        team.share(recipe.batch_size)
        objective, teachers = _lesson(options, model, train, recipe)
        if resumed is not None:
            folder = resumed
        else:
            made = str(runs.new_folder(options["model"], options["dataset"])) if team.is_main else ""
            folder = Path(team.same_text(made))
        say(f"run folder: {folder}")
        with runs.described(folder if team.is_main else None, options, recipe, command):
            run = fit(
                model,
                train,
                valid,
                recipe,
                objective=objective,
                seed=options["seed"],
                device=device,
                out_dir=folder,
                resume=resumed is not None,
                max_minutes=options["max_minutes"],
                compile=options["compile"],
                checkpoint_seconds=options["checkpoint_seconds"],
                tensorboard=options["tensorboard"],
                spoken=True,
            )
        if team.is_main and run.stopped is None:
            runs.finish(folder, model, run, options, recipe, command, train, say, teachers)
        say(f"run folder: {folder}" if run.stopped is None else f"go on with: python train.py --resume {folder}")
    return _status(run)


def _subject(options: dict[str, Any]) -> tuple[nn.Module, Dataset, Dataset | None]:
    """The model, with weights drawn by the seed, and the images to train on and to validate with, if any."""
    torch.manual_seed(options["seed"])
    model = create_model(options["model"], dataset=options["dataset"])  # first: a wrong name should fetch nothing
    if options["pack"]:
        origin(model)  # a network of another library cannot be packed: better said before it is trained
    train = load_dataset(options["dataset"], "train")
    images = len(train) // 10 if options["valid_images"] is None else options["valid_images"]
    if not images:
        return model, train, None
    return model, *split_validation(train, images, options["seed"])


def _lesson(
    options: dict[str, Any], model: nn.Module, train: Dataset, recipe: Recipe
) -> tuple[Objective | None, Teachers | None]:
    """What is learned from besides the labels: nothing where no teacher was given."""
    taught = {name: options[name] for name in _LESSON if options[name] != _PLAIN_DEFAULTS[name]}
    if not options["teacher"]:
        if taught:
            raise RecipeError(f"--{next(iter(taught)).replace('_', '-')} was given without a --teacher; name one.")
        return None, None
    lesson = Lesson(
        teachers=tuple(options["teacher"]),
        objective=options["objective"] or "soft-targets",
        temperature=options["temperature"],
        weight=options["teacher_weight"],
        average=options["teacher_average"],
        hint=options["hint"],
        hint_epochs=options["hint_epochs"],
    )
    return make_objective(lesson, model, train.image, train, recipe)


def _status(run: Run) -> int:
    return {None: 0, "max_minutes": 0, "SIGINT": 130, "SIGTERM": 143}[run.stopped]


def _options(given: dict[str, Any], resumed: Path | None) -> dict[str, Any]:
    """All options in force: those given, else those of the resumed run, else the defaults."""
    if resumed is None:
        for needed, hint in (("model", "zoo list"), ("dataset", "zoo data")):
            if needed not in given:
                raise RecipeError(f"no {needed} was given; `{hint}` prints what there is, `--help` how to write it.")
        return {"recipe": None, "settings": [], **_PLAIN_DEFAULTS, **given}
    stored: dict[str, Any] = {"settings": [], **_PLAIN_DEFAULTS, **runs.read_run(resumed)["options"]}
    for needed in ("model", "dataset", "recipe"):
        if not isinstance(stored.get(needed), str):
            raise CheckpointError(f"{resumed / 'run.json'} is damaged: it names no {needed}; start a new run.")
    for name, value in given.items():
        if name not in (*_FREE, "settings") and stored[name] != value:
            raise _conflict(resumed, name.replace("_", "-"), stored[name], value)
    return {**stored, **{name: value for name, value in given.items() if name in (*_FREE, "settings")}}


def _recipe(options: dict[str, Any], resumed: Path | None) -> Recipe:
    """The recipe in force; a resumed run keeps its own, of which only the epochs may be raised."""
    if resumed is not None:
        stored = recipes.from_dict(runs.read_run(resumed)["recipe"])
        recipe = recipes.override(stored, options["settings"])
        before, now = recipes.to_dict(stored), recipes.to_dict(dataclasses.replace(recipe, epochs=stored.epochs))
        for name in before:
            if before[name] != now[name]:
                raise _conflict(resumed, name, before[name], now[name])
        return recipe
    named = options["recipe"]
    recipe = recipes.get_recipe(named) if named else recipes.default_recipe(options["model"], options["dataset"])
    return recipes.override(recipe, options["settings"])


def _conflict(resumed: Path, name: str, before: object, now: object) -> CheckpointError:
    return CheckpointError(
        f"{resumed} was begun with {name}={before!r}, and {now!r} was given now; leave it out, or start a new run."
    )


def _command(options: dict[str, Any], recipe: Recipe, count: int) -> str:
    """Every argument in force, as a command that can be pasted back."""
    words = ["python"] if count == 1 else ["torchrun", "--nproc-per-node", str(count)]
    words += ["train.py", options["model"], "--dataset", options["dataset"], "--recipe", recipe.name]
    base = recipes.RECIPES.get(recipe.name, recipe)
    for owner, reference in ((recipe, base), (recipe.augment, base.augment)):
        for field in dataclasses.fields(owner):
            value = getattr(owner, field.name)
            if field.name != "augment" and value != getattr(reference, field.name):
                words += ["--set", f"{field.name}={value}"]
    for name, default in _PLAIN_DEFAULTS.items():
        value = options[name]
        if isinstance(value, list):
            words += [word for item in value for word in (f"--{name}", str(item))]
        elif value is not None and value is not False and value != "" and (name not in _LESSON or value != default):
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return shlex.join(words)


class _Parser(argparse.ArgumentParser):
    """argparse that complains as the rest of the program does: one line, the nearest match, status 2."""

    def error(self, message: str) -> NoReturn:
        known = sorted(option for action in self._actions for option in action.option_strings)
        wrong = next((word for word in message.split() if word.startswith("-")), "")
        near = difflib.get_close_matches(wrong, known, n=1)
        hint = f" Did you mean {near[0]}?" if near and near[0] != wrong else ""
        field = wrong.lstrip("-").partition("=")[0].replace("-", "_")
        if field in recipes.FIELDS:
            hint = f" A recipe is changed by --set {field}=VALUE."
        raise UnknownNameError(f"{message}.{hint} `python train.py --help` prints every option.")


def _parse(arguments: list[str]) -> dict[str, Any]:
    """Only what was given: an option left out is not in the answer."""
    parser = _Parser(
        prog="train.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument("model", nargs="?", help="a registered name, timm/NAME or torchvision/NAME")
    parser.add_argument("--dataset", help="mnist, fashion_mnist, cifar10, cifar100, digits or folder:PATH")
    parser.add_argument("--recipe", help=f"one of {', '.join(recipes.RECIPES)}; by default the one that suits both")
    parser.add_argument("--set", dest="settings", action="append", metavar="FIELD=VALUE", help="change the recipe")
    parser.add_argument("--seed", type=int, help="decides weights, order, augmentation and split (0)")
    parser.add_argument("--tag", help="a word in the weight file's name, to tell it from others")
    parser.add_argument("--valid-images", type=int, help="training images held out (a tenth); 0 trains on all")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (cuda where there is one)")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--compile", action="store_true", help="through torch.compile")
    parser.add_argument("--max-minutes", type=float, help="save and stop after so long")
    parser.add_argument("--checkpoint-seconds", type=float, help="longest time between checkpoints (60)")
    parser.add_argument("--tensorboard", action="store_true", help="also write TensorBoard events to the run folder")
    parser.add_argument("--pack", action="store_true", help="keep the weights in shared codebooks, a fifth of the size")
    parser.add_argument(
        "--teacher",
        action="append",
        help="learn from a model with stored weights (or MODEL@TAG), a .zpk or a run folder",
    )
    parser.add_argument("--objective", help=f"how: {', '.join(OBJECTIVES)} (soft-targets)")
    parser.add_argument("--temperature", type=float, help="that softens the teachers' answers (4)")
    parser.add_argument("--teacher-weight", type=float, help="share of the loss that is the teachers' (0.9)")
    parser.add_argument("--teacher-average", help="of several teachers' logits or probabilities (logits)")
    parser.add_argument("--hint", metavar="THEIRS:OURS", help="layers of the first teacher and of the student")
    parser.add_argument("--hint-epochs", type=int, help="epochs with hints, before soft targets (1)")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="go on with a run folder; needs nothing else")
    return vars(parser.parse_args(arguments))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _silent(_text: str) -> None:
    """Processes other than the main one say nothing."""
