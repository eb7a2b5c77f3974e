"""The table of a canonical Huffman code in few bits.

A canonical code is known by the lengths of its codes alone: codes count upwards, shorter ones first, and symbols of
one length in their order (RFC 1951, section 3.2.2). Written, symbol by symbol:

* 4 bits once: 0 where the symbols that occur are 0, 1, 2, ...; otherwise 1 + k, and each symbol is preceded by the
  number of symbols left out before it, as an exponential Golomb number of order k;
* the length: 5 bits for the first, then the difference from the one before (0, -1, 1, -2, ... as 0, 1, 2, 3, ... zero
  bits and a one bit).

A table ends where its codes fill the code space, so that no count is written and none can be wrong. The length 0 fills
it at once: the only symbol there is.
"""

from dataclasses import dataclass

import numpy as np

from zoo.strict import RefusedError

LONGEST = 16  # bits of a code
ALPHABET_LIMIT = 1 << LONGEST
_ORDERS = range(15)
_MOST_BITS = 80  # of one symbol's entry: 35 of a number left out, 33 of a difference


@dataclass(frozen=True)
class Table:
    """The symbols that occur, ascending, int64 [m], and the lengths of their codes, int64 [m]."""

    symbols: np.ndarray
    lengths: np.ndarray

    def canonical(self, longest: int) -> tuple[np.ndarray, np.ndarray]:
        """The order of the codes, [m], and how many words of `longest` bits begin with each, [m], in this order."""
        order = np.argsort(self.lengths, kind="stable")
        return order, 1 << (longest - self.lengths[order])

    def codes(self) -> np.ndarray:
        """The codes as numbers, int64 [m], in the order of the symbols."""
        order, spans = self.canonical(LONGEST)
        codes = np.zeros(len(order), np.int64)
        codes[order] = (np.cumsum(spans) - spans) >> (LONGEST - self.lengths[order])
        return codes


def write_table(table: Table) -> bytes:
    """The table, up to a whole byte."""
    gaps = np.diff(table.symbols, prepend=-1) - 1
    steps = np.diff(table.lengths)
    unary = ["", *("0" * int(step) + "1" for step in np.where(steps < 0, -2 * steps - 1, 2 * steps))]
    if gaps.any():
        order = min(_ORDERS, key=lambda k: int((2 * np.log2((gaps >> k) + 1).astype(int) + k).sum()))
        skipped = [_golomb(gap, order) for gap in gaps.tolist()]
    else:
        order, skipped = -1, [""] * len(gaps)
    first = f"{order + 1:04b}{skipped[0]}{int(table.lengths[0]):05b}"
    text = first + "".join(skip + step for skip, step in zip(skipped[1:], unary[1:], strict=True))
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def read_table(data: bytes, alphabet: int) -> tuple[Table, int]:
    """The table at the start of `data`, and the byte after it.

    Raises RefusedError where it is cut off, or its codes do not fill the code space exactly, or its symbols are not of
    0..alphabet - 1.
    """
    reader = _Reader(data[: 2 + alphabet * _MOST_BITS // 8])
    order = reader.number(4) - 1
    symbols: list[int] = []
    lengths: list[int] = []
    symbol, length, room = -1, 0, 1 << LONGEST
    while room:
        symbol += 1 + (reader.golomb(order) if order >= 0 else 0)
        if symbol >= alphabet:
            raise RefusedError("a code table names symbols outside the alphabet, or its codes leave a gap")
        length = length + reader.difference() if symbols else reader.number(5)
        if not min(1, len(symbols)) <= length <= LONGEST:
            raise RefusedError(f"a code table asks for a code of {length} bits")
        room -= 1 << (LONGEST - length)
        if room < 0:
            raise RefusedError("a code table has more codes than fit")
        symbols.append(symbol)
        lengths.append(length)
    return Table(np.array(symbols), np.array(lengths)), reader.whole_bytes()


def _golomb(value: int, order: int) -> str:
    head = f"{(value >> order) + 1:b}"
    tail = f"{value & (1 << order) - 1:0{order}b}" if order else ""
    return "0" * (len(head) - 1) + head + tail


class _Reader:
    """Reads numbers bit by bit from text of 0 and 1: one search finds where a run of zeros ends."""

    def __init__(self, data: bytes) -> None:
        self.text = f"{int.from_bytes(data, 'big'):0{8 * len(data)}b}" if data else ""
        self.at = 0

    def number(self, width: int) -> int:
        """The next `width` bits. Raises RefusedError at the end, as all of these do."""
        bits = self.text[self.at : self.at + width]
        if len(bits) < width:
            raise RefusedError("a code table is cut off")
        self.at += width
        return int(bits, 2) if width else 0

    def zeros(self) -> int:
        """The zeros before the next one bit, which is left to be read."""
        end = self.text.find("1", self.at, self.at + 2 * LONGEST + 2)
        if end < 0:
            raise RefusedError("a code table is cut off, or leaves code space unused")
        zeros = end - self.at
        self.at = end
        return zeros

    def golomb(self, order: int) -> int:
        """An exponential Golomb number."""
        head = self.number(self.zeros() + 1) - 1
        return head << order | self.number(order)

    def difference(self) -> int:
        """A signed number in unary."""
        zeros = self.zeros()
        self.at += 1
        return -(zeros + 1) // 2 if zeros % 2 else zeros // 2

    def whole_bytes(self) -> int:
        """The byte after the last bit read. Raises RefusedError where a bit between them is set."""
        end = (self.at + 7) // 8
        if "1" in self.text[self.at : 8 * end]:
            raise RefusedError("padding bits are set")
        return end
