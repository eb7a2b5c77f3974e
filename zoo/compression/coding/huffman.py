"""Canonical Huffman coding of our own, with codes of at most 16 bits and decoding by table look-up on vectors.

Payload: the code table, the lengths of the lanes, the lanes' bits one after another, zero bits up to a whole byte.

Lanes make decoding fast: symbol j belongs to lane j mod L, and the lanes are decoded in step, one numpy operation for
all. L follows from the number of symbols and the table (`_lanes`), such that a lane's length, about 10 bits, is less
than 0.1 % of the lane. A short stream has one lane and no lengths.
"""

from dataclasses import dataclass

import numpy as np

from zoo.compression.coding.bits import check_padding, pack, read_varint, unpack, width_of, write_varint
from zoo.compression.coding.table import LONGEST, Table, read_table, write_table
from zoo.strict import RefusedError

LANE_BITS = 12288  # mean bits of a lane
FEWEST_LANES = 24  # a step of numpy costs about as much as 24 steps of Python, so fewer lanes would not pay
_CHUNK = 1 << 20  # symbols whose bits are set at a time


def entropy_bits(symbols: np.ndarray) -> float:
    """Bits that an ideal coder spends on symbols [n] that it knows only the counts of: n times the entropy."""
    counts = np.unique(symbols, return_counts=True)[1]
    return float(-(counts * np.log2(counts / max(1, symbols.size))).sum()) + 0.0


def code_lengths(counts: np.ndarray) -> np.ndarray:
    """The length of each symbol's code, int64 [alphabet], from how often it occurs, [alphabet].

    At most 16 bits, and the fewest in all under this limit. A symbol that does not occur has length 0, and so has the
    only one that does. At most 65,536 symbols may occur.

    By package-merge (Larmore and Hirschberg, Journal of the ACM 37, 1990).
    """
    used = np.flatnonzero(counts)
    lengths = np.zeros(len(counts), np.int64)
    if len(used) < 2:
        return lengths
    order = used[np.argsort(counts[used], kind="stable")]
    weights = counts[order].astype(np.int64)
    merged, levels = weights, [np.ones(len(weights), bool)]
    for _ in range(LONGEST - 1):
        even = len(merged) // 2 * 2
        both = np.concatenate([weights, merged[0:even:2] + merged[1:even:2]])
        by_weight = np.argsort(both, kind="stable")
        merged = both[by_weight]
        levels.append(by_weight < len(weights))
    taken = 2 * len(weights) - 2
    for is_symbol in reversed(levels):
        symbols = int(is_symbol[:taken].sum())
        lengths[order[:symbols]] += 1
        taken = 2 * (taken - symbols)
    return lengths


def coded_bits(counts: np.ndarray) -> int:
    """Bits of the codes of symbols that occur `counts` [alphabet] times, without the table."""
    return int((counts * code_lengths(counts)).sum())


def encode(symbols: np.ndarray, alphabet: int) -> bytes:
    """Symbols [n] of 0..alphabet - 1 as a payload; none give none."""
    if not len(symbols):
        return b""
    counts = np.bincount(symbols, minlength=alphabet)
    used = np.flatnonzero(counts)
    table = Table(used, code_lengths(counts)[used])
    lengths, codes = np.zeros((2, alphabet), np.int64)
    lengths[used], codes[used] = table.lengths, table.codes()
    lanes = _lanes(len(symbols), table)
    ordered = _by_lane(symbols, lanes)
    ends = np.cumsum(lengths[ordered])
    payload = write_table(table)
    if lanes > 1:
        lane_ends = ends[np.cumsum(_lane_counts(len(symbols), lanes)) - 1]
        payload += _write_lengths(np.diff(lane_ends, prepend=0))
    return payload + _write_bits(codes[ordered], lengths[ordered], ends)


def decode(data: bytes, count: int, alphabet: int) -> np.ndarray:
    """The int64 [count] that `encode` was given. Raises RefusedError for whatever does not fit exactly."""
    if not count:
        if data:
            raise RefusedError(f"{len(data)} bytes follow, though there is nothing to code")
        return np.zeros(0, np.int64)
    table, at = read_table(data, alphabet)
    longest = int(table.lengths.max())
    if not longest:
        if len(data) > at:
            raise RefusedError(f"{len(data) - at} bytes follow a code of no bits")
        return np.full(count, table.symbols[0])
    lanes = _lanes(count, table)
    lengths = np.zeros(1, np.int64)
    if lanes > 1:
        lengths, at = _read_lengths(data, at, lanes)
    stream = data[at:]
    if len(stream) > (count * longest + 7) // 8:
        raise RefusedError(f"{len(stream)} bytes of codes are more than {count} symbols can have")
    starts = np.cumsum(lengths) - lengths
    symbols, ends = (
        _LookUp(table, stream).in_step(count, starts) if lanes > 1 else _LookUp(table, stream).in_turn(count)
    )
    if (ends[:-1] != starts[1:]).any() or (lanes > 1 and ends[-1] != lengths.sum()):
        raise RefusedError("the lengths of the lanes do not add up")
    if (int(ends[-1]) + 7) // 8 != len(stream):
        raise RefusedError(f"{len(stream)} bytes of codes do not hold {count} symbols")
    check_padding(stream, int(ends[-1]))
    return symbols


