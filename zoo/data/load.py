"""From a data set's name to its pixels: read the packed cache, and fill it first where it is empty."""

import errno
import json
import tempfile
from pathlib import Path

from zoo.data import folder as folders
from zoo.data.cache import Packed, data_folder, locked, read_metadata, read_packed, write_packed
from zoo.data.dataset import DATASETS, Dataset, DatasetInfo
from zoo.data.sources import Splits, fetch
from zoo.errors import DataError, unknown

SPLITS = ("train", "test")
NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


def load_dataset(name: str, split: str, *, root: str | Path | None = None) -> Dataset:
    """One split ("train" or "test") of a data set, whole in memory.

    name: one of DATASETS, or `folder:PATH` for a person's own images (see zoo.data.folder for its options).
    root: the folder of the packed cache; None takes $ZOO_DATA, else ~/.cache/zoo/data. A set that is not there is
    fetched and packed first, once even when several processes ask.
    Raises UnknownNameError, or DataError when the set cannot be had or its file is damaged.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    if folders.is_folder(name):
        return folders.load_folder(name, split, data_folder(root))
    info = _known(name)
    path = data_folder(root) / name / f"{split}.safetensors"
    if not path.exists():
        _fill(info, path.parent)
    return _dataset(info, split, path)


def dataset_info(name: str) -> DatasetInfo:
    """The facts of a data set. No pixel is read; a `folder:PATH` that is not in the cache yet is packed first."""
    return folders.folder_info(name, data_folder()) if folders.is_folder(name) else _known(name)


def refresh_dataset(name: str, *, root: str | Path | None = None) -> None:
    """Fetch a data set anew and put it in the place of what the cache holds; what is there stays until that is done."""
    if folders.is_folder(name):
        folders.pack_folder(name, data_folder(root))
        return
    _fill(_known(name), data_folder(root) / name, replacing=True)


def describe(name: str, *, root: str | Path | None = None) -> str:
    """What is known of a data set in a few lines: for a folder, all that was understood of it."""
    if folders.is_folder(name):
        return folders.describe_folder(name, data_folder(root))
    info = _known(name)
    lines = [f"{name}: {len(info.classes)} classes, images {' x '.join(map(str, info.image))}"]
    for split in SPLITS:
        path = data_folder(root) / name / f"{split}.safetensors"
        metadata = read_metadata(path)
        if metadata is None:
            state = "is damaged" if path.exists() else "is not in the cache yet"
            lines.append(f"  {split}: {path} {state}")
        else:
            lines.append(f"  {split}: {path}, from {metadata.get('source', '?')}")
    return "\n".join(lines)


def _known(name: str) -> DatasetInfo:
    if name not in DATASETS:
        raise unknown("data set", name, [*DATASETS, "folder:PATH"])
    return DATASETS[name]


def _dataset(info: DatasetInfo, split: str, path: Path) -> Dataset:
    remedy = f"delete it and ask again, or run `zoo data {info.name} --refresh`."
    packed = read_packed(path, remedy=remedy)
    fault = _misfit(packed, info, split)
    if fault:
        raise DataError(f"{path} cannot be used: {fault}; {remedy}")
    return Dataset(
        name=info.name,
        split=split,
        images=packed.images,
        labels=packed.labels,
        classes=packed.classes,
        mean=info.mean,
        std=info.std,
        digest=packed.metadata["sha256"],
        mirrored=info.mirrored,
        inexact_rows=packed.inexact_rows,
    )


def _misfit(packed: Packed, info: DatasetInfo, split: str) -> str | None:
    """How a file differs from what its name promises, or None."""
    said = packed.metadata["dataset"], packed.metadata["split"]
    if said != (info.name, split):
        return f"it says that it is {said[0]}/{said[1]}, not {info.name}/{split}"
    if tuple(packed.images.shape[1:]) != info.image:
        return f"its images are {list(packed.images.shape[1:])}, where {info.name} has {list(info.image)}"
    if packed.classes != info.classes:
        return f"its classes are not those of {info.name}"
    return None


def _fill(info: DatasetInfo, folder: Path, *, replacing: bool = False) -> None:
    """Fetch a set and write what is missing of its two splits (with `replacing`, both), one process at a time."""
    paths = {split: folder / f"{split}.safetensors" for split in SPLITS}
    try:
        with locked(folder):
            wanted = [split for split in SPLITS if replacing or not paths[split].exists()]
            if not wanted:
                return
            with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as scratch:
                splits, source = _fetched(info, folder, Path(scratch))
            for split in wanted:
                metadata = {
                    "dataset": info.name,
                    "split": split,
                    "classes": json.dumps(info.classes),
                    "source": source,
                    "inexact_rows": "[]",
                }
                write_packed(paths[split], *splits[split], metadata)
    except OSError as fault:
        raise DataError(
            f"{info.name} cannot be written to {folder}: {fault}; make room there, or set ZOO_DATA to another folder."
        ) from fault


def _fetched(info: DatasetInfo, folder: Path, scratch: Path) -> tuple[Splits, str]:
    try:
        return fetch(info.name, scratch)
    except (OSError, RuntimeError, KeyError) as fault:
        if isinstance(fault, OSError) and fault.errno in NOT_WRITABLE:
            raise
        reason = " ".join(str(fault).split())[:200]
        raise DataError(
            f"{info.name} is not in {folder} and could not be downloaded ({reason}): put train.safetensors and "
            f"test.safetensors there, or set ZOO_DATA to a folder that has {info.name}/; `digits` works offline."
        ) from fault
