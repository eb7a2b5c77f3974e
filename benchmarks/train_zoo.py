"""Train the weights of the zoo by a plan, best value first, within a time budget.

    python benchmarks/train_zoo.py cpu --minutes 480 --jobs 2 --threads 1
    python benchmarks/train_zoo.py full --minutes 600 --compile
    python benchmarks/train_zoo.py full --only '*.cifar10' --dry-run

A plan is a list of trainings (model, data set, recipe, seeds). Each runs as `train.py` in a process of its own,
`--jobs` at a time. Stopped by Ctrl-C, SIGTERM, the budget or a power cut, the same command goes on where it was: what is
finished is skipped, what is half done is resumed from its checkpoint. Every finished training goes to the zoo folder at
once, as weights and card. The stored weights are always those of a training's first seed; the others are counted on its
card. Needs torch and timm alone. Exit status: 0 when all is done, 1 when something is left, 2 for wrong use.
"""

import argparse
import fcntl
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import zip_longest
from pathlib import Path
from typing import Any

from zoo import recipes
from zoo.cards import Card, SeedResult, card_stem, read_card, write_card
from zoo.errors import CheckpointError, ZooError, unknown
from zoo.files import write_atomically
from zoo.recipes import Recipe, get_recipe
from zoo.runs import read_run
from zoo.training.checkpoint import checkpoint_files

ROOT = Path(__file__).resolve().parent.parent
RUNS = Path("runs/train")  # where train.py makes its numbered folders
LONGEST_WAIT = 120.0  # seconds that a stopped training gets to write its checkpoint


@dataclass(frozen=True)
class Training:
    """A recipe for one model on one data set, for so many epochs, with seeds 0 to `seeds` - 1."""

    model: str
    dataset: str
    recipe_name: str
    epochs: int
    seeds: int = 1
    tag: str = ""

    @property
    def recipe(self) -> Recipe:
        """The recipe in force."""
        return replace(get_recipe(self.recipe_name), epochs=self.epochs)

    @property
    def stem(self) -> str:
        """Name of its weights: <model>.<dataset>[.<tag>]."""
        return card_stem(self.model, self.dataset, self.tag)


# What two cores do in about six hours. CIFAR-10 is cut short there, so those weights carry the tag `cpu`.
CPU = (
    Training("resnet20", "mnist", "mnist", 4),
    Training("lenet5", "cifar10", "plain", 60, seeds=3),
    Training("resnet20", "cifar10", "quick", 16, seeds=3, tag="cpu"),
    Training("mobilenetv1_025", "cifar10", "quick", 16, tag="cpu"),
    Training("mobilenetv1_050", "cifar10", "quick", 10, seeds=3, tag="cpu"),
    Training("mobilenetv2_050", "mnist", "mnist", 3),
    Training("mobilenetv2_050", "cifar10", "quick", 8, tag="cpu"),
    Training("vgg11_bn", "cifar10", "quick", 5, tag="cpu"),
    Training("resnet56", "cifar10", "quick", 5, tag="cpu"),
    Training("inception_v3", "cifar10", "quick", 4, tag="cpu"),
    Training("nin", "cifar10", "quick", 4, tag="cpu"),
    Training("inception_v2", "cifar10", "quick", 4, tag="cpu"),
    Training("nin", "mnist", "mnist", 3),
    Training("inception_v3", "mnist", "mnist", 3),
    Training("squeezenet1_1", "cifar10", "quick", 8, seeds=3, tag="cpu"),
    Training("xception", "cifar10", "quick", 4, tag="cpu"),
    Training("xception", "mnist", "mnist", 3),
    Training("vgg16_bn", "cifar10", "quick", 4, tag="cpu"),
    Training("squeezenet1_0", "cifar10", "quick", 4, tag="cpu"),
    Training("squeezenet1_0_bypass", "cifar10", "quick", 4, tag="cpu"),
    Training("mobilenetv1_100", "cifar10", "quick", 4, tag="cpu"),
    Training("mobilenetv1_100", "mnist", "mnist", 3),
    Training("mobilenetv2_100", "cifar10", "quick", 4, tag="cpu"),
    Training("googlenet", "cifar10", "quick", 3, tag="cpu"),
    Training("googlenet", "mnist", "mnist", 2),
    Training("vgg11_bn", "mnist", "mnist", 4, seeds=3),
    Training("lenet_300_100", "mnist", "mnist-plain", 40),
    Training("lenet5", "mnist", "mnist-plain", 40),
    Training("lenet5_caffe", "mnist", "mnist-plain", 40),
)
# What an accelerator is for: 200 epochs, three seeds.
FULL = tuple(
    Training(model, "cifar10", "long", 200, seeds=3)
    for model in (
        "resnet20", "mobilenetv1_025", "mobilenetv1_050", "squeezenet1_1", "mobilenetv2_050", "resnet56", "vgg11_bn",
        "nin", "inception_v3", "inception_v2", "xception", "vgg16_bn", "squeezenet1_0", "squeezenet1_0_bypass",
        "mobilenetv1_100", "mobilenetv2_100", "googlenet",
    )
)  # fmt: skip
PLANS: dict[str, tuple[Training, ...]] = {"cpu": CPU, "full": FULL}


