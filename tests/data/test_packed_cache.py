"""The packed cache: what is written is read back, what is damaged is named, and it is filled once."""

import errno
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file

from zoo import files
from zoo.data import DATASETS, Dataset, describe, load, load_dataset, refresh_dataset
from zoo.data.cache import data_folder, pixel_digest, read_packed, write_packed
from zoo.data.sources import Splits, fetch
from zoo.errors import DataError, UnknownNameError, ZooError

METADATA = {
    "dataset": "cifar10",
    "split": "train",
    "classes": json.dumps(DATASETS["cifar10"].classes),
    "source": "a test",
    "inexact_rows": "[1]",
}


@pytest.fixture
def packed(tiny: Dataset, tmp_path: Path) -> Path:
    """A data folder that holds `tiny` under the name of cifar10's training split."""
    write_packed(tmp_path / "data/cifar10/train.safetensors", tiny.images, tiny.labels, METADATA)
    return tmp_path / "data"


def rewrite(path: Path, changes: dict[str, object]) -> None:
    """Write cifar10's file again with some of its parts changed; the digest is right unless it is among them."""
    packed = read_packed(path, remedy="")
    images = changes.get("images", packed.images)
    labels = changes.get("labels", packed.labels.to(torch.uint8))
    assert isinstance(images, torch.Tensor)
    assert isinstance(labels, torch.Tensor)
    metadata = packed.metadata | {"sha256": pixel_digest(images, labels)}
    metadata |= {key: str(value) for key, value in changes.items() if key not in ("images", "labels")}
    tensors = {"images": images, "labels": labels}
    save_file(tensors, path, metadata={key: value for key, value in metadata.items() if value != "None"})


def test_what_is_packed_is_read_back(packed: Path, tiny: Dataset) -> None:
    train = load_dataset("cifar10", "train", root=packed)
    assert torch.equal(train.images, tiny.images)
    assert torch.equal(train.labels, tiny.labels)
    assert train.labels.dtype == torch.int64
    assert (train.classes, train.inexact_rows, train.mirrored) == (tiny.classes, (1,), True)
    assert train.digest == pixel_digest(tiny.images, tiny.labels)


