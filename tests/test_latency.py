"""Latency: what the intervals promise, how sides alternate, what a busy machine is, and the commands that show it.

No test asserts a time: clocks are replaced where a figure matters.
"""

import itertools
import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ranking_fakes import fake_row
from torch import nn
from weight_files import card_of, model_of

from zoo import cli, latency_runs
from zoo.cards import write_card
from zoo.cost import count_macs
from zoo.errors import UnknownNameError, ZooError
from zoo.latency import ENGINES, Interval, Job, Measured, Result, Timing, interleaved, median_interval, paired, ready
from zoo.latency import timing as within
from zoo.latency_runs import lines, measure, with_latency
from zoo.report import latency_table, ranking_table, render
from zoo.weights import save_weights

Captured = pytest.CaptureFixture[str]


def silent(text: str) -> None:
    """Say nothing."""


class TestIntervals:
    @pytest.mark.parametrize(("count", "place"), [(1, 0), (7, 0), (8, 0), (11, 0), (12, 1), (30, 7), (101, 37)])
    def test_it_is_the_narrowest_of_its_confidence(self, count: int, place: int) -> None:
        """Between the k-th lowest and highest of n the median lies unless fewer than k fall on one side of it."""
        found = median_interval([float(n) for n in range(count)], level=0.99)
        assert (found.low, found.high) == (place, count - 1 - place)
        assert found.median == (count - 1) / 2

        def missed(k: int) -> float:
            return 2 * sum(math.comb(count, below) for below in range(k)) / 2**count

        assert missed(place + 1) <= 0.01 or count < 8
        assert missed(place + 2) > 0.01

    def test_it_holds_the_true_median_as_often_as_it_says(self) -> None:
        chance = random.Random(1)
        held = 0
        for _ in range(2000):
            found = median_interval([chance.expovariate(1) for _ in range(20)], level=0.9)
            held += found.low <= math.log(2) <= found.high
        assert 0.9 <= held / 2000 < 0.97

    def test_a_ratio_is_taken_round_by_round(self) -> None:
        slowdown = [1, 5, 2, 9, 1, 3, 7, 4]
        found = paired([3.0 * s for s in slowdown], [2.0 * s for s in slowdown])
        assert found == Interval(1.5, 1.5, 1.5)
        assert not found.tied
        assert Interval(1.01, 0.99, 1.2).tied
        assert not Interval(0.9, 0.8, 0.99).tied


