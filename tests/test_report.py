"""Numbers as text, tables in every form, README blocks, plots."""

import csv
import io
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ranking_fakes import fake_card, fake_cost, fake_row

from zoo import report
from zoo.data import Dataset
from zoo.errors import MissingPackageError, UnknownNameError, ZooError
from zoo.evaluation import Evaluation
from zoo.ranking import COLUMNS, mark_fronts
from zoo.registry import architectures
from zoo.report import Column, Table, render

ROOT = Path(__file__).parent.parent
ROWS = mark_fronts([fake_row("lenet5", 0.7, 10_000), fake_row("vgg|16", None, 2_000_000), fake_row("nin", 0.9, 50_000)])


class TestNumbers:
    @pytest.mark.parametrize(
        ("number", "text"),
        [
            (0, "0"), (7, "7"), (999, "999"), (1000, "1.00 k"), (61_706, "61.7 k"), (99_949, "99.9 k"),
            (99_951, "100 k"), (999_499, "999 k"), (999_500, "1.00 M"), (15_470_264_320, "15.5 G"), (2.5e12, "2.50 T"),
        ],
    )  # fmt: skip
    def test_count(self, number: int, text: str) -> None:
        assert report.count_text(number) == text

    @given(st.integers(0, 10**14))
    def test_count_is_right_to_three_digits(self, number: int) -> None:
        digits, _, letter = report.count_text(number).partition(" ")
        back = float(digits.replace(",", "")) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[letter]
        assert back == pytest.approx(number, rel=0.00501)

    def test_others(self) -> None:
        assert report.size_text(123_412) == "123 kB"
        assert report.size_text(12) == "12 B"
        assert report.exact_text(61_706) == "61,706"
        assert report.percent_text(0.94164) == "94.16 %"
        assert report.image_text((3, 32, 32)) == "3 x 32 x 32"
        assert report.score_text(78.168) == "78.2"
        assert [report.ratio_text(r) for r in (0, 0.0123456, 1, 9.996, 99.96, 1234.5)] == [
            "0x", "0.0123x", "1.00x", "10.0x", "100x", "1,230x",
        ]  # fmt: skip


