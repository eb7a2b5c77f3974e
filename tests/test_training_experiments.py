"""Experiments that train networks of their own: what they build, choose and say; each runs, small, on the digits."""

import argparse
import json
import math
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from zoo.data import Dataset, split_validation
from zoo.errors import DataError
from zoo.recipes import get_recipe
from zoo.training.optimizer import make_optimizer

ROOT = Path(__file__).resolve().parents[1]
SMOKE = get_recipe("smoke")
SPEED = {"1": {"median": 2.0, "low": 1.5, "high": 2.5}, "32": {"median": 3.0, "low": 2.9, "high": 3.1}}


@pytest.fixture(autouse=True)
def benchmarks_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


@pytest.fixture
def experiments() -> ModuleType:
    return import_module("experiments")


@pytest.fixture
def images(digits: tuple[Dataset, Dataset], experiments: ModuleType, tmp_path: Path) -> Any:
    """128 training images of the digits and 100 held out."""
    train, valid = split_validation(digits[0], 100, 0)
    return experiments.Bench("digits", train, valid, tmp_path).first(128)


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


class TestRunEach:
    def options(self, tmp_path: Path, resume: bool = False) -> argparse.Namespace:
        return argparse.Namespace(dataset="digits", out=tmp_path / "lines.jsonl", files=tmp_path, resume=resume)

    def experiment(self, experiments: ModuleType) -> Any:
        return experiments.Experiment(
            "made", ("a",), lambda lines: [], lambda lines: str([line["b"] for line in lines])
        )

    def test_only_what_is_missing_is_measured_when_resumed(
        self, experiments: ModuleType, tmp_path: Path, data: None, capsys: pytest.CaptureFixture[str]
    ) -> None:
        made = self.experiment(experiments)
        assert made.run_each(self.options(tmp_path), [{"a": 1}], lambda images, plan: {"b": "old"}) == 0
        plans = [{"a": 1}, {"a": 2}]
        assert made.run_each(self.options(tmp_path, resume=True), plans, lambda images, plan: {"b": "new"}) == 0
        assert [line["b"] for line in experiments.results_of(tmp_path / "lines.jsonl")] == ["old", "new"]
        assert made.run_each(self.options(tmp_path), plans, lambda images, plan: {"b": "again"}) == 0
        assert capsys.readouterr().out.splitlines() == ["['old']", "['old', 'new']", "['again', 'again']"]

    def test_what_was_measured_before_an_error_is_kept(
        self, experiments: ModuleType, tmp_path: Path, data: None, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def measure(images: Any, plan: Any) -> dict[str, str]:
            if plan["a"] == 2:
                raise DataError("no more images.")
            return {"b": "kept"}

        made = self.experiment(experiments)
        assert made.run_each(self.options(tmp_path), [{"a": 1}, {"a": 2}], measure) == 2
        assert [line["b"] for line in experiments.results_of(tmp_path / "lines.jsonl")] == ["kept"]
        assert "made.py: error: no more images." in capsys.readouterr().err

    @pytest.fixture
    def data(self, digits_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ZOO_DATA", str(digits_root))


class TestTuned:
    def test_the_rate_is_chosen_on_images_held_out(self, images: Any) -> None:
        tuned = import_module("tuned")
        found = tuned.tuned(linear, images, replace(SMOKE, epochs=3), (0.05, 1e-8))
        assert found.rates == (1e-8, 0.05)
        assert found.held_out_correct[0] < found.held_out_correct[1]
        assert found.fields["lr"] == 0.05
        assert tuned.correct(found.model, images.valid) == found.held_out_correct[1]

    def test_what_diverges_is_never_right(self, images: Any) -> None:
        tuned = import_module("tuned")
        found = tuned.tuned(linear, images, replace(SMOKE, warmup=0.0, epochs=3), (1e30, 1e37))
        assert found.held_out_correct == (0, 0)
        assert (found.model, found.lr) == (None, 1e30)
        assert tuned.correct(None, images.valid) == 0

    def test_answers_that_are_no_numbers_are_never_right(self, images: Any) -> None:
        model = linear()
        nn.init.constant_(model[1].bias, math.nan)  # type: ignore[index]
        assert import_module("tuned").correct(model, images.valid) == 0

    def test_a_seed_draws_the_weights(self, images: Any) -> None:
        tuned = import_module("tuned")
        weights = [tuned.trained(linear, images, SMOKE, seed)[1].weight for seed in (0, 0, 1)]
        assert torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[0], weights[2])

    def test_means_and_spreads(self) -> None:
        tuned = import_module("tuned")
        line = {"correct": [90, 80], "total": 100}
        assert tuned.spread_text(tuned.errors_of(line)) == "15.00 ± 7.07 %"
        assert tuned.spread_text([0.1]) == "10.00 %"
        assert tuned.mean_error(line) == pytest.approx(0.15)
        assert (tuned.deviation(line), tuned.deviation({"correct": [90], "total": 100})) == (
            pytest.approx(0.0707, abs=1e-4),
            0,
        )


class TestInitialisation:
    def results(self, he: int, gradient: float) -> list[dict[str, Any]]:
        found = []
        for depth in (4, 32):
            for name, correct, first in (("Xavier", 1135, 1e-9), ("He", he, gradient), ("He x 3", 0, 1e9)):
                found.append(
                    {
                        "activation": "ReLU",
                        "depth": depth,
                        "initialisation": name,
                        "correct": [correct],
                        "total": 10_000,
                    }
                    | {"activations": [1.0, 0.5], "gradients": [first, 1.0]}
                )
        return found

    def test_weights_have_the_deviation_of_the_papers(self, images: Any) -> None:
        script = import_module("initialisation")
        wanted = {"zeros": 0, "He / 3": 0.125 / 3, "Xavier": 128**-0.5, "He": 0.125, "He x 3": 0.375}
        for name, deviation in wanted.items():
            model = script.perceptron(images.train, 3, "ReLU", name)
            assert [type(layer) for layer in model[1:]] == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
            assert float(model[3].weight.detach().std()) == pytest.approx(deviation, rel=0.03)
            assert not model[3].bias.any()

    def test_signals_are_deviations_over_the_images(self, images: Any) -> None:
        """Against the gradient written out by hand, for one hidden layer."""
        script = import_module("initialisation")
        torch.manual_seed(0)
        model = script.perceptron(images.train, 2, "tanh", "He")
        found = script.signals(model, images.train)
        pixels = images.train.images.flatten(1).double() / 255
        hidden = torch.tanh(model[1]((pixels - images.train.mean[0]) / images.train.std[0]))
        chances = model[3](hidden).softmax(1) - nn.functional.one_hot(images.train.labels, 10)
        for kind, values in (("activations", hidden), ("gradients", chances @ model[3].weight)):
            assert found[kind] == [pytest.approx(float(values.detach().std(0).square().mean().sqrt()), rel=1e-3)]

    def test_zeros_pass_nothing_on(self, images: Any) -> None:
        script = import_module("initialisation")
        found = script.signals(script.perceptron(images.train, 4, "sigmoid", "zeros"), images.train)
        assert found == {"activations": [0.0] * 3, "gradients": [0.0] * 3}
        assert not script.is_steady(found)

    def test_row_and_sentence(self) -> None:
        script = import_module("initialisation")
        (table,) = script.tables(self.results(9500, 0.1))
        assert table.texts[1] == ("ReLU", "32", "11.35 %", "95.00 %", "diverged")
        said = script.finding(self.results(9500, 0.1))
        assert "In 32 layers more than 50 % of the test images are right" in said
        assert "for ReLU with He (95.00 %); of the 2 networks" in said
        assert said.endswith("2 get there, of the other 4 0.")
        unsteady = script.finding(self.results(1200, 0.001))
        assert "for ReLU with none (12.00 % at best); " in unsteady
        assert "of the 0 networks" in unsteady

    def test_what_is_zero_is_not_drawn(self) -> None:
        script = import_module("initialisation")
        results = self.results(9500, 0.1)
        results[-1]["gradients"] = [0.0, 0.0]
        drawn = script.picture(results)
        assert [len(panel.lines) for panel in drawn.panels] == [3, 2]
        assert drawn.panels[0].lines[0].points == ((1, 1.0), (2, 0.5))


class TestMomentum:
    def results(self, nesterov: int) -> list[dict[str, Any]]:
        common = {"held_out_correct": [480, 490], "held_out": 500, "total": 1000}
        curve = {"curve_epochs": [0.05, 0.15], "curve_losses": [0.5, 0.1]}
        return [
            common | curve | {"method": method, "momentum": momentum, "lr": lr, "correct": [right, right + 2]}
            for method, momentum, lr, right in (
                ("none", 0.0, 0.1, 970),
                ("heavy ball", 0.9, 0.01, 971),
                ("Nesterov", 0.9, 0.01, nesterov),
            )
        ]

    @pytest.mark.parametrize(("method", "ahead"), [("heavy ball", False), ("Nesterov", True)])
    def test_both_forms_are_what_pytorch_calls_them(self, method: str, ahead: bool) -> None:
        recipe = import_module("momentum").recipe_of({"method": method, "momentum": 0.95}, 1)
        optimizer = make_optimizer(linear(), recipe)
        assert type(optimizer) is torch.optim.SGD
        assert (optimizer.defaults["momentum"], optimizer.defaults["nesterov"]) == (0.95, ahead)
        assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0}

    def test_no_momentum_is_plain(self) -> None:
        recipe = import_module("momentum").recipe_of({"method": "none", "momentum": 0.0}, 2)
        optimizer = make_optimizer(linear(), recipe)
        assert (optimizer.defaults["momentum"], optimizer.defaults["nesterov"], recipe.epochs) == (0.0, False, 2)

    def test_a_curve_is_a_mean_over_seeds_and_steps(self) -> None:
        losses = [[float(step) for step in range(40)], [float(step + 2) for step in range(40)]]
        curve = import_module("momentum").curve(losses, 20)
        assert curve["curve_losses"][:2] == [1.5, 3.5]
        assert curve["curve_epochs"][:2] == [0.05, 0.15]
        assert len(curve["curve_losses"]) == 20

    def test_row_and_sentence(self) -> None:
        script = import_module("momentum")
        (table,) = script.tables(self.results(980))
        assert table.texts[1] == ("heavy ball", "0.9", "0.01", "0.1", "2.00 %", "2.80 ± 0.14 %", "0.1000")
        better, worse = script.finding(self.results(980)), script.finding(self.results(960))
        assert "Nesterov at 0.9 has the least test error, 1.90 ± 0.14 %, 1.00 points below" in better
        assert "seeds; the most has heavy ball at 0.9, 2.80 ± 0.14 %; Nesterov beats heavy ball at 1 of 1" in better
        assert ", more than twice the spread" in better
        assert "heavy ball at 0.9 has the least" in worse
        assert ", not more than twice the spread over seeds; the most has Nesterov at 0.9" in worse
        assert "Nesterov beats heavy ball at 0 of 1" in worse


