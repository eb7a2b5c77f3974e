"""Train the weights of the zoo by a plan, best value first, within a time budget.

    python -m benchmarks.train_zoo cpu --minutes 480 --jobs 2 --threads 1
    python -m benchmarks.train_zoo full --minutes 600 --compile
    python -m benchmarks.train_zoo full --only '*.cifar10' --dry-run

A plan is a list of trainings (model, data set, recipe, seeds). Each runs as `train.py` in a process of its own,
`--jobs` at a time. Stopped by Ctrl-C, SIGTERM, the budget or a power cut, the same command goes on where it was: what
is finished is skipped, what is half done is resumed from its checkpoint. Every finished training goes to the zoo folder
at once, as weights and card. The stored weights are always those of a training's first seed; the others are counted on
its card. One that fails, or whose stored card is damaged, is named and left; the others go on. Needs torch and timm,
and to be started in the root of a checkout where `zoo` is not installed.
Exit status: 0 when all is done, 1 when something is left, 2 for wrong use, 128 + n after signal n.
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
from types import FrameType

import torch

from zoo import recipes
from zoo.cards import SUFFIXES, Card, SeedResult, card_stem, read_card, write_card
from zoo.console import chat, write
from zoo.create import create_model
from zoo.errors import CheckpointError, WeightError, ZooError, unknown
from zoo.files import sha256_file, write_atomically
from zoo.recipes import Recipe, get_recipe
from zoo.runs import read_run
from zoo.training.checkpoint import checkpoint_files

ROOT = Path(__file__).resolve().parent.parent
RUNS = Path("runs/train")  # where train.py makes its numbered folders
LARGE = 500_000  # parameters
LONGEST_WAIT = 120.0  # seconds that a stopped training gets to write its checkpoint


@dataclass(frozen=True)
class Training:
    """A recipe for one model on one data set, for so many epochs, with seeds 0 to `seeds` - 1.

    batch_size: in place of the recipe's. A step of Muon costs as much as the network is wide, whatever the batch.
    """

    model: str
    dataset: str
    recipe_name: str
    epochs: int
    seeds: int = 1
    tag: str = ""
    batch_size: int | None = None

    @property
    def recipe(self) -> Recipe:
        """The recipe in force."""
        recipe = get_recipe(self.recipe_name)
        return replace(recipe, epochs=self.epochs, batch_size=self.batch_size or recipe.batch_size)

    @property
    def settings(self) -> dict[str, int]:
        """What it changes in the named recipe."""
        return {"epochs": self.epochs} | ({"batch_size": self.batch_size} if self.batch_size else {})

    @property
    def is_large(self) -> bool:
        """Whether its weights are to be packed, so that all of the zoo's stay together under 40 MB."""
        with torch.device("meta"):
            model = create_model(self.model, dataset=self.dataset)
        return sum(p.numel() for p in model.parameters()) > LARGE

    @property
    def stem(self) -> str:
        """Name of its weights: <model>.<dataset>[.<tag>]."""
        return card_stem(self.model, self.dataset, self.tag)


