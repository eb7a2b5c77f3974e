"""A student that never saw a three: Hinton, Vinyals and Dean's experiment (arXiv:1503.02531, section 3), re-made.

    python benchmarks/omitted_digit.py [--epochs 20] [--temperature 8] [--dataset mnist]

The teacher is the zoo's lenet5_caffe, the student lenet_300_100 from new weights. The student learns from the teacher's
soft answers alone, on training images from which digits were taken out: no threes, or nothing but sevens and eights.
What it never saw it puts too low, so the biases of its last layer are then shifted by one number, that with the fewest
errors on 5,000 training images held out (in the paper on the test set). Beside it: the same network learning from
labels, and from all digits. Figures are counts of test images. Three minutes on one core; writes
results/omitted_digit.jsonl.
"""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

import torch
from experiments import FINE_TUNING, SEED, Bench, Experiment, Result, bench, conditions, distinct, fresh, matching
from torch import Tensor, nn

import zoo
from zoo.data import Augment, Dataset
from zoo.evaluation import predict_logits
from zoo.recipes import Recipe
from zoo.report import Column, Line, Panel, Picture, Table
from zoo.report.tables import Value
from zoo.training.objectives import SoftTargets, Teachers

TEACHER, STUDENT = "lenet5_caffe", "lenet_300_100"
THREE, PAIR = 3, (7, 8)
OMISSIONS = {
    "no threes": tuple(d for d in range(10) if d != THREE),
    "sevens and eights": PAIR,
    "none": tuple(range(10)),
}
WAYS = ("soft targets", "labels")
SHIFTS = torch.arange(-200, 201) / 10
DRAWN = 5  # every fifth of them
THEIR_UNKNOWN, THEIR_THREES = 14, 1010  # of the paper, after the shift
FIGURES = {  # of the paper: errors on the test set, and on the 1,010 threes, before and after the shift
    "no threes": ("206 (133 of 1,010 threes)", "109 (14 of 1,010 threes)"),
    "sevens and eights": ("47.3 %", "13.2 %"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 2 for wrong use."""
    parser = EXPERIMENT.options(__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--temperature", type=float, default=8.0)
    options = parser.parse_args(arguments)
    recipe = dataclasses.replace(FINE_TUNING, epochs=options.epochs, augment=Augment())
    return EXPERIMENT.run(options, lambda: measure(bench(options.dataset, options.files), recipe, options.temperature))


def measure(images: Bench, recipe: Recipe, temperature: float) -> list[dict[str, Any]]:
    """A line for each set of digits and way to learn."""
    teacher = images.start(TEACHER, dataclasses.replace(recipe, epochs=10))
    test = zoo.load_dataset(images.dataset, "test")
    lines = []
    for omission, digits in OMISSIONS.items():
        rows = torch.isin(images.train.labels, torch.tensor(digits)).nonzero().flatten()
        seen = images.train.subset(rows)
        for way in WAYS:
            student = fresh(STUDENT, images.dataset)
            taught = SoftTargets(Teachers([teacher], cache=True), temperature=temperature, weight=1.0)
            zoo.fit(
                student, seen, None, recipe, objective=taught if way == "soft targets" else None, seed=SEED
            ).or_leave()
            wrong = errors_by_shift(student, images.valid, digits) if len(digits) < 10 else []
            shift = round(float(SHIFTS[wrong.index(min(wrong))]), 1) if wrong else 0.0
            lines.append({"omission": omission, "way": way, "images": len(seen), "temperature": temperature,
                          "epochs": recipe.epochs, "shift": shift, **errors(student, test, digits, shift),
                          "held_out": len(images.valid), "held_out_errors": wrong[::DRAWN],
                          **conditions()})  # fmt: skip
            print(f"{omission}, {way}: {lines[-1]['errors']} errors, {lines[-1]['errors_shifted']} after a shift of "
                  f"{shift:.1f}", file=sys.stderr, flush=True)  # fmt: skip
    return lines


def errors_by_shift(student: nn.Module, valid: Dataset, digits: Sequence[int]) -> list[int]:
    """Errors on images held out, with each of SHIFTS added to the logits of the digits never seen."""
    logits_NK = predict_logits(student, valid, 500, torch.device("cpu"))
    unseen_K = unseen(digits)
    return [int(((logits_NK + shift * unseen_K).argmax(1) != valid.labels).sum()) for shift in SHIFTS]


def errors(student: nn.Module, test: Dataset, digits: Sequence[int], shift: float) -> dict[str, int]:
    """Wrong answers on the test set, as the student is and after the shift; of the digits never seen in particular."""
    logits_NK = predict_logits(student, test, 500, torch.device("cpu"))
    unseen_K = unseen(digits)
    among_N = unseen_K[test.labels] == 1
    found: dict[str, int] = {"total": len(test), "unseen": int(among_N.sum())}
    for suffix, added in (("", 0.0), ("_shifted", shift)):
        wrong_N = (logits_NK + added * unseen_K).argmax(1) != test.labels
        found[f"errors{suffix}"] = int(wrong_N.sum())
        found[f"unseen_errors{suffix}"] = int((wrong_N & among_N).sum())
    return found


def unseen(digits: Sequence[int]) -> Tensor:
    """float32 [10]: 1 for a digit that the student never saw."""
    return torch.tensor([float(digit not in digits) for digit in range(10)])


def tables(results: Sequence[Result]) -> list[Table]:
    """A row a student: errors before and after the shift, theirs beside them."""
    columns = (
        Column("omission", "digits left out", right=False),
        Column("way", "learns from", right=False),
        Column("errors", "errors"),
        Column("unseen_errors", "of the unseen"),
        Column("shift", "shift"),
        Column("errors_shifted", "errors after it"),
        Column("unseen_errors_shifted", "of the unseen"),
        Column("paper", "the paper: errors", right=False),
        Column("paper_shifted", "after its shift", right=False),
    )
    values: list[tuple[Value, ...]] = []
    texts: list[tuple[str, ...]] = []
    for line in results:
        name = "all but 7 and 8" if line["omission"] == "sevens and eights" else line["omission"].replace("no ", "")
        paper = FIGURES.get(line["omission"], ("", "")) if line["way"] == "soft targets" else ("", "")
        of_unseen = [f"{line[key]:,} of {line['unseen']:,}" if line["unseen"] else ""
                     for key in ("unseen_errors", "unseen_errors_shifted")]  # fmt: skip
        figures = line["errors"], line["unseen_errors"], line["shift"], line["errors_shifted"]
        values.append((name, line["way"], *figures, line["unseen_errors_shifted"], *paper))
        shift = f"{line['shift']:+.1f}" if line["unseen"] else ""
        after = f"{line['errors_shifted']:,}" if line["unseen"] else ""
        texts.append((name, line["way"], f"{line['errors']:,}", of_unseen[0], shift, after, of_unseen[1], *paper))
    return [Table(columns, tuple(values), tuple(texts), name="omitted_digit")]


def finding(results: Sequence[Result]) -> str:
    """How many threes are known without having been seen."""
    (soft,) = matching(results, omission="no threes", way="soft targets")
    (hard,) = matching(results, omission="no threes", way="labels")
    known = [1 - line["unseen_errors_shifted"] / line["unseen"] for line in (soft, hard)]
    verdict = "as in the paper" if known[0] > 0.5 > known[1] or known[0] > known[1] + 0.3 else "unlike in the paper"
    return (
        f"After the shift the student of soft targets knows {known[0]:.1%} of the threes, none of which it ever saw, "
        f"and one of labels alone {known[1]:.1%}: what the others look like to the teacher tells what a three is, "
        f"{verdict} ({1 - THEIR_UNKNOWN / THEIR_THREES:.1%})."
    )


def picture(results: Sequence[Result]) -> Picture:
    """Error on the images held out over the shift of the biases, a line a way to learn."""
    panels = []
    for omission in distinct(results, "omission"):
        lines = [
            Line(
                line["way"],
                tuple(
                    (shift, 100 * wrong / line["held_out"])
                    for shift, wrong in zip(SHIFTS[::DRAWN].tolist(), line["held_out_errors"], strict=True)
                ),
            )
            for line in matching(results, omission=omission)
            if line["unseen"]
        ]
        if lines:
            panels.append(Panel(tuple(lines), "shift of the biases of digits never seen", omission))
    return Picture(tuple(panels), "error on images held out (%)")


EXPERIMENT = Experiment("omitted_digit", ("omission", "way"), tables, finding, picture)

if __name__ == "__main__":
    sys.exit(main())
