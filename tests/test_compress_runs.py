"""`zoo compress`: from stored weights to a packed file with a card, in a numbered folder."""

import json
from pathlib import Path

import pytest
from weight_files import write_untrained

from zoo import cli
from zoo.data import Dataset
from zoo.ranking import rank
from zoo.weights import list_cards, verify_card

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def begun(digits: tuple[Dataset, Dataset], digits_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with honest weights of an untrained resnet20 for the digits beside it."""
    folder = tmp_path / "weights"
    folder.mkdir()
    write_untrained("resnet20", digits, folder)
    monkeypatch.setenv("ZOO_WEIGHTS", str(folder))
    monkeypatch.setenv("ZOO_DATA", str(digits_root))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return folder


def test_weights_are_cut_packed_carded_and_ranked(begun: Path, capsys: Captured) -> None:
    words = "compress resnet20 --dataset digits --pipeline slim --density 0.5 --epochs 0 --format json"
    assert cli.main(words.split()) == 0
    out, told = capsys.readouterr()
    folder = Path("runs/compress/1-resnet20-digits")
    assert [row["stage"].partition("(")[0] for row in json.loads(out)] == [
        "PruneChannels",
        "Calibrate",
        "Quantize",
        "Code",
    ]
    assert f"run folder: {folder}" in told
    assert "stage 1 of 4: PruneChannels(" in told
    assert "stage 4 of 4: Code(" in told
    assert "zoo compress resnet20 --dataset digits --pipeline slim --density 0.5" in told
    card = folder / "resnet20.digits.slim.json"
    assert verify_card(card, accuracy=True) == []
    assert len(json.loads((folder / "receipts.json").read_text())["receipts"]) == 4
    assert json.loads(out)[-1]["file_bytes"] == (folder / "resnet20.digits.slim.zpk").stat().st_size

    for ending in ("json", "zpk"):
        name = f"resnet20.digits.slim.{ending}"
        (begun / name).write_bytes((folder / name).read_bytes())
    whole, cut = rank(["resnet20"], dataset="digits", by=("-params",))
    assert (whole.tag, cut.tag) == (None, "slim")
    assert whole.params is not None
    assert whole.macs is not None
    assert cut.params is not None
    assert cut.params < whole.params / 2
    assert cut.macs is not None
    assert cut.macs < whole.macs / 2
    assert cut.peak_activation_bytes is None
    assert "channels were removed" in cut.missing["peak_activation_bytes"]
    assert cut.bytes == (begun / "resnet20.digits.slim.zpk").stat().st_size
    assert cli.main(["eval", "resnet20", "--dataset", "digits", "--tag", "slim"]) == 0
    assert cli.main(["eval", "--weights", str(folder)]) == 0
    stored = next(found for found in list_cards() if found.tag == "slim")
    assert capsys.readouterr().out.count(f"{stored.correct}") >= 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("resnet20 --dataset digits --pipeline slimm", "no pipeline is called 'slimm'. Did you mean 'slim'?"),
        ("resnet20 --dataset digits --density 1.5 --epochs 0", "density=1.5 was given"),
        ("resnet20 --dataset digits --pipeline share --bits 0", "bits=0 was given"),
        ("lenet5 --dataset digits", "there are no weights 'lenet5.digits'"),
    ],
)
def test_wrong_use_is_one_sentence_and_leaves_nothing(begun: Path, capsys: Captured, words: str, said: str) -> None:
    assert begun.is_dir()
    assert cli.main(["compress", *words.split()]) == 2
    out, told = capsys.readouterr()
    assert said in told
    assert out == ""
    assert not Path("runs").exists()
