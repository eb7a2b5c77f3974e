"""`zoo report`: the page says what `zoo rank` says, holds together in one file, and computes what PyTorch computes."""

import json
import os
import re
import subprocess
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from page_scripts import NODE, PAGE, ROOT, call, needs_node, run_script
from weight_files import store

from zoo import cli
from zoo.compression.receipts import Receipt
from zoo.cost import cached_cost
from zoo.errors import ZooError
from zoo.ranking import rank
from zoo.registry import architectures
from zoo.report import count_text, percent_text, ranking_table, size_text, table_markdown
from zoo.report.page import SCRIPTS, json_text, page_html, script_text
from zoo.report.page.blocks import blocks, markdown_table, parts
from zoo.report.page.records import cost_plain
from zoo.report_runs import Job, checkout, run
from zoo.weights import Card, list_cards, read_card

BROWSER = os.environ.get("ZOO_BROWSER")
DATA = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)

Captured = pytest.CaptureFixture[str]


def content_of(page: Path) -> Any:
    found = DATA.search(page.read_text())
    assert found is not None
    return json.loads(found[1])


@pytest.fixture
def stored(digits_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Card:
    """A zoo folder with one weight file, an untrained lenet5 for the digits, which are the only data there are."""
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv("ZOO_WEIGHTS", str(folder))
    monkeypatch.setenv("ZOO_DATA", str(digits_root))
    return read_card(store(folder, note="</script><script>alert(1)</script><!--"))


def write(tmp_path: Path, **changes: Any) -> tuple[Path, Any]:
    job = Job(tmp_path / "out", ("digits",), ("lenet5", "lenet_300_100"))
    page = run(replace(job, **changes), lambda line: None)
    return page, content_of(page)


def test_the_numbers_are_those_of_zoo_rank(stored: Card, tmp_path: Path, capsys: Captured) -> None:
    assert cli.main(f"report lenet5 lenet_300_100 --dataset digits --out {tmp_path}".split()) == 0
    content = content_of(tmp_path / "index.html")
    capsys.readouterr()
    assert cli.main(["rank", "lenet5", "lenet_300_100", "--dataset", "digits", "--format", "json"]) == 0
    (shown,) = content["sets"]
    assert shown["rows"] == json.loads(capsys.readouterr().out)
    table = ranking_table(rank(["lenet5", "lenet_300_100"], dataset="digits"), whole=True)
    assert [tuple(texts) for texts in shown["texts"]] == list(table.texts)
    assert set(content["costs"]["digits"]) == {"lenet5", "lenet_300_100"}
    assert content["uses"]["digits"]["lenet5"][0][1].endswith('("image.png"))')
    assert "no weights stored" in content["uses"]["digits"]["lenet_300_100"][0][1]
    assert [network["stem"] for network in content["drawing"]["networks"]] == [stored.stem]
    assert [sample["label"] for sample in content["drawing"]["samples"]] == [*range(10), *range(10)]


def test_what_is_said_of_a_card_cannot_leave_its_element(stored: Card, tmp_path: Path) -> None:
    page, content = write(tmp_path)
    note = dict(content["cards"][stored.stem]["recipe"])["note"]
    assert note == stored.note
    assert page.read_text().count("</script>") == 2 == page.read_text().count("<script")
    assert "<" not in json_text({"<": "<!-- </script"})


def test_the_file_stands_alone() -> None:
    text = page_html({}, "A & B")
    assert "<title>A &amp; B</title>" in text
    assert "{{" not in text.replace("${", "")
    assert "default-src 'none'" in text
    assert "unsafe-inline" not in text
    assert not re.search(r"""(src|href)=["'](?!#)""", text)
    assert not re.search(r"^(import|export)\b|\bfetch\(|XMLHttpRequest|innerHTML|\beval\(", script_text(), re.MULTILINE)
    assert {path.stem for path in PAGE.glob("*.mjs")} == set(SCRIPTS)


@needs_node
def test_the_joined_scripts_are_one_module(tmp_path: Path) -> None:
    path = tmp_path / "page.mjs"
    path.write_text(script_text())
    done = subprocess.run([str(NODE), "--check", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@needs_node
def test_numbers_become_the_same_text() -> None:
    numbers = [0, 7, 412, 999, 999.4, 1000, 9407, 61706, 999_499, 999_500, 124_612, 1.5, 0.031, 2_293_000, 30_821_248,
               352_468_992, 1_234_567_890_123]  # fmt: skip
    calls = [[name, n] for name in ("countText", "sizeText") for n in numbers]
    shares = [["percentText", share] for share in (0, 0.9937, 0.12345, 1)]
    found = run_script("call.mjs", "numbers.mjs", [*calls, *shares])
    assert found == [
        *map(count_text, numbers), *map(size_text, numbers), *(percent_text(share) for _, share in shares)
    ]  # fmt: skip


def plain_row(name: str, top1: float | None, size: int | None, **values: Any) -> dict[str, Any]:
    values = {"name": name, "dataset": "mnist", "family": "a", "top1": top1, "bytes": size, "macs": 10} | values
    return {"values": values, "texts": {key: str(value) for key, value in values.items()}, "label": name}


ROWS = [
    plain_row("b", 0.9, 300), plain_row("none", None, None), plain_row("a", 0.95, 100, dataset="cifar10"),
    plain_row("c", 0.95, 200, family="z", macs=99),
]  # fmt: skip


@needs_node
def test_rows_are_sorted_and_filtered() -> None:
    def names(rows: list[dict[str, Any]]) -> str:
        return " ".join(row["label"] for row in rows)

    orders = [["sortRows", ROWS, column, down] for column in ("top1", "name") for down in (False, True)]
    assert [names(rows) for rows in run_script("call.mjs", "models.mjs", orders)] == [
        "b a c none", "a c b none", "a b c none", "none c b a",
    ]  # fmt: skip
    nothing = {"text": "", "dataset": "", "family": "", "weights": False, "top1": 0, "bytes": 1e9, "macs": 1e9}
    wishes = [{"text": "MNIST c"}, {"dataset": "mnist"}, {"family": "z"}, {"weights": True}, {"top1": 0.92},
              {"bytes": 200}, {"macs": 50}]  # fmt: skip
    found = run_script("call.mjs", "models.mjs", [["filterRows", ROWS, nothing | wish] for wish in wishes])
    assert [names(rows) for rows in found] == ["c", "b c", "c", "b a c", "a c", "a c", "b a"]
    survivors = run_script(
        "call.mjs", "pareto.mjs", [["survivors", [ROWS[0], *ROWS[2:]], "bytes", n] for n in (250, 400, 50)]
    )
    assert [names(rows) for rows in survivors] == ["a c", "a c b", ""]


@needs_node
def test_stages_hold_every_layer() -> None:
    cost = cost_plain(cached_cost("lenet5", (1, 28, 28), 10), "lenet5", 10)
    stages = call("cards.mjs", "stagesOf", cost["layers"])
    assert [stage["size"] for stage in stages] == ["28 x 28", "10 x 10", "vector"]
    assert sum(stage["macs"] for stage in stages) == cost["macs"]
    assert sum(stage["params"] for stage in stages) == cost["params_used"]


def test_the_layer_where_memory_peaks_is_marked() -> None:
    image = (1, 28, 28)
    for name, row in (("lenet5", "0"), ("resnet20", "stages.0.0.conv1.1")):  # lenet5's is an activation after layer 0
        cost = cached_cost(name, image, 10)
        assert cost.by_layer[cost_plain(cost, name, 10)["peak_row"]].name == row


def test_blocks_come_back_as_they_were_written() -> None:
    table = ranking_table(rank(["lenet5"], dataset="digits", cards=[]))
    text = table_markdown(replace(table, title="A | title"))
    body = f"One `sentence`.\n\n{text}\n\n![A plot](benchmarks/results/a.svg)"
    ((name, lead, found),) = blocks(
        f"# Top\n\n**Bold** lead\nof two lines.\n\n<!-- zoo:one -->\n{body}\n<!-- /zoo:one -->"
    )
    assert (name, lead) == ("one", "**Bold** lead of two lines.")
    said, shown, plot = parts(found)
    assert said == {"text": "One `sentence`."}
    assert plot == {"picture": "A plot", "path": "benchmarks/results/a.svg"}
    assert shown["table"]["title"] == "A | title"
    assert shown["table"]["rows"] == [list(row) for row in table.texts]
    assert shown["table"]["columns"] == [{"title": c.title, "right": c.right} for c in table.columns]
    assert len(shown["table"]["notes"]) >= 3
    assert markdown_table("| a\\|b |\n|---|\n| c\\|d |").texts == (("c|d",),)


def test_the_readme_is_read_whole() -> None:
    text = (ROOT / "README.md").read_text()
    found = {name: parts(body) for name, _, body in blocks(text)}
    assert len(found) == text.count("<!-- /zoo:")
    words = [part["text"] for pieces in found.values() for part in pieces if "text" in part]
    assert not [said for said in words if said.startswith(("|", "!", "<"))]
    assert sum("table" in part for pieces in found.values() for part in pieces) >= len(found) // 2


def test_evidence_is_that_of_the_very_file(stored: Card, tmp_path: Path) -> None:
    results = tmp_path / "repository" / "benchmarks" / "results"
    results.mkdir(parents=True)
    (tmp_path / "repository" / "README.md").write_text("# Nothing\n")
    receipt = Receipt("Prune(density=0.1)", 10, 5, 320, 160, 40, stored.file_bytes, 8, 9, 10, 0.1, 1.0, (), {})
    done = {"model": "lenet5", "variant": "", "correct": stored.correct, "receipts": [asdict(receipt)]}
    for digest, size, count in ((stored.sha256, stored.file_bytes, 1), ("0" * 64, stored.file_bytes + 1, 0)):
        line = {"weights": stored.stem, "sha256": digest, "epochs": [[1, 0.5, None, None]], "confusion": [[1]]}
        (results / "evidence.jsonl").write_text(json.dumps(line) + "\n")
        (results / "compressed.jsonl").write_text(json.dumps(done | {"file_bytes": size}) + "\n")
        _, content = write(tmp_path, checkout=tmp_path / "repository")
        assert len(content["evidence"]) == len(content["receipts"]) == count
    assert content["checkout"]
    assert content["studies"] == []


def test_one_line_says_what_is_wrong(tmp_path: Path, capsys: Captured) -> None:
    for words, said in (
        ("report --dataset , --out x", "no data set was given"),
        ("report --dataset minst --out x", "mnist"),
        ("report lenet6 --dataset digits --out x", "lenet5"),
    ):
        assert cli.main(words.split()) == 2
        assert said in capsys.readouterr().err.splitlines()[-1]
    with pytest.raises(ZooError, match="no data set"):
        run(Job(tmp_path, ()), lambda line: None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the whole zoo."""
    if "ZOO_DATA" not in os.environ:
        pytest.skip("ZOO_DATA does not name a folder with mnist and cifar10 in it")
    return run(Job(tmp_path_factory.mktemp("page"), checkout=checkout()), lambda line: None)


@pytest.mark.slow
def test_the_whole_zoo_is_on_the_page_and_small(whole: Path, capsys: Captured) -> None:
    assert whole.stat().st_size < 3_000_000
    content = content_of(whole)
    for shown in content["sets"]:
        assert cli.main(["rank", "--dataset", shown["name"], "--format", "json"]) == 0
        assert shown["rows"] == json.loads(capsys.readouterr().out)
        assert set(architectures()) <= set(content["costs"][shown["name"]])
    assert set(content["cards"]) == {card.stem for card in list_cards() if card.dataset in ("mnist", "cifar10")}
    for stem, evidence in content["evidence"].items():
        confusion = torch.tensor(evidence.get("confusion", []))
        right, total = re.search(
            r"\(([\d,]+) of ([\d,]+)\)", dict(content["cards"][stem]["accuracy"])["top-1"]
        ).groups()  # type: ignore[union-attr]
        if confusion.numel():
            assert (f"{int(confusion.trace()):,}", f"{int(confusion.sum()):,}") == (right, total)
    assert len(content["drawing"]["networks"]) >= 4
    assert len(content["studies"]) >= 5


@needs_node
@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="ZOO_BROWSER does not name a headless Chromium to open the page with")
def test_a_browser_can_use_the_page(whole: Path) -> None:
    command = [str(NODE), str(ROOT / "tests" / "page" / "check_page.mjs"), str(BROWSER), str(whole)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
