"""Rows, their order, conditions, Pareto fronts, NetScore and ratios."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ranking_fakes import COSTS, fake_card, fake_cost, fake_row
from torch import nn

from zoo.conditions import parse_where
from zoo.cost import Cost
from zoo.errors import ImageSizeError, UnknownNameError, ZooError
from zoo.ranking import COLUMNS, KINDS, RATIOS, Row, mark_fronts, netscore, pareto_front, rank

FAKES = list(COSTS)
CARDS = [fake_card("squeezenet1_1", correct=9000, runs=3), fake_card("vgg16_bn", correct=9400)]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Costs come from the fakes."""
    monkeypatch.setattr("zoo.ranking.cached_cost", fake_cost)


def names(rows: list[Row]) -> list[str]:
    return [row.label for row in rows]


@pytest.mark.usefixtures("counted")
class TestRank:
    def test_a_row_joins_architecture_cost_and_card(self) -> None:
        (row,) = rank(["squeezenet1_1"], dataset="cifar10", cards=CARDS)
        assert (row.family, row.year, row.image) == ("squeezenet", 2016, (3, 32, 32))
        assert (row.params, row.macs, row.flops) == (100_000, 5_000_000, 10_000_000), "params are those of inference"
        assert (row.bytes, row.correct, row.total, row.top1) == (200_000, 9000, 10_000, 0.9)
        assert row.seeds == 3
        assert row.top1_mean == pytest.approx(0.901)
        assert row.top1_std == pytest.approx(0.001)
        assert (row.macs_vs_lenet5, row.params_vs_vgg16_bn) == (500, 0.1)
        assert row.bytes_vs_vgg16_bn == 0.1
        assert row.netscore == netscore(0.9, 100_000, 5_000_000)

    def test_every_value_that_is_missing_has_a_reason(self) -> None:
        for row in rank(FAKES, dataset="cifar10", cards=CARDS):
            absent = {column for column in COLUMNS if getattr(row, column) is None and column != "tag"}
            assert absent == set(row.missing)
            assert all(row.missing.values())

    def test_default_is_every_registered_model(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from zoo.registry import architectures

        monkeypatch.setattr("zoo.ranking.cached_cost", lambda *_: fake_cost("lenet5"))
        assert set(names(rank(dataset="cifar10", cards=[]))) == set(architectures())

    def test_cards_of_another_data_set_are_left_alone(self) -> None:
        (row,) = rank(["squeezenet1_1"], dataset="cifar10", cards=[fake_card("squeezenet1_1", "mnist")])
        assert row.top1 is None

    def test_a_model_with_two_tags_has_two_rows(self) -> None:
        cards = [fake_card("lenet5"), fake_card("lenet5", tag="long", correct=9100)]
        assert names(rank(["lenet5"], dataset="cifar10", cards=cards)) == ["lenet5", "lenet5.long"]

    @pytest.mark.parametrize(
        ("by", "expected"),
        [
            (("macs",), ["lenet5", "squeezenet1_1", "mobilenetv1_025", "vgg16_bn"]),
            (("-macs",), ["vgg16_bn", "mobilenetv1_025", "squeezenet1_1", "lenet5"]),
            (("top1", "params"), ["vgg16_bn", "squeezenet1_1", "lenet5", "mobilenetv1_025"]),
            (("-top1", "-params"), ["squeezenet1_1", "vgg16_bn", "mobilenetv1_025", "lenet5"]),
            (("role", "name"), ["lenet5", "vgg16_bn", "mobilenetv1_025", "squeezenet1_1"]),
            ((), FAKES),
        ],
    )
    def test_order(self, by: tuple[str, ...], expected: list[str]) -> None:
        assert names(rank(FAKES, dataset="cifar10", by=by, cards=CARDS)) == expected

    def test_filters_act_after_ratios_and_marks(self) -> None:
        rows = rank(FAKES, dataset="cifar10", family="squeezenet", cards=[*CARDS, fake_card("lenet5", correct=9000)])
        assert names(rows) == ["squeezenet1_1"]
        assert rows[0].macs_vs_lenet5 == 500
        assert not rows[0].pareto_macs, "lenet5 is as accurate for less, though it is filtered out"

    def test_top_keeps_the_first_rows(self) -> None:
        assert names(rank(FAKES, dataset="cifar10", top=2, cards=[])) == ["lenet5", "squeezenet1_1"]

    def test_modules_are_counted_and_have_no_card(self) -> None:
        linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
        rows = rank([("mine", linear), linear], dataset="cifar10", cards=CARDS)
        assert names(rows) == ["mine", "Sequential"]
        assert rows[0].macs == 3 * 32 * 32 * 10
        assert rows[0].macs_vs_lenet5 == 3.072
        assert "module" in rows[0].missing["top1"]

    def test_image_too_small_leaves_a_row_that_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def count(name: str, image: tuple[int, int, int], classes: int) -> Cost:
            if name == "squeezenet1_1":
                raise ImageSizeError("too small")
            return fake_cost(name, image, classes)

        monkeypatch.setattr("zoo.ranking.cached_cost", count)
        rows = rank(["squeezenet1_1", "lenet5"], dataset="cifar10", cards=[])
        assert names(rows) == ["lenet5", "squeezenet1_1"]
        assert rows[1].missing["macs"] == rows[1].missing["macs_vs_lenet5"] == "too small"

    def test_a_librarys_model_is_built_and_counted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[tuple[str, str]] = []

        def create_model(name: str, *, dataset: str) -> nn.Module:
            asked.append((name, dataset))
            return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))

        monkeypatch.setattr("zoo.create.create_model", create_model)
        card = replace(fake_card("lenet5"), model="timm/tiny")
        (row,) = rank(["timm/tiny"], dataset="cifar10", cards=[card])
        assert asked == [("timm/tiny", "cifar10")]
        assert (row.macs, row.top1, row.family) == (30_720, 0.9, None)
        assert "library" in row.missing["family"]

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"by": ("mac",)}, "no column is called 'mac'. Did you mean 'macs'"),
            ({"where": "parms < 1"}, "no column is called 'parms'. Did you mean 'params'"),
            ({"family": "squeezent"}, "no family is called 'squeezent'. Did you mean 'squeezenet'"),
            ({"names_or_models": ["lenet"]}, "no model is called 'lenet'. Did you mean 'lenet5'"),
            ({"dataset": "cifar1"}, "no data set is called 'cifar1'. Did you mean 'cifar10"),
        ],
    )
    def test_wrong_names_get_the_nearest(self, wrong: dict, message: str) -> None:
        with pytest.raises(UnknownNameError) as caught:
            rank(**{"names_or_models": FAKES, "dataset": "cifar10", "cards": [], **wrong})
        assert str(caught.value).startswith(message)

    def test_top_below_one_is_refused(self) -> None:
        with pytest.raises(ZooError, match="top=0"):
            rank(FAKES, dataset="cifar10", top=0, cards=[])


POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12)


class TestParetoFront:
    def test_known(self) -> None:
        points = [(0.9, 10), (0.8, 5), (0.8, 6), (0.7, 5), (None, 1), (0.99, None), (0.9, 10)]
        assert pareto_front(points) == [True, True, False, False, False, False, True]

    @given(POINTS)
    def test_as_defined(self, points: list[tuple[int, int]]) -> None:
        def beats(a: tuple[int, int], b: tuple[int, int]) -> bool:
            return a != b and a[0] >= b[0] and a[1] <= b[1]

        assert pareto_front(points) == [not any(beats(other, point) for other in points) for point in points]

    @given(POINTS.filter(len))
    def test_never_empty(self, points: list[tuple[int, int]]) -> None:
        assert any(pareto_front(points))

    def test_marks_are_of_each_cost_by_itself(self) -> None:
        rows = mark_fronts(
            [fake_row("a", 0.9, 10), fake_row("b", 0.9, 20, params=5), fake_row("c", None, 1), fake_row("d", 0.5, 30)]
        )
        assert [row.pareto_macs for row in rows] == [True, False, False, False]
        assert [row.pareto_params for row in rows] == [False, True, False, False]


class TestNetScore:
    def test_by_hand(self) -> None:
        # a = 90 %, p = 4 M, m = 0.25 G: 20 log10(8100 / (2 * 0.5))
        assert netscore(0.9, 4_000_000, 250_000_000) == pytest.approx(20 * math.log10(8100))

    def test_ten_times_fewer_macs_are_ten_decibels(self) -> None:
        assert netscore(0.9, 1000, 1000) - netscore(0.9, 1000, 10_000) == pytest.approx(10)

    @pytest.mark.parametrize("values", [(0.0, 1, 1), (0.5, 0, 1), (0.5, 1, 0)])
    def test_needs_positive_values(self, values: tuple[float, int, int]) -> None:
        with pytest.raises(ValueError, match="positive"):
            netscore(*values)


