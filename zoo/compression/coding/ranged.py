"""Range coding by asymmetric numeral systems (ANS, arXiv:1311.2540), by the library constriction.

The model adapts: symbols are coded in blocks, each with the counts of all before it, so that no table is stored. The
blocks grow with what is known, by an eighth, and a block is one call of the library. All counts are whole numbers far
below 2^53, and constriction's model is asked for with `perfect=False`: sums, one division and products in IEEE double
precision, which give the same bits on every machine.

Payload of "range": one byte, the prior; the words of the coder, the lowest byte first, without the zeros at their end.
Such a code wastes nothing: nearly every payload stands for some symbols, so that only a digest tells a damaged one.
"""

from typing import Any

import numpy as np

from zoo.errors import MissingPackageError
from zoo.strict import RefusedError

_ONCE = 1 << 14  # one occurrence
PRIORS = (
    16384,
    8192,
    4096,
    1024,
    256,
    16,
    1,
)  # of `_ONCE`, for every letter: many letters, few of them used, ask for less


def encode(symbols: np.ndarray, alphabet: int) -> bytes:
    """Symbols [n] of 0..alphabet - 1, at least two letters, as a payload. Raises MissingPackageError."""
    prior = best_prior(symbols, alphabet)
    coder = new_coder(b"")
    push(coder, symbols, alphabet, prior)
    return bytes([prior]) + coded_bytes(coder)


def decode(data: bytes, count: int, alphabet: int) -> np.ndarray:
    """The int64 [count] that `encode` was given. Raises RefusedError for whatever does not fit, MissingPackageError."""
    if not data or data[0] >= len(PRIORS):
        raise RefusedError("a range code without a known prior")
    coder = new_coder(data[1:])
    symbols = pop(coder, count, alphabet, data[0])
    check_empty(coder)
    return symbols


def new_coder(data: bytes) -> Any:
    """An ANS coder of constriction with these bytes on its stack. Raises RefusedError, MissingPackageError."""
    if data and not data[-1]:
        raise RefusedError("a range code ends in a zero byte")
    words = np.frombuffer(data + bytes(-len(data) % 4), "<u4").astype(np.uint32)
    return _constriction().stack.AnsCoder(words)


def coded_bytes(coder: Any) -> bytes:
    """What is on the stack of a coder: whole words, the lowest byte first, without the zero bytes at the end."""
    data: bytes = coder.get_compressed().astype("<u4").tobytes()
    return data.rstrip(b"\0")


def check_empty(coder: Any) -> None:
    """Raises RefusedError where a coder has not used up exactly what it was given."""
    if not coder.is_empty():
        raise RefusedError("a range code holds more, or other, than the symbols asked for")


def bernoulli() -> Any:
    """The family of models of single bits, to be given their probabilities of a one."""
    return _constriction().model.Bernoulli(perfect=False)


def best_prior(symbols: np.ndarray, alphabet: int) -> int:
    """The index of the prior with which symbols [n] take the fewest bits."""
    counts = np.zeros(alphabet, np.int64)
    bits = np.zeros(len(PRIORS))
    for start, stop in _blocks(len(symbols)):
        now = np.bincount(symbols[start:stop], minlength=alphabet)
        seen = np.flatnonzero(now)
        for index, prior in enumerate(PRIORS):
            share = (_ONCE * counts[seen] + prior) / (_ONCE * start + prior * alphabet)
            bits[index] -= now[seen] @ np.log2(share)
        counts += now
    return int(np.argmin(bits))


def push(coder: Any, symbols: np.ndarray, alphabet: int, prior: int) -> None:
    """Put symbols [n] on the stack, the last first, so that `pop` takes them off in their order."""
    counts = np.bincount(symbols, minlength=alphabet)
    letters = symbols.astype(np.int32)
    for start, stop in reversed(_blocks(len(symbols))):
        counts = counts - np.bincount(symbols[start:stop], minlength=alphabet)
        coder.encode_reverse(letters[start:stop], _model(counts, prior))


def pop(coder: Any, count: int, alphabet: int, prior: int) -> np.ndarray:
    """Take `count` symbols off the stack, int64 [count]."""
    counts = np.zeros(alphabet, np.int64)
    symbols = np.zeros(count, np.int64)
    for start, stop in _blocks(count):
        symbols[start:stop] = coder.decode(_model(counts, prior), stop - start)
        counts += np.bincount(symbols[start:stop], minlength=alphabet)
    return symbols


def _blocks(count: int) -> list[tuple[int, int]]:
    blocks, start = [], 0
    while start < count:
        stop = min(count, start + max(1, start // 8))
        blocks.append((start, stop))
        start = stop
    return blocks


def _model(counts: np.ndarray, prior: int) -> Any:
    return _constriction().model.Categorical((_ONCE * counts + PRIORS[prior]).astype(np.float64), perfect=False)


def _constriction() -> Any:
    try:
        import constriction
    except ImportError:
        raise MissingPackageError(
            "the coders 'range' and 'context' need constriction; run `pip install 'zoo[coding]'`."
        ) from None
    return constriction.stream
