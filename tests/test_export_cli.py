"""`zoo export`: a stored network into every format, compared on real images; one sentence for what is wrong."""

import errno
import json
from pathlib import Path

import pytest
import timm
import torch
from weight_files import write_untrained

from zoo import cli, export_runs, registry
from zoo.compression import Quantize, compress, save_packed
from zoo.data import Dataset
from zoo.interop.onnx import load_onnx
from zoo.interop.plain_c import compiler

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def begun(digits: tuple[Dataset, Dataset], digits_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with honest weights of an untrained lenet5 for the digits elsewhere."""
    folder = tmp_path / "weights"
    folder.mkdir()
    write_untrained("lenet5", digits, folder)
    monkeypatch.setenv("ZOO_WEIGHTS", str(folder))
    monkeypatch.setenv("ZOO_DATA", str(digits_root))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return folder


def export(words: str, capsys: Captured) -> dict[str, object]:
    """What the command reports."""
    assert cli.main(f"export {words} --report json".split()) == 0
    found = json.loads(capsys.readouterr().out)
    return dict(found[0] if isinstance(found, list) else found)


@pytest.mark.parametrize(
    ("format", "file", "largest"),
    [
        ("onnx", "lenet5.digits.onnx", 1e-5),
        ("int8", "lenet5.digits.int8.onnx", 0.1),
        ("torch-export", "lenet5.digits.pt2", 1e-5),
        ("hf", "", 0.0),
    ],
)
def test_every_format_is_written_run_and_described(
    format: str, file: str, largest: float, begun: Path, capsys: Captured
) -> None:
    Path("out").mkdir()
    found = export(f"lenet5 --dataset digits --format {format} --out out --images 100", capsys)
    path = Path("out") / file
    assert found["images_compared"] == 100
    assert found["largest_difference"] <= largest  # type: ignore[operator]
    weights = path / "model.safetensors" if format == "hf" else path
    assert found["file_bytes"] == weights.stat().st_size
    side = json.loads((path / "export.json" if format == "hf" else Path(f"{path}.export.json")).read_text())
    assert side["comparison"]["largest_difference"] == found["largest_difference"]
    assert side["metadata"]["model"] == "lenet5"
    assert json.loads(side["metadata"]["classes"]) == list("0123456789")
    if format.endswith(("onnx", "int8")):
        words = load_onnx(path).metadata
        assert words.items() >= side["metadata"].items()
        assert {"top1", "licence", "weights_sha256", "mean", "std", "image", "paper"} <= words.keys()


def test_the_normalisation_goes_inside_and_all_images_are_compared(
    begun: Path, digits: tuple[Dataset, Dataset], capsys: Captured
) -> None:
    found = export("lenet5 --dataset digits --out new/x.onnx --preprocessing --images all", capsys)
    assert found["images_compared"] == len(digits[1])
    assert found["same_class"] == 1
    exported = load_onnx("new/x.onnx")
    assert exported.pixels
    assert exported.metadata["input"] == "uint8 pixels"


def test_a_packed_file_and_a_run_folder_are_exported(begun: Path, capsys: Captured) -> None:
    model = registry.build("lenet5", num_classes=10, in_chans=1, image_size=28)
    save_packed("small.zpk", compress(model, [Quantize(bits=6)], dataset="digits"))
    found = export("small.zpk --out small.onnx --images 50", capsys)
    assert found["same_class"] == 1
    folder = Path("run")
    folder.mkdir()
    for path in begun.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    assert export("run --out run.onnx --images 50", capsys)["same_class"] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("lenet5 --dataset digits --format onyx --out x", "no format is called 'onyx'. Did you mean 'onnx'?"),
        ("lenet5 --dataset digits --format hf --out x --preprocessing", "--preprocessing cannot go with --format hf"),
        ("lenet5 --dataset digits --format c --out x --preprocessing", "--preprocessing cannot go with --format c"),
        ("lenet5 --dataset digits --out x --images few", "--images 'few' was given; give a number, or all"),
        ("lenet5 --dataset digits --out x --images 0", "--images 0 was given; it must be at least 1"),
        ("lenet55 --dataset digits --out x", "no model is called 'lenet55'. Did you mean 'lenet5"),
        ("resnet20 --dataset digits --out x", "there are no weights 'resnet20.digits'"),
        ("lenet5 --dataset digits --tag other --out x", "there are no weights 'lenet5.digits.other'"),
    ],
)
def test_wrong_use_is_one_sentence(words: str, said: str, begun: Path, capsys: Captured) -> None:
    assert cli.main(f"export {words}".split()) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in told
    assert not Path("x").exists()


@pytest.mark.skipif(compiler() is None, reason="there is no C compiler ($CC, or else cc)")
def test_c_is_a_folder_that_is_compiled_and_run(begun: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    found = export("lenet5 --dataset digits --format c --out c --images 50", capsys)
    assert found["images_compared"] == 50
    assert found["largest_difference"] <= 0.1  # type: ignore[operator]
    names = {"lenet5_digits.c", "lenet5_digits.h", "lenet5_digits_vectors.h", "run.c", "test.c", "Makefile"}
    assert {path.name for path in Path("c").iterdir()} == names | {"export.json"}
    monkeypatch.setenv("CC", "no-such-compiler")
    assert cli.main(["export", "lenet5", "--dataset", "digits", "--format", "c", "--out", "d"]) == 0
    assert "no C compiler was found" in capsys.readouterr().err
    assert json.loads(Path("d/export.json").read_text())["comparison"] is None


def test_images_that_are_not_there_are_not_fetched(
    begun: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = json.loads((begun / "lenet5.digits.json").read_text())
    card |= {"dataset": "mnist", "file": "lenet5.mnist.safetensors"}
    (begun / "lenet5.digits.safetensors").rename(begun / "lenet5.mnist.safetensors")
    (begun / "lenet5.mnist.json").write_text(json.dumps(card))
    monkeypatch.setenv("ZOO_DATA", str(tmp_path / "nothing"))
    assert cli.main(["export", "lenet5", "--dataset", "mnist", "--out", "x.onnx"]) == 0
    assert "are not at hand" in capsys.readouterr().err
    assert json.loads(Path("x.onnx.export.json").read_text())["comparison"] is None
    assert cli.main(["export", "lenet5", "--dataset", "mnist", "--out", "y.onnx", "--format", "int8"]) == 2
    assert "`zoo data mnist` gets them" in capsys.readouterr().err


def test_a_model_of_timm_without_a_data_set_comes_with_timm_s_own_preprocessing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def without_fetching(name: str, pretrained: bool) -> torch.nn.Module:
        assert (name, pretrained) == ("timm/mobilenetv3_small_050", True)
        return timm.create_model("mobilenetv3_small_050").eval()

    monkeypatch.setattr(export_runs, "create_model", without_fetching)
    trained = export_runs.trained_or_foreign("timm/mobilenetv3_small_050", None)
    assert (trained.preprocess.image, len(trained.classes), trained.dataset) == ((3, 224, 224), 1000, "")
    words = export_runs.metadata(trained)
    assert words["dataset"] == "not stated"
    assert json.loads(words["mean"]) == list(trained.preprocess.mean)


def test_a_full_disk_is_one_sentence_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "lenet5.onnx"
    with monkeypatch.context() as patch:
        patch.setattr("os.write", full)
        status = cli.main(["export", "lenet5", "--dataset", "mnist", "--out", str(path)])
    assert status == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"zoo: error: No space left on device ({path})."
    assert not list(tmp_path.glob("*lenet5*"))