@pytest.mark.usefixtures("counted")
def test_nothing_correct_has_no_netscore_but_a_reason() -> None:
    (row,) = rank(["lenet5"], dataset="cifar10", cards=[fake_card("lenet5", correct=0)])
    assert row.netscore is None
    assert "above 0" in row.missing["netscore"]


@pytest.mark.usefixtures("counted")
def test_ratios_to_every_baseline_are_columns() -> None:
    assert set(RATIOS) <= set(COLUMNS)
    (row,) = rank(["lenet5"], dataset="cifar10", cards=[fake_card("lenet5")])
    assert row.bytes_vs_lenet5 == 1
    assert "vgg16_bn has no bytes" in row.missing["bytes_vs_vgg16_bn"]


class TestWhere:
    ROW = replace(fake_row("squeezenet1_1", 0.9, 1000), family="squeezenet", year=2016, pareto_macs=True)

    @staticmethod
    def holds(text: str, row: Row) -> bool:
        return parse_where(text, KINDS)(row)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("macs < 1e6", True),
            ("macs < 1000", False),
            ("macs <= 1000 and macs >= 1000", True),
            ("1e2 < macs < 1e4", True),
            ("1e2 < macs < 500", False),
            ('family == "squeezenet"', True),
            ("family != 'squeezenet'", False),
            ("not family == 'vgg' and (year > 2020 or top1 > 0.5)", True),
            ("pareto_macs", True),
            ("not pareto_macs", False),
            ("pareto_macs == False", False),
            ("macs > -5", True),
            ("-5 > macs", False),
            ("params == macs", True),
            ("  macs > 1  ", True),
        ],
    )
    def test_truth(self, text: str, expected: bool) -> None:
        assert self.holds(text, self.ROW) is expected

    @pytest.mark.parametrize("text", ["netscore < 1", "netscore >= 1", "netscore == 1", "netscore != 1"])
    def test_a_missing_value_fails_every_comparison(self, text: str) -> None:
        assert not self.holds(text, self.ROW)
        assert self.holds(f"not {text}", self.ROW)

    @pytest.mark.parametrize(
        "text",
        [
            "", "macs", "macs <", "macs + 1 > 2", "__import__('os')", "macs.real > 1", "[macs]", "macs in (1, 2)",
            "macs is 1", "lambda: 1", "(macs := 3) > 1", "f'{macs}' == '1'", "macs < 'a'", "family < 3", "family",
            "'a'", "3", "macs > None", "macs > ...", "macs > 2j", "b'a' == b'a'", "-name > 1", "--3 < macs", "\x00",
            "(" * 150, "not " * 240 + "macs", "macs > 1; macs > 2", "image == 3", "macs > 1 if macs else 2",
            "*macs", "await macs", "macs < 1 " * 500, "pareto_macs > 1",
        ],
    )  # fmt: skip
    def test_anything_else_is_refused_in_one_sentence(self, text: str) -> None:
        with pytest.raises(ZooError) as caught:
            self.holds(text, self.ROW)
        assert len(str(caught.value)) < 900

    def test_an_odd_escape_is_text_like_any_other(self) -> None:
        assert not self.holds(r"family == '\d'", self.ROW)

    @given(st.text(max_size=60))
    def test_no_text_does_worse_than_be_refused(self, text: str) -> None:
        try:
            condition = parse_where(text, KINDS)
        except ZooError:
            return
        assert condition(self.ROW) in (True, False)

    def test_columns_are_checked_before_any_row(self) -> None:
        with pytest.raises(UnknownNameError, match="'parms'"):
            parse_where("macs < 0 and parms < 1", KINDS)


@pytest.mark.usefixtures("counted")
def test_the_callers_list_is_left_alone() -> None:
    given_names = ["vgg16_bn", "lenet5"]
    assert names(rank(given_names, dataset="cifar10", by=("year",), cards=[])) == ["lenet5", "vgg16_bn"]
    assert given_names == ["vgg16_bn", "lenet5"]
