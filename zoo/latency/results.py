"""What is to be timed, and what came of it."""

from dataclasses import dataclass

from zoo.latency.timing import Timing

ROUNDS = 30


@dataclass(frozen=True)
class Job:
    """What to time. models: as `zoo eval` or `zoo predict` take them; by name alone with weights drawn by chance.

    reference: the model, by the first engine, that all are compared with; by default the first. batch: images a call.
    """

    models: tuple[str, ...]
    dataset: str
    batch: int = 1
    threads: int = 1
    engines: tuple[str, ...] = ("eager",)
    reference: str | None = None
    rounds: int = ROUNDS


@dataclass(frozen=True)
class Measured:
    """One model by one engine. milliseconds: the median of one call, which is of `batch` images.

    ratio, ratio_low, ratio_high: of its time to the reference's, with the bounds of the true one (zoo.latency).
    """

    model: str
    engine: str
    macs: int
    milliseconds: float
    ratio: float
    ratio_low: float
    ratio_high: float

    @property
    def verdict(self) -> str:
        """Beside the reference, which is itself to the last digit."""
        if self.ratio_low == self.ratio_high == 1:
            return "reference"
        if self.ratio_low <= 1 <= self.ratio_high:
            return "tied"
        return "slower" if self.ratio > 1 else "faster"


@dataclass(frozen=True)
class Result:
    """All sides of a job, the reference's twin (a copy of it, timed like any other side) at the end."""

    job: Job
    reference: str
    sides: tuple[Measured, ...]
    timing: Timing

    @property
    def twin(self) -> Measured:
        """What the reference is beside itself: tied, if the run can be believed."""
        return self.sides[-1]

    def doubts(self) -> list[str]:
        """Why the figures are not to be trusted to the last digit, in sentences; none on a quiet machine."""
        timing, found = self.timing, []
        if timing.busy:
            others = "" if timing.others is None else f", and other processes kept {timing.others:.1f} cores busy"
            found.append(
                f"the machine was busy: this process had a core {timing.cpu_share:.0%} of the time{others}; "
                "the ratios still hold within their intervals, better ones need a quiet machine."
            )
        if self.twin.verdict != "tied":
            found.append(
                f"{self.reference} is {self.twin.ratio:.3f} times itself, which is not tied: take more rounds."
            )
        return found
