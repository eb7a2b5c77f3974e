"""Run folders: numbered, never overwritten, and holding all that a run leaves behind.

runs/train/<n>-<model>-<dataset>/
    run.json        what was asked: options, recipe, command, versions
    log.jsonl       one line an epoch
    checkpoint-*    the two newest; of a finished run the last, from which more epochs can go on
    <model>.<dataset>[.<tag>].safetensors + .json     weights and card, accuracy measured on the stored file;
                                                      .zpk in place of .safetensors where packed weights were asked for
    curves.png, confusion.png, mistakes.png
"""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo import recipes, registry
from zoo.cards import PACKED, SUFFIXES
from zoo.compression import compress, load_packed, save_packed
from zoo.compression.presets import compact
from zoo.cost import count_macs
from zoo.create import create_model
from zoo.data import Dataset, load_dataset
from zoo.errors import CheckpointError, MissingPackageError
from zoo.evaluation import Evaluation, agreement, predict_logits, score
from zoo.files import sha256_file, write_atomically
from zoo.recipes import Recipe
from zoo.teachers import describe
from zoo.training.checkpoint import checkpoint_files
from zoo.training.distributed import choose_device
from zoo.training.loop import Run
from zoo.training.objectives import Teachers
from zoo.weights import FORMAT as WEIGHTS_FORMAT
from zoo.weights import Card, SeedResult, card_stem, dataset_label, load_weights, save_weights, write_card

FORMAT = "zoo-run-1"


def new_folder(model: str, dataset: str, root: Path = Path("runs/train")) -> Path:
    """Make the next numbered folder."""
    root.mkdir(parents=True, exist_ok=True)
    label = re.sub(r"[^\w.-]+", "-", f"{model}-{dataset}").strip("-")
    numbers = [int(found[1]) for path in root.iterdir() if (found := re.match(r"(\d+)-", path.name))]
    number = max(numbers, default=0) + 1
    while True:
        try:
            folder = root / f"{number}-{label}"
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1


def write_run(folder: Path, options: dict[str, Any], recipe: Recipe, command: str) -> None:
    """Write `run.json`, before the first step: the commit in it is that of the code which trains."""
    run = {
        "format": FORMAT,
        "options": options,
        "recipe": recipes.to_dict(recipe),
        "command": command,
        "commit": commit(),
        "versions": versions(),
    }
    write_atomically(folder / "run.json", json.dumps(run, indent=2) + "\n")


@contextmanager
def described(folder: Path | None, options: dict[str, Any], recipe: Recipe, command: str) -> Iterator[None]:
    """Write `run.json` for what is trained inside; what it said before comes back if that is refused.

    None: write nothing, as on every process but the main one.
    """
    path = folder / "run.json" if folder is not None else None
    before = path.read_bytes() if path is not None and path.exists() else None
    if folder is not None:
        write_run(folder, options, recipe, command)
    try:
        yield
    except CheckpointError:
        if path is not None and before is not None:
            write_atomically(path, before)
        raise


def read_run(folder: Path) -> dict[str, Any]:
    """Read `run.json`. Raises CheckpointError when the folder is no run."""
    path = folder / "run.json"
    try:
        run = json.loads(path.read_text())
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is no run folder: it has no run.json; `ls runs/train` shows them.") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}; start a new run.") from error
    if not isinstance(run, dict) or run.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not of format {FORMAT!r}; start a new run.")
    kinds = {"options": dict, "recipe": dict, "command": str, "commit": str, "versions": dict}
    wrong = [name for name, kind in kinds.items() if not isinstance(run.get(name), kind)]
    if wrong:
        raise CheckpointError(f"{path} is damaged: {wrong[0]!r} is missing or of the wrong kind; start a new run.")
    return run


def versions() -> dict[str, str]:
    """Versions that decide a result."""
    import platform
    from importlib.metadata import version

    return {"python": platform.python_version(), "torch": str(torch.__version__), "timm": version("timm")}