class TestForms:
    def test_text_is_aligned_and_gives_each_reason_once(self) -> None:
        lines = render(report.ranking_table(ROWS, ["name", "macs", "top1", "correct"]), "text").splitlines()
        assert lines[0] == "model     MACs    top-1  correct"
        assert lines[2] == "lenet5  10.0 k  70.00 %        -"
        assert lines[3] == "vgg|16  2.00 M        -        -"
        assert [line for line in lines if "no weights" in line] == ["  missing (-) in top-1, correct: no weights"]

    def test_a_narrow_window_drops_the_least_columns_and_says_so(self) -> None:
        table = report.ranking_table(ROWS)
        wide = render(table, "text", width=200)
        assert "left out" not in wide
        narrow = render(table, "text", width=40)
        body = narrow.splitlines()[: len(ROWS) + 2]
        assert max(map(len, body)) <= 40
        assert body[0].split()[0] == "model"
        assert "left out for want of width" in narrow
        assert "NetScore" not in body[0]
        assert "NetScore: arXiv" not in narrow, "a note on a column that is not shown"

    def test_columns_asked_for_are_never_dropped(self) -> None:
        text = render(report.ranking_table(ROWS, list(COLUMNS)), "text", width=20)
        assert "left out" not in text

    def test_csv_is_raw(self) -> None:
        records = list(csv.DictReader(io.StringIO(render(report.ranking_table(ROWS, whole=True), "csv"))))
        assert set(records[0]) == set(COLUMNS)
        assert records[0]["macs"] == "10000"
        assert records[0]["top1"] == "0.7"
        assert records[1]["top1"] == ""
        assert json.loads(records[0]["image"]) == [3, 32, 32]
        assert json.loads(records[0]["pareto_macs"]) is True

    def test_json_is_raw_and_gives_reasons(self) -> None:
        records = json.loads(render(report.ranking_table(ROWS, whole=True), "json"))
        assert records[0]["macs"] == 10_000
        assert records[1]["top1"] is None
        assert records[1]["missing"]["top1"] == "no weights"
        assert "top1" not in records[0].get("missing", {})

    def test_json_of_several_tables_is_one_object(self) -> None:
        tables = [report.cost_table(fake_cost("lenet5")), report.ranking_table(ROWS)]
        assert set(json.loads(render(tables, "json"))) == {"layers", "ranking"}

    def test_markdown_has_as_many_cells_in_every_line(self) -> None:
        text = render(report.ranking_table(ROWS), "markdown")
        lines = [line for line in text.splitlines() if line.startswith("|")]
        assert len(lines) == len(ROWS) + 2
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
        assert r"vgg\|16" in text

    def test_html_is_well_formed_and_escaped(self) -> None:
        page = render(report.ranking_table([fake_row("<script>&", 0.5, 10)]), "html")
        assert "<script>" not in page
        root = ElementTree.fromstring(page.replace("<!doctype html>\n", "").replace('<meta charset="utf-8">', ""))
        assert root.find(".//tbody/tr/td").text == "<script>&"  # type: ignore[union-attr]

    def test_terminal_has_the_same_texts(self) -> None:
        table = report.ranking_table(ROWS)
        coloured = render(table, "text", width=150, terminal=True)
        assert "\x1b[" in coloured
        bare = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
        assert [line.split() for line in bare.splitlines() if "lenet5" in line] == [
            line.split() for line in render(table, "text").splitlines() if "lenet5" in line
        ]

    def test_terminal_without_rich_is_plain(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "rich.console", None)
        table = report.ranking_table(ROWS)
        assert render(table, "text", width=150, terminal=True) == render(table, "text", width=150)

    def test_empty(self) -> None:
        for form in report.FORMATS:
            assert render(report.ranking_table([]), form)

    def test_named_functions_are_the_forms(self) -> None:
        table = report.ranking_table(ROWS)
        assert report.table_json(table) == render(table, "json")
        assert report.table_csv(table) == render(table, "csv")
        assert report.table_markdown(table) == render(table, "markdown")
        assert report.table_html(table) in render(table, "html")

    def test_unknown_format_and_column(self) -> None:
        with pytest.raises(UnknownNameError, match=r"no format is called 'jsn'. Did you mean 'json'"):
            render(report.ranking_table(ROWS), "jsn")
        with pytest.raises(UnknownNameError, match=r"no column is called 'mac'. Did you mean 'macs'"):
            report.ranking_table(ROWS, ["mac"])

    @given(st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1), min_size=1, max_size=5))
    def test_any_text_survives_csv_and_json(self, words: list[str]) -> None:
        table = Table((Column("word", "word"),), tuple((w,) for w in words), tuple((w,) for w in words))
        assert [record["word"] for record in csv.DictReader(io.StringIO(render(table, "csv")))] == words
        assert [record["word"] for record in json.loads(render(table, "json"))] == words


class TestPages:
    def test_comparison_is_exact_with_ratios_to_the_first(self) -> None:
        table = report.comparison_table(ROWS)
        texts = {line[0]: line[1:] for line in table.texts}
        assert texts["MACs"] == ("10,000", "2,000,000 (200x)", "50,000 (5.00x)")
        assert texts["top-1"] == ("70.00 %", "-", "90.00 %")
        assert json.loads(render(table, "json"))["macs"] == {"lenet5": 10_000, "vgg|16": 2_000_000, "nin": 50_000}
        assert "missing (-) in vgg|16: no weights" in report.footnotes(table)

    def test_comparison_of_a_model_with_itself_keeps_both(self) -> None:
        assert [c.title for c in report.comparison_table([ROWS[0], ROWS[0]]).columns[1:]] == [
            "lenet5 (1)",
            "lenet5 (2)",
        ]

    def test_layers_end_in_their_total(self) -> None:
        table = report.cost_table(fake_cost("lenet5"))
        assert len(table.values) == 2
        assert table.values[0][:4] == ("features.0", "Conv2d", (8, 4, 4), 500)
        assert table.texts[-1][3] == "1,000"
        assert table.texts[-1][5] == "10,000"

    def test_model_facts(self) -> None:
        arch = architectures()["lenet5"]
        facts = json.loads(render(report.model_table(arch, fake_cost("lenet5"), 10), "json"))
        assert facts["params_used"] == 1000
        assert facts["params"] == 1007
        assert facts["image"] == [3, 32, 32]
        assert facts["for_training_only"] == "auxiliary.a"

    def test_models_with_their_weights(self) -> None:
        cards = [fake_card("lenet5"), fake_card("lenet5", "mnist", tag="long")]
        table = report.models_table(["lenet5", "timm/x"], architectures(), cards)
        assert table.texts[0][-1] == "cifar10, mnist (long)"
        assert table.texts[1] == ("timm/x", "-", "-", "-", "-", "-", "")

    def test_cards(self) -> None:
        table = report.cards_table([fake_card("lenet5"), fake_card("vgg16_bn", runs=3)])
        assert table.texts[0][:3] == ("lenet5.cifar10", "90.00 %", "9,000")
        assert table.texts[0][6] == "-"
        assert table.texts[1][4:7] == ("3", "90.10 %", "0.10 %")
        assert report.footnotes(table) == ["missing (-) in std: one training has no spread"]

    def test_data(self, tiny: Dataset) -> None:
        table = report.datasets_table([replace(tiny, inexact_rows=(3,), digest="ab" * 32)])
        assert table.texts[0] == ("train", "100", "3 x 32 x 32", "10", "10", "10", "1", "307 kB", "abababababab")
        assert table.values[0][-1] == "ab" * 32

    def test_scores_and_confusion(self) -> None:
        evaluation = Evaluation(3, 4, 0.51234, torch.tensor([[2, 1], [0, 1]]))
        facts = json.loads(
            render(report.evaluation_table(evaluation, model="lenet5", dataset="mnist", split="test"), "json")
        )
        assert (facts["correct"], facts["total"], facts["top1"], facts["loss"]) == (3, 4, 0.75, 0.51234)
        counts = json.loads(render(report.confusion_table(evaluation.confusion, ["cat", "dog"]), "json"))
        assert counts == {"cat": {"cat": 2, "dog": 1}, "dog": {"cat": 0, "dog": 1}}

    def test_verification(self) -> None:
        table = report.verification_table({"a": [], "b": ["params: 1", "macs: 2"]})
        assert table.texts == (("a", "green", ""), ("b", "red", "params: 1; macs: 2"))


