"""What the experiments of this folder share: images, starting networks, scores by a fresh process, lines of results.

An experiment is a script that writes benchmarks/results/<name>.jsonl, one line a measurement, and that says what its
lines come to: tables, one sentence and a picture. `tables.py` puts these into the README.

Chance and choice: every script holds 5,000 training images out, which the zoo's own MNIST weights have not seen either,
and chooses on them alone. What it reports are all test images, scored once; those of files by another process.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import zoo
from zoo.cards import Card, card_stem, write_card
from zoo.compress_runs import packed_card
from zoo.compression import Packed, Stage, compress, save_packed
from zoo.data import Dataset, split_validation
from zoo.data.augment import Augment
from zoo.errors import ZooError, unknown
from zoo.files import write_atomically
from zoo.recipes import Recipe, get_recipe
from zoo.report import Picture, Table
from zoo.runs import device_name, versions

Result = Mapping[str, Any]
RESULTS = Path("benchmarks/results")
HELD_OUT = 5000
SEED = 0
FINE_TUNING = dataclasses.replace(
    get_recipe("mnist-plain"), optimizer="adamw", lr=0.002, weight_decay=0.0, ema_decay=0.99
)  # SGD at the rate of the first training diverged, or lost a point (benchmarks/LOG.md)
# For networks that are trained already, where many are tuned: large batches of images as they are, at a lower rate.
TUNING = dataclasses.replace(FINE_TUNING, batch_size=512, lr=FINE_TUNING.lr / 5, augment=Augment())
_SCORE = """
import json, sys
import zoo
from zoo.compression import load_packed
test = zoo.load_dataset(sys.argv[1], "test")
for path in sys.stdin.read().splitlines():
    found = zoo.evaluate(load_packed(path)[0], test)
    print(json.dumps({"correct": found.correct, "total": found.total}))
