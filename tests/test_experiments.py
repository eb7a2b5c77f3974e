"""Experiments: what their tables and sentences say is what their lines say; each runs, small, on the digits."""

import json
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
NAMES = (
    "sharing_curves",
    "pruning_schedules",
    "quantized_mlp",
    "vector_quantization",
    "coding_bound",
    "xnor_accuracy",
    "omitted_digit",
    "initialisation",
    "momentum",
    "factorised",
    "heads",
)
SCORE = {"correct": 9900, "total": 10_000, "held_out_correct": 4950, "held_out": 5000, "file_bytes": 1000}


@pytest.fixture(autouse=True)
def benchmarks_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


@pytest.fixture
def experiments() -> ModuleType:
    return import_module("experiments")


def line(correct: int = 9900, **fields: Any) -> dict[str, Any]:
    return SCORE | {"correct": correct} | fields


class TestLines:
    def test_a_line_takes_the_place_of_the_one_with_its_key(self, experiments: ModuleType, tmp_path: Path) -> None:
        path = tmp_path / "results" / "lines.jsonl"
        experiments.append(path, [{"a": 1, "b": 1}, {"a": 1, "b": 2}], ("a", "b"))
        experiments.append(path, [{"a": 1, "b": 1, "new": True}], ("a", "b"))
        assert experiments.results_of(path) == [{"a": 1, "b": 2}, {"a": 1, "b": 1, "new": True}]

    def test_an_error_is_a_mean_over_lines(self, experiments: ModuleType) -> None:
        assert experiments.error_of([line(9900), line(9800)]) == pytest.approx(0.015)

    def test_a_wrong_data_set_is_wrong_use(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        assert import_module("sharing_curves").main(["--dataset", "digit", "--files", str(tmp_path)]) == 2
        assert "sharing_curves.py: error: " in capsys.readouterr().err


class TestSharingCurves:
    def results(self, linear: int) -> list[dict[str, Any]]:
        found = [line(9890, init="none", bits=32, trained=False, seed=0)]
        for trained in (False, True):
            for bits in (3, 4):
                for init, correct in (("linear", linear), ("density", 9800), ("random", 9700)):
                    found.append(line(correct, init=init, bits=bits, trained=trained, seed=0))
        return found

    def test_the_paper_is_contradicted_where_the_numbers_do(self) -> None:
        script = import_module("sharing_curves")
        assert "linear start has the least test error at 2 of 2 widths" in script.finding(self.results(9885))
        assert ": as in the paper" in script.finding(self.results(9885))
        assert "3 bits, from a linear start, are within 0.1 points" in script.finding(self.results(9885))
        assert ": unlike in the paper" in script.finding(self.results(9790))
        assert "no width, from a linear start, is within 0.1 points" in script.finding(self.results(9790))

    def test_a_row_a_width(self) -> None:
        (table,) = import_module("sharing_curves").tables(self.results(9885))
        assert table.texts[0] == ("3", "1.15 %", "2.00 %", "3.00 %", "1.15 %", "2.00 %", "3.00 %", "1,000")


class TestPruningSchedules:
    def results(self, one_shot: int, l1_alone: int) -> list[dict[str, Any]]:
        found = []
        for density in (0.1, 0.01):
            for trained, l1, l2 in ((False, l1_alone, 9000), (True, 9800, 9850)):
                common = {"trained": trained, "density": density}
                found.append(line(l1, method="L1", strength=1, **common))
                found.append(line(9999, method="L1", strength=2, **common) | {"held_out_correct": 0})
                found.append(line(l2, method="L2", strength=1, **common))
            for method, correct in (("one-shot", one_shot), ("iterative", 9700), ("gradual", 9750)):
                found.append(line(correct, method=method, strength=0, trained=True, density=density))
        return found

    def test_the_strength_is_chosen_on_images_held_out(self) -> None:
        (table,) = import_module("pruning_schedules").tables(self.results(9600, 9100))
        row = ("10 %", "9.00 %", "10.00 %", "2.00 %", "1.50 %", "4.00 %", "3.00 %", "2.50 %")
        assert table.texts[0] == row

    def test_the_sentence_follows_the_numbers(self) -> None:
        script = import_module("pruning_schedules")
        agreeing, contrary = script.finding(self.results(9600, 9100)), script.finding(self.results(9900, 8900))
        assert "in one go at 2 of 2 densities (as the paper has it)" in agreeing
        assert "L1 beats L2 at 2 (as in the paper), with training L2 beats L1 at 2 (as in the paper)" in agreeing
        assert "in one go at 0 of 2 densities (not as the paper has it)" in contrary
        assert "L1 beats L2 at 0 (not as in the paper)" in contrary


class TestQuantizedMlp:
    def results(self) -> list[dict[str, Any]]:
        found = [line(9928, method="none", bits=32, variant="", trained=False, coder="fixed")]
        for method, correct in (("uniform", 9700), ("k-means", 9800)):
            for bits in (1, 2):
                for trained in (False, True):
                    for coder, size in (("fixed", 4000), ("huffman", 3000)):
                        fields = {"method": method, "bits": bits, "variant": "", "trained": trained, "coder": coder}
                        right = correct + 60 * bits * trained
                        found.append(line(right, **fields) | {"file_bytes": size * bits})
        return found

    def test_row_and_sentence(self) -> None:
        script = import_module("quantized_mlp")
        (table,) = script.tables(self.results())
        assert table.texts[1] == ("2", "3.00 %", "2.00 %", "1.80 %", "0.80 %", "8,000", "6,000", "8,000", "6,000")
        said = script.finding(self.results())
        assert "at 2 without training and at 2 with training of 2 widths" in said
        assert said.endswith("fixed k-means 8.00 kB (2 bits); huffman k-means 6.00 kB (2 bits).")


class TestVectorQuantization:
    def results(self) -> list[dict[str, Any]]:
        common = {"model": "lenet5_caffe", "layer_dense_bytes": 1000}
        found = [line(9900, method="none", setting="", layer_bytes=1000, **common)]
        for method, size in (("k-means", 100), ("product", 50)):
            found.append(line(9850, method=method, setting="fine", layer_bytes=size, **common))
            coarse = line(9000, method=method, setting="coarse", layer_bytes=10, **common)
            found.append(coarse | {"held_out_correct": 4899})
        found.append(line(1000, method="sign", setting="1 bit", layer_bytes=9, **common) | {"held_out_correct": 500})
        return found

    def test_the_smallest_within_a_point_of_held_out_images(self) -> None:
        script = import_module("vector_quantization")
        (table,) = script.tables(self.results())
        assert table.texts[0] == ("lenet5_caffe", "k-means", "fine", "10.0x", "1.50 %", "0.50 points")
        assert table.texts[2][2:] == ("none within a point", "-", "-", "-")
        assert table.texts[-1][3] == "16 to 24x"
        assert "product 20.0x, k-means 10.0x, so product is best, as in the paper" in script.finding(self.results())


class TestCodingBound:
    def results(self) -> list[dict[str, Any]]:
        found = []
        for stream in ("all codes", "kept codes", "gaps"):
            for coder, bits in (("huffman", 110), ("range", 101), ("context", 90)):
                if coder != "context" or stream == "all codes":
                    numbers = {"symbols": 50, "entropy_bits": 100.0, "coded_bits": bits, "decode_seconds": 1e-5}
                    found += [
                        {"network": "n", "layer": name, "stream": stream, "coder": coder} | numbers for name in "ab"
                    ]
        return found

    def test_row_and_sentence(self) -> None:
        script = import_module("coding_bound")
        (table,) = script.tables(self.results())
        shown = ("+10.00 %", "+1.00 %", "-10.00 %", "5.0", "5.0", "5.0")
        assert table.texts[0] == ("n", "all codes", "100", "2.000", *shown)
        assert table.texts[1][-1] == "-"
        said = script.finding(self.results())
        assert "at most 0.20 bits a symbol" in said
        assert "59.1 % less" in said

    def test_streams_hold_what_the_weight_does(self) -> None:
        import numpy as np

        weight = np.array([[0, -0.5, 0, 0], [0.25, 0, 0, -0.5]], np.float32)
        found = import_module("coding_bound").streams(weight)
        assert found["all codes"][0].tolist() == [[0, 1, 0, 0], [2, 0, 0, 1]]
        assert found["kept codes"][0].tolist() == [0, 1, 0]
        assert found["gaps"][0].tolist() == [1, 2, 2]

    def test_it_names_the_script_that_writes_its_files(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert import_module("coding_bound").main(["--files", str(tmp_path)]) == 2
        assert "deep_compression.py` writes it" in capsys.readouterr().err


class TestXnorAccuracy:
    def test_row_and_sentence(self) -> None:
        script = import_module("xnor_accuracy")
        kinds = zip(script.KINDS, (9900, 9850, 9800), (32, 2, 1), (1024, 32, 4), strict=True)
        results = [
            line(right, dataset="mnist", model="m", kind=kind, epochs=4, bit_operations=operations)
            | {"file_bytes": size, "dense_bytes": 32}
            for kind, right, size, operations in kinds
        ]
        (table,) = script.tables(results)
        assert table.texts[1] == ("mnist", "m", "binary weights", "1.50 %", "2", "16.0x", "32", "32.0x")
        said = script.finding(results)
        assert said.startswith("Binary weights cost 0.50 points on mnist after 4 epochs, in a file 16.0 times smaller")


class TestOmittedDigit:
    def results(self, threes_known: int) -> list[dict[str, Any]]:
        threes = {"omission": "no threes", "unseen": 1000, "shift": 3.5, "errors": 200, "errors_shifted": 110}
        soft = threes | {"way": "soft targets", "unseen_errors": 133, "unseen_errors_shifted": 1000 - threes_known}
        hard = threes | {"way": "labels", "unseen_errors": 1000, "unseen_errors_shifted": 900}
        rest = {"omission": "none", "way": "labels", "unseen": 0, "shift": 0.0, "errors": 80, "errors_shifted": 80}
        return [soft, hard, rest | {"unseen_errors": 0, "unseen_errors_shifted": 0}]

    def test_theirs_stands_beside_ours(self) -> None:
        script = import_module("omitted_digit")
        (table,) = script.tables(self.results(980))
        paper = ("206 (133 of 1,010 threes)", "109 (14 of 1,010 threes)")
        assert table.texts[0] == ("threes", "soft targets", "200", "133 of 1,000", "+3.5", "110", "20 of 1,000", *paper)
        assert table.texts[2] == ("none", "labels", "80", "", "", "", "", "", "")

    def test_the_finding_follows_the_numbers(self) -> None:
        script = import_module("omitted_digit")
        assert "knows 98.0% of the threes" in script.finding(self.results(980))
        assert ", as in the paper" in script.finding(self.results(980))
        assert "unlike in the paper" in script.finding(self.results(90))

    def test_the_picture_has_a_curve_for_each_that_has_something_unseen(self) -> None:
        script = import_module("omitted_digit")
        curve = [1000, *[200] * 80]
        results = [line | {"held_out": 5000, "held_out_errors": curve} for line in self.results(980)]
        (panel,) = script.picture(results).panels
        assert [line.label for line in panel.lines] == ["soft targets", "labels"]
        assert panel.lines[0].points[0] == (-20.0, 20.0)
        assert panel.lines[0].points[-1] == (20.0, 4.0)

    def test_the_shift_moves_what_was_never_seen(self) -> None:
        import torch
        from torch import nn

        from zoo.data import Dataset

        script = import_module("omitted_digit")
        labels = torch.tensor([3, 3, 3, 8])
        images = torch.zeros(4, 1, 1, 1, dtype=torch.uint8)
        names = tuple("0123456789")
        held_out = Dataset("made", "train", images, labels, names, (0.0,), (1.0,), "", mirrored=False)
        scores = torch.zeros(4, 10)
        scores[:, 8], scores[:3, 3], scores[3, 3] = 2.0, 1.0, -4.0

        class Fixed(nn.Module):
            def forward(self, images: torch.Tensor) -> torch.Tensor:
                return scores[: len(images)]

        digits = tuple(d for d in range(10) if d != 3)
        wrong = script.errors_by_shift(Fixed(), held_out, digits)
        shift = float(script.SHIFTS[wrong.index(0)])
        assert 1 <= shift <= 6
        assert (wrong[0], wrong[200], wrong[-1]) == (3, 3, 1)
        found = script.errors(Fixed(), held_out, digits, shift)
        assert (found["errors"], found["unseen"], found["unseen_errors"]) == (3, 3, 3)
        assert (found["errors_shifted"], found["unseen_errors_shifted"]) == (0, 0)

    @pytest.mark.slow
    def test_it_runs_on_the_digits(
        self, tmp_path: Path, digits_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("ZOO_DATA", str(digits_root))
        script = import_module("omitted_digit")
        assert script.main(["--dataset", "digits", "--epochs", "1", "--files", str(tmp_path)]) == 0
        results = [json.loads(text) for text in (tmp_path / "omitted_digit.jsonl").read_text().splitlines()]
        assert [(r["omission"], r["way"]) for r in results] == [(o, w) for o in script.OMISSIONS for w in script.WAYS]
        assert capsys.readouterr().out == script.finding(results) + "\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "constants"),
    [
        ("sharing_curves", ["--bits", "1", "--seeds", "1"], {}),
        ("pruning_schedules", ["--epochs", "3"], {"DENSITIES": (0.1,), "PENALTIES": {"L1": (1e-4,), "L2": (1e-3,)}}),
        ("quantized_mlp", ["--bits", "1"], {}),
        ("vector_quantization", [], {"WIDTHS": (4,)}),
        ("xnor_accuracy", ["--epochs", "1"], {}),
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
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    script = import_module(name)
    for constant, value in constants.items():
        monkeypatch.setattr(script, constant, value)
    assert script.main(["--dataset", "digits", "--files", str(tmp_path), *options]) == 0
    results = [json.loads(text) for text in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
    assert all(0 < result["correct"] <= result["total"] for result in results)
    assert capsys.readouterr().out == script.finding(results) + "\n"
    assert script.tables(results)[0].texts


@pytest.mark.slow
def test_coding_runs_on_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import zoo
    from zoo.compression import Huffman, Prune, Share, save_packed

    model = zoo.create_model("lenet_300_100", dataset="digits")
    packed = zoo.compress(model, [Prune(0.1), Share(3), Huffman()], dataset="digits")
    save_packed(tmp_path / "small.paper.zpk", packed)
    out = tmp_path / "lines.jsonl"
    script = import_module("coding_bound")
    options = ["--files", str(tmp_path), "--networks", "small", "--rounds", "1", "--out", str(out)]
    assert script.main(options) == 0
    results = [json.loads(text) for text in out.read_text().splitlines()]
    assert len(results) == 3 * 7
    assert capsys.readouterr().out == script.finding(results) + "\n"


@pytest.mark.parametrize("name", NAMES)
def test_committed_lines_differ_in_their_keys(name: str) -> None:
    experiment = import_module(name).EXPERIMENT
    results = import_module("experiments").results_of(ROOT / experiment.results)
    assert results, "no results are committed"
    assert len({tuple(line[field] for field in experiment.key) for line in results}) == len(results)
    assert experiment.finding(results).count(". ") == 0, "one sentence"
