"""Early exits (BranchyNet, arXiv:1709.01686): who leaves where, what it saves counted and timed, and what it costs.

    python benchmarks/early_exits.py [--only branchy_lenet5] [--rounds 15] [--out FILE]

The stored networks, trained on all images but 5,000. On these a rule is chosen: of those whose accuracy is within
--points of the whole network's, the cheapest. All test images then really run by it, each no further than it needs. The
curve has rules of other thresholds, quantiles of what the 5,000 gave. Time is that of PyTorch in one thread, blocks
alternating, over that of the plain network, which has no exits: 256 test images at once, and one after the other.
Four minutes on one core; writes results/early_exits.jsonl.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from experiments import Bench, Experiment, Result, append, bench, conditions
from torch import Tensor, nn

import zoo
from zoo.data import normalize
from zoo.dynamic import (
    EarlyExits,
    ExitRule,
    Outcome,
    choose_rule,
    curve,
    evaluate_early,
    exit_answers,
    exit_macs,
    outcome,
)
from zoo.errors import ZooError, unknown
from zoo.latency import Interval, interleaved
from zoo.report import Column, Line, Panel, Picture, Table, count_text, percent_text
from zoo.report.tables import Value
from zoo.weights import find_card


@dataclass(frozen=True)
class Subject:
    """A network with exits, its data set, and the network without them that is stored."""

    name: str
    dataset: str
    plain: str


SUBJECTS = (Subject("branchy_lenet5", "mnist", "lenet5_caffe"), Subject("branchy_vgg11_bn", "cifar10", "vgg11_bn"))
BATCHES = (1, 256)
TIMED = 256  # test images
CURVE_LEVELS, CURVE_SHOWN, CURVE_TIMED = 400, 25, 6
PAPER = {"branchy_lenet5": "its LeNet: 94.3 % leave first, 99.25 %, 5.4x as fast on a CPU"}  # table I


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 2 for wrong use."""
    parser = EXPERIMENT.options(__doc__)
    parser.add_argument("--only", metavar="MODEL", help=" or ".join(subject.name for subject in SUBJECTS))
    parser.add_argument("--points", type=float, default=0.2, help="of accuracy that may be lost on the images held out")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args(arguments)
    out = options.out or EXPERIMENT.results
    try:
        names = [subject.name for subject in SUBJECTS]
        if options.only is not None and options.only not in names:
            raise unknown("network", options.only, names)
        for subject in SUBJECTS:
            if options.only in (None, subject.name):
                line = measure(subject, bench(subject.dataset, options.files), options.points / 100, options.rounds)
                append(out, [line], EXPERIMENT.key)
                print(EXPERIMENT.finding([line]))
    except ZooError as error:
        print(f"early_exits.py: error: {error}", file=sys.stderr)
        return 2
    return 0


def measure(subject: Subject, images: Bench, allowed: float, rounds: int) -> dict[str, Any]:
    """Choose a rule on the images held out, run it on the test images, time it: one line of results."""
    card = find_card(subject.name, subject.dataset)
    model = zoo.create_model(subject.name, dataset=subject.dataset, pretrained=True, tag=card.tag)
    plain = find_card(subject.plain, subject.dataset)
    network = zoo.create_model(subject.plain, dataset=subject.dataset, pretrained=True, tag=plain.tag)
    assert isinstance(model, EarlyExits)
    macs = exit_macs(model, card.image)
    held_out = exit_answers(model, images.valid)
    whole = outcome(held_out, ExitRule((0.0,) * len(model.exits)), macs)
    chosen = choose_rule(held_out, macs, accuracy=whole.top1 - allowed)
    test = zoo.load_dataset(subject.dataset, "test")
    found = evaluate_early(model, test, chosen.rule, macs)
    rules = [point.rule for point in spread(curve(held_out, macs, levels=CURVE_LEVELS), CURVE_SHOWN)]
    points = [outcome(exit_answers(model, test), rule, macs) for rule in rules]
    some = normalize(test.images[:TIMED], test.mean, test.std)
    timed = [points[0].rule, *(point.rule for point in spread(points, CURVE_TIMED)), chosen.rule]
    return {
        "model": subject.name,
        "dataset": subject.dataset,
        "plain": {"stem": plain.stem, "correct": plain.correct, "total": plain.total, "macs": plain.macs,
                  "trained_on": plain.note, "epochs": plain.epochs},
        "stem": card.stem,
        "epochs": card.epochs,
        "held_out": whole.total,
        "held_out_whole": whole.correct,
        "held_out_chosen": chosen.correct,
        "exit_macs": macs,
        "whole_correct": card.correct,
        **facts(found),
        "curve": [facts(point) for point in points],
        "time": times(model, network, some, list(dict.fromkeys(timed)), rounds),
        **conditions(),
    }  # fmt: skip


