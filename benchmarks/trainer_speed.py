"""How fast the trainer is, as ratios to named alternatives measured in the same run.

    python benchmarks/trainer_speed.py [--rounds 9] [--only NAME] [--out benchmarks/results/trainer_speed.jsonl]

Three comparisons, each of images per second of `zoo.fit` over an alternative's, same model, optimizer and batch:

    bare    forward, backward and step on one resident batch: no data, no augmentation, no average   (mobilenetv1_050)
    loader  torchvision transforms and a DataLoader with two workers, the same augmentation          (lenet5)
    timm    timm's loader, transforms, optimizer, schedule, average and meters                       (mobilenetv1_050)

Blocks of steps of both sides alternate, and who goes first alternates too; a round's ratio is that of two neighbouring
blocks. The time of a block runs from its first finished step to its last, so neither side's start is counted. The
median of the rounds is reported with their lowest and highest. About five minutes on two cores; needs MNIST and
CIFAR-10 in the cache.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

import zoo
from zoo.data import Dataset, normalize
from zoo.files import write_atomically
from zoo.recipes import RECIPES, Recipe
from zoo.runs import device_name, versions
from zoo.training.optimizer import make_optimizer

WARM_UP = 2  # steps of each block that are not timed; more for a loader, which has batches waiting
Block = Callable[[int], float]


@dataclass(frozen=True)
class Comparison:
    """One alternative: what it is, on which model and data, and how many steps a block has."""

    name: str
    alternative: str
    model: str
    dataset: str
    recipe: Recipe
    steps: int


COMPARISONS = (
    Comparison(
        "bare",
        "a bare forward, backward and step on one resident batch",
        "mobilenetv1_050",
        "cifar10",
        RECIPES["standard"],
        12,
    ),
    Comparison(
        "loader",
        "torchvision transforms and a DataLoader with two workers",
        "lenet5",
        "mnist",
        RECIPES["mnist-plain"],
        200,
    ),
    Comparison(
        "timm",
        "timm's loader, transforms, optimizer, schedule, average and meters",
        "mobilenetv1_050",
        "cifar10",
        RECIPES["standard"],
        12,
    ),
)


def main() -> None:
    """Run every comparison and write one JSON line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", choices=[c.name for c in COMPARISONS], help="measure one anew and keep the others")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "trainer_speed.jsonl")
    arguments = parser.parse_args()
    results: dict[str, str] = {}
    if arguments.only:
        results = {json.loads(line)["comparison"]: line for line in arguments.out.read_text().splitlines()}
    for comparison in COMPARISONS:
        if arguments.only in (None, comparison.name):
            results[comparison.name] = json.dumps(compare(comparison, arguments.rounds))
            print(results[comparison.name], flush=True)
    write_atomically(arguments.out, "".join(line + "\n" for line in results.values()))


def compare(comparison: Comparison, rounds: int) -> dict[str, object]:
    """Ratios of `fit` to one alternative, round by round."""
    train = zoo.load_dataset(comparison.dataset, "train")
    sides: dict[str, Block] = {
        "fit": fit_block(comparison, train),
        comparison.name: {"bare": bare_block, "loader": loader_block, "timm": timm_block}[comparison.name](
            comparison, train
        ),
    }
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        order = list(sides) if number % 2 else list(reversed(sides))
        for name in order:
            speed = sides[name](comparison.steps)
            if number:  # the first round warms everything up
                speeds[name].append(speed)
    ratios = [a / b for a, b in zip(speeds["fit"], speeds[comparison.name], strict=True)]
    return {
        "comparison": comparison.name,
        "alternative": comparison.alternative,
        "model": comparison.model,
        "dataset": comparison.dataset,
        "batch_size": comparison.recipe.batch_size,
        "precision": comparison.recipe.precision,
        "rounds": rounds,
        "steps_a_block": comparison.steps,
        "ratio_median": statistics.median(ratios),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
        "ratios": ratios,
        "fit_images_per_second": statistics.median(speeds["fit"]),
        "alternative_images_per_second": statistics.median(speeds[comparison.name]),
        "device": device_name(torch.device("cpu")),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


class Clock:
    """Images per second between the first and the last of the steps that are timed."""

    def __init__(self, batch_size: int, warm_up: int) -> None:
        self.batch_size = batch_size
        self.warm_up = warm_up
        self.steps = 0
        self.first = self.last = 0.0

    def tick(self) -> None:
        """A step is finished."""
        self.steps += 1
        self.last = time.perf_counter()
        if self.steps == self.warm_up:
            self.first = self.last

    @property
    def images_per_second(self) -> float:
        return (self.steps - self.warm_up) * self.batch_size / (self.last - self.first)


def new_model(comparison: Comparison) -> nn.Module:
    """The same start for every side."""
    torch.manual_seed(0)
    return zoo.create_model(comparison.model, dataset=comparison.dataset)


def fit_block(comparison: Comparison, train: Dataset) -> Block:
    """`zoo.fit` with the recipe's own augmentation, average and all."""
    recipe = replace(comparison.recipe, epochs=1)

    def block(steps: int) -> float:
        model = new_model(comparison)
        part = train.subset(torch.arange((steps + WARM_UP) * recipe.batch_size))
        clock = Clock(recipe.batch_size, WARM_UP)
        zoo.fit(model, part, None, recipe, device="cpu", on_step=lambda _model, _step, _steps: clock.tick())
        return clock.images_per_second

    return block


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, recipe: Recipe) -> Callable[..., float]:
    """Forward, backward, step: what all alternatives share."""

    def step(images: torch.Tensor, labels: torch.Tensor) -> float:
        if recipe.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16"):
            logits = model(images)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