class TestFactorised:
    def results(self, two: int) -> list[dict[str, Any]]:
        return [
            {"layers": name, "params": macs * 10, "macs": macs, "correct": [right, right + 10], "total": 1000}
            | {"speed": SPEED}
            for name, macs, right in (("5x5", 250, 600), ("two 3x3", 180, two))
        ]

    def test_each_layer_but_the_smallest_sees_five_by_five(self) -> None:
        script = import_module("factorised")
        seen = {}
        for name, layer in script.LAYERS.items():
            made = layer(2, 4).eval()
            pixels = torch.rand(1, 2, 9, 9, requires_grad=True)
            output = nn.Sequential(*(module for module in made.modules() if isinstance(module, nn.Conv2d)))(pixels)
            assert made(pixels).shape == (1, 4, 9, 9)
            output[0, :, 4, 4].sum().backward()
            touched = pixels.grad.abs().sum((0, 1)).nonzero()  # type: ignore[union-attr]
            seen[name] = (touched.min(0).values.tolist(), touched.max(0).values.tolist())
        assert seen.pop("one 3x3") == ([3, 3], [5, 5])
        assert set(map(str, seen.values())) == {"([2, 2], [6, 6])"}

    def test_macs_are_those_of_the_papers(self) -> None:
        """18/25 and 10/25 of 5x5 at equal widths (arXiv:1512.00567); 1/N + 1/25 (arXiv:1704.04861, section 3.1)."""
        import zoo

        script = import_module("factorised")
        macs = {name: zoo.measure(layer(16, 16), (16, 8, 8)).macs for name, layer in script.LAYERS.items()}
        whole = 25 * 16 * 16 * 64
        assert macs == {
            "5x5": whole,
            "two 3x3": whole * 18 // 25,
            "1x5 and 5x1": whole * 10 // 25,
            "separable 5x5": whole // 16 + whole // 25,
            "one 3x3": whole * 9 // 25,
        }

    def test_row_and_sentence(self) -> None:
        script = import_module("factorised")
        (table,) = script.tables(self.results(690))
        times = ("2.00 (1.50 to 2.50)", "3.00 (2.90 to 3.10)")
        assert table.texts[0] == ("5x5", "2,500", "250", "1.0x", "39.50 ± 0.71 %", "", "")
        assert table.texts[1] == ("two 3x3", "1,800", "180", "1.4x", "30.50 ± 0.71 %", *times)
        said = script.finding(self.results(690))
        assert said.endswith("two 3x3 1.4 times fewer MACs, 3.00 times as fast, error -9.00 points.")
        assert "error +1.00 points (within twice the spread over seeds)" in script.finding(self.results(590))


