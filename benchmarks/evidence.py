"""What stands behind the cards, for the page of `zoo report`: training curves and confusions of the stored files.

    python benchmarks/evidence.py [RUNS ...] [--only PATTERN] [--out benchmarks/results/evidence.jsonl]

RUNS: folders of finished runs, or folders of these. A run whose card names the digest of a stored file gives that file
its curve; a run that is gone leaves none. A confusion is counted on the test images by the stored file itself, and must
count as many right as its card. One line a stored file, by stem; what is there already is not measured again.
Exit status: 1 when a count differs from the card's.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import zoo
from zoo.cards import Card
from zoo.files import write_atomically
from zoo.weights import list_cards, load_for_card, weights_path

OUT = Path(__file__).resolve().parent / "results" / "evidence.jsonl"
CURVE = ("epoch", "train_loss", "valid_loss", "valid_top1")  # of a line of a run's log
DIGITS = 5  # that a curve needs


def main() -> int:
    """Gather curves, measure the confusions that are missing, and write after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--only", default="*", metavar="PATTERN", help="measure the confusions of these stems alone")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    cards = list_cards()
    lines = _known(options.out, cards)
    logs = dict(_logs(options.runs))
    for card in cards:
        if card.sha256 in logs:
            lines.setdefault(card.stem, _line(card))["epochs"] = curve(logs[card.sha256])
    _write(options.out, lines)
    status = 0
    for card in cards:
        if not fnmatchcase(card.stem, options.only) or "confusion" in lines.get(card.stem, {}):
            continue
        found = zoo.evaluate(load_for_card(card, weights_path(card)), zoo.load_dataset(card.dataset, "test"))
        print(f"{card.stem}: {found.correct:,} of {found.total:,} right", file=sys.stderr, flush=True)
        if (found.correct, found.total) != (card.correct, card.total):
            print(f"its card says {card.correct:,} of {card.total:,}; nothing is kept", file=sys.stderr, flush=True)
            status = 1
            continue
        lines.setdefault(card.stem, _line(card))["confusion"] = found.confusion.tolist()
        _write(options.out, lines)
    return status


def curve(epochs: Sequence[dict[str, Any]]) -> list[list[float | None]]:
    """Epoch, training loss, held-out loss and held-out top-1 (None where nothing was held out) of each epoch."""
    return [[None if line[name] is None else round(line[name], DIGITS) for name in CURVE] for line in epochs]


def _logs(folders: Sequence[Path]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The digest of the weights that a run ended with, and its epochs."""
    for log in (path for folder in folders for path in sorted(folder.rglob("log.jsonl"))):
        epochs = [json.loads(line) for line in log.read_text().splitlines()]
        for beside in log.parent.glob("*.json"):
            card = json.loads(beside.read_text())
            if "sha256" in card:
                yield card["sha256"], epochs


def _line(card: Card) -> dict[str, Any]:
    return {"weights": card.stem, "sha256": card.sha256, "correct": card.correct, "total": card.total}


def _known(path: Path, cards: Sequence[Card]) -> dict[str, dict[str, Any]]:
    """The lines about files that are still stored as they were, by stem."""
    stored = {card.stem: card.sha256 for card in cards}
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {line["weights"]: line for line in lines if stored.get(line["weights"]) == line["sha256"]}


def _write(path: Path, lines: dict[str, dict[str, Any]]) -> None:
    write_atomically(path, "".join(json.dumps(lines[stem]) + "\n" for stem in sorted(lines)))


if __name__ == "__main__":
    sys.exit(main())
