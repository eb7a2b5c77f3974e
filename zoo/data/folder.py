"""A person's own images as a data set: `folder:PATH`, decoded once, resized to one size and packed into the cache.

It is packed again when a file's name, size or time has changed. Copies of one image (the same pixels after resizing)
are never on both sides of a split. See zoo.data.layout for the options and the layouts understood.
"""

import json
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from zoo.data.cache import MOST_CLASSES, locked, read_metadata, read_packed, write_packed
from zoo.data.dataset import Dataset, DatasetInfo, channel_statistics, first_occurrences, stratified_rows
from zoo.data.layout import FolderSpec, Layout, is_folder, parse_spec, read_layout
from zoo.data.pixels import fit_image, open_image
from zoo.errors import DataError

TEST_SHARE = 0.2  # of the images, when the folder has no test set of its own
TEST_SEED = 0
LEAST_STD = 1 / 255  # for images of one single shade, so that normalising them divides by something
NAMED = 5  # unreadable files that the description names one by one

__all__ = ["describe_folder", "folder_info", "is_folder", "load_folder", "pack_folder"]

Splits = dict[str, tuple[Tensor, Tensor]]


def load_folder(name: str, split: str, root: Path) -> Dataset:
    """One split of a folder of images, out of the cache at `root` or packed there now. Raises DataError."""
    spec = parse_spec(name)
    home = _packed(name, spec, root)
    path = home / f"{split}.safetensors"
    packed = read_packed(path, remedy=f"delete it and ask again, or run `zoo data '{name}' --refresh`.")
    return Dataset(
        name=name,
        split=split,
        images=packed.images,
        labels=packed.labels,
        classes=packed.classes,
        mean=tuple(json.loads(packed.metadata["mean"])),
        std=tuple(json.loads(packed.metadata["std"])),
        digest=packed.metadata["sha256"],
        mirrored=spec.mirrored,
    )


def folder_info(name: str, root: Path) -> DatasetInfo:
    """The facts of a folder of images, packed first if need be."""
    spec = parse_spec(name)
    metadata = _metadata(_packed(name, spec, root))
    classes, mean, std = (tuple(json.loads(metadata[key])) for key in ("classes", "mean", "std"))
    return DatasetInfo(name, spec.image, classes, mean, std, spec.mirrored)


def describe_folder(name: str, root: Path) -> str:
    """What was understood of a folder, in a few lines: classes, counts, how it was split, what was left out."""
    return _metadata(_packed(name, parse_spec(name), root))["description"]


def pack_folder(name: str, root: Path) -> None:
    """Read a folder of images anew into the cache, changed or not."""
    spec = parse_spec(name)
    home = _home(spec, root)
    with locked(home):
        _pack(name, spec, _layout(spec), home)


def _layout(spec: FolderSpec) -> Layout:
    try:
        return read_layout(spec)
    except OSError as fault:
        raise DataError(f"{spec.path} cannot be read: {fault}.") from fault


def _home(spec: FolderSpec, root: Path) -> Path:
    return root / "folder" / f"{spec.path.name}-{spec.key}"


def _metadata(home: Path) -> dict[str, str]:
    metadata = read_metadata(home / "train.safetensors")
    if metadata is None:
        raise DataError(f"{home / 'train.safetensors'} cannot be read; delete it and ask again.")
    return metadata


def _packed(name: str, spec: FolderSpec, root: Path) -> Path:
    """The cache folder that holds both splits of the folder as it is now; one process at a time fills it.

    A file that is there but damaged is not replaced: the reader says so.
    """
    layout = _layout(spec)
    home = _home(spec, root)
    paths = [home / f"{split}.safetensors" for split in ("train", "test")]
    try:
        with locked(home):
            for path in paths:
                metadata = read_metadata(path)
                stale = metadata is not None and metadata.get("manifest", layout.manifest) != layout.manifest
                if stale or not path.exists():
                    _pack(name, spec, layout, home)
                    break
    except OSError as fault:
        raise DataError(f"{name} cannot be packed into {home}: {fault}; set ZOO_DATA to another folder.") from fault
    return home


