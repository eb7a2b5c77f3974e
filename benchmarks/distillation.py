"""One student learning from labels and from teachers, in every way there is: accuracy over three seeds.

    python benchmarks/distillation.py [--resume] [--only "soft targets"] [--epochs 8] [--temperature 2] [--weight 0.9]

The student is lenet5 on CIFAR-10 (62,006 parameters), from new weights; all ways have one recipe, the same epochs, the
same 45,000 images and the same three seeds. The teachers are the zoo's own files.

    labels            cross-entropy alone
    soft targets      of one teacher (arXiv:1503.02531)
    three teachers    soft targets of three, their logits averaged
    logit regression  arXiv:1312.6184
    hints             FitNets: a middle layer first, then soft targets (arXiv:1412.6550)

Images are mirrored and not changed otherwise, so that what teachers answer is computed once for both sides of an image.
Temperature and weight were chosen on 5,000 training images held out from the student (benchmarks/LOG.md). Agreement is
the share of test images for which student and teacher name one class. A quarter of an hour on one core.
"""

import argparse
import dataclasses
import statistics
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from experiments import Bench, Experiment, Result, distinct, fresh, matching
from torch import nn

import zoo
from zoo.data import Augment
from zoo.evaluation import agreement, predict_logits, score
from zoo.recipes import Recipe, get_recipe
from zoo.report import Column, Table, percent_text
from zoo.report.tables import Value
from zoo.teachers import load_teacher
from zoo.training.objectives import Hints, LogitRegression, Objective, SoftTargets, Teachers

STUDENT, DATASET = "lenet5", "cifar10"
TEACHERS = ("resnet20@cpu", "mobilenetv1_050@cpu", "vgg11_bn@cpu")
HINT, GUIDED, HINT_EPOCHS = "stages.1", "5", 2  # 32x16x16 of the teacher; 16x6x6 of the student, after its second pool
WAYS = ("labels", "soft targets", "three teachers", "logit regression", "hints")
SEEDS = range(3)
RECIPE = dataclasses.replace(get_recipe("plain"), batch_size=256, channels_last=False)  # quicker for so small a network
CPU = torch.device("cpu")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 2 for wrong use."""
    parser = EXPERIMENT.options(__doc__, resumable=True)
    parser.add_argument("--only", choices=WAYS)
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--temperature", type=float, default=2.0)
    parser.add_argument("--weight", type=float, default=0.9)
    parser.add_argument("--teacher", action="append", help="in place of the three; the first is the one")
    options = parser.parse_args(arguments)
    plans = [{"way": way, "seed": seed} for seed in range(options.seeds) for way in WAYS if options.only in (None, way)]
    return EXPERIMENT.run_each(options, plans, lambda images, plan: measure(images, plan, options))


def measure(images: Bench, plan: Mapping[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Train one student, and score it on the test set once."""
    names = tuple(options.teacher or TEACHERS)[: 3 if plan["way"] == "three teachers" else 1]
    teachers = asked(names, images.dataset)
    recipe = dataclasses.replace(RECIPE, epochs=options.epochs, augment=_mirrored(images))
    student = fresh(STUDENT, images.dataset, plan["seed"])
    objective = way_to_learn(plan["way"], student, teachers, images, recipe, options.temperature, options.weight)
    zoo.fit(student, images.train, None, recipe, objective=objective, seed=plan["seed"], device=CPU).or_leave()
    test = zoo.load_dataset(images.dataset, "test")
    logits_NK, theirs_NK = (predict_logits(m, test, 500, CPU) for m in (student, teachers.as_module()))
    found, teacher = score(logits_NK, test.labels), score(theirs_NK, test.labels)
    return {
        "student": STUDENT,
        "params": sum(p.numel() for p in student.parameters()),
        "teachers": names,
        "teacher_correct": teacher.correct,
        "agreement": agreement(logits_NK, theirs_NK),
        "epochs": options.epochs,
        "temperature": options.temperature,
        "weight": options.weight,
        "held_out_wrong": images.held_out_wrong(student),
        "held_out": len(images.valid),
        "correct": found.correct,
        "total": found.total,
    }