def _lanes(count: int, table: Table) -> int:
    """How many lanes: such that each has about LANE_BITS bits where symbols occur as their codes' lengths suggest."""
    mean = int((table.lengths << (LONGEST - table.lengths)).sum())  # of the lengths, times 2^16
    lanes = (count * mean >> LONGEST) // LANE_BITS
    return lanes if lanes >= FEWEST_LANES else 1


def _lane_counts(count: int, lanes: int) -> np.ndarray:
    return (count - 1 - np.arange(lanes)) // lanes + 1


def _by_lane(symbols: np.ndarray, lanes: int) -> np.ndarray:
    return symbols if lanes == 1 else np.concatenate([symbols[lane::lanes] for lane in range(lanes)])


def _write_lengths(lengths: np.ndarray) -> bytes:
    least = int(lengths.min())
    width = width_of(int(lengths.max()) - least + 1)
    return write_varint(least) + bytes([width]) + pack(lengths - least, width)


def _read_lengths(data: bytes, at: int, lanes: int) -> tuple[np.ndarray, int]:
    least, at = read_varint(data, at, 8 * len(data))
    width = data[at] if at < len(data) else 255
    if width > width_of(8 * len(data)):
        raise RefusedError("the lengths of the lanes are cut off, or wider than the payload")
    end = at + 1 + (lanes * width + 7) // 8
    return unpack(data[at + 1 : end], lanes, width) + least, end


def _write_bits(codes: np.ndarray, lengths: np.ndarray, ends: np.ndarray) -> bytes:
    bits = np.zeros(int(ends[-1]), np.uint8)
    for start in range(0, len(codes), _CHUNK):
        code, length, end = (part[start : start + _CHUNK] for part in (codes, lengths, ends))
        for place in range(int(length.max())):  # from the last bit of each code to its first
            has = length > place
            bits[end[has] - 1 - place] = code[has] >> place & 1
    return np.packbits(bits).tobytes()


@dataclass(frozen=True)
class _LookUp:
    """Decoding by one look-up a symbol: the next bits of the stream name the symbol and the length of its code."""

    table: Table
    stream: bytes

    def _entries(self) -> tuple[np.ndarray, np.ndarray, int]:
        """For each value of the next `longest` bits symbol * 32 + length; the 24 bits from each byte on; longest."""
        longest = int(self.table.lengths.max())
        order, spans = self.table.canonical(longest)
        entries = np.repeat(self.table.symbols[order] << 5 | self.table.lengths[order], spans)
        padded = np.frombuffer(self.stream + bytes(3), np.uint8).astype(np.int32)
        return entries, padded[:-2] << 16 | padded[1:-1] << 8 | padded[2:], longest

    def in_turn(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Decode `count` symbols of one lane, one after another: the symbols int64 [n] and the bit they end at, [1]."""
        entries, words, longest = self._entries()
        table, word, last = entries.tolist(), words.tolist(), len(words) - 1
        at, shift, mask = 0, 24 - longest, (1 << longest) - 1
        found = []
        for _ in range(count):
            byte = at >> 3
            entry = table[word[byte if byte < last else last] >> (shift - (at & 7)) & mask]
            found.append(entry)
            at += entry & 31
        return np.array(found) >> 5, np.array([at])

    def in_step(self, count: int, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Decode `count` symbols of the lanes that start at these bits, all in step; and each lane's end."""
        entries, words, longest = self._entries()
        lanes, shift, mask = len(starts), 24 - longest, (1 << longest) - 1
        symbols, at = np.zeros(count, np.int64), starts.copy()
        for first in range(0, count, lanes):
            place = at[: count - first]  # in the last step some lanes are done
            window = words.take(place >> 3, mode="clip") >> (shift - (place & 7)) & mask
            entry = symbols[first : first + lanes]
            entries.take(window, out=entry, mode="clip")
            place += entry & 31
        symbols >>= 5
        return symbols, at
