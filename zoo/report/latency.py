"""The table of what was timed side by side."""

from zoo.latency import LEVEL, Result
from zoo.report.numbers import count_text
from zoo.report.tables import Column, Table, Value


def latency_table(result: Result) -> Table:
    """A row a model and engine, in the order they were given; the reference's twin is the last."""
    job = result.job
    call = "ms an image" if job.batch == 1 else f"ms a call of {job.batch}"
    columns = (
        Column("model", "model", right=False),
        Column("engine", "engine", 5, right=False),
        Column("batch", "batch", 6),
        Column("threads", "threads", 6),
        Column("macs", "MACs", 4),
        Column("milliseconds", call),
        Column("ratio", f"time / {result.reference}"),
        Column("ratio_low", "at least", 2),
        Column("ratio_high", "at most", 2),
        Column("verdict", "beside it", 1, right=False),
        Column("busy", "machine", 6, right=False),
    )
    values: list[tuple[Value, ...]] = []
    texts: list[tuple[str, ...]] = []
    for side in result.sides:
        ratios = side.ratio, side.ratio_low, side.ratio_high
        conditions = job.batch, job.threads
        busy = result.timing.busy
        values.append((side.model, side.engine, *conditions, side.macs, side.milliseconds, *ratios, side.verdict, busy))
        shown = (f"{side.milliseconds:.3f}", *(f"{ratio:.3f}" for ratio in ratios))
        told = "busy" if busy else "quiet"
        texts.append(
            (side.model, side.engine, *map(str, conditions), count_text(side.macs), *shown, side.verdict, told)
        )
    return Table(columns, tuple(values), tuple(texts), name="latency", notes=_notes(result))


def _notes(result: Result) -> dict[str, str]:
    timing = result.timing
    return {
        "milliseconds": f"median of {result.job.rounds} rounds by the {timing.clock} clock",
        "ratio_low": f"at least, at most: the bounds, of {LEVEL:.0%} confidence, of the ratio; tied where they hold 1",
    }