def facts(found: Outcome) -> dict[str, Any]:
    """An outcome in plain values."""
    return {
        "thresholds": found.rule.thresholds,
        "correct": found.correct,
        "total": found.total,
        "leaving": found.leaving,
        "mean_macs": found.mean_macs,
    }


def spread(points: Sequence[Outcome], count: int) -> list[Outcome]:
    """So many of the outcomes, at mean costs that lie as evenly as can be."""
    most, least = points[0].mean_macs, points[-1].mean_macs
    wanted = [most + (least - most) * step / (count - 1) for step in range(count)]
    nearest = [min(points, key=lambda point: abs(point.mean_macs - cost)) for cost in wanted]
    return list(dict.fromkeys(nearest))


def times(
    model: EarlyExits, plain: nn.Module, images_NCHW: Tensor, rules: Sequence[ExitRule], rounds: int
) -> dict[str, Any]:
    """By batch: how busy the machine was, and by rule how many times as fast as the plain network it answers."""
    found: dict[str, Any] = {}
    for batch in BATCHES:
        parts = images_NCHW.split(batch)
        sides: dict[str, Callable[[], object]] = {"plain": partial(each, plain, parts)}
        for index, rule in enumerate(rules):
            sides[str(index)] = partial(each, partial(model.forward_early, leaves=rule), parts)
        timing = interleaved(sides, rounds)
        ratios = {index: timing.ratio("plain", str(index)) for index in range(len(rules))}
        found[str(batch)] = {
            "busy": timing.busy,
            "rules": [{"thresholds": rule.thresholds, **interval(ratios[i])} for i, rule in enumerate(rules)],
        }
    return found


def each(answer: Callable[[Tensor], object], parts: Sequence[Tensor]) -> None:
    """Answer some images a part at a time."""
    for part in parts:
        answer(part)


def interval(ratio: Interval) -> dict[str, float]:
    """A ratio in plain values."""
    return {"median": ratio.median, "low": ratio.low, "high": ratio.high}


def tables(results: Sequence[Result]) -> list[Table]:
    """Two rows a network: whole, and by the rule chosen."""
    columns = (
        Column("model", "network", right=False),
        Column("way", "runs", right=False),
        Column("top1", "top-1"),
        Column("leaving", "leave by each exit", right=False),
        Column("mean_macs", "mean MACs"),
        Column("fewer", "fewer by"),
        *(Column(f"speed_{batch}", f"speed-up, batch {batch}") for batch in BATCHES),
        Column("paper", "the paper", right=False),
    )
    values: list[tuple[Value, ...]] = []
    texts: list[tuple[str, ...]] = []
    for line in results:
        plain, total = line["plain"], line["total"]
        nobody = (0.0,) * (len(line["leaving"]) - 1)
        chosen = tuple(line["thresholds"])
        rows = (
            (plain["stem"], "without exits", plain["correct"] / plain["total"], "", plain["macs"], None),
            (line["stem"], "to the end", line["whole_correct"] / total, "", line["exit_macs"][-1], nobody),
            (line["stem"], "by the rule", line["correct"] / total, leaving_text(line), line["mean_macs"], chosen),
        )
        for name, way, top1, leaving, macs, rule in rows:
            paper = PAPER.get(line["model"], "") if rule == chosen else ""
            speeds = [None if rule is None else speed(line, batch, rule) for batch in BATCHES]
            fewer = plain["macs"] / macs
            medians = (None if s is None else s["median"] for s in speeds)
            values.append((name, way, top1, leaving, macs, fewer, *medians, paper))
            shown = ["" if s is None else f"{s['median']:.2f} ({s['low']:.2f} to {s['high']:.2f})" for s in speeds]
            texts.append(
                (name, way, percent_text(top1), leaving, count_text(round(macs)), f"{fewer:.2f}x", *shown, paper)
            )
    return [Table(columns, tuple(values), tuple(texts), name="early_exits")]