"""


@dataclass(frozen=True)
class Plan:
    """Stages to go through, and the fields of the line of results that tell them from others."""

    fields: Mapping[str, Any]
    stages: tuple[Stage, ...]


@dataclass(frozen=True)
class Bench:
    """The images of one run of an experiment, and the folder of its files."""

    dataset: str
    train: Dataset
    valid: Dataset
    folder: Path

    def start(self, name: str, recipe: Recipe) -> nn.Module:
        """The zoo's own weights, or, of a data set that has none, a network trained here."""
        if name in zoo.list_models(dataset=self.dataset, pretrained=True):
            return zoo.create_model(name, dataset=self.dataset, pretrained=True)
        model = fresh(name, self.dataset)
        zoo.fit(model, self.train, None, recipe, seed=SEED, device="cpu").or_leave()
        return model

    def first(self, images: int) -> "Bench":
        """The same with no more than so many training images."""
        return dataclasses.replace(self, train=self.train.subset(range(min(images, len(self.train)))))

    def treat(self, model: nn.Module, stages: Sequence[Stage], recipe: Recipe, seed: int = SEED) -> nn.Module:
        """What stages make of a model, for several plans to go on from."""
        return compress(
            model,
            stages,
            dataset=self.dataset,
            train=self.train,
            valid=self.valid,
            recipe=recipe,
            seed=seed,
            device="cpu",
        ).model

    def held_out_wrong(self, model: nn.Module) -> int:
        """Wrong answers among the images held out: what choices are made by."""
        found = zoo.evaluate(model, self.valid)
        return found.total - found.correct

    def measure(self, model: nn.Module, plan: Plan, recipe: Recipe, seed: int = SEED) -> dict[str, Any]:
        """Compress and store: a line of results without its test score. `weights`: bytes of each in the file."""
        began = time.monotonic()
        packed = compress(
            model,
            plan.stages,
            dataset=self.dataset,
            train=self.train,
            valid=self.valid,
            recipe=recipe,
            seed=seed,
            device="cpu",
        )
        path = self.folder / f"{'-'.join(map(str, plan.fields.values()))}.zpk"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_packed(path, packed)
        last = packed.receipts[-1]
        line = {
            **plan.fields,
            "file": str(path),
            "file_bytes": path.stat().st_size,
            "dense_bytes": last.dense_bytes,
            "held_out_correct": last.correct_after,
            "held_out": last.total,
            "weights": {layer.name: layer.file_bytes for layer in last.layers if layer.name.endswith(".weight")},
            "seconds": round(time.monotonic() - began, 1),
        }
        shown = ", ".join(f"{key} {value}" for key, value in plan.fields.items())
        print(f"{shown}: {line['file_bytes']:,} bytes, {line['seconds']} s", file=sys.stderr, flush=True)
        return line

    def scored(self, lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The lines with the test score of each file, by a fresh process, and with the conditions they were made in."""
        scores = score([Path(line["file"]) for line in lines], self.dataset)
        return [
            {k: v for k, v in line.items() if k != "file"} | found | conditions()
            for line, found in zip(lines, scores, strict=True)
        ]


@dataclass(frozen=True)
class Experiment:
    """What a script makes of its lines of results.

    key: the fields that tell one line from another. dataset: that of the results in the repository.
    """

    name: str
    key: tuple[str, ...]
    tables: Callable[[Sequence[Result]], Sequence[Table]]
    finding: Callable[[Sequence[Result]], str]
    picture: Callable[[Sequence[Result]], Picture] | None = None
    dataset: str = "mnist"

    @property
    def results(self) -> Path:
        """The file of its lines, from the root of the repository."""
        return RESULTS / f"{self.name}.jsonl"

    @property
    def plot(self) -> Path:
        """The file of its picture."""
        return self.results.with_suffix(".svg")

    def options(self, description: str | None, *, resumable: bool = False) -> argparse.ArgumentParser:
        """The options that every experiment has; a script adds its own. resumable: those of `run_each` too."""
        parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        others = "any other of images of 28 px (digits)" if self.dataset == "mnist" else "any other (digits)"
        parser.add_argument("--dataset", default=self.dataset, help=f"{self.dataset}, or {others}")
        parser.add_argument("--out", type=Path, help=f"{self.results} for {self.dataset}, else in --files")
        parser.add_argument("--files", type=Path, default=Path("runs") / self.name, help="folder of the packed files")
        if resumable:
            parser.add_argument("--resume", action="store_true", help="keep the lines there are, measure the others")
        return parser

    def run(self, options: argparse.Namespace, measure: Callable[[], Iterable[Result]]) -> int:
        """Measure, keep each line as it comes, say what they come to. Exit status: 0, or 2 for wrong use."""
        lines = []
        try:
            for line in measure():
                append(self._out(options), [line], self.key)
                lines.append(line)
        except ZooError as error:
            print(f"{self.name}.py: error: {error}", file=sys.stderr)
            return 2
        print(self.finding(lines))
        return 0

    def run_each(
        self, options: argparse.Namespace, plans: Iterable[Result], measure: Callable[[Bench, Result], Result]
    ) -> int:
        """`run` with a line a plan, which is the fields of its key; `measure` finds the others.

        With `options.resume` a plan that has a line already is passed over.
        """

        def lines() -> Iterator[Result]:
            images = bench(options.dataset, options.files)
            before = results_of(self._out(options)) if options.resume else []
            known = {_key_of(line, self.key): line for line in before}
            for plan in plans:
                shown = ", ".join(f"{name} {value}" for name, value in plan.items())
                if (found := known.get(_key_of(plan, self.key))) is not None:
                    print(f"{shown}: measured before", file=sys.stderr)
                    yield found
                    continue
                began = time.monotonic()
                measured = measure(images, plan)
                seconds = round(time.monotonic() - began, 1)
                print(f"{shown}: {seconds} s", file=sys.stderr, flush=True)
                yield {**plan, **measured, "seconds": seconds, **conditions()}

        return self.run(options, lines)

    def _out(self, options: argparse.Namespace) -> Path:
        """The file to write: that of the repository only for the experiment's own data set."""
        if options.out is not None:
            return Path(options.out)
        return self.results if options.dataset == self.dataset else Path(options.files) / self.results.name


def run_named(
    script: str,
    description: str | None,
    names: Sequence[str],
    run: Callable[[str, Path], dict[str, Any]],
    key: Sequence[str],
    arguments: Sequence[str] | None,
) -> int:
    """The main function of a script that measures things with names, one line of results each. Exit status: 0 or 2."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="NAME", help=f"one of {', '.join(names)}")
    parser.add_argument("--out", type=Path, default=RESULTS / f"{script}.jsonl")
    parser.add_argument("--files", type=Path, default=Path("runs") / script, help="folder of the packed files")
    options = parser.parse_args(arguments)
    try:
        if options.only is not None and options.only not in names:
            raise unknown("measurement", options.only, names)
        for name in names:
            if options.only in (None, name):
                append(options.out, [run(name, options.files)], key)
    except ZooError as error:
        print(f"{script}.py: error: {error}", file=sys.stderr)
        return 2
    return 0


def bench(dataset: str, folder: Path) -> Bench:
    """Training images with 5,000 of them held out; of a small data set, a tenth."""
    images = zoo.load_dataset(dataset, "train")
    train, valid = split_validation(images, min(HELD_OUT, len(images) // 10), SEED)
    return Bench(dataset, train, valid, folder)


def fresh(name: str, dataset: str, seed: int = SEED) -> nn.Module:
    """A network with weights drawn by the seed."""
    torch.manual_seed(seed)
    return zoo.create_model(name, dataset=dataset)


def score(paths: Sequence[Path], dataset: str) -> list[dict[str, int]]:
    """`correct` and `total` of all test images for each packed file, read back by one fresh process."""
    names = "\n".join(map(str, paths))
    command = [sys.executable, "-c", _SCORE, dataset]
    scored = subprocess.run(command, input=names, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in scored.stdout.splitlines()]


def keep(
    packed: Packed,
    base: Card,
    tag: str,
    folder: Path,
    *,
    stages: Sequence[Stage],
    recipe: Recipe,
    command: str,
    trained_on: int,
    began: float,
) -> dict[str, Any]:
    """Store a packed network with a card, as the zoo folder takes them; what a fresh process finds of it, in fields.

    base: the card of the weights that it began as. began: reading of time.monotonic at the start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{card_stem(base.model, base.dataset, tag)}.zpk"
    save_packed(path, packed)
    seconds = round(time.monotonic() - began, 1)
    test = zoo.load_dataset(base.dataset, "test")
    card = packed_card(
        path, base, test, tag=tag, stages=stages, recipe=recipe, command=command, trained_on=trained_on, seconds=seconds
    )
    write_card(path.with_suffix(".json"), card)
    (found,) = score([path], base.dataset)
    return {"file_bytes": path.stat().st_size, **found, "seconds": seconds, **conditions()}


def conditions() -> dict[str, Any]:
    """What a line of results says of where it was made."""
    return {
        "device": device_name(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def append(path: Path, lines: Iterable[Result], key: Sequence[str]) -> None:
    """Put each line at the end of a file of results, and away the one that had the same key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept: dict[tuple[Any, ...], Result] = {_key_of(line, key): line for line in results_of(path)}
    for line in lines:
        kept.pop(_key_of(line, key), None)
        kept[_key_of(line, key)] = line
    write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept.values()))


def results_of(path: Path) -> list[dict[str, Any]]:
    """The results of a file of JSON lines; none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()] if path.exists() else []


def matching(results: Sequence[Result], **fields: object) -> list[Result]:
    """The lines whose fields are these."""
    return [line for line in results if all(line[name] == value for name, value in fields.items())]


def distinct(results: Sequence[Result], field: str) -> list[Any]:
    """The values of a field, in order of their first line."""
    return list(dict.fromkeys(line[field] for line in results))


def error_of(lines: Sequence[Result]) -> float:
    """The share of wrong answers, a mean over the lines where there are several seeds."""
    return 1 - float(sum(line["correct"] for line in lines) / sum(line["total"] for line in lines))


def _key_of(line: Result, key: Sequence[str]) -> tuple[Any, ...]:
    return tuple(line[name] for name in key)
