"""How long loading stored weights takes beyond building their network.

    python benchmarks/loading_time.py [--rounds 9] [--only PATTERN] [--out benchmarks/results/loading_time.jsonl]

Of every file in the zoo folder: rounds that build the network, and rounds that build and load it (card found and read,
digest compared, every tensor checked, values filled in), alternating, and who goes first alternates too. A round's
figure is the difference of two neighbours; the median is reported with the lowest and highest. Nothing but the zoo
folder is read, by then from memory: the disk is not timed. Exit status: 1 when a median is `LIMIT` seconds or more.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import torch

import zoo
from zoo.files import write_atomically
from zoo.runs import device_name, versions
from zoo.weights import Card, build_for_card, list_cards

LIMIT = 0.3  # seconds that a user is promised
OUT = Path(__file__).resolve().parent / "results" / "loading_time.jsonl"


def main() -> int:
    """Measure every stored file and write one JSON line each, by stem; 1 when one is too slow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default="*", metavar="PATTERN", help="measure these anew and keep the others")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    stored = {card.stem: card for card in list_cards()}
    lines = options.out.read_text().splitlines() if options.out.exists() else []
    results = {result["weights"]: result for result in map(json.loads, lines) if result["weights"] in stored}
    for stem, card in stored.items():
        if fnmatchcase(stem, options.only):
            results[stem] = measure(card, options.rounds)
            print(json.dumps(results[stem]), flush=True)
    write_atomically(options.out, "".join(json.dumps(results[stem]) + "\n" for stem in sorted(results)))
    return 1 if any(result["seconds_median"] >= LIMIT for result in results.values()) else 0


def measure(card: Card, rounds: int) -> dict[str, object]:
    """Seconds that one file takes beyond building, over the rounds; a round before them warms everything up."""
    build = partial(build_for_card, card)
    load = partial(zoo.create_model, card.model, dataset=card.dataset, pretrained=True, tag=card.tag or None)
    beyond = []
    for number in range(rounds + 1):
        took = {side: seconds(side) for side in ((build, load) if number % 2 else (load, build))}
        if number:
            beyond.append(took[load] - took[build])
    return {
        "weights": card.stem,
        "sha256": card.sha256,
        "file_bytes": card.file_bytes,
        "seconds_median": round(statistics.median(beyond), 4),
        "seconds_low": round(min(beyond), 4),
        "seconds_high": round(max(beyond), 4),
        "rounds": rounds,
        "device": device_name(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def seconds(act: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