def leaving_text(line: Result) -> str:
    """Shares in words."""
    return ", ".join(percent_text(count / line["total"]) for count in line["leaving"])


def speed(line: Result, batch: int, thresholds: Sequence[float]) -> dict[str, float]:
    """How many times as fast as the plain network a rule answers."""
    rules = line["time"][str(batch)]["rules"]
    (found,) = [each for each in rules if tuple(each["thresholds"]) == tuple(thresholds)]
    return cast(dict[str, float], found)


def finding(results: Sequence[Result]) -> str:
    """A sentence on each network."""
    return " ".join(map(_finding, results))


def _finding(line: Result) -> str:
    first = line["leaving"][0] / line["total"]
    lost = (line["plain"]["correct"] - line["correct"]) / line["total"]
    gained = [speed(line, batch, line["thresholds"])["median"] for batch in BATCHES]
    against = f"{abs(100 * lost):.2f} points {'below' if lost > 0 else 'above'}" if lost else "as accurate as"
    busy = " (on a busy machine)" if any(line["time"][str(batch)]["busy"] for batch in BATCHES) else ""
    return (
        f"{percent_text(first)} of the test images leave {line['model']} by its first exit; it gives "
        f"{percent_text(line['correct'] / line['total'])}, {against} the plain network, for "
        f"{line['plain']['macs'] / line['mean_macs']:.2f}x fewer MACs, and is {gained[0]:.2f} times as fast at batch "
        f"{BATCHES[0]} and {gained[1]:.2f} times at {BATCHES[1]}{busy}."
    )


def picture(results: Sequence[Result]) -> Picture:
    """Error over mean MACs, and over measured time at each batch, all as shares of the plain network's."""
    by_macs: list[Line] = []
    by_time: dict[int, list[Line]] = {batch: [] for batch in BATCHES}
    for line in results:
        plain = line["plain"]
        level = 1 - plain["correct"] / plain["total"]
        errors = {tuple(p["thresholds"]): (1 - p["correct"] / p["total"]) / level for p in [*line["curve"], line]}
        costs = [(p["mean_macs"] / plain["macs"], errors[tuple(p["thresholds"])]) for p in line["curve"]]
        chosen = line["mean_macs"] / plain["macs"], errors[tuple(line["thresholds"])]
        by_macs += [Line(line["model"], tuple(costs)), Line(f"{line['model']}, chosen", (chosen,), joined=False)]
        for batch in BATCHES:
            rules = line["time"][str(batch)]["rules"]
            timed = sorted((1 / rule["median"], errors[tuple(rule["thresholds"])]) for rule in rules)
            by_time[batch].append(Line(line["model"], tuple(timed)))
    panels = [Panel(tuple(by_macs), "mean MACs / the plain network's")]
    panels += [Panel(tuple(by_time[batch]), f"time / the plain network's, batch {batch}") for batch in BATCHES]
    return Picture(tuple(panels), "test error / the plain network's")


EXPERIMENT = Experiment("early_exits", ("model",), tables, finding, picture)

if __name__ == "__main__":
    sys.exit(main())
