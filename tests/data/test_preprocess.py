"""One image in, what the network takes out: sizes, modes, orientation, and files that cannot be read."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data import DATASETS, Dataset, Preprocess, dataset_info, normalize, preprocess
from zoo.data.pixels import fit_image, open_image
from zoo.errors import DataError, UnknownNameError

PLAIN = Preprocess((3, 4, 4), (0.0,) * 3, (1 / 255,) * 3)  # pixels come out as they are


def rgb(picture: Image.Image | np.ndarray) -> np.ndarray:
    """[H, W, 3], 0..255, of a preprocessed picture."""
    return PLAIN(picture)[0].permute(1, 2, 0).round().numpy()


def test_an_image_of_the_right_size_is_bit_exact(tiny: Dataset, tmp_path: Path) -> None:
    wanted = normalize(tiny.images[5:6], tiny.mean, tiny.std)
    array = tiny.images[5].permute(1, 2, 0).numpy()
    Image.fromarray(array).save(tmp_path / "five.png")
    take = preprocess(tiny)
    for picture in (array, Image.fromarray(array), tmp_path / "five.png", str(tmp_path / "five.png")):
        assert torch.equal(take(picture), wanted)
    assert wanted.dtype == torch.float32


def test_grey_data_sets_take_colour_images_and_the_other_way_round(tiny: Dataset) -> None:
    array = tiny.images[0].permute(1, 2, 0).numpy()
    assert preprocess("mnist")(array).shape == (1, 1, 28, 28)
    assert preprocess("mnist")(array[:, :, 0]).shape == (1, 1, 28, 28)
    assert preprocess(DATASETS["cifar10"])(array[:, :, :1]).shape == (1, 3, 32, 32)


def test_names_facts_and_sets_give_the_same(tiny: Dataset) -> None:
    info = dataset_info("cifar10")
    assert preprocess("cifar10") == preprocess(info) == preprocess(tiny) == Preprocess(info.image, info.mean, info.std)
    with pytest.raises(UnknownNameError, match="'mnist'"):
        preprocess("mnits")


def board(height: int, width: int) -> np.ndarray:
    """A chessboard of single pixels, uint8 [H, W, 3]."""
    return np.repeat(np.indices((height, width)).sum(0)[:, :, None] % 2 * 255, 3, axis=2).astype(np.uint8)


def test_the_shorter_side_is_resized_and_the_middle_cut_out() -> None:
    wide = np.zeros((8, 24, 3), dtype=np.uint8)
    wide[:, 8:16] = 200
    assert (rgb(wide)[:, 1:3] == 200).all()
    assert 150 < rgb(wide).min() < 200
    assert np.array_equal(rgb(wide), rgb(wide)[:, ::-1])
    tall = wide.transpose(1, 0, 2)
    assert np.array_equal(rgb(tall), rgb(wide).transpose(1, 0, 2))
    assert np.array_equal(rgb(board(5, 4)), board(5, 4)[:4])
    for height, width in ((4, 5), (5, 4), (1, 1), (3, 100), (1000, 7)):
        assert rgb(np.full((height, width, 3), 77, dtype=np.uint8)).shape == (4, 4, 3)


def test_shrinking_averages_instead_of_picking_pixels() -> None:
    shrunk = rgb(board(64, 64))
    assert 120 < shrunk.min() <= shrunk.max() < 135


def test_every_mode_becomes_sensible_pixels() -> None:
    size = (4, 4)
    deep = Image.fromarray(np.full(size, 40000, dtype=np.uint16))
    assert (rgb(deep) == round(40000 / 257)).all()
    assert (rgb(Image.fromarray(np.full(size, 65535, dtype=np.int32))) == 255).all()
    assert (rgb(Image.new("RGBA", size, (10, 20, 30, 0))) == 255).all()
    assert (rgb(Image.new("LA", size, (0, 0))) == 255).all()
    assert (rgb(Image.new("RGBA", size, (10, 20, 30, 255))) == (10, 20, 30)).all()
    palette = Image.new("RGB", size, (200, 100, 50)).convert("P", palette=Image.Palette.ADAPTIVE)
    assert (rgb(palette) == (200, 100, 50)).all()
    palette.info["transparency"] = palette.getpixel((0, 0))
    assert (rgb(palette) == 255).all()
    assert (rgb(Image.new("1", size, 1)) == 255).all()
    assert (rgb(Image.new("CMYK", size, (0, 0, 0, 0))) == 255).all()
    with pytest.raises(DataError, match="floating-point"):
        rgb(Image.new("F", size, 0.5))


def test_an_image_file_of_floating_point_pixels_is_named(tmp_path: Path) -> None:
    Image.new("F", (4, 4), 0.5).save(tmp_path / "float.tiff")
    with pytest.raises(DataError, match=r"float\.tiff cannot be read .*floating-point"):
        PLAIN(tmp_path / "float.tiff")


def test_lab_colours_are_refused_in_memory_and_by_the_name_of_their_file(tmp_path: Path) -> None:
    lab = Image.new("RGB", (4, 4)).convert("LAB")
    lab.save(tmp_path / "lab.tiff")
    for picture in (lab, tmp_path / "lab.tiff"):
        with pytest.raises(DataError, match=r"Lab colours are not understood, save it in RGB"):
            PLAIN(picture)


def test_bytes_are_an_image_under_the_name_they_are_given() -> None:
    file = io.BytesIO()
    Image.new("L", (4, 4), 9).save(file, "png")
    assert open_image(file, "the wire").getpixel((0, 0)) == 9
    with pytest.raises(
        DataError, match=r"^the wire cannot be read as an image \(it is empty, or of no known image form"
    ):
        open_image(io.BytesIO(b""), "the wire")


def test_postscript_is_not_run(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "drawing.eps")
    (tmp_path / "drawing.eps").rename(tmp_path / "photo.jpg")
    with pytest.raises(DataError, match=r"photo\.jpg cannot be read as an image \(PostScript is not run"):
        open_image(tmp_path / "photo.jpg")


def test_a_very_long_image_costs_no_more_memory_than_itself() -> None:
    assert Preprocess((3, 64, 64), (0.0,) * 3, (1.0,) * 3)(np.zeros((1, 1_000_000), dtype=np.uint8)).shape[2:] == (
        64,
        64,
    )


def test_exif_orientation_is_respected(tmp_path: Path) -> None:
    array = np.zeros((4, 4, 3), dtype=np.uint8)
    array[0, :] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the picture is to be turned by 90 degrees clockwise
    Image.fromarray(array).save(tmp_path / "turned.png", exif=exif)
    turned = fit_image(open_image(tmp_path / "turned.png"), (3, 4, 4)).permute(1, 2, 0).numpy()
    assert np.array_equal(turned, np.rot90(array, -1))


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_an_unreadable_file_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"broken\.png cannot be read as an image"):
        PLAIN(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "webp", "tiff", "ppm"])
def test_no_prefix_of_an_image_file_is_anything_but_a_plain_error(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"cut.{suffix}"
    noise = torch.randint(256, (9, 9, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    Image.fromarray(noise.numpy()).save(path)
    whole = path.read_bytes()
    assert PLAIN(path).shape == (1, 3, 4, 4)
    refused = 0
    for length in range(0, len(whole), 1 + len(whole) // 150):
        path.write_bytes(whole[:length])
        try:
            PLAIN(path)
        except DataError as fault:
            refused += "cannot be read" in str(fault)
    assert refused > 20


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.png cannot be read .*No such file"):
        PLAIN(tmp_path / "none.png")


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 4, 3)), np.zeros((3, 4, 5), dtype=np.uint8), np.zeros(4, dtype=np.uint8), np.zeros((0, 4), np.uint8)],
    ids=["float", "channels first", "flat", "empty"],
)
def test_other_arrays_are_refused(array: np.ndarray) -> None:
    with pytest.raises(DataError, match="must be uint8"):
        PLAIN(array)
