"""A person's own folders of images: layouts, options, splits without leaks, and what is wrong with them."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data import Dataset, dataset_info, describe, folder, load_dataset, preprocess, refresh_dataset
from zoo.data.dataset import channel_statistics
from zoo.data.layout import parse_spec
from zoo.errors import DataError, UnknownNameError


def draw(path: Path, seed: int, size: tuple[int, int] = (12, 10)) -> None:
    """Save a random picture that belongs to `seed`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)


def fill(root: Path, counts: dict[str, int], start: int = 0) -> None:
    """`counts` pictures, all different, in each folder."""
    for name, count in counts.items():
        for _ in range(count):
            draw(root / name / f"{start}.png", start)
            start += 1


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Twenty cats and ten dogs in class folders."""
    fill(tmp_path / "pets", {"dog": 10, "cat": 20})
    return tmp_path / "pets"


def load(spec: str, tmp_path: Path) -> tuple[Dataset, Dataset]:
    root = tmp_path / "data"
    return load_dataset(f"folder:{spec}", "train", root=root), load_dataset(f"folder:{spec}", "test", root=root)


def pictures(dataset: Dataset) -> set[bytes]:
    return {bytes(image) for image in dataset.images.numpy()}


def test_class_folders_are_cut_by_class_and_seed(pets: Path, tmp_path: Path) -> None:
    train, test = load(f"{pets}?size=16", tmp_path)
    assert train.classes == ("cat", "dog")
    assert train.images.shape == (24, 3, 16, 16)
    assert torch.bincount(train.labels).tolist() == [16, 8]
    assert torch.bincount(test.labels).tolist() == [4, 2]
    assert not pictures(train) & pictures(test)
    assert train.mirrored
    again = load_dataset(f"folder:{pets}?size=16", "test", root=tmp_path / "elsewhere")
    assert again.digest == test.digest
    text = describe(f"folder:{pets}?size=16", root=tmp_path / "data")
    for part in ("2 classes", "train: 24 images (cat 16, dog 8)", "test: 6 images (cat 4, dog 2)", "20%", "seed 0"):
        assert part in text


def test_mean_and_std_are_those_of_the_training_split(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZOO_DATA", str(tmp_path / "data"))
    train, test = load(str(pets), tmp_path)
    assert (train.mean, train.std) == (test.mean, test.std) == channel_statistics(train.images)
    info = dataset_info(f"folder:{pets}")
    assert (info.image, info.classes, info.mean, info.std) == ((3, 64, 64), train.classes, train.mean, train.std)
    assert preprocess(f"folder:{pets}") == preprocess(train)
    path = sorted((pets / "cat").iterdir())[0]
    pixels = preprocess(train)(path)
    assert any(torch.equal(preprocess(train)(image.permute(1, 2, 0).numpy()), pixels) for image in train.images)


@pytest.mark.parametrize(
    ("parts", "counts", "note"),
    [
        ({"train": 6, "val": 3}, (12, 6), "the validation images are it"),
        ({"Training": 6, "validation": 3}, (12, 6), "the validation images are it"),
        ({"train": 6, "test": 2}, (12, 4), ""),
        ({"train": 6, "testing": 2}, (12, 4), ""),
        ({"train": 6, "valid": 3, "test": 2}, (18, 4), "put with the training images"),
        ({"train": 10}, (16, 4), "there is no test set"),
    ],
    ids=["train/val", "spelt out", "train/test", "testing", "all three", "train alone"],
)
def test_split_folders_are_understood(
    parts: dict[str, int], counts: tuple[int, int], note: str, tmp_path: Path
) -> None:
    start = 0
    for part, count in parts.items():
        fill(tmp_path / "set" / part, {"a": count, "b": count}, start)
        start += 100
    train, test = load(f"{tmp_path / 'set'}?size=8", tmp_path)
    assert (len(train), len(test)) == counts
    assert train.classes == test.classes == ("a", "b")
    text = describe(f"folder:{tmp_path / 'set'}?size=8", root=tmp_path / "data")
    assert note in text
    assert text.count("\n") == (3 if note else 2)


def test_classes_named_like_splits_stay_classes(tmp_path: Path) -> None:
    fill(tmp_path / "vehicles", {"train": 5, "bus": 5})
    assert load(f"{tmp_path / 'vehicles'}?size=8", tmp_path)[0].classes == ("bus", "train")
    fill(tmp_path / "words", {"train": 5, "test": 5})
    assert load(f"{tmp_path / 'words'}?size=8", tmp_path)[0].classes == ("test", "train")


def test_hidden_folders_run_folders_and_other_files_are_passed_over(pets: Path, tmp_path: Path) -> None:
    fill(pets, {".thumbnails": 2, "runs/train/1-lenet5-digits": 2, "cat/.hidden": 2, "cat/deeper/still": 5}, start=500)
    fill(pets, {"1-lenet5-digits": 2}, start=600)
    (pets / "1-lenet5-digits/run.json").write_text("{}")
    draw(pets / "cat/.invisible.png", 700)
    (pets / "dog/notes.txt").write_text("good dog")
    train, test = load(f"{pets}?size=8", tmp_path)
    assert train.classes == ("cat", "dog")
    assert len(train) + len(test) == 35
    assert "1 files that are no images were ignored" in describe(f"folder:{pets}?size=8", root=tmp_path / "data")


def test_copies_never_cross_a_split_that_is_cut(tmp_path: Path) -> None:
    for copy in range(3):
        fill(tmp_path / "set", {f"a/{copy}": 10, f"b/{copy}": 10})
    train, test = load(f"{tmp_path / 'set'}?size=8", tmp_path)
    assert (len(train), len(test)) == (48, 12)
    assert not pictures(train) & pictures(test)
    assert "40 images are copies" in describe(f"folder:{tmp_path / 'set'}?size=8", root=tmp_path / "data")


def test_training_images_that_are_in_the_test_set_are_left_out(tmp_path: Path) -> None:
    fill(tmp_path / "set/train", {"a": 6, "b": 6})
    fill(tmp_path / "set/test", {"a": 3, "b": 0})
    draw(tmp_path / "set/test/b/new.png", 99)
    train, test = load(f"{tmp_path / 'set'}?size=8", tmp_path)
    assert (len(train), len(test)) == (9, 4)
    assert not pictures(train) & pictures(test)
    assert "3 training images were left out" in describe(f"folder:{tmp_path / 'set'}?size=8", root=tmp_path / "data")


def test_options_change_what_is_packed(pets: Path, tmp_path: Path) -> None:
    train, _ = load(f"{pets}?channels=1&size=20&mirrored=no", tmp_path)
    assert (train.image, train.mirrored, len(train.mean)) == ((1, 20, 20), False, 1)
    assert load(str(pets), tmp_path)[0].image == (3, 64, 64)


@pytest.mark.parametrize(
    ("options", "error", "complaint"),
    [
        ("size=big", DataError, "size='big' was given; it can be 1 to 1024 pixels"),
        ("size=0", DataError, "size='0'"),
        ("channels=2", DataError, "it can be 1 or 3"),
        ("mirrored=", DataError, "yes or no"),
        ("skip=all", DataError, "none or unreadable"),
        ("sise=3", UnknownNameError, "Did you mean 'size'"),
    ],
)
def test_wrong_options_are_answered(options: str, error: type[Exception], complaint: str, pets: Path) -> None:
    with pytest.raises(error, match=complaint):
        parse_spec(f"folder:{pets}?{options}")


def test_a_question_mark_may_be_part_of_the_path(tmp_path: Path) -> None:
    fill(tmp_path / "what?size=8", {"a": 5, "b": 5})
    assert parse_spec(f"folder:{tmp_path}/what?size=8").size == 64


def test_changed_folders_are_read_again_and_others_are_not(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = f"{pets}?size=8"
    load(spec, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(folder, "open_image", lambda path: pytest.fail("read again"))
        load(spec, tmp_path)
    draw(pets / "cat/new.png", 1000)
    train, test = load(spec, tmp_path)
    assert len(train) + len(test) == 31
    first = sorted((pets / "dog").iterdir())[0]
    draw(first, 2000)
    os.utime(first, ns=(1, 1))
    changed = load(spec, tmp_path)
    assert (changed[0].digest, changed[1].digest) != (train.digest, test.digest)
    (pets / "cat/new.png").unlink()
    assert sum(map(len, load(spec, tmp_path))) == 30


def test_a_damaged_cache_is_named_and_can_be_refreshed(pets: Path, tmp_path: Path) -> None:
    whole = load(f"{pets}?size=8", tmp_path)[1]
    (path,) = (tmp_path / "data/folder").glob("*/test.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"test\.safetensors cannot be used.*--refresh"):
        load(f"{pets}?size=8", tmp_path)
    refresh_dataset(f"folder:{pets}?size=8", root=tmp_path / "data")
    assert load(f"{pets}?size=8", tmp_path)[1].digest == whole.digest


def test_an_unreadable_image_is_named_with_the_choice_to_skip_it(pets: Path, tmp_path: Path) -> None:
    (pets / "cat/broken.jpg").write_bytes(b"\xff\xd8\xff no more")
    with pytest.raises(DataError, match=r"cat/broken.jpg cannot be read .*skip=unreadable") as caught:
        load(f"{pets}?size=8", tmp_path)
    assert f"folder:{pets}?size=8&skip=unreadable" in str(caught.value)
    train, test = load(f"{pets}?size=8&skip=unreadable", tmp_path)
    assert len(train) + len(test) == 30
    text = describe(f"folder:{pets}?size=8&skip=unreadable", root=tmp_path / "data")
    assert "1 unreadable images were skipped" in text
    assert "broken.jpg" in text


def wrong(root: Path, case: str) -> Path:
    """Build the folder of one case and return it."""
    path = root / "wrong"
    path.mkdir()
    if case == "one class":
        fill(path, {"a": 5})
    elif case == "no class":
        draw(path / "loose.png", 1)
    elif case == "empty class":
        fill(path, {"a": 5})
        (path / "b").mkdir()
    elif case == "no images":
        (path / "a").mkdir()
        (path / "b").mkdir()
    elif case == "class unknown to train":
        fill(path, {"train/a": 2, "train/b": 2, "test/c": 2})
    elif case == "empty test":
        fill(path, {"train/a": 2, "train/b": 2})
        (path / "test").mkdir()
    elif case == "all images tested":
        fill(path, {"train/a": 2, "train/b": 2})
        fill(path, {"test/a": 2})
    elif case == "a file":
        path.rmdir()
        path.write_bytes(b"")
    return path


@pytest.mark.parametrize(
    ("case", "complaint"),
    [
        ("one class", "has 1 class folders; at least 2"),
        ("no class", "has 0 class folders; at least 2"),
        ("empty class", "the class 'b' of .* has no training images"),
        ("no images", "but no images in them"),
        ("class unknown to train", "test/c is a class that the training images lack; they have a, b"),
        ("empty test", "the test folder of .* has no images"),
        ("all images tested", "the class 'a' of .* has no training image left"),
        ("a file", "there is no folder at"),
    ],
)
def test_folders_that_are_no_data_set_are_answered_in_a_sentence(case: str, complaint: str, tmp_path: Path) -> None:
    path = wrong(tmp_path, case)
    with pytest.raises(DataError, match=complaint) as caught:
        load(f"{path}?size=8", tmp_path)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "data").rglob("*.safetensors"))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder at '/nowhere/at/all'"):
        load("/nowhere/at/all", tmp_path)


def test_images_of_one_shade_can_still_be_normalised(tmp_path: Path) -> None:
    for name, shade in (("a", 0), ("b", 0)):
        for n in range(4):
            path = tmp_path / f"set/{name}/{n}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = np.full((8, 8, 3), shade, dtype=np.uint8)
            image[0, n if name == "a" else n + 4, 0] = 1
            Image.fromarray(image).save(path)
    train, _ = load(f"{tmp_path / 'set'}?size=8", tmp_path)
    assert bool(preprocess(train)(train.images[0].permute(1, 2, 0).numpy()).isfinite().all())