@dataclass(frozen=True)
class Task:
    """One training with one seed: what one process does."""

    training: Training
    seed: int

    @property
    def label(self) -> str:
        """What it is called in messages."""
        return f"{self.training.stem} seed {self.seed}"

    def command(self, options: argparse.Namespace, minutes: float) -> list[str]:
        """Begin it, or go on with the run that was begun."""
        words = [sys.executable, str(ROOT / "train.py")]
        begun = next((f.relative_to(options.out) for f in self.folders(options.out) if checkpoint_files(f)), None)
        if begun is not None:
            words += ["--resume", str(begun)]
        else:
            asked = self.training
            words += [asked.model, "--dataset", asked.dataset, "--recipe", asked.recipe_name]
            words += ["--set", f"epochs={asked.epochs}", "--seed", str(self.seed), "--valid-images", "0"]
            words += ["--tag", asked.tag] if asked.tag else []
        words += ["--max-minutes", f"{minutes:.2f}"]
        words += ["--threads", str(options.threads)] if options.threads else []
        return words + (["--compile"] if options.compile else [])

    def folders(self, out: Path) -> Iterator[Path]:
        """Its run folders, newest first: those whose run.json asks for exactly this."""
        wanted = {"model": self.training.model, "dataset": self.training.dataset, "seed": self.seed,
                  "tag": self.training.tag, "valid_images": 0}  # fmt: skip
        for folder in sorted((out / RUNS).glob("*/"), key=_number, reverse=True):
            try:
                run = read_run(folder)
            except CheckpointError:
                continue
            if run["recipe"] == recipes.to_dict(self.training.recipe) and wanted.items() <= run["options"].items():
                yield folder

    def result(self, out: Path) -> Path | None:
        """The card of its finished run, if it is finished."""
        cards = (folder / f"{self.training.stem}.json" for folder in self.folders(out))
        return next((card for card in cards if card.exists()), None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 when all is done, 1 when something is left, 2 for wrong use, 128 + n after signal n."""
    options = _parse(arguments)
    try:
        if options.plan not in PLANS:
            raise unknown("plan", options.plan, PLANS)
        trainings = [training for training in PLANS[options.plan] if fnmatchcase(training.stem, options.only)]
        if not trainings:
            raise unknown("training", options.only, [training.stem for training in PLANS[options.plan]])
        (options.out / RUNS).mkdir(parents=True, exist_ok=True)
        with only_one(options.out / RUNS):
            return run_plan(trainings, options)
    except (ZooError, OSError) as error:
        print(f"train_zoo.py: error: {error}", file=sys.stderr)
        return 2


def in_order(trainings: Sequence[Training]) -> list[Task]:
    """First seeds of all, then second seeds, and so on: every model gets its weights before one gets its spread."""
    columns = zip_longest(*([Task(training, seed) for seed in range(training.seeds)] for training in trainings))
    return [task for column in columns for task in column if task is not None]


def run_plan(trainings: Sequence[Training], options: argparse.Namespace) -> int:
    """Work through the tasks; returns the exit status."""
    for training in trainings:
        store(training, options)
    tasks = [task for task in in_order(trainings) if not is_done(task, options)]
    if options.dry_run:
        for task in tasks:
            print(f"{task.label}: {shlex.join(task.command(options, options.minutes)[1:])}")
        return 1 if tasks else 0
    crew = Crew(options)
    with crew.listening():
        waiting = list(tasks)
        while waiting or crew.working:
            while waiting and len(crew.working) < options.jobs and crew.minutes_left() > 0 and not crew.signal:
                crew.start(waiting.pop(0))
            if not crew.working:
                break
            crew.wait()
    left = [task.label for task in tasks if not is_done(task, options)]
    print(f"{len(tasks) - len(left)} trained, {len(left)} left" + (f": {', '.join(left)}" if left else ""))
    if crew.signal:
        return 128 + crew.signal
    return 1 if left else 0


def is_done(task: Task, options: argparse.Namespace) -> bool:
    """Whether its result is counted on a card of the zoo folder that the same recipe made, or waits in its run."""
    card = _stored(task.training, options)
    return task.result(options.out) is not None or (
        card is not None and any(run.seed == task.seed for run in card.seeds)
    )


def store(training: Training, options: argparse.Namespace) -> None:
    """Bring the finished runs of a training to the zoo folder: weights of seed 0, and a card that counts every seed."""
    tasks = [Task(training, seed) for seed in range(training.seeds)]
    results = {task.seed: path for task in tasks if (path := task.result(options.out)) is not None}
    cards = {seed: read_card(path) for seed, path in results.items()}
    stored = _stored(training, options)
    first = cards.get(0, stored)
    if first is None:
        return  # the weights that are to be stored are not there yet
    known = {run.seed: run for run in (stored.seeds if stored else ())}
    known |= {seed: SeedResult(seed, card.correct, card.total) for seed, card in cards.items()}
    card = replace(first, seeds=tuple(known[seed] for seed in sorted(known)))
    if card == stored:
        return
    options.weights.mkdir(parents=True, exist_ok=True)
    if 0 in results and (stored is None or stored.sha256 != card.sha256):
        write_atomically(options.weights / card.file, (results[0].parent / card.file).read_bytes())
    write_card(options.weights / f"{training.stem}.json", card)
    print(f"stored {training.stem}: {', '.join(f'{run.top1:.2%}' for run in card.seeds)}", flush=True)


def _stored(training: Training, options: argparse.Namespace) -> Card | None:
    """The card of the zoo folder, if the same recipe made it."""
    path = options.weights / f"{training.stem}.json"
    if not path.exists():
        return None
    card = read_card(path)
    return card if card.recipe == recipes.to_dict(training.recipe) else None


@dataclass
class Crew:
    """The processes at work."""

    options: argparse.Namespace
    working: dict[Task, subprocess.Popen[bytes]] = field(default_factory=dict)
    signal: int = 0
    began: float = field(default_factory=time.monotonic)

    def minutes_left(self) -> float:
        """Of the whole budget."""
        return float(self.options.minutes) - (time.monotonic() - self.began) / 60

    def start(self, task: Task) -> None:
        """Begin a task or go on with it. Its own group: a Ctrl-C reaches it through us, once."""
        command = task.command(self.options, self.minutes_left())
        log = self.options.out / RUNS / f"{task.training.stem}.seed{task.seed}.log"
        print(
            f"{'resuming' if '--resume' in command else 'starting'} {task.label}; its messages go to {log}", flush=True
        )
        with log.open("ab") as messages:
            self.working[task] = subprocess.Popen(
                command,
                cwd=self.options.out,
                stdout=messages,
                stderr=messages,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Until something finished or a signal came; then tidy up after it."""
        while True:
            over = [task for task, process in self.working.items() if process.poll() is not None]
            if over or self.signal:
                break
            time.sleep(0.2)
        if self.signal and not over:
            self.dismiss()
            over = list(self.working)
        for task in over:
            status = self.working.pop(task).returncode
            store(task.training, self.options)
            if status != 0 and not self.signal:
                print(f"{task.label} failed with status {status}; its log says why", file=sys.stderr, flush=True)

    def dismiss(self) -> None:
        """Ask all to save and leave; kill those that do not."""
        for process in self.working.values():
            process.send_signal(signal.SIGTERM)
        for process in self.working.values():
            try:
                process.wait(LONGEST_WAIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note SIGINT and SIGTERM instead of dying of them."""
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            if self.working:
                self.dismiss()

    def _note(self, number: int, _frame: Any) -> None:
        self.signal = self.signal or number


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Refuse to run twice over the same runs."""
    with (folder / ".train_zoo.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ZooError(f"another train_zoo.py works in {folder}; wait for it, or give another --out.") from None
        yield


def _number(folder: Path) -> int:
    head = folder.name.partition("-")[0]
    return int(head) if head.isdigit() else -1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", help=f"one of {', '.join(PLANS)}")
    parser.add_argument("--minutes", type=float, default=480.0, help="of the whole plan (480)")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time (1)")
    parser.add_argument("--threads", type=int, help="CPU threads of each training")
    parser.add_argument("--compile", action="store_true", help="through torch.compile, where it pays")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="weights to train, such as '*.mnist'")
    parser.add_argument("--out", type=Path, default=Path(), help=f"folder that {RUNS} is made in (this one)")
    parser.add_argument("--weights", type=Path, default=ROOT / "weights", help="the zoo folder (weights)")
    parser.add_argument("--dry-run", action="store_true", help="print what is left to do")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
