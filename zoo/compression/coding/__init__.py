"""Coding: whole numbers to the fewest bytes and back, exactly.

| coder | what it is |
|---|---|
| fixed | ceil(log2(alphabet)) bits a symbol |
| huffman | canonical Huffman |
| relative | Deep Compression's sparse storage: gaps and kept symbols, each Huffman coded |
| range | adaptive range coding, for any distribution within a percent of its entropy |
| context | zeros by rows, columns and neighbours, then the kept symbols by range coding; for masks with a structure |

A payload is read with the shape, the alphabet and the coder that it was written with. Reading takes memory in
proportion to the shape and to the payload, whatever the bytes are.
"""

import math
from importlib.util import find_spec

import numpy as np

from zoo.compression.coding import bits, context, huffman, ranged, relative
from zoo.compression.coding.huffman import code_lengths, entropy_bits
from zoo.compression.coding.table import ALPHABET_LIMIT
from zoo.errors import CompressionError, unknown
from zoo.strict import RefusedError

__all__ = ["CODERS", "CONTEXT_LIMIT", "best", "code_lengths", "decode", "encode", "entropy_bits"]

CODERS = ("fixed", "huffman", "relative", "range", "context")
CONTEXT_LIMIT = 1 << 20  # symbols: `best` leaves larger arrays to faster coders; this many take about a second to read
CONTEXT_SHARE = 0.98  # of the next smallest payload: above it "context" does not earn the time of reading it
_NEED_CONSTRICTION = ("range", "context")


def encode(symbols: np.ndarray, alphabet: int, coder: str) -> bytes:
    """Symbols of 0..alphabet - 1 as the payload of one of CODERS.

    symbols: whole numbers [n] or [rows, columns]; "context" takes [n] as one row. 0 is the symbol of a pruned weight.
    alphabet: at most 65,536 letters; "fixed" takes up to 2^32.
    Raises CompressionError for symbols outside the alphabet, UnknownNameError, MissingPackageError.
    """
    _check_coder(coder)
    if not 1 <= alphabet <= _limit(coder):
        raise CompressionError(f"the coder {coder!r} takes 1 to {_limit(coder)} different symbols, not {alphabet}.")
    if symbols.ndim not in (1, 2) or symbols.dtype.kind not in "iu":
        raise CompressionError(f"symbols are whole numbers in a row or a matrix, not {symbols.dtype} {symbols.shape}.")
    if symbols.size and not 0 <= int(symbols.min()) <= int(symbols.max()) < alphabet:
        raise CompressionError(f"symbols go from {symbols.min()} to {symbols.max()}, not from 0 to {alphabet - 1}.")
    if not symbols.size or alphabet == 1:
        return b""
    matrix = np.atleast_2d(symbols.astype(np.int64))
    flat = matrix.ravel()
    if coder == "fixed":
        return bits.pack(flat, bits.width_of(alphabet))
    if coder == "huffman":
        return huffman.encode(flat, alphabet)
    if coder == "relative":
        return relative.encode(flat, alphabet)
    return ranged.encode(flat, alphabet) if coder == "range" else context.encode(matrix, alphabet)


def decode(data: bytes, shape: tuple[int, ...], alphabet: int, coder: str) -> np.ndarray:
    """The int64 symbols of this shape that `encode` was given.

    shape: as written, or of more dimensions, where the first is the rows of what was written.
    Raises RefusedError for bytes that do not fit exactly, UnknownNameError, MissingPackageError.
    """
    _check_coder(coder)
    if not 1 <= alphabet <= _limit(coder):
        raise RefusedError(f"an alphabet of {alphabet} symbols")
    count = math.prod(shape)
    if not count or alphabet == 1:
        if data:
            raise RefusedError(f"{len(data)} bytes follow, though there is nothing to code")
        return np.zeros(shape, np.int64)
    if coder == "fixed":
        symbols = bits.unpack(data, count, bits.width_of(alphabet))
        if int(symbols.max()) >= alphabet:
            raise RefusedError(f"the symbol {int(symbols.max())} of an alphabet of {alphabet}")
    elif coder == "huffman":
        symbols = huffman.decode(data, count, alphabet)
    elif coder == "relative":
        symbols = relative.decode(data, count, alphabet)
    elif coder == "range":
        symbols = ranged.decode(data, count, alphabet)
    else:
        rows = shape[0] if len(shape) > 1 else 1
        symbols = context.decode(data, rows, count // rows, alphabet)
    return np.ascontiguousarray(symbols).reshape(shape)


def best(symbols: np.ndarray, alphabet: int, coders: tuple[str, ...] = CODERS) -> tuple[str, bytes]:
    """The coder, of `coders`, with the smallest payload, and the payload; the earlier one where two are equal.

    Left out are coders that cannot take the alphabet, those whose package is not installed, and "context" for rows,
    for more than CONTEXT_LIMIT symbols, and where it saves next to nothing (CONTEXT_SHARE). Raises CompressionError
    where none is left, and as `encode`.
    """
    for coder in coders:
        _check_coder(coder)
    fit = [coder for coder in coders if alphabet <= _limit(coder)]
    if symbols.ndim != 2 or symbols.size > CONTEXT_LIMIT:
        fit = [coder for coder in fit if coder != "context"]
    if find_spec("constriction") is None:
        fit = [coder for coder in fit if coder not in _NEED_CONSTRICTION]
    if not fit:
        raise CompressionError(
            f"none of {', '.join(coders) or 'no coders'} takes {alphabet} different symbols in shape {symbols.shape}."
        )
    payloads = {coder: encode(symbols, alphabet, coder) for coder in fit}
    by_size = sorted(payloads, key=lambda coder: len(payloads[coder]))
    if by_size[0] == "context" and len(by_size) > 1:
        slow, next_best = (len(payloads[coder]) for coder in by_size[:2])
        by_size = by_size[slow > CONTEXT_SHARE * next_best :]
    return by_size[0], payloads[by_size[0]]


def _limit(coder: str) -> int:
    return 1 << bits.WIDEST if coder == "fixed" else ALPHABET_LIMIT


def _check_coder(coder: str) -> None:
    if coder not in CODERS:
        raise unknown("coder", coder, CODERS)
