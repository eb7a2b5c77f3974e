"""Rewrite what README.md and benchmarks/results/ show from cards, counts and result files; or check that it is fresh.

python benchmarks/tables.py            writes the README's blocks and the plots
python benchmarks/tables.py --check    writes nothing; names what is stale and exits with status 1
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cifar10_files import files_table
from coding_bound import EXPERIMENT as CODING_BOUND
from deep_compression import pipelines_table, weights_table
from distillation import EXPERIMENT as DISTILLATION
from early_exits import EXPERIMENT as EARLY_EXITS
from experiments import Experiment, results_of
from factorised import EXPERIMENT as FACTORISED
from heads import EXPERIMENT as HEADS
from initialisation import EXPERIMENT as INITIALISATION
from int8 import EXPERIMENT as INT8
from latency import EXPERIMENT as LATENCY
from momentum import EXPERIMENT as MOMENTUM
from omitted_digit import EXPERIMENT as OMITTED_DIGIT
from plain_c import EXPERIMENT as PLAIN_C
from pruning_schedules import EXPERIMENT as PRUNING_SCHEDULES
from quantized_mlp import EXPERIMENT as QUANTIZED_MLP
from references import NONE_YET, REFERENCES, leads, leads_table
from sharing_curves import EXPERIMENT as SHARING_CURVES
from slimmable import EXPERIMENT as SLIMMABLE
from structured_vgg import structured_table
from vector_quantization import EXPERIMENT as VECTOR_QUANTIZATION
from winograd import winograd_table
from xnor_accuracy import EXPERIMENT as XNOR_ACCURACY
from xnor_speed import xnor_table

from zoo.errors import ZooError
from zoo.files import write_atomically
from zoo.ranking import FRONTS, Row, rank
from zoo.report import (
    cards_table,
    lines_plot,
    pareto_plot,
    plot_digest,
    ranking_table,
    recipes_table,
    replace_block,
    size_text,
    speed_table,
    table_markdown,
)
from zoo.weights import Card, list_cards

ROOT = Path(__file__).resolve().parent.parent
DATASETS = ("mnist", "cifar10")
SPEED_RESULTS = Path("benchmarks/results/trainer_speed.jsonl")
DEEP_RESULTS = Path("benchmarks/results/deep_compression.jsonl")
FILES_RESULTS = Path("benchmarks/results/cifar10_files.jsonl")
STRUCTURED_RESULTS = Path("benchmarks/results/structured_vgg.jsonl")
WINOGRAD_RESULTS = Path("benchmarks/results/winograd.jsonl")
XNOR_RESULTS = Path("benchmarks/results/xnor_speed.jsonl")
LOADING_RESULTS = Path("benchmarks/results/loading_time.jsonl")
EXPERIMENTS = (
    SHARING_CURVES,
    PRUNING_SCHEDULES,
    QUANTIZED_MLP,
    VECTOR_QUANTIZATION,
    CODING_BOUND,
    XNOR_ACCURACY,
    OMITTED_DIGIT,
    INITIALISATION,
    MOMENTUM,
    FACTORISED,
    HEADS,
    DISTILLATION,
    EARLY_EXITS,
    SLIMMABLE,
    LATENCY,
    INT8,
    PLAIN_C,
)
NO_RESULTS = "No results yet."


def main(arguments: Sequence[str] | None = None, *, root: Path = ROOT) -> int:
    """Exit status: 0, 1 with --check when something is stale, 2 for wrong use."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="name what is stale instead of writing it")
    check = parser.parse_args(arguments).check
    try:
        stale = refresh(root, write=not check)
    except ZooError as error:
        print(f"tables.py: error: {error}", file=sys.stderr)
        return 2
    for what in stale:
        print(f"stale: {what}; run `python benchmarks/tables.py`." if check else f"wrote {what}")
    return 1 if check and stale else 0


def refresh(root: Path, *, write: bool) -> list[str]:
    """What differs from what it should say: README blocks and plots by name. With `write` it is put right."""
    rankings = {dataset: rank(dataset=dataset) for dataset in DATASETS}
    return _refresh_readme(root, rankings, write) + _refresh_plots(root, rankings, write)


