"""MACs against latency: every network of the zoo timed twice, and a few of them by every engine.

    python benchmarks/latency.py [--rounds 30] [--part models|engines] [--dataset cifar10] [--out FILE]

models: all networks but those whose cost is a setting (branchy, slimmable), PyTorch as it is, one image, one thread, in
two runs of processes of their own. Do the runs agree, and what do MACs say of time? The binary networks are those that
simulate their bits in float32. engines: five networks by PyTorch as it is and compiled, and by onnxruntime in float32
and int8, at 1 and 16 images.
Times alternate in one process (zoo.latency); each line has the milliseconds of every round, from which the tables are
worked out. Two minutes for the models and five for the engines on a quiet core, most of the latter to compile.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from experiments import Experiment, Result, append, distinct, matching

import zoo
from zoo.errors import ZooError, unknown
from zoo.latency import ENGINES, Interval, Job, paired
from zoo.latency_runs import lines, measure
from zoo.report import Column, Line, Panel, Picture, Table, count_text
from zoo.report.tables import Value

REFERENCE = "resnet20"
AGAIN = f"{REFERENCE} (again)"
RUNS = (1, 2)
SETTINGS = ("branchy_*", "slimmable_*")
FEW = ("lenet5", "squeezenet1_1", "mobilenetv1_050", REFERENCE, "vgg11_bn")
BATCHES = (1, 16)
NAMED = 4  # models that are called misjudged
PARTS = ("models", "engines")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 2 for wrong use."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--part", help="models or engines; by default both")
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--out", type=Path, default=EXPERIMENT.results)
    parser.add_argument("--job", help=argparse.SUPPRESS)  # JSON of one run: its lines go to stdout
    options = parser.parse_args(arguments)
    try:
        if options.part not in (None, *PARTS):
            raise unknown("part", options.part, PARTS)
        if options.job is not None:
            print(json.dumps(run_of(json.loads(options.job))))
            return 0
        for part in PARTS:
            if options.part in (None, part):
                append(options.out, of_part(part, options.dataset, options.rounds), EXPERIMENT.key)
    except ZooError as error:
        print(f"latency.py: error: {error}", file=sys.stderr)
        return 2
    return 0


def of_part(part: str, dataset: str, rounds: int) -> list[dict[str, Any]]:
    """All lines of a part, each run in a fresh process."""
    models = [name for name in zoo.list_models() if not any(fnmatchcase(name, pattern) for pattern in SETTINGS)]
    few = {"engines": ENGINES, "reference": REFERENCE, "rounds": rounds, "dataset": dataset, "models": FEW}
    jobs = [{"run": run, "job": few | {"engines": ENGINES[:1], "models": models}} for run in RUNS]
    if part == "engines":
        jobs = [{"run": 1, "job": few | {"batch": batch}} for batch in BATCHES]
    found = []
    for number, job in enumerate(jobs, start=1):
        print(f"{part}: run {number} of {len(jobs)}", file=sys.stderr, flush=True)
        command = [sys.executable, __file__, "--job", json.dumps(job | {"part": part})]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found += json.loads(done.stdout)
    return found


def run_of(given: dict[str, Any]) -> list[dict[str, Any]]:
    """One run, in this process."""
    job = given["job"]
    job = Job(**job | {"models": tuple(job["models"]), "engines": tuple(job["engines"])})
    result = measure(job, lambda text: print(text, file=sys.stderr, flush=True))
    for doubt in result.doubts():
        print(doubt, file=sys.stderr, flush=True)
    return [{"part": given["part"], "run": given["run"], **line} for line in lines(result)]


def interval(subject: Result, reference: Result) -> Interval:
    """Of the time of one line to that of another of the same run."""
    return paired(subject["rounds"], reference["rounds"])


def runs_of(results: Sequence[Result]) -> list[dict[str, Result]]:
    """The lines of all models, by name, for each run."""
    found = matching(results, part="models")
    return [{line["model"]: line for line in matching(found, run=run)} for run in distinct(found, "run")]


def places(values: Sequence[float]) -> list[float]:
    """1 for the lowest; equal values share the mean of their places."""
    ordered = sorted(values)
    return [ordered.index(value) + (ordered.count(value) + 1) / 2 for value in values]


def picoseconds(line: Result) -> float:
    """Of one MAC."""
    return float(1e9 * line["milliseconds"] / line["macs"])


def ranked(run: dict[str, Result]) -> dict[str, tuple[float, float]]:
    """Each model's place by MACs and by time, the reference's twin left out."""
    rows = [line for name, line in run.items() if name != AGAIN]
    by_macs, by_time = (places([line[field] for line in rows]) for field in ("macs", "milliseconds"))
    return {line["model"]: pair for line, pair in zip(rows, zip(by_macs, by_time, strict=True), strict=True)}


def correlation(run: dict[str, Result]) -> float:
    """Spearman's, of MACs and time."""
    by_macs, by_time = zip(*ranked(run).values(), strict=True)
    return statistics.correlation(by_macs, by_time)


