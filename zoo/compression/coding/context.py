"""Context coding of the zeros of a matrix: what is zero is foretold from rows, columns and neighbours, then coded.

The matrix is walked column by column (or row by row, whichever comes out smaller). Each step codes the zero-or-not bits
of some rows of a column, each bit with a probability of its own: a mixture of what several contexts promise, as the
context-mixing compressors of the PAQ family have it (Mahoney, "Adaptive weighing of context models for lossless data
compression", 2005), here on vectors. All is learnt from the bits already coded, so that nothing but bits is stored. The
arithmetic is of whole numbers throughout, the same on every machine. The symbols that are not zero follow, coded as
"range" codes them.

Payload: one byte, the way walked (1: row by row) plus twice the prior; one byte, the lag; the words of the coder. The
lag is how many columns back a second neighbour is looked for: the width of an image, or of a kernel.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator

import numpy as np

from zoo.compression.coding import ranged
from zoo.strict import RefusedError

LAGS = range(2, 65)
MOST_STEPS = 4096  # of a walk: in a longer one a step takes several columns, so that time is bounded
_MOST_PARTS = 4  # of a step, where time allows it: later rows of a column are foretold from earlier ones
_FEWEST_ROWS = 32  # of a part
_MOST_ROWS = 1 << 16  # of a part: bounds the memory
_ONE = 1 << 16  # a probability of 1
_UNIT = 256  # 1 in the logistic domain
_FAR = 11 * _UNIT  # as sure as a probability gets: 1 in 60,000
_WEIGHT = 1 << 16  # a weight of 1 in the mixture
_RATE = 10  # the inverse of the rate at which weights are learnt
_SQUASH = np.array([round(_ONE / (1 + math.exp(-x / _UNIT))) for x in range(-_FAR, _FAR + 1)])
_STRETCH = np.array([round(_UNIT * math.log((p + 0.5) / (4095.5 - p))) for p in range(4096)])
_BOUNDS = [3 * _ONE >> shift for shift in range(11, 3, -1)]  # of the classes of density
_SHARES = np.array(_BOUNDS)
_CLASSES = len(_BOUNDS) + 1
_NEAR = _CLASSES * np.array([1, 2, 4, 8, 16])  # what each of five neighbours counts
_SIZES = (_CLASSES**2, 32 * _CLASSES, _CLASSES**2, _CLASSES**3, 32 * _CLASSES)  # how many contexts there are of a kind
_OFFSETS = [sum(_SIZES[:kind]) for kind in range(len(_SIZES))]
_CONTEXTS = sum(_SIZES)


def encode(matrix: np.ndarray, alphabet: int) -> bytes:
    """Symbols [rows, columns] of 0..alphabet - 1, at least two letters, as a payload. Raises MissingPackageError."""
    return min((_encode(matrix, alphabet, by_row) for by_row in (0, 1)), key=len)


def decode(data: bytes, rows: int, columns: int, alphabet: int) -> np.ndarray:
    """The int64 [rows, columns] that `encode` was given.

    Raises RefusedError for whatever does not fit exactly, MissingPackageError.
    """
    prior, by_row = divmod(data[0], 2) if data else (len(ranged.PRIORS), 0)
    lag = data[1] if len(data) > 1 else 0
    height, width = (columns, rows) if by_row else (rows, columns)
    walk = _Walk(height, width)
    if prior >= len(ranged.PRIORS) or lag not in walk.lags():
        raise RefusedError("a context code without a known prior and lag")
    coder, bernoulli = ranged.new_coder(data[2:]), ranged.bernoulli()
    walked = np.zeros(height * width, np.int64)
    mixture = _Mixture(walk.rows, walk.steps, lag)
    for step, start, stop in walk.parts():
        bits = coder.decode(bernoulli, mixture.foretell(step, start, stop) / _ONE)
        mixture.learn(bits)
        walked[step * walk.rows + start : step * walk.rows + stop] = bits
    kept = np.flatnonzero(walked)
    if alphabet > 2:
        walked[kept] += ranged.pop(coder, len(kept), alphabet - 1, prior)
    elif prior:
        raise RefusedError("a context code has a prior for a single letter")
    ranged.check_empty(coder)
    matrix = walked.reshape(width, height)
    return matrix if by_row else matrix.T


def _encode(matrix: np.ndarray, alphabet: int, by_row: int) -> bytes:
    height, width = matrix.shape[::-1] if by_row else matrix.shape
    walked = (matrix if by_row else matrix.T).ravel()
    walk = _Walk(height, width)
    ones = (walked != 0).astype(np.int32)
    lag = _best_lag(ones, walk)
    mixture = _Mixture(walk.rows, walk.steps, lag)
    foretold = []
    for step, start, stop in walk.parts():
        foretold.append(mixture.foretell(step, start, stop))
        mixture.learn(ones[step * walk.rows + start : step * walk.rows + stop])
    coder, prior = ranged.new_coder(b""), 0
    if alphabet > 2:
        kept = walked[walked > 0] - 1
        prior = ranged.best_prior(kept, alphabet - 1)
        ranged.push(coder, kept, alphabet - 1, prior)
    coder.encode_reverse(ones, ranged.bernoulli(), np.concatenate(foretold) / _ONE)
    return bytes([2 * prior + by_row, lag]) + ranged.coded_bytes(coder)


def _best_lag(ones: np.ndarray, walk: "_Walk") -> int:
    """The distance at which bits of one row agree most often."""
    centred = ones - ones.mean()
    shifts = {lag: lag * walk.rows for lag in walk.lags()}
    return max(shifts, key=lambda lag: float(centred[shifts[lag] :] @ centred[: max(0, len(ones) - shifts[lag])]))


class _Walk:
    """The order of the bits of a matrix [height, width]: in steps of one column, or of several where it is wide."""

    def __init__(self, height: int, width: int) -> None:
        self.count = height * width
        self.rows = height * -(-width // MOST_STEPS)
        self.steps = -(-self.count // self.rows)

    def lags(self) -> range:
        """The lags that there may be: none beyond the walk, but for the least."""
        return range(LAGS.start, min(LAGS.stop, max(self.steps, LAGS.start + 1)))

    def parts(self) -> Iterator[tuple[int, int, int]]:
        """Step, first row and the row after the last, of one part after another."""
        parts = min(_MOST_PARTS, self.rows // _FEWEST_ROWS, MOST_STEPS // self.steps)
        size = min(-(-self.rows // max(1, parts)), _MOST_ROWS)
        for step in range(self.steps):
            rows = min(self.rows, self.count - step * self.rows)
            for start in range(0, rows, size):
                yield step, start, min(rows, start + size)


class _Mixture:
    """Foretells the bits of a walk of `steps` columns of `rows` bits, and learns from them.

    A network takes thousands of steps on small vectors: what counts is how many calls of numpy a step makes.
    """

    def __init__(self, rows: int, steps: int, lag: int) -> None:
        self.lag = lag
        self.past = np.zeros((lag + 1 + steps, rows), np.int64)  # the bits, after columns of zeros before the first
        self.shares = [0] * (lag + 1 + steps)  # of ones in each column
        self.row_ones = np.zeros(rows, np.int64)
        self.coded = self.ones = self.column_ones = 0
        self.context_seen, self.context_ones = np.zeros((2, _CONTEXTS), np.int64)
        self.weights = np.full(1 + len(_OFFSETS), _WEIGHT * 2 // (1 + len(_OFFSETS)))
        self.contexts = np.zeros((0, 0), np.int64)

    def foretell(self, step: int, start: int, stop: int) -> np.ndarray:
        """The probabilities of ones in rows start..stop of column `step`, in 2^-16ths, int64 [rows]."""
        self.step, self.start, self.stop = step + self.lag + 1, start, stop
        before = (4 * self.ones + 1) * _ONE // (4 * self.coded + 16)
        contexts = self._contexts(before)
        chances = np.empty((1 + len(contexts), stop - start), np.int64)
        np.floor_divide(_ONE * self.row_ones[start:stop] + 2 * before, step + 2, out=chances[0])
        ones = _ONE * self.context_ones.take(contexts) + 2 * before
        np.floor_divide(ones, self.context_seen.take(contexts) + 2, out=chances[1:])
        self.stretched = _STRETCH.take(chances >> 4)
        mixed = self.weights.dot(self.stretched) // _WEIGHT
        foretold: np.ndarray = _SQUASH.take(mixed + _FAR, mode="clip")
        self.foretold = foretold
        return foretold

    def learn(self, bits: np.ndarray) -> None:
        """Take in the bits that were foretold last."""
        wrong = bits * _ONE - self.foretold
        self.weights += self.stretched.dot(wrong) // (_RATE * _UNIT * len(bits))
        zeros, ones = np.bincount((self.contexts + _CONTEXTS * bits).ravel(), minlength=2 * _CONTEXTS).reshape(2, -1)
        self.context_seen += zeros
        self.context_seen += ones
        self.context_ones += ones
        self.past[self.step, self.start : self.stop] = bits
        self.row_ones[self.start : self.stop] += bits
        ones_now = int(np.count_nonzero(bits))
        self.column_ones = ones_now + (self.column_ones if self.start else 0)
        self.shares[self.step] = self.column_ones * _ONE // self.stop
        self.coded += len(bits)
        self.ones += ones_now

    def _contexts(self, before: int) -> np.ndarray:
        """What is known of each row, as places in the counts of all contexts, int64 [len(_OFFSETS), rows]."""
        step, lag, part = self.step, self.lag, slice(self.start, self.stop)
        near = _NEAR.dot(self.past[[step - 1, step - lag, step - lag + 1, step - lag - 1, step - 2], part])
        seen = step - lag - 1 + 4
        row = (_SHARES * seen).searchsorted(_ONE * self.row_ones[part] + 4 * before, side="right")
        last, lagged = self.shares[step - 1], self.shares[step - lag]
        here = (self.shares[step] * self.start + 8 * (last + lagged)) // (self.start + 16)
        column, left, up = (bisect_right(_BOUNDS, share) for share in (here, last, lagged))
        if self.contexts.shape[1] != len(row):
            self.contexts = np.empty((len(_OFFSETS), len(row)), np.int64)
        contexts = self.contexts
        contexts[0] = _OFFSETS[0] + column * _CLASSES + up
        np.add(near, row + _OFFSETS[1], out=contexts[1])
        np.add(row * _CLASSES, _OFFSETS[2] + column, out=contexts[2])
        np.add(row, _OFFSETS[3] + (left * _CLASSES + up) * _CLASSES, out=contexts[3])
        np.add(near, _OFFSETS[4] + column, out=contexts[4])
        return contexts