class Clock:
    """Processor and wall time that stand still unless something is done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 0.0
        for name in ("process_time", "perf_counter", "monotonic"):
            monkeypatch.setattr(within.time, name, lambda: self.seconds)

    def act(self, seconds: Callable[[], float]) -> Callable[[], None]:
        def work() -> None:
            self.seconds += seconds()

        return work


class TestAlternation:
    def test_what_slows_all_sides_changes_no_ratio(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock, calls = Clock(monkeypatch), itertools.count()

        def slowdown() -> int:
            return 1 + next(calls) // 4 % 5  # a round is two calls of both sides

        acts = {"a": clock.act(lambda: 1.0 * slowdown()), "b": clock.act(lambda: 3.0 * slowdown())}
        timing = interleaved(acts, 40)
        assert set(timing.seconds["a"]) == {1, 2, 3, 4, 5}
        assert timing.ratio("b", "a") == Interval(3, 3, 3)

    def test_a_block_is_one_call_that_does_not_count_and_then_as_many_as_fill_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock, calls = Clock(monkeypatch), []
        first = {"slow": True}

        def work() -> None:
            calls.append(clock.seconds)
            clock.seconds += 100 if first["slow"] else 1

        def other() -> None:
            first["slow"] = True  # as a neighbour does that fills the caches
            clock.seconds += 4

        def warmed() -> None:
            work()
            first["slow"] = False

        timing = interleaved({"it": warmed, "other": other}, 5, block_seconds=4)
        assert timing.seconds["it"] == (1.0,) * 5
        assert len(calls) == 1 + 3 + 5 * (1 + 4)

    def test_the_order_is_drawn_anew_every_round(self) -> None:
        seen: list[str] = []
        acts = {name: lambda n=name: seen.append(n) for name in "abcd"}  # type: ignore[misc]
        timing = interleaved(acts, 12, block_seconds=0)
        assert all(len(figures) == 12 for figures in timing.seconds.values())
        calls = seen[4 * 4 :]
        assert calls[::2] == calls[1::2]  # a call that does not count, and the one that does
        orders = ["".join(calls[at : at + 8 : 2]) for at in range(0, len(calls), 8)]
        assert all(sorted(order) == list("abcd") for order in orders)
        assert len(set(orders)) > 6
        again: list[str] = []
        interleaved({name: lambda n=name: again.append(n) for name in "abcd"}, 12, block_seconds=0)  # type: ignore[misc]
        assert again == seen

    @pytest.mark.parametrize(("threads", "clock"), [(1, "processor"), (2, "wall")])
    def test_threads_are_as_asked_and_then_as_before(self, threads: int, clock: str) -> None:
        before, seen = torch.get_num_threads(), set()

        def look() -> None:
            seen.add((torch.get_num_threads(), torch.is_grad_enabled()))

        timing = interleaved({"it": look}, 3, threads=threads, block_seconds=0)
        assert seen == {(threads, False)}
        assert torch.get_num_threads() == before
        assert (timing.clock, timing.threads) == (clock, threads)


class TestBusyMachines:
    @pytest.mark.parametrize(
        ("threads", "cpu_share", "others", "busy"),
        [
            (1, 1.0, 0.0, False),
            (1, 0.99, None, False),
            (1, 0.6, None, True),
            (1, 0.99, 0.9, True),
            (4, 0.6, 0.1, False),
            (4, 3.9, 1.5, True),
        ],
    )
    def test_what_counts_as_busy(self, threads: int, cpu_share: float, others: float | None, busy: bool) -> None:
        assert Timing({}, threads, "processor", cpu_share, others).busy is busy

    def test_the_load_of_all_others(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(within.os, "sysconf", lambda name: 100)
        file = tmp_path / "stat"
        file.write_text("cpu  100 200 300 9000 800 7 5 8 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n")
        assert within._machine_seconds(file) == 6.2
        file.write_text("no such thing")
        assert within._machine_seconds(file) is None
        assert within._machine_seconds(tmp_path / "none") is None

    def test_they_are_what_is_left_when_this_process_is_taken_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        machine = itertools.chain([50.0], itertools.repeat(65.0))
        monkeypatch.setattr(within, "_machine_seconds", lambda: next(machine))
        clock = Clock(monkeypatch)
        own = clock.act(lambda: 1.0)
        timing = interleaved({"it": own}, 5, block_seconds=1)
        assert timing.cpu_share == 1.0
        assert timing.others == pytest.approx((15 - 10) / 10)
        assert timing.busy


class TestEngines:
    @pytest.fixture
    def network(self) -> nn.Module:
        return model_of("lenet5", "digits").eval()

    @pytest.mark.parametrize(
        ("engine", "tolerance"), [("eager", 0.0), pytest.param("onnxruntime", 1e-4, marks=pytest.mark.slow)]
    )
    def test_they_compute_what_the_network_does(self, engine: str, tolerance: float, network: nn.Module) -> None:
        images = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            wanted, found = network(images), ready(engine, network, images)()
        assert isinstance(found, torch.Tensor)
        assert torch.allclose(found, wanted, rtol=0, atol=tolerance)

    def test_whole_numbers(self, network: nn.Module) -> None:
        found = ready("onnxruntime-int8", network, torch.zeros(2, 1, 28, 28))()
        assert isinstance(found, torch.Tensor)
        assert found.shape == (2, 10)

    @pytest.mark.slow
    def test_compiled(self, network: nn.Module) -> None:
        images = torch.randn(2, 1, 28, 28)
        act = ready("compiled", network, images)
        with torch.inference_mode():
            found = act()
            assert torch.allclose(found, network(images), atol=1e-4)  # type: ignore[arg-type]

    def test_where_nothing_can_be_compiled(self, network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(images: torch.Tensor) -> torch.Tensor:
            raise torch._dynamo.exc.TorchDynamoException("No working C++ compiler found.\nand much more")

        monkeypatch.setattr(torch, "compile", lambda model, dynamic: refuse)
        line = r"needs torch.compile, which failed \(No working C\+\+ compiler found\); leave it out\.$"
        with pytest.raises(ZooError, match=line):
            ready("compiled", network, torch.zeros(1, 1, 28, 28))


def result(busy: bool = False, twin: float = 1.0) -> Result:
    """Of lenet5 and a network twice as slow, by the clock of a fake."""
    timing = Timing({}, 1, "processor", 0.5 if busy else 1.0, 1.3 if busy else 0.0)
    sides = (
        Measured("lenet5", "eager", 416_520, 0.2, 1.0, 1.0, 1.0),
        Measured("nin", "eager", 5_000_000, 0.4, 2.0, 1.9, 2.2),
        Measured("lenet5 (again)", "eager", 416_520, 0.2, twin, twin - 0.01, twin + 0.01),
    )
    return Result(Job(("lenet5", "nin"), "digits"), "lenet5", sides, timing)


class TestJobs:
    def test_a_run_of_it(self, digits_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(latency_runs, "interleaved", lambda acts, rounds, threads, say: interleaved(acts, rounds))
        found = measure(Job(("lenet5", "lenet_300_100"), "digits", reference="lenet_300_100", rounds=8), silent)
        assert [side.model for side in found.sides] == ["lenet5", "lenet_300_100", "lenet_300_100 (again)"]
        assert found.sides[0].macs == count_macs(model_of("lenet5", "digits"), (1, 28, 28))
        assert [side.verdict == "reference" for side in found.sides] == [False, True, False]
        records = lines(found)
        for record, side in zip(records, found.sides, strict=True):
            again = paired(record["rounds"], records[1]["rounds"])  # type: ignore[arg-type]
            assert again.median == pytest.approx(side.ratio, rel=1e-3)
            assert again.low == pytest.approx(side.ratio_low, rel=1e-3)
            assert record["threads"] == record["batch"] == 1
            assert record["reference"] == "lenet_300_100"
            assert set(record["versions"]) >= {"torch"}  # type: ignore[call-overload]
            assert record["device"]
        assert json.loads(json.dumps(records)) == records

    @pytest.mark.parametrize(
        ("ratios", "verdict"),
        [
            ((1.0, 1.0, 1.0), "reference"),
            ((1.0, 0.9, 1.1), "tied"),
            ((2.0, 1.5, 3.0), "slower"),
            ((0.5, 0.4, 0.99), "faster"),
        ],
    )
    def test_verdicts(self, ratios: tuple[float, float, float], verdict: str) -> None:
        assert Measured("it", "eager", 1, 1.0, *ratios).verdict == verdict

    def test_doubts(self) -> None:
        assert result().doubts() == []
        (busy,) = result(busy=True).doubts()
        assert "had a core 50% of the time, and other processes kept 1.3 cores busy" in busy
        (odd,) = result(twin=1.05).doubts()
        assert odd == "lenet5 is 1.050 times itself, which is not tied: take more rounds."

    def test_the_table(self) -> None:
        text = render(latency_table(result(busy=True)), "text").splitlines()
        assert text[0].split("  ")[-1].strip() == "machine"
        assert text[3].split() == [
            "nin",
            "eager",
            "1",
            "1",
            "5.00",
            "M",
            "0.400",
            "2.000",
            "1.900",
            "2.200",
            "slower",
            "busy",
        ]
        assert "tied where they hold 1" in text[-1]

    @pytest.mark.parametrize(
        ("changes", "kind", "line"),
        [
            ({"rounds": 7}, ZooError, "rounds=7 was given; an interval takes at least 8"),
            ({"engines": ("eagre",)}, UnknownNameError, "no engine is called 'eagre'. Did you mean 'eager'"),
            ({"models": ("lenet",)}, UnknownNameError, "no model is called 'lenet'"),
            ({"reference": "ninn"}, UnknownNameError, "no model is called 'ninn'"),
            ({"dataset": "digit"}, UnknownNameError, "no data set is called 'digit'"),
        ],
    )
    def test_wrong_jobs(self, changes: dict[str, object], kind: type[ZooError], line: str) -> None:
        with pytest.raises(kind) as refused:
            measure(replace(Job(("lenet5",), "digits"), **changes), silent)  # type: ignore[arg-type]
        assert line in str(refused.value)


class TestRankedRows:
    def test_rows_of_stored_weights_are_timed_and_others_say_why_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[Job] = []

        def fake(job: Job, say: object) -> Result:
            asked.append(job)
            return result()

        monkeypatch.setattr(latency_runs, "measure", fake)
        nin, small, bare = (
            fake_row("nin", 0.7, 10),
            replace(fake_row("lenet5", 0.7, 10), tag="small"),
            fake_row("vgg16", None, 9),
        )
        rows = [replace(row, bytes=None if row is bare else 100) for row in (nin, small, bare)]
        found = with_latency(rows, "digits", silent)
        assert asked[0].models == ("lenet5", "nin", "lenet5@small")
        assert (found[0].milliseconds, found[0].milliseconds_vs_lenet5) == (0.4, 2.0)
        assert "milliseconds" not in found[0].missing
        assert found[2].milliseconds is None
        assert "`zoo latency` times any model" in found[2].missing["milliseconds"]

    def test_nothing_stored_is_nothing_timed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(latency_runs, "measure", None)
        (row,) = with_latency([replace(fake_row("nin", None, 10), bytes=None)], "digits", silent)
        assert row.milliseconds is None

    def test_the_columns_come_with_the_figures(self) -> None:
        plain = fake_row("nin", 0.7, 10)
        assert "ms an image" not in render(ranking_table([plain]), "text")
        assert "-" in render(ranking_table([plain], ["name", "milliseconds"]), "text")
        text = render(ranking_table([replace(plain, milliseconds=0.4321, milliseconds_vs_lenet5=2.0)]), "text")
        assert "0.432" in text
        assert "2.00x" in text


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and a zoo folder with lenet5 for the digits."""
    folder, path = tmp_path / "here", tmp_path / "weights" / "lenet5.digits.safetensors"
    folder.mkdir()
    path.parent.mkdir()
    save_weights(path, model_of("lenet5", "digits"))
    write_card(path.with_suffix(".json"), card_of("lenet5", "digits", path))
    monkeypatch.setenv("ZOO_WEIGHTS", str(path.parent))
    monkeypatch.chdir(folder)
    return folder


