"""`zoo predict`: any image in, the model's own answer out, and one clear sentence for what is no image."""

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from weight_files import card_of, model_of

from zoo import cli
from zoo.cards import dataset_label, write_card
from zoo.compression.container import pack
from zoo.data import DATASETS, Dataset, normalize
from zoo.errors import DataError, WeightError
from zoo.prediction import find_images, predict
from zoo.trained import load_trained
from zoo.weights import load_weights, save_weights

Captured = pytest.CaptureFixture[str]
CLASSES = DATASETS["cifar10"].classes


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo folder with lenet5 for the digits and for cifar10, of random weights; the current folder is another."""
    folder = tmp_path / "weights"
    folder.mkdir()
    for dataset in ("digits", "cifar10"):
        path = folder / f"lenet5.{dataset}.safetensors"
        model = model_of("lenet5", dataset)
        for parameter in model.parameters():
            parameter.data -= parameter.mean()  # so that images differ in their answers
        save_weights(path, model)
        write_card(path.with_suffix(".json"), card_of("lenet5", dataset, path))
    monkeypatch.setenv("ZOO_WEIGHTS", str(folder))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return folder


@pytest.fixture
def picture(tiny: Dataset) -> Image.Image:
    return Image.fromarray(tiny.images[3].permute(1, 2, 0).numpy())


def probabilities(pixels_CHW: Tensor, folder: Path, dataset: str = "cifar10") -> list[float]:
    """Of each class, without zoo.prediction."""
    info = DATASETS[dataset]
    model = model_of("lenet5", dataset)
    load_weights(model, folder / f"lenet5.{dataset}.safetensors")
    with torch.no_grad():
        logits: Tensor = model(normalize(pixels_CHW[None], info.mean, info.std))
    shares: list[float] = logits.softmax(1)[0].tolist()
    return shares


def answers(capsys: Captured, *arguments: str, status: int = 0) -> list[dict[str, object]]:
    """The records that `zoo predict --format json` prints."""
    assert cli.main(["predict", *arguments, "--format", "json"]) == status
    records: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return records


class TestAnswers:
    def test_they_are_the_networks_own(
        self, weights: Path, picture: Image.Image, tiny: Dataset, capsys: Captured
    ) -> None:
        picture.save("a.png")
        (record,) = answers(capsys, "lenet5", "a.png", "--dataset", "cifar10", "--top", "10")
        wanted = dict(zip(CLASSES, probabilities(tiny.images[3], weights), strict=True))
        found = {record[f"class_{i}"]: record[f"probability_{i}"] for i in range(1, 11)}
        assert found == pytest.approx(wanted, rel=1e-4)
        shares = [record[f"probability_{i}"] for i in range(1, 11)]
        assert shares == sorted(shares, reverse=True)  # type: ignore[type-var]
        assert (record["image"], record["model"]) == ("a.png", "lenet5")

    def test_many_in_batches_are_as_each_alone(self, weights: Path, tiny: Dataset, tmp_path: Path) -> None:
        model = load_trained("lenet5", "cifar10")
        paths = []
        for row in range(7):
            paths.append(str(tmp_path / f"{row}.png"))
            Image.fromarray(tiny.images[row].permute(1, 2, 0).numpy()).save(paths[-1])
        (tmp_path / "2.png").write_bytes(b"")
        found = list(predict([model], paths, top=1, batch_size=3))
        assert [prediction.image for prediction in found] == paths
        assert [prediction.fault is None for prediction in found] == [row != 2 for row in range(7)]
        for row, prediction in enumerate(found):
            if row != 2:
                wanted = max(probabilities(tiny.images[row], weights))
                assert prediction.answers[0][0].probability == pytest.approx(wanted, rel=1e-5)
        assert len({round(prediction.answers[0][0].probability, 6) for prediction in found if prediction.answers}) == 6

    def test_models_side_by_side_each_with_its_own_preprocessing(
        self, weights: Path, picture: Image.Image, tiny: Dataset, capsys: Captured
    ) -> None:
        picture.save("a.png")
        card = str(weights / "lenet5.digits.json")
        first, second = answers(capsys, str(weights / "lenet5.cifar10.json"), "a.png", "--compare", card, "--top", "1")
        assert first["class_1"] in CLASSES
        assert second["class_1"] in DATASETS["digits"].classes
        assert second["model"] == card
        assert (
            cli.main(["predict", "lenet5", "a.png", "--dataset", "cifar10", "--compare", "lenet5", "--top", "2"]) == 0
        )
        header, _, row = capsys.readouterr().out.splitlines()
        assert header.split() == ["image", "lenet5", "2nd", "lenet5", "2nd"]
        assert row.count("%") == 4

    def test_standard_input_is_an_image(
        self, weights: Path, picture: Image.Image, capsys: Captured, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = io.BytesIO()
        picture.save(file, "png")
        picture.save("a.png")
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(file.getvalue())))
        piped, stored = answers(capsys, "lenet5", "-", "a.png", "--dataset", "cifar10")
        assert piped == stored | {"image": "-"}
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
        assert cli.main(["predict", "lenet5", "-", "--dataset", "cifar10"]) == 1
        assert capsys.readouterr().err == (
            "standard input cannot be read as an image (it is empty, or of no known image format).\n"
        )

    def test_a_folder_is_its_images_at_any_depth(self, weights: Path, picture: Image.Image, capsys: Captured) -> None:
        for name in ("set/b.png", "set/deep/er/a.JPG", "set/.hidden/c.png", "set/note.txt"):
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            picture.save(name, "png") if name != "set/note.txt" else Path(name).write_text("no image")
        records = answers(capsys, "lenet5", "set", "--dataset", "cifar10", "--top", "1")
        assert [record["image"] for record in records] == ["set/b.png", "set/deep/er/a.JPG"]


def chunk(kind: bytes, data: bytes) -> bytes:
    """One piece of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb() -> bytes:
    """74 bytes that claim 3.6 thousand million pixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def as_bytes(picture: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def grey16(picture: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)


class TestKindsOfImages:
    """One picture in many forms gets one answer, within what the form itself loses."""

    @pytest.mark.parametrize(
        ("ending", "form", "mode"),
        [
            ("png", lambda p: p.convert("RGBA"), "RGB"),
            ("png", lambda p: p.convert("P", palette=Image.Palette.ADAPTIVE), "RGB"),
            ("bmp", lambda p: p, "RGB"),
            ("png", grey16, "L"),
            ("tiff", grey16, "L"),
            ("png", lambda p: p.convert("LA"), "L"),
            ("tiff", lambda p: p.convert("CMYK"), "RGB"),
        ],
        ids=["alpha", "palette", "bmp", "16-bit", "16-bit tiff", "grey alpha", "CMYK"],
    )
    def test_modes(
        self,
        ending: str,
        form: Callable[[Image.Image], Image.Image],
        mode: str,
        weights: Path,
        picture: Image.Image,
        capsys: Captured,
    ) -> None:
        few = picture.quantize(16).convert("RGB")  # so few colours that a palette holds them all
        few.convert(mode).save("plain.png")
        form(few).save(f"other.{ending}")
        plain, other = answers(capsys, "lenet5", "plain.png", f"other.{ending}", "--dataset", "cifar10")
        assert other == plain | {"image": f"other.{ending}"}

    @pytest.mark.parametrize("mode", ["RGB", "CMYK", "L"])
    def test_a_large_photo(self, mode: str, weights: Path, picture: Image.Image, capsys: Captured) -> None:
        picture.resize((4, 4), Image.Resampling.BOX).resize((32, 32), Image.Resampling.NEAREST).convert("L").save(
            "s.png"
        )
        Image.open("s.png").resize((1504, 1504), Image.Resampling.NEAREST).convert(mode).save("photo.jpg", quality=95)
        small, photo = answers(capsys, "lenet5", "s.png", "photo.jpg", "--dataset", "cifar10", "--top", "1")
        assert photo["class_1"] == small["class_1"]
        assert photo["probability_1"] == pytest.approx(small["probability_1"], abs=0.02)

    def test_the_camera_was_turned(self, weights: Path, picture: Image.Image, capsys: Captured) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        picture.save("turned.png", exif=exif)
        picture.rotate(-90).save("upright.png")
        turned, upright = answers(capsys, "lenet5", "turned.png", "upright.png", "--dataset", "cifar10")
        assert turned == upright | {"image": "turned.png"}

    def test_of_an_animation_the_first_picture(self, weights: Path, picture: Image.Image, capsys: Captured) -> None:
        frames = [picture.quantize(16), picture.rotate(90).quantize(16)]
        frames[0].save("moving.gif", save_all=True, append_images=frames[1:])
        frames[0].save("still.png")
        moving, still = answers(capsys, "lenet5", "moving.gif", "still.png", "--dataset", "cifar10")
        assert moving == still | {"image": "moving.gif"}

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (lambda p: as_bytes(p, "jpeg")[:-200], "image file is truncated"),
            (lambda p: b"", "it is empty, or of no known image format"),
            (lambda p: b"dear reader", "it is empty, or of no known image format"),
            (lambda p: bomb(), "exceeds limit of 178956970 pixels, could be decompression bomb DOS attack)"),
            (lambda p: as_bytes(p.convert("LAB"), "tiff"), "Lab colours are not understood, save it in RGB"),
            (lambda p: as_bytes(p, "eps"), "PostScript is not run"),
            (lambda p: None, "No such file or directory"),
        ],
        ids=["cut short", "empty", "text", "bomb", "Lab", "PostScript", "missing"],
    )
    def test_what_cannot_be_read_is_one_line_and_the_rest_is_answered(
        self,
        content: Callable[[Image.Image], bytes | None],
        reason: str,
        weights: Path,
        picture: Image.Image,
        capsys: Captured,
    ) -> None:
        picture.save("good.png")
        if (data := content(picture)) is not None:
            Path("bad.jpg").write_bytes(data)
        arguments = ["predict", "lenet5", "good.png", "bad.jpg", "good.png", "--dataset", "cifar10", "--format", "json"]
        assert cli.main(arguments) == 1
        out, err = capsys.readouterr()
        first, bad, last = json.loads(out)
        assert first == last
        assert bad["class_1"] is None
        assert bad["missing"]["class_1"] + "\n" == err
        assert err.startswith("bad.jpg cannot be read as an image (")
        assert reason in err
        assert err.count("\n") == 1
        assert cli.main(["predict", "lenet5", "bad.jpg", "--dataset", "cifar10"]) == 1
        assert capsys.readouterr().out.splitlines()[2].split() == ["bad.jpg", "-"]


class TestGreyImages:
    def test_ink_on_paper_is_told_and_turned_round(
        self, weights: Path, digits: tuple[Dataset, Dataset], capsys: Captured
    ) -> None:
        stored = digits[1].images[0, 0].numpy()
        Image.fromarray(stored).save("chalk.png")
        Image.fromarray(255 - stored).convert("RGB").save("paper.png")
        arguments = ["predict", "lenet5", "--dataset", "digits"]
        assert cli.main([*arguments, "chalk.png"]) == 0
        chalk, silent = capsys.readouterr()
        assert silent == ""
        assert cli.main([*arguments, "paper.png", "--invert"]) == 0
        ink, silent = capsys.readouterr()
        assert silent == ""
        assert ink.replace("paper.png", "chalk.png") == chalk
        for name, advice in (("paper.png", "--invert turns them round"), ("chalk.png", "leave out --invert")):
            assert cli.main([*arguments, name, *(["--invert"] if name == "chalk.png" else [])]) == 0
            told = capsys.readouterr().err
            assert told == f"1 of 1 images are dark on light, and digits is light on dark: {advice}\n"


class TestNamesOfModels:
    def test_all_of_them(self, weights: Path, picture: Image.Image, tmp_path: Path, capsys: Captured) -> None:
        picture.save("a.png")
        run = tmp_path / "run"
        run.mkdir()
        for file in weights.glob("lenet5.digits.*"):
            (run / file.name).write_bytes(file.read_bytes())
        (run / "run.json").write_text("{}")
        tagged = weights / "lenet5.digits.other.safetensors"
        tagged.write_bytes((weights / "lenet5.digits.safetensors").read_bytes())
        write_card(tagged.with_suffix(".json"), card_of("lenet5", "digits", tagged, tag="other"))
        packed = tmp_path / "alone.zpk"
        model = model_of("lenet5", "digits")
        load_weights(model, weights / "lenet5.digits.safetensors")
        packed.write_bytes(pack(model, name="lenet5", num_classes=10, image=(1, 28, 28), dataset="digits"))
        records = answers(capsys, "lenet5", "a.png", "--dataset", "digits")
        for name in ("lenet5@other", str(run), str(run / "lenet5.digits.json"), str(packed)):
            (record,) = answers(capsys, name, "a.png", "--dataset", "digits")
            assert record == records[0] | {"model": name}
        for name in (str(run), str(packed)):
            assert answers(capsys, name, "a.png") == [records[0] | {"model": name}]

    @pytest.mark.parametrize(
        ("arguments", "line"),
        [
            (
                "lenet5 a.png",
                "it is not known which weights of lenet5 to take; give --dataset with one of cifar10, dig",
            ),
            ("nin a.png", "there are no weights of nin; `zoo train nin` makes some."),
            ("lent5 a.png", "no model is called 'lent5'. Did you mean 'lenet5'"),
            ("lenet5 a.png --dataset cifr10", "no data set is called 'cifr10'"),
            ("lenet5@x a.png --dataset digits", "there are no weights 'lenet5.digits.x'"),
            ("none.zpk a.png", "none.zpk cannot be read: there is no such file"),
            ("none.json a.png", "none.json cannot be read: there is no such file"),
            (". a.png", ". holds 0 cards; name the card, or the folder of a finished run."),
            ("lenet5 . --dataset digits", ". has no images in it; images end in .bmp, .gif"),
            ("lenet5 - - --dataset digits", "'-' was given 2 times; standard input holds one image."),
            ("lenet5 --dataset digits", "missing argument 'IMAGE...'"),
            ("lenet5 a.png --dataset digits --top 0", "invalid value for '--top'"),
        ],
    )
    def test_wrong_use_is_one_line(self, arguments: str, line: str, weights: Path, capsys: Captured) -> None:
        assert cli.main(["predict", *arguments.split()]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"zoo: error: {line}")
        assert err.count("\n") == 1

    def test_a_data_set_that_it_was_not_trained_on(self, weights: Path) -> None:
        card = str(weights / "lenet5.digits.json")
        with pytest.raises(
            WeightError, match=r"was trained on digits, and --dataset cifar10 was given; leave it out\."
        ):
            load_trained(card, "cifar10")
        assert load_trained(card).dataset == dataset_label("digits")

    def test_a_folder_called_as_a_model(self, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "lenet5").mkdir()
        monkeypatch.chdir(tmp_path)
        assert load_trained("lenet5", "digits").dataset == dataset_label("digits")
        with pytest.raises(WeightError, match="lenet5 holds 0 cards"):
            load_trained("./lenet5", "digits")

    def test_a_packed_file_that_does_not_say_what_it_is_about(self, tmp_path: Path) -> None:
        packed = tmp_path / "alone.zpk"
        packed.write_bytes(pack(model_of("lenet5", "digits"), name="lenet5", num_classes=10, image=(1, 28, 28)))
        with pytest.raises(WeightError, match="does not say what it was trained on; give --dataset"):
            load_trained(str(packed))
        assert load_trained(str(packed), "digits").classes == DATASETS["digits"].classes
        with pytest.raises(
            WeightError, match=r"has 10 classes and images \[1, 28, 28\]; cifar10 has 10 and \[3, 32, 32"
        ):
            load_trained(str(packed), "cifar10")


def test_a_folder_without_images_is_told_from_one_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no images in it"):
        find_images([str(tmp_path)])
    assert find_images([str(tmp_path / "none")]) == [str(tmp_path / "none")]