class TestHeads:
    def results(self, averaged: int, rate: float = 0.3) -> list[dict[str, Any]]:
        rows = (
            ("class maps averaged", 10, averaged, 80),
            ("one layer", 30, 600, 100),
            ("one layer, dropout", 30, 620, 95),
            ("two layers", 90, 600, 100),
            ("two layers, dropout", 90, 610, 99),
        )
        return [
            {"head": name, "params": params, "macs": 1000, "lr": 0.1, "correct": [right, right + 2], "total": 1000}
            | {"epochs": 8, "rates": [0.1, rate]}
            | {"train_correct": [learnt, learnt], "train_total": 100}
            for name, params, right, learnt in rows
        ]

    def test_heads_give_a_logit_a_class(self) -> None:
        script = import_module("heads")
        params = {}
        for name, head in script.HEADS.items():
            model = script.network(head, (3, 32, 32), 10)
            assert model.eval()(torch.rand(2, 3, 32, 32)).shape == (2, 10)
            params[name] = sum(p.numel() for p in model[-1].parameters())
        assert params["class maps averaged"] == params["average, linear"] == 650
        assert params["one layer"] == params["one layer, dropout"] == 64 * 64 * 10 + 10
        assert params["two layers"] == params["two layers, dropout"] == 64 * 64 * 256 + 256 + 2570

    def test_dropout_stands_before_each_layer(self) -> None:
        script = import_module("heads")
        kinds = [type(layer).__name__ for layer in script.connected((8, 4, 2), 0.5)]
        assert kinds == ["Flatten", "Dropout", "Linear", "ReLU", "Dropout", "Linear"]
        assert [type(layer).__name__ for layer in script.connected((8, 2), 0.0)] == ["Flatten", "Linear"]

    def test_row_and_sentence(self) -> None:
        script = import_module("heads")
        (table,) = script.tables(self.results(680))
        row = ("class maps averaged", "10", "1.00 k", "0.1", "20.00 %", "31.90 ± 0.14 %", "11.9", "10.41 %")
        assert table.texts[0] == row
        assert table.texts[4][-1] == ""
        said = script.finding(self.results(680))
        assert "-6.00 points, as in the paper; after 8 epochs, they have 20.00 % and 5.00 % of the images" in said
        assert "11.9 and 32.9 points less than of the test images" in said
        assert said.endswith("narrows that by 7.0 points with one layer and 2.0 with two.")
        edge = script.finding(self.results(680, rate=0.03))
        assert "after 8 epochs, the first at the largest rate tried, they have" in edge
        assert "+4.00 points, unlike in the paper" in script.finding(self.results(580))
        assert "+0.00 points, within twice the spread over seeds" in script.finding(self.results(620))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "constants"),
    [
        ("initialisation", ["--depths", "2", "3"], {"RATES": (0.1,)}),
        ("momentum", ["--epochs", "1", "--seeds", "2"], {"RATES": (0.01, 0.1), "MOMENTA": (0.9,)}),
        ("factorised", ["--epochs", "1", "--images", "128", "--seeds", "1", "--rounds", "1"], {"BATCHES": (1, 2)}),
        ("heads", ["--epochs", "1", "--images", "128", "--seeds", "2"], {"RATES": (0.01, 0.1)}),
    ],
)
def test_it_runs_on_the_digits(
    name: str,
    options: list[str],
    constants: dict[str, Any],
    tmp_path: Path,
    digits_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ZOO_DATA", str(digits_root))
    script = import_module(name)
    for constant, value in constants.items():
        monkeypatch.setattr(script, constant, value)
    assert script.main(["--dataset", "digits", "--files", str(tmp_path), *options]) == 0
    results = [json.loads(text) for text in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
    assert all(0 <= right <= result["total"] for result in results for right in result["correct"])
    assert len({tuple(result[field] for field in script.EXPERIMENT.key) for result in results}) == len(results)
    assert capsys.readouterr().out == script.finding(results) + "\n"
    assert script.tables(results)[0].texts
    assert script.picture(results).panels
