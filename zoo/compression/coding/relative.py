"""Sparse storage by relative index, as Deep Compression stores a pruned layer (arXiv:1510.00149, section 2).

Only the symbols that are not 0 are stored, each with its gap: the number of zeros skipped before it, in `width` bits.
Where a gap is too long, filler zeros are stored like symbols. Gaps and symbols are Huffman coded (section 4 there).

Payload: one byte, the width; the number of entries; the bytes of the gaps; the gaps; the symbols.
"""

import numpy as np

from zoo.compression.coding import huffman
from zoo.compression.coding.bits import read_varint, write_varint
from zoo.strict import RefusedError

WIDTHS = range(1, 17)


def gaps(symbols: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The entries that stand for symbols [n]: gaps of 0..2^width - 1 and values, int64 [m] both.

    A filler zero has the longest gap and the value 0. Zeros after the last value are not stored.
    """
    places = np.flatnonzero(symbols)
    skipped = np.diff(places, prepend=-1) - 1
    fillers = skipped >> width
    last = np.cumsum(fillers + 1) - 1
    total = int(last[-1]) + 1 if len(last) else 0
    found = np.full(total, (1 << width) - 1)
    values = np.zeros(total, np.int64)
    found[last] = skipped & ((1 << width) - 1)
    values[last] = symbols[places]
    return found, values


def encode(symbols: np.ndarray, alphabet: int) -> bytes:
    """Symbols [n] of 0..alphabet - 1 as the payload of the width that makes it smallest."""
    width = min(WIDTHS, key=lambda width: _estimate(*gaps(symbols, width)))
    found, values = gaps(symbols, width)
    coded = huffman.encode(found, 1 << width)
    lead = bytes([width]) + write_varint(len(found)) + write_varint(len(coded))
    return lead + coded + huffman.encode(values, alphabet)


def decode(data: bytes, count: int, alphabet: int) -> np.ndarray:
    """The int64 [count] that `encode` was given. Raises RefusedError for whatever does not fit exactly."""
    width = data[0] if data else 0
    if width not in WIDTHS:
        raise RefusedError(f"gaps of {width} bits")
    entries, at = read_varint(data, 1, count)
    coded, at = read_varint(data, at, len(data))
    found = huffman.decode(data[at : at + coded], entries, 1 << width)
    values = huffman.decode(data[at + coded :], entries, alphabet)
    places = np.cumsum(found + 1) - 1
    symbols = np.zeros(count, np.int64)
    if not entries:
        return symbols
    if places[-1] >= count or not values[-1]:
        raise RefusedError("the gaps lead past the end, or to a zero at the end")
    if (found[values == 0] != (1 << width) - 1).any():
        raise RefusedError("a filler zero has a gap that did not need it")
    symbols[places] = values
    return symbols


def index_bytes(data: bytes) -> int:
    """Bytes of a payload, already decoded once, that say where the symbols are; the others say which they are."""
    _, at = read_varint(data, 1, 1 << 62)
    coded, at = read_varint(data, at, len(data))
    return at + coded


def _estimate(found: np.ndarray, values: np.ndarray) -> int:
    """Bits of these entries' codes, and four for each code's place in its table."""
    streams = [np.unique(stream, return_counts=True)[1] for stream in (found, values)]
    return sum(huffman.coded_bits(counts) + 4 * len(counts) for counts in streams)