def device_name(device: torch.device) -> str:
    """The processor's own name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "cpu"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "cpu")


def finish(
    folder: Path,
    model: nn.Module,
    run: Run,
    options: dict[str, Any],
    recipe: Recipe,
    command: str,
    train: Dataset,
    say: Callable[[str], None],
    teachers: Teachers | None = None,
) -> Card:
    """Store the weights of a finished run, measure the stored file on the test set, and write card and pictures.

    teachers: that were learned from, if any; how often the stored network answers as they do is said and kept.
    The test set is scored here and nowhere else: once, on the last epoch's averaged weights.
    """
    name, dataset = options["model"], options["dataset"]
    stem = card_stem(name, dataset_label(dataset), options["tag"])
    path, stored = _keep(folder / stem, model.cpu(), options, train)
    test = load_dataset(dataset, "test")
    logits_NK = predict_logits(stored, test, 500, torch.device("cpu"))
    measured = score(logits_NK, test.labels)
    card = _card(path, stored, measured, test, run, options, recipe, command, train)
    if teachers is not None:
        agreed = agreement(logits_NK, predict_logits(teachers.as_module(), test, 500, torch.device("cpu")))
        taught = f"taught by {describe(options['teacher'])}, with whom it agrees on {agreed:.2%} of the test images"
        card = replace(card, note=f"{card.note}; {taught}")
        say(taught)
    write_card(folder / f"{stem}.json", card)
    say(f"test: {measured.correct} of {measured.total} correct, {measured.top1:.2%}, measured on {path.name}")
    _pictures(folder, run, measured.confusion, logits_NK, test, say)
    for checkpoint in checkpoint_files(folder)[1:]:
        checkpoint.unlink()
    return card


def _keep(stem: Path, model: nn.Module, options: dict[str, Any], train: Dataset) -> tuple[Path, nn.Module]:
    """Write the weights, in half precision or packed, as `options` say; returns the file and the network read back."""
    name, dataset = options["model"], options["dataset"]
    if options.get("pack"):
        path = stem.parent / f"{stem.name}{SUFFIXES[PACKED]}"
        label = dataset_label(dataset)
        stages = compact(model, digits=dataset in recipes.DIGIT_SETS)
        save_packed(path, compress(model, stages, dataset=label, train=train, seed=options["seed"]))
        return path, load_packed(path)[0]
    path = stem.parent / f"{stem.name}{SUFFIXES[WEIGHTS_FORMAT]}"
    save_weights(path, model)
    stored = create_model(name, dataset=dataset)
    load_weights(stored, path)
    return path, stored


def _card(
    path: Path,
    stored: nn.Module,
    measured: Evaluation,
    test: Dataset,
    run: Run,
    options: dict[str, Any],
    recipe: Recipe,
    command: str,
    train: Dataset,
) -> Card:
    """The card of a stored file: what it is, what it gets right, and how it came to be."""
    name, seed = options["model"], options["seed"]
    architecture = registry.architectures().get(name)
    inexact = f"{len(test.inexact_rows)} of the test images are not the official files' exact pixels"
    held_out = "" if run.evaluation is None else f", {run.evaluation.total} held out"
    return Card(
        model=name,
        dataset=dataset_label(options["dataset"]),
        tag=options["tag"],
        file=path.name,
        format=PACKED if path.suffix == SUFFIXES[PACKED] else WEIGHTS_FORMAT,
        sha256=sha256_file(path),
        file_bytes=path.stat().st_size,
        num_classes=test.num_classes,
        classes=test.classes,
        image=test.image,
        mean=test.mean,
        std=test.std,
        params=sum(p.numel() for name, p in stored.named_parameters() if not name.startswith("auxiliary.")),
        macs=count_macs(stored, test.image),
        correct=measured.correct,
        total=measured.total,
        loss=measured.loss,
        seed=seed,
        seeds=(SeedResult(seed, measured.correct, measured.total),),
        recipe=recipes.to_dict(recipe),
        epochs=recipe.epochs,
        command=command,
        commit=read_run(path.parent)["commit"],
        versions=versions(),
        device=device_name(choose_device(options["device"])),
        threads=torch.get_num_threads(),
        seconds=round(run.seconds, 1),
        data_digest={"train": train.digest, "test": test.digest},
        data_note=inexact if test.inexact_rows else "",
        licence="Apache-2.0",
        paper=architecture.paper if architecture else "",
        created=datetime.now(timezone.utc).date().isoformat(),
        note=f"trained on {len(train)} images{held_out}",
    )


def commit() -> str:
    """The source's commit, with `+changes` when the tree differs from it; "" outside a repository."""
    here = Path(__file__).resolve().parent
    answers = []
    for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"]):
        try:
            answers.append(
                subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True)
            )
        except (OSError, subprocess.CalledProcessError):
            return ""
    head, changes = (answer.stdout.strip() for answer in answers)
    return head + ("+changes" if changes else "")


def _pictures(
    folder: Path, run: Run, confusion: Tensor, logits_NK: Tensor, test: Dataset, say: Callable[[str], None]
) -> None:
    """Curves, confusion matrix and the worst mistakes; left out, and said so, where matplotlib is not installed."""
    from zoo import report

    shares_NK = logits_NK.softmax(1)
    try:
        report.curves_plot(run.history, folder / "curves.png")
        report.confusion_plot(confusion, test.classes, folder / "confusion.png")
        report.mistakes_sheet(
            test.images, test.labels, logits_NK.argmax(1), shares_NK, test.classes, folder / "mistakes.png"
        )
    except MissingPackageError as error:
        say(f"no pictures: {error}")
