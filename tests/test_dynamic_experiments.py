"""Experiments on teachers and early exits: sentences and tables say what the lines say; both run on the digits."""

import json
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import zoo
from zoo.compression import Code, compress, save_packed
from zoo.data import Dataset
from zoo.dynamic import ExitRule, Outcome

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def benchmarks_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


class TestDistillation:
    @pytest.fixture
    def script(self) -> ModuleType:
        return import_module("distillation")

    def line(self, way: str, seed: int, correct: int) -> dict[str, Any]:
        return {
            "way": way,
            "seed": seed,
            "correct": correct,
            "total": 10_000,
            "teacher_correct": 9117,
            "agreement": 0.7,
        }

    def results(self, soft: int = 7100) -> list[dict[str, Any]]:
        found = []
        for seed, more in enumerate((-10, 0, 10)):
            found += [self.line("labels", seed, 7000 + more), self.line("soft targets", seed, soft + more)]
            found += [self.line("three teachers", seed, 7150 + more)]
        return found

    def test_the_sentence_compares_with_labels_and_one_teacher_with_three(self, script: ModuleType) -> None:
        sentence = script.finding(self.results())
        assert "a mean of 3 seeds: soft targets +1.00, three teachers +1.50;" in sentence
        assert "three teachers give 0.50 points more than one" in sentence
        assert "soft targets -1.00" in script.finding(self.results(6900))
        assert "three teachers give 0.50 points fewer than one" in script.finding(self.results(7200))

    def test_the_table_has_mean_and_spread(self, script: ModuleType) -> None:
        (table,) = script.tables(self.results())
        assert table.texts[0] == ("labels", "", "70.00 %", "0.10 %", "", "70.00 %", "3")
        assert table.texts[1] == ("soft targets", "91.17 %", "71.00 %", "0.10 %", "+1.00", "70.00 %", "3")

    @pytest.mark.slow
    def test_every_way_trains_on_the_digits(
        self,
        script: ModuleType,
        digits_root: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setenv("ZOO_DATA", str(digits_root))
        teacher = tmp_path / "teacher.zpk"
        save_packed(teacher, compress(zoo.create_model("resnet20", dataset="digits"), [Code()], dataset="digits"))
        out = tmp_path / "lines.jsonl"
        words = ["--dataset", "digits", "--epochs", "2", "--seeds", "1", "--out", str(out)]
        for _ in range(3):
            words += ["--teacher", str(teacher)]
        assert script.main(words) == 0
        lines = [json.loads(text) for text in out.read_text().splitlines()]
        assert [line["way"] for line in lines] == list(script.WAYS)
        assert [len(line["teachers"]) for line in lines] == [1, 1, 3, 1, 1]
        assert len({line["held_out_wrong"] for line in lines}) > 1, "the ways do differ"
        assert "Points over learning from labels" in capsys.readouterr().out
        assert script.main([*words, "--resume"]) == 0
        assert capsys.readouterr().err.count("measured before") == 5


class TestEarlyExits:
    @pytest.fixture
    def script(self) -> ModuleType:
        return import_module("early_exits")

    def line(self, correct: int = 9900, busy: bool = False) -> dict[str, Any]:
        rules = [
            {"thresholds": [0.0], "median": 0.9, "low": 0.8, "high": 1.0},
            {"thresholds": [0.2], "median": 2.5, "low": 2.0, "high": 3.0},
        ]
        whole = {
            "thresholds": [0.0],
            "correct": 9950,
            "total": 10_000,
            "leaving": [0, 10_000],
            "mean_macs": 2_400_000.0,
        }
        early = {"thresholds": [0.2], "correct": correct, "total": 10_000, "leaving": [9400, 600], "mean_macs": 5e5}
        return {
            "model": "branchy_lenet5",
            "stem": "branchy_lenet5.mnist",
            "plain": {"stem": "lenet5_caffe.mnist", "correct": 9949, "total": 10_000, "macs": 2_000_000},
            "whole_correct": 9950,
            "exit_macs": [400_000, 2_400_000],
            "curve": [whole, early],
            "time": {batch: {"busy": busy, "rules": rules} for batch in ("1", "256")},
            **early,
        }

    def test_the_sentence_says_who_leaves_and_what_it_gives(self, script: ModuleType) -> None:
        sentence = script.finding([self.line()])
        assert "94.00 % of the test images leave branchy_lenet5 by its first exit" in sentence
        assert "it gives 99.00 %, 0.49 points below the plain network, for 4.00x fewer MACs" in sentence
        assert "2.50 times as fast at batch 1 and 2.50 times at 256." in sentence
        assert "0.02 points above the plain network" in script.finding([self.line(9951)])
        assert "as accurate as the plain network" in script.finding([self.line(9949)])
        assert "(on a busy machine)" in script.finding([self.line(busy=True)])

    def test_three_rows_a_network(self, script: ModuleType) -> None:
        (table,) = script.tables([self.line()])
        assert [row[:4] for row in table.texts] == [
            ("lenet5_caffe.mnist", "without exits", "99.49 %", ""),
            ("branchy_lenet5.mnist", "to the end", "99.50 %", ""),
            ("branchy_lenet5.mnist", "by the rule", "99.00 %", "94.00 %, 6.00 %"),
        ]
        assert table.texts[2][5:8] == ("4.00x", "2.50 (2.00 to 3.00)", "2.50 (2.00 to 3.00)")
        assert "94.3 %" in table.texts[2][8]
        assert [len(panel.lines) for panel in script.picture([self.line()]).panels] == [2, 1, 1]

    def test_points_of_a_curve_are_spread_over_its_cost(self, script: ModuleType) -> None:
        points = [Outcome(ExitRule((n / 100,)), 1, 2, (1, 1), float(1000 - n)) for n in range(100)]
        assert [point.mean_macs for point in script.spread(points, 4)] == [1000, 967, 934, 901]

    @pytest.mark.slow
    def test_a_line_is_measured_on_the_digits(
        self,
        script: ModuleType,
        digits: tuple[Dataset, Dataset],
        digits_root: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("ZOO_DATA", str(digits_root))
        made = {name: zoo.create_model(name, dataset="digits") for name in ("branchy_lenet5", "lenet5_caffe")}
        zoo.fit(made["branchy_lenet5"], digits[0], None, zoo.recipes.get_recipe("smoke"))

        def card(model: str, dataset: str) -> SimpleNamespace:
            return SimpleNamespace(
                stem=model,
                tag="",
                correct=100,
                total=len(digits[1]),
                macs=2_293_000,
                note="",
                epochs=1,
                image=(1, 28, 28),
            )

        monkeypatch.setattr(script, "find_card", card)
        monkeypatch.setattr(zoo, "create_model", lambda name, **_words: made[name])
        subject = script.Subject("branchy_lenet5", "digits", "lenet5_caffe")
        line = script.measure(subject, import_module("experiments").bench("digits", tmp_path), 0.05, 8)
        assert sum(line["leaving"]) == line["total"] == len(digits[1])
        assert line["exit_macs"][0] < 2_293_000 < line["exit_macs"][1]
        assert line["held_out_chosen"] >= line["held_out_whole"] - 0.05 * line["held_out"]
        assert line["mean_macs"] <= line["exit_macs"][1]
        sides = line["time"]["1"]["rules"]
        assert [0.0] in [list(side["thresholds"]) for side in sides]
        assert list(line["thresholds"]) in [list(side["thresholds"]) for side in sides]
        assert script.finding([json.loads(json.dumps(line))])
        assert script.tables([line])
        assert script.picture([line])
