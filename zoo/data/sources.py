"""Where a data set that is not in the cache comes from: torchvision's downloads, or scikit-learn's own files.

The CIFAR sets are read from their binary archives: the form that torchvision's classes read is a pickle, and nothing
here unpickles.
"""

import socket
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zoo.data.dataset import stratified_rows

Splits = dict[str, tuple[Tensor, Tensor]]
PATIENCE = 30.0  # seconds without a byte before a download is given up; torchvision itself would wait for ever

# name -> address of the binary archive, its published md5, bytes of label before each image, files of each split
CIFAR_PAGE = "https://www.cs.toronto.edu/~kriz"
CIFAR_ARCHIVES: dict[str, tuple[str, str, int, dict[str, list[str]]]] = {
    "cifar10": (
        f"{CIFAR_PAGE}/cifar-10-binary.tar.gz",
        "c32a1d4ab5d03f1284b67883e8d87530",
        1,
        {
            "train": [f"cifar-10-batches-bin/data_batch_{n}.bin" for n in range(1, 6)],
            "test": ["cifar-10-batches-bin/test_batch.bin"],
        },
    ),
    "cifar100": (
        f"{CIFAR_PAGE}/cifar-100-binary.tar.gz",
        "03b5dce01913d631647c71ecec9e9cb8",
        2,
        {"train": ["cifar-100-binary/train.bin"], "test": ["cifar-100-binary/test.bin"]},
    ),
}
DIGITS_TEST_IMAGES = 360  # of 1,797


def fetch(name: str, scratch: Path) -> tuple[Splits, str]:
    """Both splits of a known set, as {split: (images uint8 [N, C, H, W], labels int64 [N])}, and where they came from.

    scratch: a folder for what is downloaded, which the caller removes.
    Network and file errors (OSError, RuntimeError) pass on.
    """
    if name == "digits":
        return _digits(), "scikit-learn load_digits (UCI optical recognition of handwritten digits), resized to 28 x 28"
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        if name in CIFAR_ARCHIVES:
            return _cifar(name, scratch), CIFAR_ARCHIVES[name][0]
        return _mnist(name, scratch), f"torchvision.datasets, {name}"
    finally:
        socket.setdefaulttimeout(before)


def _mnist(name: str, scratch: Path) -> Splits:
    from torchvision import datasets

    source = {"mnist": datasets.MNIST, "fashion_mnist": datasets.FashionMNIST}[name]
    splits = {}
    for split in ("train", "test"):
        part = source(str(scratch), train=split == "train", download=True)
        splits[split] = (part.data[:, None].contiguous(), part.targets.long())
    return splits


def _cifar(name: str, scratch: Path) -> Splits:
    """Records of a label (CIFAR-100: coarse, then fine) and 3,072 bytes: the red, green and blue planes in rows."""
    from torchvision.datasets.utils import download_url

    url, md5, label_bytes, files = CIFAR_ARCHIVES[name]
    download_url(url, str(scratch), md5=md5)
    splits = {}
    with tarfile.open(scratch / url.rsplit("/", 1)[1]) as archive:
        for split, members in files.items():
            data = b"".join(_member(archive, member) for member in members)
            records = torch.from_numpy(np.frombuffer(data, np.uint8).reshape(-1, label_bytes + 3072).copy())
            images = records[:, label_bytes:].reshape(-1, 3, 32, 32).contiguous()
            splits[split] = (images, records[:, label_bytes - 1].long())
    return splits


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise OSError(f"{name} is not a file of the archive")
    return file.read()


def _digits() -> Splits:
    """1,797 images of 8 x 8 in 17 shades, resized by bilinear interpolation; every fifth of a class is for testing."""
    from sklearn.datasets import load_digits

    images, targets = load_digits(return_X_y=True)
    shades = np.rint(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    large = [np.asarray(Image.fromarray(s).resize((28, 28), Image.Resampling.BILINEAR)) for s in shades]
    pixels, labels = torch.from_numpy(np.stack(large))[:, None], torch.from_numpy(targets).long()
    test = stratified_rows(labels, DIGITS_TEST_IMAGES, seed=0)
    train = torch.ones(len(labels), dtype=torch.bool)
    train[test] = False
    return {"train": (pixels[train], labels[train]), "test": (pixels[test], labels[test])}
