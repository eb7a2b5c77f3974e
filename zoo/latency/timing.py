"""Sides that alternate, the ratios of their rounds, and what the machine did meanwhile."""

import math
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

Act = Callable[[], object]

BLOCK_SECONDS = 0.02
LEVEL = 0.99
LEAST_ROUNDS = 8  # fewer have no interval of that level
LEAST_SHARE = 0.95  # of the wall's time that a process with one thread has its core, on a quiet machine
LARGEST_KEPT = 31 << 20  # bytes; below it malloc's own threshold follows what was freed, and so does the speed
MOST_OTHERS = 0.2  # cores that other processes keep busy on a quiet machine


@dataclass(frozen=True)
class Interval:
    """A median of ratios, and the bounds of its true value."""

    median: float
    low: float
    high: float

    @property
    def tied(self) -> bool:
        """Whether the two sides cannot be told apart."""
        return self.low <= 1 <= self.high


@dataclass(frozen=True)
class Timing:
    """Seconds of one call of every side, a figure a round: those of one round belong together.

    clock: "processor" or "wall". cpu_share: processor time of the process over the wall's, in all rounds.
    others: cores that other processes kept busy meanwhile; None where the system does not tell.
    """

    seconds: Mapping[str, tuple[float, ...]]
    threads: int
    clock: str
    cpu_share: float
    others: float | None

    @property
    def busy(self) -> bool:
        """Whether the machine did other things besides."""
        waited = self.threads == 1 and self.cpu_share < LEAST_SHARE
        return waited or (self.others is not None and self.others > MOST_OTHERS)

    def median(self, side: str) -> float:
        """Seconds of one call."""
        return statistics.median(self.seconds[side])

    def ratio(self, side: str, reference: str) -> Interval:
        """Time of a side over that of another: above 1 it is slower."""
        return paired(self.seconds[side], self.seconds[reference])


def paired(times: Sequence[float], reference: Sequence[float]) -> Interval:
    """The median of ratios, round by round, with its interval."""
    return median_interval([time / base for time, base in zip(times, reference, strict=True)])


def median_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """The median and the innermost order statistics between which the true one lies with at least this confidence.

    Fewer values than that takes (8 for 99 %) give the lowest and the highest.
    """
    ordered = sorted(values)
    count = len(ordered)
    outside, rank = 0.0, 0  # the chance that at most `rank` of the values lie below the true median
    while rank < (count - 1) // 2:
        outside += math.comb(count, rank) / 2**count
        if 2 * outside > 1 - level:
            break
        rank += 1
    lowest = max(rank - 1, 0)
    return Interval(statistics.median(ordered), ordered[lowest], ordered[count - 1 - lowest])


def interleaved(
    sides: Mapping[str, Act],
    rounds: int,
    *,
    threads: int = 1,
    block_seconds: float = BLOCK_SECONDS,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
) -> Timing:
    """Time calls of all sides against one another, without gradients.

    A block is one call that does not count, for the caches that the side before has filled, and then calls for about
    `block_seconds`. seed: of the order. say: is told how far it is, about every ten seconds.
    """
    clock = time.process_time if threads == 1 else time.perf_counter
    found: dict[str, list[float]] = {name: [] for name in sides}
    order, chance = list(sides), random.Random(seed)
    torch.empty(LARGEST_KEPT, dtype=torch.uint8)  # freed at once: from here on glibc's malloc keeps what is freed
    with threads_set(threads), torch.inference_mode():
        calls = {name: _calls_a_block(act, clock, block_seconds) for name, act in sides.items()}
        machine = _Machine()
        told = time.monotonic()
        for number in range(rounds):
            chance.shuffle(order)
            for name in order:
                found[name].append(_block(sides[name], calls[name], clock))
            if say is not None and time.monotonic() - told > 10:
                told = time.monotonic()
                say(f"round {number + 1} of {rounds}")
        cpu_share, others = machine.load()
    seconds = {name: tuple(figures) for name, figures in found.items()}
    return Timing(seconds, threads, "processor" if threads == 1 else "wall", cpu_share, others)


def _block(act: Act, calls: int, clock: Callable[[], float]) -> float:
    act()
    start = clock()
    for _ in range(calls):
        act()
    return (clock() - start) / calls


def _calls_a_block(act: Act, clock: Callable[[], float], block_seconds: float) -> int:
    """How many calls fill a block; they warm everything up too."""
    act()
    return max(1, round(block_seconds / max(_block(act, 2, clock), 1e-6)))


@contextmanager
def threads_set(count: int) -> Iterator[None]:
    """PyTorch with so many threads, and afterwards with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Machine:
    """What the process and all others did since it was made."""

    def __init__(self) -> None:
        self.start = time.perf_counter(), time.process_time(), _machine_seconds()

    def load(self) -> tuple[float, float | None]:
        """(own processor seconds a second, those of all other processes)."""
        wall, own, everyone = self.start
        wall, own = time.perf_counter() - wall, time.process_time() - own
        now = _machine_seconds()
        others = None if everyone is None or now is None else max(0.0, (now - everyone - own) / wall)
        return own / wall, others


def _machine_seconds(path: Path = Path("/proc/stat")) -> float | None:
    """Processor seconds, of all cores and since the start, spent on anything; None where there is no such file."""
    try:
        fields = path.read_text().split("\n", 1)[0].split()
        user, nice, system, _, _, interrupts, soft, stolen = map(int, fields[1:9])
    except (OSError, ValueError):
        return None
    return (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")