def _pack(name: str, spec: FolderSpec, layout: Layout, home: Path) -> None:
    notes = list(layout.notes)
    if len(layout.classes) > MOST_CLASSES:
        raise DataError(f"{spec.path} has {len(layout.classes)} classes; at most {MOST_CLASSES} can be packed.")
    splits, skipped = _decoded(name, spec, layout)
    if skipped:
        more = f" and {len(skipped) - NAMED} more" if len(skipped) > NAMED else ""
        notes.append(f"{len(skipped)} unreadable images were skipped: {', '.join(map(str, skipped[:NAMED]))}{more}")
    splits = _without_leaks(splits, notes) if "test" in splits else _cut(splits["train"], notes)
    _check_training(spec, layout, splits["train"][1])
    mean, std = channel_statistics(splits["train"][0])
    metadata = {
        "dataset": name,
        "classes": json.dumps(layout.classes),
        "source": str(spec.path),
        "inexact_rows": "[]",
        "mean": json.dumps(mean),
        "std": json.dumps([max(value, LEAST_STD) for value in std]),
        "manifest": layout.manifest,
        "description": _description(name, spec, layout, splits, notes),
    }
    for split, (images, labels) in splits.items():
        write_packed(home / f"{split}.safetensors", images, labels, metadata | {"split": split})


def _decoded(name: str, spec: FolderSpec, layout: Layout) -> tuple[Splits, list[Path]]:
    """Both splits' pixels as {split: (uint8 [N, C, H, W], int64 [N])}, and the files that were skipped."""
    splits: Splits = {}
    skipped: list[Path] = []
    for split, files in layout.files.items():
        images = torch.empty(len(files), *spec.image, dtype=torch.uint8)
        labels: list[int] = []
        for path, label in files:
            try:
                images[len(labels)] = fit_image(open_image(path), spec.image)
            except DataError as fault:
                if not spec.skip_unreadable:
                    advice = f"mend or remove it, or give '{_with_skip(name)}' to leave out what cannot be read."
                    raise DataError(f"{str(fault).removesuffix('.')}; {advice}") from fault
                skipped.append(path)
            else:
                labels.append(label)
        if not labels:
            raise DataError(f"no {split} image of {spec.path} can be read.")
        splits[split] = (images[: len(labels)].clone(), torch.tensor(labels))
    return splits, skipped


def _with_skip(name: str) -> str:
    return f"{name}{'&' if '?' in name else '?'}skip=unreadable"


def _cut(whole: tuple[Tensor, Tensor], notes: list[str]) -> Splits:
    """Set a fifth of the distinct images aside for testing, by class; copies go where the first of them goes."""
    images, labels = whole
    first = first_occurrences(images)
    distinct = first.unique()
    count = max(1, round(TEST_SHARE * len(distinct)))
    chosen = distinct[stratified_rows(labels[distinct], count, TEST_SEED)]
    test = torch.isin(first, chosen)
    notes.append(
        f"there is no test set, so {TEST_SHARE:.0%} of the images are set aside as one, by class, with seed {TEST_SEED}"
    )
    if len(distinct) < len(images):
        notes.append(
            f"{len(images) - len(distinct)} images are copies of others; all copies of one are in the same split"
        )
    return {"train": (images[~test], labels[~test]), "test": (images[test], labels[test])}


def _without_leaks(splits: Splits, notes: list[str]) -> Splits:
    """Drop the training images that are in the test set too."""
    images, labels = splits["train"]
    tested = len(splits["test"][1])
    first = first_occurrences(torch.cat((splits["test"][0], images)))[tested:]
    kept = first >= tested
    if not bool(kept.all()):
        notes.append(f"{int((~kept).sum())} training images were left out, because they are in the test set too")
    return {"train": (images[kept], labels[kept]), "test": splits["test"]}


def _check_training(spec: FolderSpec, layout: Layout, labels: Tensor) -> None:
    counts = torch.bincount(labels, minlength=len(layout.classes))
    for name, count in zip(layout.classes, counts.tolist(), strict=True):
        if count == 0:
            raise DataError(
                f"the class {name!r} of {spec.path} has no training image left once unreadable ones, and copies of "
                "test images, are taken out; add some."
            )


def _description(name: str, spec: FolderSpec, layout: Layout, splits: Splits, notes: list[str]) -> str:
    size = " x ".join(map(str, spec.image))
    lines = [
        f"{name}: {len(layout.classes)} classes, images resized to {size}, mirrored: {'yes' if spec.mirrored else 'no'}"
    ]
    for split, (_, labels) in splits.items():
        counts = Counter(labels.tolist())
        by_class = ", ".join(f"{c} {counts[i]}" for i, c in enumerate(layout.classes))
        lines.append(f"  {split}: {len(labels)} images ({by_class})")
    return "\n".join(lines + [f"  {note}" for note in notes])
