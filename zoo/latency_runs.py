"""`zoo latency`: networks by name, each by one or more engines, timed side by side; and ranked rows with their times.

runs/latency/<n>-<reference>-<dataset>/latency.jsonl     one line a network and engine, with what it was measured under
"""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import nn

from zoo import runs
from zoo.cost import count_macs
from zoo.create import create_model
from zoo.data import dataset_info
from zoo.errors import ZooError, unknown
from zoo.files import write_atomically
from zoo.latency import ENGINES, LEAST_ROUNDS, Job, Measured, Result, Timing, interleaved, ready
from zoo.ranking import BASELINES, Row
from zoo.trained import load_trained

ROOT = Path("runs/latency")
RESULT = "latency.jsonl"
RANKED_ROUNDS = 12  # of `zoo rank --latency`, which is to be quick
TWIN = "{} (again)"  # the reference beside itself

Say = Callable[[str], None]


def run(job: Job, say: Say) -> tuple[Path, Result]:
    """Measure, and keep the lines in a numbered folder: (folder, result). Raises what `measure` does."""
    result = measure(job, say)
    folder = runs.new_folder(job.reference or job.models[0], job.dataset, ROOT)
    write_atomically(folder / RESULT, "".join(json.dumps(line) + "\n" for line in lines(result)))
    return folder, result


def measure(job: Job, say: Say) -> Result:
    """Build all sides and time them. Raises ZooError for a job that makes no sense, and what building raises."""
    if job.rounds < LEAST_ROUNDS:
        raise ZooError(f"rounds={job.rounds} was given; an interval takes at least {LEAST_ROUNDS}.")
    for engine in job.engines:
        if engine not in ENGINES:
            raise unknown("engine", engine, ENGINES)
    reference = job.reference or job.models[0]
    image = dataset_info(job.dataset).image
    images_NCHW = torch.randn(job.batch, *image, generator=torch.Generator().manual_seed(0))
    networks = {name: _network(name, job.dataset) for name in dict.fromkeys((*job.models, reference))}
    pairs = [(name, engine) for engine in dict.fromkeys(job.engines) for name in networks]
    twin = TWIN.format(reference)
    networks[twin] = copy.deepcopy(networks[reference])
    pairs.append((twin, job.engines[0]))
    acts = {}
    for name, engine in pairs:
        if engine != "eager":
            say(f"making {name} ready for {engine}")
        acts[_key(name, engine)] = ready(engine, networks[name], images_NCHW, threads=job.threads)
    timing = interleaved(acts, job.rounds, threads=job.threads, say=say)
    base = _key(reference, job.engines[0])
    sides = tuple(_measured(*pair, count_macs(networks[pair[0]], image), timing, base) for pair in pairs)
    return Result(job, reference, sides, timing)


def _key(model: str, engine: str) -> str:
    return f"{model} by {engine}"


def _measured(model: str, engine: str, macs: int, timing: Timing, base: str) -> Measured:
    key = _key(model, engine)
    ratio = timing.ratio(key, base)
    return Measured(model, engine, macs, 1e3 * timing.median(key), ratio.median, ratio.low, ratio.high)


def lines(result: Result) -> list[dict[str, object]]:
    """One record a side, with the milliseconds of every round and all that it was measured under."""
    job, timing = result.job, result.timing
    conditions = {
        "reference": result.reference,
        "dataset": job.dataset,
        "batch": job.batch,
        "threads": timing.threads,
        "clock": timing.clock,
        "cpu_share": round(timing.cpu_share, 3),
        "others": None if timing.others is None else round(timing.others, 3),
        "busy": timing.busy,
        "device": runs.device_name(torch.device("cpu")),
        "versions": runs.versions(),
    }
    return [
        asdict(side)
        | {
            "verdict": side.verdict,
            "rounds": [round(1e3 * s, 5) for s in timing.seconds[_key(side.model, side.engine)]],
        }
        | conditions
        for side in result.sides
    ]


def with_latency(rows: Sequence[Row], dataset: str, say: Say) -> list[Row]:
    """The rows of stored weights with the milliseconds of one image, one thread, PyTorch as it is, and their ratio to
    LeNet-5; the others say why they have none."""
    names = {row.label: f"{row.name}@{row.tag}" if row.tag else row.name for row in rows if row.bytes is not None}
    if not names:
        return [_with_time(row, None) for row in rows]
    job = Job((BASELINES[0], *names.values()), dataset, rounds=RANKED_ROUNDS)
    say(f"timing {len(names)} models with stored weights, one thread, one image")
    result = measure(job, say)
    for doubt in result.doubts():
        say(doubt)
    found = {side.model: side for side in result.sides[:-1]}
    return [_with_time(row, found.get(names.get(row.label, ""))) for row in rows]


def _with_time(row: Row, side: Measured | None) -> Row:
    columns = ("milliseconds", "milliseconds_vs_lenet5")
    if side is None:
        reason = "only stored weights are timed here; `zoo latency` times any model"
        return replace(row, missing={**row.missing, **dict.fromkeys(columns, reason)})
    missing = {name: reason for name, reason in row.missing.items() if name not in columns}
    return replace(row, milliseconds=side.milliseconds, milliseconds_vs_lenet5=side.ratio, missing=missing)


def _network(source: str, dataset: str) -> nn.Module:
    """A registered or a library's network, whose time its weights do not change, or a trained one that was cut."""
    if "@" in source or Path(source).suffix in (".zpk", ".json") or Path(source).is_dir():
        return load_trained(source, dataset).network
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return create_model(source, dataset=dataset)