class TestCommands:
    def test_zoo_latency(self, here: Path, capsys: Captured) -> None:
        arguments = ["latency", "lenet5", "lenet5@", "--dataset", "digits", "--rounds", "8", "--format", "json"]
        assert cli.main(arguments) == 0
        out, err = capsys.readouterr()
        records = json.loads(out)
        assert [record["model"] for record in records] == ["lenet5", "lenet5@", "lenet5 (again)"]
        assert records[0]["verdict"] == "reference"
        assert err.splitlines()[-1] == "run folder: runs/latency/1-lenet5-digits"
        stored = [
            json.loads(line) for line in (here / "runs/latency/1-lenet5-digits/latency.jsonl").read_text().splitlines()
        ]
        assert [line["milliseconds"] for line in stored] == [record["milliseconds"] for record in records]

    def test_zoo_rank(self, here: Path, capsys: Captured) -> None:
        columns = "name,milliseconds,milliseconds_vs_lenet5"
        arguments = [
            "rank",
            "lenet_300_100",
            "lenet5",
            "--dataset",
            "digits",
            "--by",
            "milliseconds",
            "--columns",
            columns,
        ]
        assert cli.main([*arguments, "--latency", "--format", "json"]) == 0
        out, err = capsys.readouterr()
        first, second = json.loads(out)
        assert first["name"] == "lenet5"
        assert first["milliseconds"] > 0
        assert first["milliseconds_vs_lenet5"] == 1.0
        assert second["milliseconds"] is None
        assert "timing 1 models" in err
        assert cli.main([*arguments, "--format", "json"]) == 0
        assert "`zoo rank --latency` does it" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("arguments", "line"),
        [
            ("lenet5 --engine onnx", f"no engine is called 'onnx'. Did you mean '{ENGINES[2]}'"),
            ("lenet5 --rounds 3", "rounds=3 was given"),
            ("lenet", "no model is called 'lenet'"),
            ("lenet5 --batch 0", "invalid value for '--batch'"),
            ("", "missing argument 'MODEL...'"),
        ],
    )
    def test_wrong_use_is_one_line(self, arguments: str, line: str, here: Path, capsys: Captured) -> None:
        assert cli.main(["latency", *arguments.split()]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"zoo: error: {line}")
        assert err.count("\n") == 1
        assert not (here / "runs").exists()