def misjudged(run: dict[str, Result]) -> list[str]:
    """The models whose place by time is farthest from that by MACs, farthest first; of equals the slowest a MAC."""
    found = ranked(run)

    def distance(name: str) -> tuple[float, float]:
        macs, milliseconds = found[name]
        return abs(macs - milliseconds), run[name]["milliseconds"] / run[name]["macs"]

    return sorted(found, key=distance, reverse=True)[:NAMED]


def orders(first: dict[str, Result], second: dict[str, Result]) -> dict[str, int]:
    """Pairs of sides; those tied in one run or both; of the others, those in the same order in both runs. Of the first
    run, the pairs told apart whose MACs differ, and those of them in which the one with fewer MACs takes longer."""
    counts = {"pairs": 0, "tied": 0, "same": 0, "told": 0, "fewer_slower": 0}
    for a, b in itertools.combinations([name for name in first if name in second], 2):
        one, two = interval(first[a], first[b]), interval(second[a], second[b])
        counts["pairs"] += 1
        if one.tied or two.tied:
            counts["tied"] += 1
        else:
            counts["same"] += (one.median > 1) == (two.median > 1)
        if not one.tied and AGAIN not in (a, b) and first[a]["macs"] != first[b]["macs"]:
            counts["told"] += 1
            counts["fewer_slower"] += (one.median > 1) == (first[a]["macs"] < first[b]["macs"])
    return counts


def differences(first: dict[str, Result], second: dict[str, Result]) -> list[float]:
    """By how much the ratios to the reference differ between the runs, as shares, smallest first."""
    return sorted(
        abs(second[name]["ratio"] / first[name]["ratio"] - 1) for name in first if name in second and name != REFERENCE
    )


def models_table(results: Sequence[Result]) -> Table:
    """A row a model, from the fewest MACs on: both runs side by side."""
    runs = runs_of(results)
    found = ranked(runs[0])
    columns = (
        Column("model", "model", right=False),
        Column("macs", "MACs"),
        Column("milliseconds", "ms an image"),
        *(Column(f"ratio_{number}", f"time / {REFERENCE}, run {number}") for number in range(1, len(runs) + 1)),
        Column("picoseconds", "ps a MAC"),
        Column("place_macs", "place by MACs"),
        Column("place_time", "by time"),
    )
    values: list[tuple[Value, ...]] = []
    texts: list[tuple[str, ...]] = []
    for name, line in sorted(runs[0].items(), key=lambda item: (item[1]["macs"], item[0] == AGAIN)):
        sides = [run[name] for run in runs if name in run]
        shown = [f"{s['ratio']:.3g} ({s['ratio_low']:.3g} to {s['ratio_high']:.3g})" for s in sides]
        shown += [""] * (len(runs) - len(shown))
        cost = picoseconds(line)
        ratios = [s["ratio"] for s in sides] + [None] * (len(runs) - len(sides))
        place = found.get(name, (None, None))
        values.append((name, line["macs"], line["milliseconds"], *ratios, cost, *place))
        told = ("", "") if place[0] is None else tuple(f"{p:g}" for p in place)
        texts.append(
            (name, count_text(line["macs"]), f"{line['milliseconds']:.3g}", *shown, f"{cost:.0f}", *map(str, told))
        )
    return Table(columns, tuple(values), tuple(texts), name="latency", title=_conditions(runs))


