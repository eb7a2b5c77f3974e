"""The packed cache: <root>/<data set>/<split>.safetensors, read with every check and written whole or not at all.

A file holds `images` uint8 [N, C, H, W] and `labels` uint8 [N], and string metadata: dataset, split, classes (JSON),
sha256 (of the image bytes, then the label bytes), source, inexact_rows (JSON).
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from zoo.errors import DataError
from zoo.files import cache_folder, write_atomically

REQUIRED = ("dataset", "split", "classes", "sha256", "source", "inexact_rows")
MOST_CLASSES = 256  # labels are one byte each


@dataclass(frozen=True, eq=False)
class Packed:
    """The content of one file after all checks: images uint8 [N, C, H, W], labels int64 [N], metadata as it stands."""

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    inexact_rows: tuple[int, ...]
    metadata: dict[str, str]


def data_folder(root: str | Path | None = None) -> Path:
    """Where the packed sets are: `root`, else $ZOO_DATA, else `data` in the cache folder (~/.cache/zoo/data)."""
    chosen = root or os.environ.get("ZOO_DATA") or cache_folder() / "data"
    return Path(chosen).expanduser()


def pixel_digest(images: Tensor, labels: Tensor) -> str:
    """SHA-256, in hex, of the image bytes and then of the labels as one byte each."""
    digest = hashlib.sha256(images.contiguous().numpy().data)
    digest.update(labels.to(torch.uint8).contiguous().numpy().data)
    return digest.hexdigest()


def write_packed(path: Path, images: Tensor, labels: Tensor, metadata: dict[str, str]) -> None:
    """Write one split; `sha256` is added to the metadata here. OSError passes on and leaves the old file as it was."""
    tensors = {"images": images.contiguous(), "labels": labels.to(torch.uint8)}
    write_atomically(path, save(tensors, metadata | {"sha256": pixel_digest(images, labels)}))


def read_metadata(path: Path) -> dict[str, str] | None:
    """The metadata of a packed file, without its pixels; None when there is no such file or it cannot be read."""
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError):
        return None


def read_packed(path: Path, *, remedy: str) -> Packed:
    """Read and check one split: layout, types, labels, and the digest of every byte.

    remedy: what the reader can do about a damaged file, as the end of a sentence.
    Raises DataError naming the file and the fault; the file itself is left alone.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            names = sorted(file.keys())
            if names != ["images", "labels"]:
                raise ValueError(f"it holds {names}, not images and labels")
            images, labels = file.get_tensor("images").clone(), file.get_tensor("labels").clone()
        return _checked(images, labels, metadata)
    except (SafetensorError, OSError, ValueError) as fault:
        raise DataError(f"{path} cannot be used: {fault}; {remedy}") from fault


def _checked(images: Tensor, labels: Tensor, metadata: dict[str, str]) -> Packed:
    missing = [key for key in REQUIRED if key not in metadata]
    if missing:
        raise ValueError(f"its metadata lack {', '.join(missing)}")
    for name, tensor, rank in (("images", images, 4), ("labels", labels, 1)):
        if tensor.dtype != torch.uint8 or tensor.ndim != rank:
            raise ValueError(f"its {name} are {tensor.dtype} {list(tensor.shape)}, not uint8 of rank {rank}")
    if len(images) != len(labels) or images.numel() == 0:
        raise ValueError(f"it holds {list(images.shape)} images and {len(labels)} labels")
    classes = cast("tuple[str, ...]", _json_tuple(metadata, "classes", str))
    rows = cast("tuple[int, ...]", _json_tuple(metadata, "inexact_rows", int))
    if int(labels.max()) >= len(classes):
        raise ValueError(f"a label is {int(labels.max())} where there are {len(classes)} classes")
    if not all(0 <= row < len(labels) for row in rows):
        raise ValueError("its inexact_rows name rows that it does not hold")
    if pixel_digest(images, labels) != metadata["sha256"]:
        raise ValueError("its pixels or labels do not fit its SHA-256 digest")
    return Packed(images, labels.long(), classes, rows, metadata)


def _json_tuple(metadata: dict[str, str], key: str, kind: type) -> tuple[object, ...]:
    value = json.loads(metadata[key])
    if not isinstance(value, list) or not all(type(item) is kind for item in value):
        raise ValueError(f"its metadata field {key!r} is not a list of {kind.__name__}")
    return tuple(value)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, waiting for whoever has it.

    The kernel holds the lock on the open file and lets go when its process ends in any way, so a `.lock` file that is
    left behind locks nothing and never has to be removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