def test_zoo_data_names_the_folder(packed: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    monkeypatch.setenv("ZOO_DATA", str(packed))
    assert len(load_dataset("cifar10", "train")) == 100
    monkeypatch.delenv("ZOO_DATA")
    assert data_folder() == own_cache / "data"


DAMAGE: dict[str, tuple[dict[str, object], str]] = {
    "no digest": ({"sha256": None}, "metadata lack sha256"),
    "wrong digest": ({"sha256": "00"}, "do not fit its SHA-256"),
    "float images": ({"images": torch.zeros(100, 3, 32, 32)}, "not uint8"),
    "flat images": ({"images": torch.zeros(100, 3072, dtype=torch.uint8)}, "rank 4"),
    "fewer images": ({"images": torch.zeros(99, 3, 32, 32, dtype=torch.uint8)}, "and 100 labels"),
    "no image": (
        {"images": torch.zeros(0, 3, 32, 32, dtype=torch.uint8), "labels": torch.zeros(0, dtype=torch.uint8)},
        "and 0 labels",
    ),
    "label too high": ({"labels": torch.full((100,), 10, dtype=torch.uint8)}, "a label is 10"),
    "classes that are no list": ({"classes": '{"a": 1}'}, "not a list of str"),
    "classes that are no JSON": ({"classes": "cat, dog"}, "cannot be used"),
    "row out of range": ({"inexact_rows": "[100]"}, "rows that it does not hold"),
    "another image size": (
        {"images": torch.zeros(100, 3, 8, 8, dtype=torch.uint8)},
        r"where cifar10 has \[3, 32, 32\]",
    ),
    "other classes": ({"classes": json.dumps([*"abcdefghij"])}, "not those of cifar10"),
    "another set": ({"dataset": "mnist"}, "mnist/train, not cifar10/train"),
    "another split": ({"split": "test"}, "cifar10/test, not cifar10/train"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_file_that_does_not_fit_is_named_and_kept(damage: str, packed: Path) -> None:
    changes, complaint = DAMAGE[damage]
    path = packed / "cifar10/train.safetensors"
    rewrite(path, changes)
    before = path.read_bytes()
    with pytest.raises(DataError, match=complaint) as caught:
        load_dataset("cifar10", "train", root=packed)
    assert str(path) in str(caught.value)
    assert "`zoo data cifar10 --refresh`" in str(caught.value)
    assert path.read_bytes() == before


def test_every_kind_of_truncation_and_any_flipped_byte_is_seen(packed: Path) -> None:
    path = packed / "cifar10/train.safetensors"
    whole = path.read_bytes()
    for length in (0, 1, 7, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError):
            load_dataset("cifar10", "train", root=packed)
    start = len(whole) - 100 * 3073
    for position in (0, 3, 8, 20, start, start + 12345, len(whole) - 1):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(DataError):
            load_dataset("cifar10", "train", root=packed)
    path.write_bytes(whole + b"\0")
    with pytest.raises(DataError):
        load_dataset("cifar10", "train", root=packed)


def test_unknown_names_are_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'cifar10'"):
        load_dataset("cifr10", "train", root=tmp_path)
    with pytest.raises(UnknownNameError, match="test"):
        load_dataset("cifar10", "tset", root=tmp_path)


@pytest.mark.parametrize("fault", [URLError("no route"), RuntimeError("File not found\nor corrupted."), TimeoutError()])
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100"])
def test_no_network_is_one_sentence_and_leaves_nothing(
    name: str, fault: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(name: str, scratch: Path) -> tuple[Splits, str]:
        (scratch / "half").write_bytes(b"half a file")
        raise fault

    monkeypatch.setattr(load, "fetch", offline)
    with pytest.raises(DataError, match="could not be downloaded") as caught:
        load_dataset(name, "test", root=tmp_path)
    message = str(caught.value)
    assert all(part in message for part in (name, str(tmp_path / name), "ZOO_DATA", "`digits` works offline"))
    assert "\n" not in message
    assert [path.name for path in (tmp_path / name).iterdir()] == [".lock"]


def test_a_full_disk_is_said_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: tuple[Dataset, Dataset]
) -> None:
    def full(descriptor: int, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "write", full)
    with pytest.raises(DataError, match="No space left"):
        load_dataset("digits", "train", root=tmp_path)
    assert [path.name for path in (tmp_path / "digits").iterdir()] == [".lock"]


def test_a_set_in_the_cache_is_never_fetched_again(digits_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "fetch", lambda name, scratch: pytest.fail("fetched again"))
    assert len(load_dataset("digits", "test", root=digits_root)) == 360


def test_a_missing_split_is_added_beside_the_other(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = torch.ones(20, 3, 32, 32, dtype=torch.uint8), torch.arange(20) % 10
    monkeypatch.setattr(load, "fetch", lambda name, scratch: (dict.fromkeys(load.SPLITS, (images, labels)), "here"))
    before = (packed / "cifar10/train.safetensors").read_bytes()
    assert torch.equal(load_dataset("cifar10", "test", root=packed).images, images)
    assert (packed / "cifar10/train.safetensors").read_bytes() == before
    refresh_dataset("cifar10", root=packed)
    assert torch.equal(load_dataset("cifar10", "train", root=packed).images, images)


def test_a_failed_refresh_keeps_what_was_there(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(name: str, scratch: Path) -> tuple[Splits, str]:
        raise URLError("no route")

    monkeypatch.setattr(load, "fetch", offline)
    with pytest.raises(DataError):
        refresh_dataset("cifar10", root=packed)
    assert len(load_dataset("cifar10", "train", root=packed)) == 100


def test_two_threads_fill_the_cache_with_one_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(name: str, scratch: Path) -> tuple[Splits, str]:
        calls.append(name)
        return fetch(name, scratch)

    monkeypatch.setattr(load, "fetch", counted)
    with ThreadPoolExecutor(4) as pool:
        sets = list(pool.map(lambda split: load_dataset("digits", split, root=tmp_path), ["train", "test"] * 2))
    assert calls == ["digits"]
    assert torch.equal(sets[0].images, sets[2].images)


FILLER = """
import os, sys, time
from pathlib import Path
from zoo.data import load
from zoo.data.sources import fetch

def counted(name, scratch):
    Path(sys.argv[1], f"fetched-by-{os.getpid()}").touch()
    time.sleep(0.5)
    return fetch(name, scratch)

load.fetch = counted
Path(sys.argv[1], f"ready-{os.getpid()}").touch()
deadline = time.monotonic() + 60
while len(list(Path(sys.argv[1]).glob("ready-*"))) < 2 and time.monotonic() < deadline:
    time.sleep(0.005)
print(load.load_dataset("digits", "train", root=sys.argv[1]).digest)
"""


@pytest.mark.slow
def test_two_processes_fill_the_cache_with_one_fetch(tmp_path: Path, digits: tuple[Dataset, Dataset]) -> None:
    command = [sys.executable, "-c", FILLER, str(tmp_path)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [worker.communicate(timeout=120)[0].strip() for worker in workers]
    assert answers == [digits[0].digest] * 2
    assert len(list(tmp_path.glob("fetched-by-*"))) == 1


def test_a_lock_file_left_by_a_dead_process_locks_nothing(tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits/.lock").touch()
    assert len(load_dataset("digits", "train", root=tmp_path)) == 1437


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_a_folder_that_cannot_be_written_is_a_plain_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ZooError, match="cannot be written"):
        load_dataset("digits", "train", root=tmp_path)


def test_describe_says_what_is_there(packed: Path) -> None:
    text = describe("cifar10", root=packed)
    assert "10 classes" in text
    assert "from a test" in text
    assert "is not in the cache yet" in text
    (packed / "cifar10/train.safetensors").write_bytes(b"half")
    assert "is damaged" in describe("cifar10", root=packed)