@cache
def asked(names: tuple[str, ...], dataset: str) -> Teachers:
    """Teachers by name; what they answer is kept for all students."""
    return Teachers([load_teacher(name, dataset) for name in names], cache=True)


def way_to_learn(
    way: str, student: nn.Module, teachers: Teachers, images: Bench, recipe: Recipe, temperature: float, weight: float
) -> Objective | None:
    """The objective of a way; None for labels alone."""
    soft = SoftTargets(teachers, temperature=temperature, weight=weight)
    if way == "labels":
        return None
    if way == "logit regression":
        return LogitRegression(teachers)
    if way != "hints":
        return soft
    steps = min(HINT_EPOCHS, recipe.epochs - 1) * (len(images.train) // recipe.batch_size)
    first = teachers.networks[0]
    return Hints(first, student, hint=HINT, guided=GUIDED, image=images.train.image, steps=steps, then=soft)


def _mirrored(images: Bench) -> Augment:
    return Augment(flip="alternating") if images.train.mirrored else Augment()


def tables(results: Sequence[Result]) -> list[Table]:
    """A row a way: mean and spread over the seeds, beside labels alone."""
    columns = (
        Column("way", "learns from", right=False),
        Column("teacher_top1", "top-1 of the teacher"),
        Column("top1", "top-1 of the student"),
        Column("std", "std"),
        Column("gain", "points over labels"),
        Column("agreement", "agreement"),
        Column("seeds", "seeds"),
    )
    values: list[tuple[Value, ...]] = []
    texts: list[tuple[str, ...]] = []
    for way in distinct(results, "way"):
        lines = matching(results, way=way)
        accuracies = top1(lines)
        mean, gain = statistics.mean(accuracies), points_over_labels(results, way)
        spread = statistics.stdev(accuracies) if len(lines) > 1 else None
        taught = None if way == "labels" else lines[0]["teacher_correct"] / lines[0]["total"]
        agreed = statistics.mean(line["agreement"] for line in lines)
        values.append((way, taught, mean, spread, gain, agreed, len(lines)))
        texts.append((way, "" if taught is None else percent_text(taught), percent_text(mean),
                      "" if spread is None else percent_text(spread), "" if way == "labels" else f"{gain:+.2f}",
                      percent_text(agreed), str(len(lines))))  # fmt: skip
    return [Table(columns, tuple(values), tuple(texts), name="distillation")]


def top1(lines: Sequence[Result]) -> list[float]:
    """Accuracy of each seed."""
    return [line["correct"] / line["total"] for line in lines]


def points_over_labels(results: Sequence[Result], way: str) -> float:
    """Percentage points that a way gains, a mean over the seeds."""
    plain, taught = (top1(matching(results, way=each)) for each in ("labels", way))
    return 100 * (statistics.mean(taught) - statistics.mean(plain))


def finding(results: Sequence[Result]) -> str:
    """What each way gives over labels, and three teachers over one."""
    ways = [way for way in distinct(results, "way") if way != "labels"]
    if not ways or not matching(results, way="labels"):
        return f"{len(results)} students trained; those of labels are needed to compare with."
    gains = {way: points_over_labels(results, way) for way in ways}
    shown = ", ".join(f"{way} {gain:+.2f}" for way, gain in gains.items())
    seeds = min(len(matching(results, way=way)) for way in ways)
    sentence = f"Points over learning from labels, a mean of {seeds} seeds: {shown}"
    if {"soft targets", "three teachers"} <= gains.keys():
        more = gains["three teachers"] - gains["soft targets"]
        sentence += f"; three teachers give {abs(more):.2f} points {'more' if more > 0 else 'fewer'} than one"
    return f"{sentence}."


EXPERIMENT = Experiment("distillation", ("way", "seed"), tables, finding, dataset=DATASET)

if __name__ == "__main__":
    sys.exit(main())