def plain_side(comparison: Comparison) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Model and optimizer of an alternative."""
    model = new_model(comparison).train()
    if comparison.recipe.channels_last:
        model.to(memory_format=torch.channels_last)
    return model, make_optimizer(model, comparison.recipe)


def bare_block(comparison: Comparison, train: Dataset) -> Block:
    """One batch, again and again, from new weights in each block: once it is learnt by heart its gradients are so
    small that arithmetic on them is slow, and the comparison would flatter `fit`.
    """
    size = comparison.recipe.batch_size
    images = normalize(train.images[:size], train.mean, train.std).contiguous(memory_format=torch.channels_last)
    labels = train.labels[:size]

    def block(steps: int) -> float:
        model, optimizer = plain_side(comparison)
        step = train_step(model, optimizer, comparison.recipe)
        clock = Clock(size, WARM_UP)
        for _ in range(steps + WARM_UP):
            step(images, labels)
            clock.tick()
        return clock.images_per_second

    return block


class Pictures(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """A data set as torchvision's own classes are: a PIL image a time, through a transform."""

    def __init__(self, train: Dataset, transform: Callable[[Image.Image], torch.Tensor] | None = None) -> None:
        self.arrays = train.images.permute(0, 2, 3, 1).squeeze(-1).contiguous().numpy()
        self.labels = train.labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        assert self.transform is not None
        return self.transform(Image.fromarray(self.arrays[index])), self.labels[index]


def endless(loader: torch.utils.data.DataLoader[tuple[torch.Tensor, int]]) -> Iterator[list[torch.Tensor]]:
    """Epoch after epoch."""
    while True:
        yield from loader


def loader_block(comparison: Comparison, train: Dataset) -> Block:
    """torchvision transforms in two worker processes: the way of most tutorials."""
    from torchvision import transforms

    augment = comparison.recipe.augment
    transform = transforms.Compose(
        [
            transforms.RandomAffine(
                augment.rotation,
                (augment.translation, augment.translation),
                (1 - augment.scaling, 1 + augment.scaling),
                interpolation=transforms.InterpolationMode.BILINEAR,
            ),
            transforms.ToTensor(),
            transforms.Normalize(train.mean, train.std),
        ]
    )
    loader = torch.utils.data.DataLoader(
        Pictures(train, transform),
        comparison.recipe.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=2,
        persistent_workers=True,
    )
    model, optimizer = plain_side(comparison)
    return loader_steps(comparison, model, optimizer, endless(loader), lambda _step, _loss: None)


def timm_block(comparison: Comparison, train: Dataset) -> Block:
    """The pieces of timm's own training script at its defaults: prefetching loader, optimizer, schedule, EMA, meter."""
    from timm.data import create_loader
    from timm.optim import create_optimizer_v2
    from timm.scheduler import CosineLRScheduler
    from timm.utils import AverageMeter, ModelEmaV3

    recipe = comparison.recipe
    loader = create_loader(
        Pictures(train),  # type: ignore[arg-type]
        input_size=train.image,
        batch_size=recipe.batch_size,
        is_training=True,
        scale=(0.8, 1.0),
        hflip=0.5,
        color_jitter=0.0,
        re_prob=1.0,  # random erasing stands for cutout
        mean=train.mean,
        std=train.std,
        num_workers=2,
        device=torch.device("cpu"),
    )
    model, _ = plain_side(comparison)
    optimizer = create_optimizer_v2(
        model, opt="sgd", lr=recipe.lr, weight_decay=recipe.weight_decay, momentum=recipe.momentum
    )
    schedule = CosineLRScheduler(optimizer, t_initial=100_000, t_in_epochs=False)
    average = ModelEmaV3(model, decay=recipe.ema_decay)
    meter = AverageMeter()

    def after(step: int, loss: float) -> None:
        average.update(model, step)
        meter.update(loss, recipe.batch_size)
        schedule.step_update(step)

    return loader_steps(comparison, model, optimizer, endless(loader), after)


def loader_steps(
    comparison: Comparison,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[list[torch.Tensor]],
    after: Callable[[int, float], None],
) -> Block:
    """Blocks of training steps fed by a loader; the batches that it has ready at a block's start are not timed."""
    step = train_step(model, optimizer, comparison.recipe)
    ready = WARM_UP + 2 * 2  # two workers, two batches each
    done = 0

    def block(steps: int) -> float:
        nonlocal done
        clock = Clock(comparison.recipe.batch_size, ready)
        for _ in range(steps + ready):
            images, labels = next(batches)
            after(done, step(images, labels))
            done += 1
            clock.tick()
        return clock.images_per_second

    return block


if __name__ == "__main__":
    main()