# What two cores do in about eight hours by the cards. CIFAR-10 is cut short there: those weights carry the tag `cpu`.
CPU = (
    Training("resnet20", "mnist", "mnist", 4),
    Training("lenet5", "cifar10", "plain", 60, seeds=3),
    Training("lenet5_caffe", "cifar10", "plain", 40),
    Training("resnet20", "cifar10", "quick", 16, seeds=3, tag="cpu"),
    Training("mobilenetv1_025", "cifar10", "quick", 16, tag="cpu"),
    Training("mobilenetv1_050", "cifar10", "quick", 10, seeds=3, tag="cpu"),
    Training("nin", "cifar10", "quick", 4, tag="cpu"),
    Training("vgg11_bn", "cifar10", "quick", 5, tag="cpu", batch_size=512),
    Training("inception_v3", "cifar10", "quick", 4, tag="cpu"),
    Training("xception", "cifar10", "quick", 4, tag="cpu"),
    Training("mobilenetv2_050", "mnist", "mnist", 5),
    Training("nin", "mnist", "mnist", 2),
    Training("resnet56", "cifar10", "quick", 5, tag="cpu"),
    Training("inception_v2", "cifar10", "quick", 4, tag="cpu"),
    Training("mobilenetv2_050", "cifar10", "quick", 4, tag="cpu"),
    Training("inception_v3", "mnist", "mnist", 2),
    Training("xception", "mnist", "mnist", 2),
    Training("squeezenet1_0", "cifar10", "quick", 3, tag="cpu"),
    Training("squeezenet1_0_bypass", "cifar10", "quick", 3, tag="cpu"),
    Training("mobilenetv1_100", "cifar10", "quick", 3, tag="cpu"),
    Training("mobilenetv2_100", "cifar10", "quick", 3, tag="cpu"),
    Training("vgg16_bn", "cifar10", "quick", 3, tag="cpu", batch_size=512),
    Training("googlenet", "cifar10", "quick", 2, tag="cpu"),
    Training("mobilenetv1_100", "mnist", "mnist", 4),
    Training("googlenet", "mnist", "mnist", 2),
    Training("squeezenet1_1", "cifar10", "quick", 8, seeds=3, tag="cpu"),
    Training("vgg11_bn", "mnist", "mnist", 4, seeds=3, batch_size=512),
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
            words += [word for name, value in asked.settings.items() for word in ("--set", f"{name}={value}")]
            words += ["--seed", str(self.seed), "--valid-images", "0"]
            words += ["--tag", asked.tag] if asked.tag else []
        words += ["--pack"] if self.training.is_large else []
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

    def result(self, out: Path) -> tuple[Path, Card] | None:
        """Folder and card of its finished run. One whose card or weights are damaged is not: resuming it mends them."""
        for folder in self.folders(out):
            try:
                card = read_card(folder / f"{self.training.stem}.json")
                if sha256_file(folder / card.file) == card.sha256:
                    return folder, card
            except (WeightError, FileNotFoundError):
                continue
        return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 when all is done, 1 when something is left, 2 for wrong use, 128 + n after signal n."""
    options = _parse(arguments)
    try:
        if options.plan not in PLANS:
            raise unknown("plan", options.plan, PLANS)
        if options.jobs < 1:
            raise ZooError(f"--jobs {options.jobs} was given; at least 1 training at a time is allowed.")
        trainings = [training for training in PLANS[options.plan] if fnmatchcase(training.stem, options.only)]
        if not trainings:
            raise unknown("training", options.only, [training.stem for training in PLANS[options.plan]])
        if options.dry_run:
            return show_plan(trainings, options)
        (options.out / RUNS).mkdir(parents=True, exist_ok=True)
        with only_one(options.out / RUNS) as lock:
            return run_plan(trainings, options, lock)
    except (ZooError, OSError) as error:
        chat(f"train_zoo.py: error: {error}")
        return 2


def show_plan(trainings: Sequence[Training], options: argparse.Namespace) -> int:
    """Print the command of every task that is left, and change nothing."""
    sound = readable(trainings, options)
    tasks = [task for task in in_order(sound) if not is_done(task, options)]
    lines = [f"{task.label}: {shlex.join(task.command(options, options.minutes)[1:])}\n" for task in tasks]
    write("".join(lines))
    return 1 if tasks or len(sound) < len(trainings) else 0


def run_plan(trainings: Sequence[Training], options: argparse.Namespace, lock: int) -> int:
    """Work through the tasks; returns the exit status."""
    sound = readable(trainings, options)
    for training in sound:
        store(training, options)
    tasks = [task for task in in_order(sound) if not is_done(task, options)]
    crew = Crew(options, lock)
    with crew.listening():
        crew.work(list(tasks))
    left = [task.label for task in in_order(trainings) if task.training not in sound or not is_done(task, options)]
    trained = sum(task.label not in left for task in tasks)
    print(f"{trained} trained, {len(left)} left" + (f": {', '.join(left)}" if left else ""))
    if crew.stopped_by:
        return 128 + crew.stopped_by
    return 1 if left else 0


def in_order(trainings: Sequence[Training]) -> list[Task]:
    """First seeds of all, then second seeds, and so on: every model gets its weights before one gets its spread."""
    columns = zip_longest(*([Task(training, seed) for seed in range(training.seeds)] for training in trainings))
    return [task for column in columns for task in column if task is not None]


def is_done(task: Task, options: argparse.Namespace) -> bool:
    """Whether its result is counted on a card of the zoo folder that the same recipe made, or waits in its run."""
    card = stored_card(task.training, options)
    counted = card is not None and any(run.seed == task.seed for run in card.seeds)
    return counted or task.result(options.out) is not None


def stored_card(training: Training, options: argparse.Namespace) -> Card | None:
    """The card of the zoo folder, if the same recipe made it. Raises WeightError for a damaged one."""
    path = options.weights / f"{training.stem}.json"
    card = read_card(path) if path.exists() else None
    return card if card is not None and card.recipe == recipes.to_dict(training.recipe) else None


def readable(trainings: Sequence[Training], options: argparse.Namespace) -> list[Training]:
    """Those without a damaged card in the zoo folder; the others are named, and what they have is left as it is."""
    sound = []
    for training in trainings:
        try:
            stored_card(training, options)
            sound.append(training)
        except WeightError as error:
            chat(f"{training.stem} is left: {error}")
    return sound


def store(training: Training, options: argparse.Namespace) -> None:
    """Bring the finished runs of a training to the zoo folder: weights of seed 0, and a card that counts every seed."""
    stored = stored_card(training, options)
    results = {seed: found for seed in range(training.seeds) if (found := Task(training, seed).result(options.out))}
    first = results[0][1] if 0 in results else stored
    if first is None:
        return  # the weights that are to be stored are not there yet
    known = {run.seed: run for run in (stored.seeds if stored else ())}
    known |= {seed: SeedResult(seed, card.correct, card.total) for seed, (_, card) in results.items()}
    card = replace(first, seeds=tuple(known[seed] for seed in sorted(known)))
    if card == stored:
        return
    if stored is None or stored.sha256 != card.sha256:
        write_atomically(options.weights / card.file, (results[0][0] / card.file).read_bytes())
    write_card(options.weights / f"{training.stem}.json", card)
    for other in {f"{training.stem}{suffix}" for suffix in SUFFIXES.values()} - {card.file}:
        (options.weights / other).unlink(missing_ok=True)  # of an earlier recipe, kept in another way
    print(f"stored {training.stem}: {', '.join(f'{run.top1:.2%}' for run in card.seeds)}", flush=True)


@dataclass
class Crew:
    """The processes at work. lock: descriptor that each inherits, so that what outlives us still keeps others out."""

    options: argparse.Namespace
    lock: int
    working: dict[Task, subprocess.Popen[bytes]] = field(default_factory=dict)
    stopped_by: int = 0
    began: float = field(default_factory=time.monotonic)

    def work(self, waiting: list[Task]) -> None:
        """Do the tasks in order, so many at a time, until none is left, the time is up or a signal came."""
        while True:
            free = self.options.jobs - len(self.working)
            if waiting and free > 0 and self.minutes_left() > 0 and not self.stopped_by:
                self.start(waiting.pop(0))
            elif self.working:
                self.wait()
            else:
                return

    def minutes_left(self) -> float:
        """Of the whole budget."""
        return float(self.options.minutes) - (time.monotonic() - self.began) / 60

    def start(self, task: Task) -> None:
        """Begin a task or go on with it. Its own session: a Ctrl-C reaches it through us, once."""
        command = task.command(self.options, self.minutes_left())
        verb = "resuming" if "--resume" in command else "starting"
        print(f"{verb} {task.label}; its messages go to {self.log(task)}", flush=True)
        with self.log(task).open("ab") as messages:
            self.working[task] = subprocess.Popen(
                command,
                cwd=self.options.out,
                stdout=messages,
                stderr=messages,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=(self.lock,),
            )

    def log(self, task: Task) -> Path:
        """Where its messages go."""
        return Path(self.options.out, RUNS, f"{task.training.stem}.seed{task.seed}.log")

    def wait(self) -> None:
        """Until something finished, which is stored, or a signal came, which dismisses all."""
        while not (over := [task for task, process in self.working.items() if process.poll() is not None]):
            if self.stopped_by:
                self.dismiss()
            else:
                time.sleep(0.2)
        for task in over:
            status = self.working.pop(task).returncode
            store(task.training, self.options)
            if status != 0 and not self.stopped_by:
                words = self.log(task).read_text(errors="replace").splitlines()
                chat(f"{task.label} failed with status {status}: {words[-1] if words else 'it said nothing'}")

    def dismiss(self) -> None:
        """Ask all to save and leave; kill those that do not."""
        for process in self.working.values():
            process.terminate()
        for process in self.working.values():
            try:
                process.wait(LONGEST_WAIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note SIGINT and SIGTERM instead of dying of them; leave no process behind."""
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            self.dismiss()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.stopped_by = self.stopped_by or number


@contextmanager
def only_one(folder: Path) -> Iterator[int]:
    """Refuse to run twice over the same runs; gives the descriptor that holds the lock."""
    with (folder / ".train_zoo.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ZooError(
                f"another train_zoo.py, or a training that one left behind, works in {folder}; wait for it, or give "
                "another --out."
            ) from None
        yield lock.fileno()


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
