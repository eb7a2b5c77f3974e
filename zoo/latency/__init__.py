"""How long networks take, measured so that it can be believed on a machine that does other things too.

All sides run in one process, in short blocks that alternate in an order drawn anew for every round, so that a slow
minute slows all of them. What two sides took in one round makes a ratio; the median of the rounds' ratios is the
figure, and between two of the ordered ratios its true value lies with the confidence LEVEL (the sign test's interval:
nothing is assumed of their distribution). Where that interval holds 1, the two are tied.

With one thread the clock is the processor time of the process, which others cannot stretch by taking its turn; on a
quiet machine it is the time on the wall. With several it is the wall's.
"""

from zoo.latency.engines import ENGINES, ready
from zoo.latency.results import Job, Measured, Result
from zoo.latency.timing import LEAST_ROUNDS, LEVEL, Act, Interval, Timing, interleaved, median_interval, paired

__all__ = [
    "ENGINES",
    "LEAST_ROUNDS",
    "LEVEL",
    "Act",
    "Interval",
    "Job",
    "Measured",
    "Result",
    "Timing",
    "interleaved",
    "median_interval",
    "paired",
    "ready",
]