def readme_blocks(root: Path, rankings: dict[str, list[Row]]) -> dict[str, str]:
    """Marker -> Markdown of every generated block of the README."""
    blocks = {f"ranking-{dataset}": table_markdown(ranking_table(rows)) for dataset, rows in rankings.items()}
    cards = list_cards()
    blocks["weights"] = table_markdown(cards_table(cards)) if cards else NO_RESULTS
    results = speed_results(root / SPEED_RESULTS)
    blocks["trainer-speed"] = table_markdown(speed_table(results)) if results else NO_RESULTS
    found = [lead for rows in rankings.values() for lead in leads(rows)]
    blocks["reference-beaten"] = table_markdown(leads_table(found)) if found else NONE_YET
    trained = [card for card in cards if " train.py " in card.command]
    blocks["recipes"] = table_markdown(recipes_table(trained)) if trained else NO_RESULTS
    packed = results_of(root / DEEP_RESULTS)
    tables = (pipelines_table(packed), weights_table(packed))
    blocks["deep-compression"] = "\n\n".join(map(table_markdown, tables)) if packed else NO_RESULTS
    for marker, source, table in (
        ("cifar10-files", FILES_RESULTS, files_table),
        ("structured-vgg", STRUCTURED_RESULTS, structured_table),
        ("winograd", WINOGRAD_RESULTS, winograd_table),
        ("xnor-speed", XNOR_RESULTS, xnor_table),
    ):
        lines = results_of(root / source)
        blocks[marker] = table_markdown(table(lines)) if lines else NO_RESULTS
    blocks["loading-time"] = loading_text(root / LOADING_RESULTS, cards)
    for experiment in EXPERIMENTS:
        blocks[experiment.name.replace("_", "-")] = experiment_text(root, experiment)
    return blocks


def experiment_text(root: Path, experiment: Experiment) -> str:
    """What an experiment found: a sentence, its tables and its picture."""
    results = results_of(root / experiment.results)
    if not results:
        return NO_RESULTS
    parts = [experiment.finding(results), *map(table_markdown, experiment.tables(results))]
    if experiment.picture is not None:
        parts.append(f"![Plot of {experiment.name.replace('_', ' ')}]({experiment.plot})")
    return "\n\n".join(parts)


def speed_results(path: Path) -> list[dict[str, object]]:
    """The latest result of each comparison and model, in the order they were first measured."""
    return list({(result["comparison"], result["model"]): result for result in results_of(path)}.values())


def loading_text(path: Path, cards: Sequence[Card]) -> str:
    """The slowest file to load, in a sentence; results of files that are not stored as they were do not count."""
    stored = {card.sha256 for card in cards}
    results = [result for result in results_of(path) if result["sha256"] in stored]
    if not results:
        return NO_RESULTS
    worst = max(results, key=lambda result: result["seconds_median"])
    return (
        f"Of {len(results)} files measured ({len(cards)} are stored), `{worst['weights']}` "
        f"({size_text(worst['file_bytes'])}) takes the longest: {worst['seconds_median']:.3f} s beyond building the "
        f"network, the median of {worst['rounds']} rounds ({worst['seconds_low']:.3f} to {worst['seconds_high']:.3f})."
    )


def _refresh_readme(root: Path, rankings: dict[str, list[Row]], write: bool) -> list[str]:
    path = root / "README.md"
    text = path.read_text()
    stale = []
    for marker, body in readme_blocks(root, rankings).items():
        renewed = replace_block(text, marker, body)
        if renewed != text:
            stale.append(f"block {marker} of README.md")
        text = renewed
    if stale and write:
        write_atomically(path, text)
    return stale


def _refresh_plots(root: Path, rankings: dict[str, list[Row]], write: bool) -> list[str]:
    """A plot is compared by the digest it carries, since its bytes depend on matplotlib's version too."""
    stale = []
    for dataset, rows in rankings.items():
        references = [reference for reference in REFERENCES if reference.dataset == dataset]
        for x in FRONTS:
            name = f"benchmarks/results/pareto-{dataset}-{x}.svg"
            path = root / name
            if not path.exists() or plot_digest(rows, x, references) not in path.read_text():
                stale.append(name)
                if write:
                    pareto_plot(rows, path, x=x, references=references)
    for experiment in EXPERIMENTS:
        results = results_of(root / experiment.results)
        if experiment.picture is None or not results:
            continue
        picture, path = experiment.picture(results), root / experiment.plot
        if not path.exists() or picture.digest not in path.read_text():
            stale.append(str(experiment.plot))
            if write:
                lines_plot(picture, path)
    return stale


if __name__ == "__main__":
    sys.exit(main())
