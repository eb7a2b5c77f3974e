"""How near coders come to the entropy of real streams, and how fast they decode.

    python benchmarks/coding_bound.py [--files runs/deep_compression] [--rounds 5]

The streams are those of the files that benchmarks/deep_compression.py leaves, with the paper's densities and bits: for
each layer the codes of all weights, zeros included; the codes of the kept weights; and the gaps between them, of 5 bits
with fillers, as Deep Compression stores them (arXiv:1510.00149, section 3). Each stream is coded by itself and decoded
again. The bound is the entropy of the symbols' own counts, which takes no account of order: a coder that sees a
structure can stay below it. Bits are of whole payloads, tables included; speed is of the fastest round. Half a minute
on one core; writes results/coding_bound.jsonl.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments import Experiment, Result, conditions, distinct, matching

from zoo.compression import load_packed
from zoo.compression.coding import decode, encode, entropy_bits
from zoo.compression.coding.relative import gaps
from zoo.compression.treat import layers_of
from zoo.errors import FileFormatError
from zoo.report import Column, Table, exact_text
from zoo.report.tables import MISSING, Value

NETWORKS = ("lenet_300_100", "lenet5_caffe")
GAP_BITS = 5
STREAMS = {  # name -> coders
    "all codes": ("huffman", "range", "context"),
    "kept codes": ("huffman", "range"),
    "gaps": ("huffman", "range"),
}
CODERS = ("huffman", "range", "context")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 2 for wrong use."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=Path, default=Path("runs/deep_compression"), help="folder of packed files")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), help="whose NETWORK.paper.zpk is read")
    parser.add_argument("--rounds", type=int, default=5, help="of decoding")
    parser.add_argument("--out", type=Path, default=EXPERIMENT.results)
    options = parser.parse_args(arguments)
    return EXPERIMENT.run(options, lambda: measure(options.files, options.networks, options.rounds))


def measure(folder: Path, networks: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    """A line for each network, layer, stream and coder."""
    lines = []
    for network in networks:
        path = folder / f"{network}.paper.zpk"
        if not path.exists():
            raise FileFormatError(f"{path} is not there; `python benchmarks/deep_compression.py` writes it.")
        model, _ = load_packed(path)
        for name, layer in layers_of(model).items():
            for stream, (symbols, alphabet) in streams(layer.weight.detach().flatten(1).numpy()).items():
                for coder in STREAMS[stream]:
                    fields = {"network": network, "layer": name, "stream": stream, "coder": coder}
                    lines.append(fields | coded(symbols, alphabet, coder, rounds) | conditions())
    return lines


def streams(weight: np.ndarray) -> dict[str, tuple[np.ndarray, int]]:
    """(symbols, alphabet) of each stream of a weight [rows, columns] that has few different values."""
    book, codes = np.unique(weight, return_inverse=True)
    values = book[book != 0]
    codes = np.where(weight == 0, 0, 1 + np.searchsorted(values, weight))
    found, _ = gaps(codes.ravel(), GAP_BITS)
    return {
        "all codes": (codes, len(values) + 1),
        "kept codes": (codes[codes > 0] - 1, len(values)),
        "gaps": (found, 1 << GAP_BITS),
    }


def coded(symbols: np.ndarray, alphabet: int, coder: str, rounds: int) -> dict[str, Any]:
    """Bits of the bound and of the payload, and the seconds of the fastest decoding."""
    payload = encode(symbols, alphabet, coder)
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        again = decode(payload, symbols.shape, alphabet, coder)
        seconds.append(time.perf_counter() - began)
    assert np.array_equal(again, symbols), f"{coder} gives other symbols back"
    return {
        "symbols": symbols.size,
        "entropy_bits": entropy_bits(symbols.ravel()),
        "coded_bits": 8 * len(payload),
        "decode_seconds": min(seconds),
    }


def tables(results: Sequence[Result]) -> list[Table]:
    """A row a network and stream, all layers together: the bound, what each coder adds to it, and its speed."""
    columns = (
        Column("network", "network", right=False),
        Column("stream", "stream", right=False),
        Column("symbols", "symbols"),
        Column("entropy_bits", "entropy, bits a symbol"),
        *(Column(f"{coder}_overhead", f"{coder}: over it") for coder in CODERS),
        *(Column(f"{coder}_speed", f"{coder}: M symbols/s") for coder in CODERS),
    )
    values: list[tuple[Value, ...]] = []
    texts: list[tuple[str, ...]] = []
    for network, stream in product(distinct(results, "network"), STREAMS):
        by_coder = {c: matching(results, network=network, stream=stream, coder=c) for c in CODERS}
        some = by_coder["huffman"]
        symbols = _total(some, "symbols")
        bound = _total(some, "entropy_bits") / symbols
        overheads = [overhead(lines) if lines else None for lines in by_coder.values()]
        speeds = [speed(lines) if lines else None for lines in by_coder.values()]
        values.append((network, stream, int(symbols), bound, *overheads, *speeds))
        shown = [MISSING if share is None else f"{100 * share:+.2f} %" for share in overheads]
        fast = [MISSING if rate is None else f"{rate / 1e6:.1f}" for rate in speeds]
        texts.append((network, stream, exact_text(int(symbols)), f"{bound:.3f}", *shown, *fast))
    return [Table(columns, tuple(values), tuple(texts), name="coding_bound")]


def finding(results: Sequence[Result]) -> str:
    """What each coder adds to the bound over all streams, how far the worst is off, and the speeds."""
    words = []
    for coder in CODERS:
        lines = matching(results, coder=coder)
        whole = matching(lines, stream="all codes")
        words.append(f"{coder} {100 * overhead(whole):+.2f} % at {speed(whole) / 1e6:.1f} M symbols/s")
    huffman = matching(results, coder="huffman")
    worst = max((line["coded_bits"] - line["entropy_bits"]) / line["symbols"] for line in huffman)
    split = " and ".join(f"{100 * overhead(matching(huffman, stream=s)):.2f} % ({s})" for s in ("kept codes", "gaps"))
    two = _total([line for line in huffman if line["stream"] != "all codes"], "coded_bits")
    context = _total(matching(results, coder="context"), "coded_bits")
    return (
        f"Against the entropy of all codes, zeros included: {', '.join(words)}; Huffman is at most {worst:.2f} bits a "
        f"symbol above the entropy of any stream, and over that of the two streams that Deep Compression stores by "
        f"{split}; the context coder takes {100 * (1 - context / two):.1f} % less than these two Huffman coded."
    )


def overhead(lines: Sequence[Result]) -> float:
    """Coded bits over the bound, less one."""
    return _total(lines, "coded_bits") / _total(lines, "entropy_bits") - 1


def speed(lines: Sequence[Result]) -> float:
    """Symbols decoded a second."""
    return _total(lines, "symbols") / _total(lines, "decode_seconds")


def _total(lines: Sequence[Result], field: str) -> float:
    return float(sum(line[field] for line in lines))


EXPERIMENT = Experiment("coding_bound", ("network", "layer", "stream", "coder"), tables, finding)

if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