class TestBlocks:
    TEXT = "# title\n<!-- zoo:a -->\nold\n<!-- /zoo:a -->\nbetween\n<!-- zoo:b -->\n<!-- /zoo:b -->\nend\n"

    def test_only_the_named_block_changes(self) -> None:
        text = report.replace_block(self.TEXT, "a", "new\n")
        assert text == self.TEXT.replace("\nold\n", "\nnew\n")
        assert report.replace_block(text, "a", "new") == text

    def test_unknown_block_lists_those_there_are(self) -> None:
        with pytest.raises(UnknownNameError, match=r"no block is called 'c'.*a, b"):
            report.replace_block(self.TEXT, "c", "new")

    @pytest.mark.parametrize("text", ["<!-- zoo:a -->\n", "<!-- /zoo:a -->\n<!-- zoo:a -->", TEXT + TEXT])
    def test_half_a_block_or_two_are_refused(self, text: str) -> None:
        with pytest.raises(UnknownNameError):
            report.replace_block(text, "a", "new")


class TestPlots:
    CROWD = mark_fronts(
        [fake_row(f"network_{i:02d}", 0.8 + 0.02 * (i % 7), 1_000_000 * 2 ** (i % 5) + 30_000 * i) for i in range(21)]
        + [fake_row(f"neighbour_{i}", 0.899 + 0.0004 * i, 5_000_000 + 9_000 * i) for i in range(9)]
        + [fake_row("unknown", None, 5_000_000)]
    )

    def test_pareto_draws_every_row_with_an_accuracy_and_counts_the_rest(self, tmp_path: Path) -> None:
        path = tmp_path / "front.svg"
        assert report.pareto_plot(self.CROWD, path) == 1
        text = path.read_text()
        assert all(row.name in text for row in self.CROWD if row.top1 is not None)
        assert "unknown" not in text
        assert "1 of 31 models not drawn" in text
        assert report.plot_digest(self.CROWD, "macs") in text

    REFERENCES = tuple(
        report.Reference(f"elsewhere_{i}", "cifar10", 0.85 + 0.01 * i, 900_000 * (i + 1), macs, i % 2 == 0, "a paper")
        for i, macs in enumerate((2_000_000, 3_000_000, None, 5_000_000, 5_100_000, 9_000_000))
    )

    def test_references_are_drawn_by_name_where_their_cost_is_known(self, tmp_path: Path) -> None:
        path = tmp_path / "front.svg"
        assert report.pareto_plot(self.CROWD, path, references=self.REFERENCES) == 1
        text = path.read_text()
        assert [r.name in text for r in self.REFERENCES] == [r.macs is not None for r in self.REFERENCES]
        assert ">published elsewhere<" in text
        assert ">published elsewhere, weights openly licensed<" in text
        report.pareto_plot(self.CROWD, path, x="bytes", references=self.REFERENCES)
        assert "elsewhere" not in path.read_text()

    def test_digest_follows_the_references_that_are_drawn(self) -> None:
        changed = (replace(self.REFERENCES[0], top1=0.5), *self.REFERENCES[1:])
        closed = (replace(self.REFERENCES[0], open_weights=False), *self.REFERENCES[1:])
        sets = ((), self.REFERENCES, changed, closed)
        assert len({report.plot_digest(self.CROWD, "macs", references) for references in sets}) == 4
        assert len({report.plot_digest(self.CROWD, "bytes", references) for references in sets}) == 1

    def test_references_alone_are_a_picture(self, tmp_path: Path) -> None:
        report.pareto_plot([fake_row("a", None, 5)], tmp_path / "front.svg", references=self.REFERENCES)
        assert "elsewhere_0" in (tmp_path / "front.svg").read_text()

    def test_no_error_at_all_has_its_place(self, tmp_path: Path) -> None:
        rows = mark_fronts([fake_row("perfect", 1.0, 1000), fake_row("good", 0.99, 100)])
        report.pareto_plot(rows, tmp_path / "front.svg")
        assert "perfect" in (tmp_path / "front.svg").read_text()

    @pytest.mark.parametrize(
        ("low", "high", "ticks"),
        [
            (3, 33, [3, 4, 5, 6, 7, 8, 9, 10, 20, 30]),
            (0.25, 0.55, [0.3, 0.4, 0.5]),
            (9.1, 9.45, [9.1, 9.2, 9.3, 9.4]),
            (40, 110, [40, 50, 60, 70, 80, 90, 100]),
        ],
    )
    def test_ticks_are_round_errors(self, low: float, high: float, ticks: list[float]) -> None:
        from zoo.report.pareto import _error_ticks

        assert _error_ticks(low, high) == ticks

    def test_same_rows_same_bytes(self, tmp_path: Path) -> None:
        for name in ("a.svg", "b.svg"):
            report.pareto_plot(self.CROWD, tmp_path / name, x="params")
        assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()

    def test_digest_follows_what_is_drawn(self) -> None:
        changed = [replace(self.CROWD[0], top1=0.5), *self.CROWD[1:]]
        digests = {
            report.plot_digest(rows, x) for rows in (self.CROWD, changed, self.CROWD[1:]) for x in ("macs", "bytes")
        }
        assert len(digests) == 6

    def test_labels_do_not_cover_one_another(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from matplotlib.axes import Axes

        from zoo.report import pareto

        boxes: list[tuple[float, float, float, float]] = []
        place = pareto._place_labels

        def placed(axes: Axes, points: list[pareto.Point]) -> None:
            place(axes, points)
            boxes.extend(text.get_window_extent().extents for text in axes.texts)

        monkeypatch.setattr(pareto, "_place_labels", placed)
        report.pareto_plot(self.CROWD, tmp_path / "front.png", references=self.REFERENCES)
        assert len(boxes) == 35
        overlaps = [pareto._overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i]]
        assert max(overlaps) <= 1, "square pixels"

    def test_no_accuracy_at_all_is_still_a_picture(self, tmp_path: Path) -> None:
        assert report.pareto_plot([fake_row("a", None, 5)], tmp_path / "front.png") == 1
        assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")

    @pytest.mark.parametrize("name", ["front", "front.jpg"])
    def test_other_endings_are_refused(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ZooError, match=r"\.svg or \.png"):
            report.pareto_plot(self.CROWD, tmp_path / name)
        assert list(tmp_path.glob("front*")) == []

    def test_unknown_axis(self, tmp_path: Path) -> None:
        with pytest.raises(UnknownNameError, match=r"no axis is called 'mac'. Did you mean 'macs'"):
            report.pareto_plot(self.CROWD, tmp_path / "front.svg", x="mac")

    def test_without_matplotlib_it_says_what_to_install(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(MissingPackageError, match="pip install matplotlib"):
            report.curves_plot([], tmp_path / "curves.png")

    def test_curves_skip_what_an_epoch_lacks(self, tmp_path: Path) -> None:
        history = [
            {"epoch": 1, "lr": 0.1, "train_loss": 2.0, "valid_loss": None, "valid_top1": None},
            {"epoch": 2, "lr": 0.1, "train_loss": 1.0, "valid_loss": 1.5, "valid_top1": 0.5},
        ]
        report.curves_plot(history, tmp_path / "curves.svg")
        text = (tmp_path / "curves.svg").read_text()
        assert all(label in text for label in ("train loss", "valid loss", "valid top1", "epoch"))
        report.curves_plot([], tmp_path / "none.svg")

    def test_confusion_prints_counts(self, tmp_path: Path) -> None:
        report.confusion_plot(torch.tensor([[70, 1], [29, 0]]), ["katze", "hund"], tmp_path / "confusion.svg")
        text = (tmp_path / "confusion.svg").read_text()
        assert all(f">{word}<" in text for word in ("katze", "hund", "70", "29"))

    def test_mistakes_are_the_worst_and_only_wrong_ones(self, tmp_path: Path) -> None:
        images = torch.randint(256, (4, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
        true = torch.tensor([0, 0, 1, 1])
        shares = torch.tensor([[0.9, 0.1], [0.3, 0.7], [0.8, 0.2], [0.6, 0.4]])
        path = tmp_path / "mistakes.svg"
        report.mistakes_sheet(images, true, shares.argmax(1), shares, ["one", "two"], path, most=2)
        text = path.read_text()
        assert "2 worst of 3 mistakes in 4" in text
        assert text.index("#2") < text.index("#1"), "the largest loss comes first"
        assert "#3" not in text
        assert "#0" not in re.sub(r"#[0-9a-f]{6}", "", text)
        assert "two &gt; one" in text
        assert "80.00 %" in text

    def test_no_mistakes(self, tmp_path: Path) -> None:
        images = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
        zero = torch.tensor([0])
        report.mistakes_sheet(images, zero, zero, torch.ones(1, 1), ["only"], tmp_path / "mistakes.png")
        assert (tmp_path / "mistakes.png").exists()

    def test_a_script_that_the_font_lacks_is_no_error(self, tmp_path: Path) -> None:
        report.confusion_plot(torch.eye(2, dtype=torch.int64), ["猫", "犬"], tmp_path / "confusion.png")
        assert (tmp_path / "confusion.png").exists()


class TestReadme:
    @pytest.fixture
    def tables(self, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
        monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
        import tables

        return tables

    def test_blocks_and_plots_are_written_once_and_then_fresh(
        self, tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        markers = re.findall(r"<!-- zoo:([\w-]+) -->", (ROOT / "README.md").read_text())
        assert "weights" in markers
        (tmp_path / "README.md").write_text("".join(f"<!-- zoo:{m} -->\n<!-- /zoo:{m} -->\n" for m in markers))
        monkeypatch.setattr(tables, "rank", lambda dataset: ROWS)
        monkeypatch.setattr(tables, "list_cards", lambda: [fake_card("lenet5")])
        results = tmp_path / "benchmarks/results/trainer_speed.jsonl"
        results.parent.mkdir(parents=True)
        line = {"model": "lenet5", "ratio_low": 1.5, "ratio_high": 3, "rounds": 5}
        lines = [{"comparison": "a", "ratio_median": 9, **line}, {"comparison": "a", "ratio_median": 2.126, **line}]
        results.write_text("".join(json.dumps(entry) + "\n" for entry in lines))

        assert tables.main(["--check"], root=tmp_path) == 1
        assert "stale: block weights of README.md" in capsys.readouterr().out
        assert "lenet5" not in (tmp_path / "README.md").read_text()
        assert tables.main([], root=tmp_path) == 0
        text = (tmp_path / "README.md").read_text()
        assert "| a | lenet5 | 2.13 | 1.50 | 3.00 | 5 |" in text, "the latest result of a comparison counts"
        assert "lenet5.cifar10" in text
        assert "| nin | 90.00 % | 5.00 M MACs | 50.0 k |" in text, "above the best open checkpoint of its budget"
        assert tables.readme_blocks(tmp_path, {"cifar10": ROWS[:2]})["reference-beaten"] == "None yet."
        assert "BSConv" in (results.parent / "pareto-cifar10-macs.svg").read_text()
        assert "BSConv" not in (results.parent / "pareto-mnist-macs.svg").read_text()
        assert len(list(results.parent.glob("*.svg"))) == 6
        assert tables.main(["--check"], root=tmp_path) == 0

        monkeypatch.setattr(tables, "rank", lambda dataset: ROWS[:2])
        capsys.readouterr()
        assert tables.main(["--check"], root=tmp_path) == 1
        assert "pareto-mnist-macs.svg" in capsys.readouterr().out

    def test_the_slowest_file_to_load_is_named(self, tables: ModuleType, tmp_path: Path) -> None:
        path = tmp_path / "loading_time.jsonl"
        cards = [fake_card("lenet5"), replace(fake_card("vgg16_bn"), sha256="1" * 64)]
        assert tables.loading_text(path, cards) == "No results yet."
        line = {"weights": "a", "file_bytes": 2_000_000, "seconds_low": 0.01, "seconds_high": 0.05, "rounds": 9}
        lines = [
            {**line, "sha256": "0" * 64, "seconds_median": 0.0301},
            {**line, "sha256": "1" * 64, "seconds_median": 0.0401, "weights": "b"},
            {**line, "sha256": "2" * 64, "seconds_median": 0.0501, "weights": "of a file that is no longer stored"},
        ]
        path.write_text("".join(json.dumps(entry) + "\n" for entry in lines))
        assert tables.loading_text(path, cards).startswith(
            "Of 2 files measured (2 are stored), `b` (2.00 MB) takes the longest: 0.040 s beyond building the network"
        )

    @pytest.mark.slow
    @pytest.mark.skipif(not (ROOT / "README.md").exists(), reason="there is no README.md")
    def test_readme_and_plots_are_fresh(self, tables: ModuleType) -> None:
        assert tables.refresh(ROOT, write=False) == []


class TestReferences:
    @pytest.fixture
    def references(self, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
        monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
        import references

        return references

    def test_the_table_is_of_shares_and_counts(self, references: ModuleType) -> None:
        table = references.REFERENCES
        assert len({(r.dataset, r.name) for r in table}) == len(table)
        assert all(0.5 < r.top1 < 1 and r.source and (r.params or r.macs) for r in table)
        assert {r.dataset for r in table} == {"mnist", "cifar10"}

    @pytest.mark.parametrize(
        ("cost", "budget", "name"),
        [
            ("macs", 5_000_000, "open, 2.1 M MACs"),
            ("macs", 15_000_000, "ShuffleNetV2 0.5"),
            ("macs", 50_000_000, "ResNet-20 (pytorchcv)"),
            ("macs", 150_000_000, "SE-ResNet-56"),
            ("macs", 300_000_000, "SE-ResNet-164-BN"),
            ("params", 100_000, "MLPerf Tiny ResNet-8"),
            ("params", 300_000, "ResNet-20 (pytorchcv)"),
            ("params", 1_000_000, "SE-ResNet-56"),
        ],
    )
    def test_the_best_open_checkpoint_of_each_budget(
        self, references: ModuleType, cost: str, budget: int, name: str
    ) -> None:
        assert references.best_open("cifar10", cost, budget).name == name

    def test_no_open_checkpoint_is_known_there(self, references: ModuleType) -> None:
        assert references.best_open("cifar10", "params", 50_000) is None
        assert references.best_open("mnist", "macs", 5_000_000) is None

    def test_a_lead_is_over_the_budget_that_the_model_keeps_to(self, references: ModuleType) -> None:
        rows = [
            fake_row(
                "small", 0.91, 12_000_000, params=90_000
            ),  # above 90.13 at 15 M MACs, above 85 at 100 k parameters
            fake_row("level", 0.9013, 15_000_000, params=400_000),
            fake_row("above_all_budgets", 0.99, 400_000_000, params=20_000_000),
            fake_row("without_rival", 0.7, 400_000_000, params=40_000),
            fake_row("unknown", None, 1_000_000),
        ]
        found = references.leads(rows)
        assert [(lead.row.name, lead.cost, lead.budget, lead.beaten.name) for lead in found] == [
            ("small", "macs", 15_000_000, "ShuffleNetV2 0.5"),
            ("small", "params", 100_000, "MLPerf Tiny ResNet-8"),
        ]
        assert found[0].points == pytest.approx(0.87)
        assert references.leads_table(found).texts[0] == (
            "small", "91.00 %", "15.0 M MACs", "12.0 M", "ShuffleNetV2 0.5, 10.9 M", "90.13 %", "0.87",
        )  # fmt: skip

    def test_a_lead_is_only_over_the_same_data_set(self, references: ModuleType) -> None:
        assert references.leads([fake_row("digits", 0.99, 12_000_000, dataset="mnist")]) == []
