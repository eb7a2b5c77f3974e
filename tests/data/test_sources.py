"""Getting data sets: torchvision's real download and reading code, fed by a server on this machine."""

import gzip
import hashlib
import io
import socket
import struct
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torchvision import datasets

from zoo.data import Dataset, load_dataset, sources
from zoo.errors import DataError


class Handler(SimpleHTTPRequestHandler):
    """Serves files without a word."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """(address, folder) of a web server."""
    folder = tmp_path / "site"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/", folder
        server.shutdown()
        thread.join()


def images_and_labels(
    count: int, channels: int, size: int, classes: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, channels, size, size), dtype=torch.uint8, generator=generator)
    return images, torch.randint(classes, (count,), generator=generator)


def idx(tensor: torch.Tensor) -> bytes:
    """A gzipped IDX file of unsigned bytes (the format of MNIST's four files)."""
    head = struct.pack(f">HBB{tensor.ndim}I", 0, 8, tensor.ndim, *tensor.shape)
    return gzip.compress(head + tensor.to(torch.uint8).numpy().tobytes())


@pytest.mark.parametrize(
    ("name", "source"), [("mnist", datasets.MNIST), ("fashion_mnist", datasets.FashionMNIST)], ids=lambda v: str(v)[:13]
)
def test_mnist_files_are_downloaded_and_converted(
    name: str, source: type, site: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"train": images_and_labels(40, 1, 28, 10, 1), "test": images_and_labels(20, 1, 28, 10, 2)}
    resources = []
    for split, stem in (("train", "train"), ("test", "t10k")):
        for kind, tensor in zip(
            ("images-idx3", "labels-idx1"), (wanted[split][0][:, 0], wanted[split][1]), strict=True
        ):
            data = idx(tensor)
            (site[1] / f"{stem}-{kind}-ubyte.gz").write_bytes(data)
            resources.append((f"{stem}-{kind}-ubyte.gz", hashlib.md5(data).hexdigest()))
    monkeypatch.setattr(source, "mirrors", [site[0]])
    monkeypatch.setattr(source, "resources", resources)
    for split in ("train", "test"):
        got = load_dataset(name, split, root=tmp_path)
        assert torch.equal(got.images, wanted[split][0])
        assert torch.equal(got.labels, wanted[split][1])
    assert sorted(p.name for p in (tmp_path / name).iterdir()) == [".lock", "test.safetensors", "train.safetensors"]


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar_archives_are_downloaded_and_converted(
    name: str, classes: int, site: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, label_bytes, members = sources.CIFAR_ARCHIVES[name]
    wanted: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {"train": [], "test": []}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for seed, (split, path) in enumerate((s, p) for s, paths in members.items() for p in paths):
            images, labels = images_and_labels(10, 3, 32, classes, seed)
            wanted[split].append((images, labels))
            records = torch.full((10, label_bytes + 3072), 255, dtype=torch.uint8)
            records[:, label_bytes - 1] = labels.to(torch.uint8)
            records[:, label_bytes:] = images.flatten(1)
            data = records.numpy().tobytes()
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    data = buffer.getvalue()
    (site[1] / "archive.tar.gz").write_bytes(data)
    md5 = hashlib.md5(data).hexdigest()
    monkeypatch.setitem(sources.CIFAR_ARCHIVES, name, (f"{site[0]}archive.tar.gz", md5, label_bytes, members))
    for split, parts in wanted.items():
        got = load_dataset(name, split, root=tmp_path)
        assert torch.equal(got.images, torch.cat([images for images, _ in parts]))
        assert torch.equal(got.labels, torch.cat([labels for _, labels in parts]))

    monkeypatch.setitem(sources.CIFAR_ARCHIVES, name, (f"{site[0]}archive.tar.gz", "0" * 32, label_bytes, members))
    with pytest.raises(DataError, match="could not be downloaded"):
        load_dataset(name, "train", root=tmp_path / "other")


def test_a_refused_connection_is_a_download_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{unused.getsockname()[1]}/"])
        with pytest.raises(DataError, match=r"mnist is not in .* could not be downloaded \(.*refused"):
            load_dataset("mnist", "train", root=tmp_path)
    assert [p.name for p in (tmp_path / "mnist").iterdir()] == [".lock"]


def test_digits_are_whole_stratified_and_always_the_same(digits: tuple[Dataset, Dataset]) -> None:
    train, test = digits
    assert (len(train), len(test), train.image) == (1437, 360, (1, 28, 28))
    assert set(torch.bincount(test.labels).tolist()) <= {35, 36, 37}
    assert (int(train.images.min()), int(train.images.max())) == (0, 255)
    assert not set(map(bytes, train.images.numpy())) & set(map(bytes, test.images.numpy()))
    assert train.digest == "1c3d97c48a30accab4f5df7782f6db5d13a63e94c76c83fa56bbf512b6cc5759"