def engines_table(results: Sequence[Result]) -> Table:
    """A row a model and batch: milliseconds of an image by every engine, and the ratio to onnxruntime in float32."""
    found = matching(results, part="engines")
    columns = (
        Column("model", "model", right=False),
        Column("batch", "images a call"),
        *(Column(engine, f"{engine}, ms an image") for engine in ENGINES),
        Column("gain", "onnxruntime / onnxruntime-int8"),
    )
    values: list[tuple[Value, ...]] = []
    texts: list[tuple[str, ...]] = []
    for batch, name in itertools.product(distinct(found, "batch"), FEW):
        sides = {line["engine"]: line for line in matching(found, batch=batch, model=name)}
        if set(sides) != set(ENGINES):
            continue
        times = [sides[engine]["milliseconds"] / batch for engine in ENGINES]
        gain = interval(sides["onnxruntime"], sides["onnxruntime-int8"])
        told = f"{gain.median:.2f} ({gain.low:.2f} to {gain.high:.2f})" + (", tied" if gain.tied else "")
        values.append((name, batch, *times, gain.median))
        texts.append((name, str(batch), *(f"{time:.3g}" for time in times), told))
    return Table(columns, tuple(values), tuple(texts), name="engines", title="By engine: above 1x, int8 is faster")


def tables(results: Sequence[Result]) -> list[Table]:
    """Both, as far as they were measured."""
    found = [models_table(results)]
    return found + ([engines_table(results)] if matching(results, part="engines") else [])


def finding(results: Sequence[Result]) -> str:
    """What MACs say of time, and whether two runs say the same."""
    runs = runs_of(results)
    first, second = runs[0], runs[-1]
    found, counts, apart = ranked(first), orders(first, second), differences(first, second)
    names = [f"`{name}` ({found[name][0]:g} by MACs, {found[name][1]:g} by time)" for name in misjudged(first)]
    twins = [run[AGAIN] for run in runs]
    told = " and ".join(
        f"{t['ratio']:.3f} ({t['ratio_low']:.3f} to {t['ratio_high']:.3f}, {t['verdict']})" for t in twins
    )
    order = counts["pairs"] - counts["tied"]
    dear = {name: picoseconds(first[name]) for name in found}
    low, high = min(dear, key=dear.__getitem__), max(dear, key=dear.__getitem__)
    return (
        f"MACs order {len(found)} networks much as their time does (Spearman's correlation {correlation(first):.2f}), "
        f"and yet of the {counts['told']:,} pairs that can be told apart {counts['fewer_slower'] / counts['told']:.0%} "
        f"have the one with fewer MACs slower; the farthest from its place: {', '.join(names)}. "
        f"A MAC takes from {dear[low]:.0f} ps (`{low}`) to {dear[high]:.0f} ps (`{high}`). "
        f"Two runs: of {counts['pairs']} pairs {counts['tied']} are tied in one or both, and of the other {order} "
        f"{counts['same']} have the same order in both; the ratios differ by "
        f"{statistics.median(apart):.1%} at the median and {apart[-1]:.1%} at the most; `{REFERENCE}` beside itself "
        f"is {told}."
    )


def picture(results: Sequence[Result]) -> Picture:
    """Time over MACs, both logarithmic: the misjudged by name, the others by role."""
    run = runs_of(results)[0]
    odd = misjudged(run)
    roles: dict[str, list[tuple[float, float]]] = {}
    for name, line in run.items():
        if name != AGAIN:
            role = name if name in odd else zoo.registry.architecture(name).role
            roles.setdefault(role, []).append((line["macs"] / 1e6, line["milliseconds"]))
    order = sorted(roles, key=lambda label: (label in odd, label))
    marks = tuple(Line(label, tuple(sorted(roles[label])), joined=False) for label in order)
    return Picture((Panel(marks, "million MACs", log_x=True),), "milliseconds an image, one thread", log_y=True)


def _conditions(runs: Sequence[dict[str, Result]]) -> str:
    """Under what the first table was measured, in a line."""
    lines_of = [next(iter(run.values())) for run in runs]
    line, loads = lines_of[0], [line["others"] for line in lines_of if line["others"] is not None]
    told = f", other processes keeping {max(loads, default=0):.1f} cores busy"
    return (
        f"{line['device']}, one thread, one image, torch {line['versions']['torch']}, {len(line['rounds'])} rounds"
        f"{told if any(line['busy'] for line in lines_of) else ''}; bounds of 99 % confidence"
    )


EXPERIMENT = Experiment("latency", ("part", "run", "batch", "engine", "model"), tables, finding, picture)

if __name__ == "__main__":
    sys.exit(main())
