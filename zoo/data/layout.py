"""What a person's folder of images means: its options, its classes, and which file belongs to which split.

Understood are class folders directly, or below `train` with `val` and/or `test` beside it (also training, valid,
validation, testing). Hidden folders, our own run folders and files that are no images are passed over.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from zoo.errors import DataError, unknown

PREFIX = "folder:"
SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))
ROLES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}
READER = "1"  # counted up when the same files would be packed to other pixels
MOST_PIXELS = 1024

T = TypeVar("T")


@dataclass(frozen=True)
class FolderSpec:
    """`folder:PATH?size=64&channels=3&mirrored=yes&skip=none`, the options being in any order or left out.

    size: pixels of both sides. channels: 3, or 1 for grey. mirrored: whether a mirror image keeps its class.
    skip_unreadable: pass over (`skip=unreadable`) images that cannot be decoded, instead of raising DataError.
    """

    path: Path
    size: int = 64
    channels: int = 3
    mirrored: bool = True
    skip_unreadable: bool = False

    @property
    def image(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.size, self.size

    @property
    def key(self) -> str:
        """A name for the cache, of the absolute path and all options."""
        text = repr((str(self.path), self.size, self.channels, self.mirrored, self.skip_unreadable))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Layout:
    """What a folder was understood to be.

    files: split ("train", and "test" if there is one) -> (path, label) in order of class and name.
    notes: what was decided on the way, one sentence each. manifest: digest of every file's name, size and time.
    """

    classes: tuple[str, ...]
    files: dict[str, list[tuple[Path, int]]]
    notes: tuple[str, ...]
    manifest: str


def is_folder(name: str) -> bool:
    """Whether a data set's name asks for a folder of images."""
    return name.startswith(PREFIX)


def parse_spec(name: str) -> FolderSpec:
    """Read `folder:PATH?option=value&...`. Raises UnknownNameError for an option, DataError for a value or the path."""
    text = name.removeprefix(PREFIX)
    path, _, options = (text, "", "") if Path(text).expanduser().is_dir() else text.partition("?")
    folder = Path(path).expanduser().absolute()
    if not path or not folder.is_dir():
        raise DataError(
            f"there is no folder at {path!r}; give folder:PATH, where PATH has one folder of images a class."
        )
    given: dict[str, str] = {}
    for option in filter(None, options.split("&")):
        key, _, value = option.partition("=")
        if key not in ("size", "channels", "mirrored", "skip"):
            raise unknown("folder option", key, ("size", "channels", "mirrored", "skip"))
        given[key] = value
    return FolderSpec(
        path=folder,
        size=_choice(given, "size", {str(n): n for n in range(1, MOST_PIXELS + 1)}, 64, f"1 to {MOST_PIXELS} pixels"),
        channels=_choice(given, "channels", {"1": 1, "3": 3}, 3, "1 or 3"),
        mirrored=_choice(given, "mirrored", {"yes": True, "no": False}, True, "yes or no"),
        skip_unreadable=_choice(given, "skip", {"none": False, "unreadable": True}, False, "none or unreadable"),
    )


def _choice(given: dict[str, str], key: str, values: dict[str, T], default: T, allowed: str) -> T:
    if key not in given:
        return default
    if given[key] not in values:
        raise DataError(f"the folder option {key}={given[key]!r} was given; it can be {allowed}.")
    return values[given[key]]


def read_layout(spec: FolderSpec) -> Layout:
    """Look at names only, and decide what they mean. Raises DataError where they mean no data set."""
    parts = _split_folders(spec.path)
    notes = []
    if parts is None:
        parts = {"train": [spec.path]}
    elif "valid" in parts and "test" in parts:
        parts["train"] += parts.pop("valid")
        notes.append("the validation images were put with the training images, of which a seed cuts a validation set")
    elif "valid" in parts:
        parts["test"] = parts.pop("valid")
        notes.append("there is no test set, so the validation images are it")
    classes = sorted({c.name for folder in parts["train"] for c in _folders(folder)})
    if len(classes) < 2:
        raise DataError(
            f"{spec.path} has {len(classes)} class folders; at least 2 are needed, each with the images of one class."
        )
    files, ignored = {}, 0
    for split, folders in parts.items():
        files[split], others = _files(folders, classes)
        ignored += others
    _check_classes(spec.path, classes, files)
    if ignored:
        notes.append(f"{ignored} files that are no images were ignored")
    return Layout(tuple(classes), files, tuple(notes), _manifest(spec.path, files))


def images_below(folder: str | Path) -> list[str]:
    """Paths of all image files in a folder and those below it, by name. Raises DataError where there are none."""
    try:
        found = sorted(str(path) for path in _walk(Path(folder)) if path.suffix.lower() in SUFFIXES)
    except OSError as fault:
        raise DataError(f"{folder} cannot be read: {fault}.") from fault
    if not found:
        raise DataError(f"{folder} has no images in it; images end in {', '.join(sorted(SUFFIXES))}.")
    return found


def _split_folders(path: Path) -> dict[str, list[Path]] | None:
    """role -> folders, when every folder is named after a split and those of `train` hold class folders; else None."""
    roles: dict[str, list[Path]] = {}
    for folder in _folders(path):
        role = ROLES.get(folder.name.lower())
        if role is None:
            return None
        roles.setdefault(role, []).append(folder)
    return roles if any(_folders(folder) for folder in roles.get("train", [])) else None


def _folders(path: Path) -> list[Path]:
    """The folders of `path` by name, without hidden ones and our own run folders."""
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and not _passed_over(entry))


def _passed_over(folder: Path) -> bool:
    hidden = folder.name.startswith(".") or folder.name == "__MACOSX"
    return hidden or folder.name == "runs" or (folder / "run.json").exists()


def _files(folders: list[Path], classes: list[str]) -> tuple[list[tuple[Path, int]], int]:
    """(path, label) of every image below the class folders of one split, and the number of other files."""
    found: list[tuple[Path, int]] = []
    others = 0
    for folder in folders:
        for class_folder in _folders(folder):
            if class_folder.name not in classes:
                raise DataError(
                    f"{class_folder} is a class that the training images lack; they have {', '.join(classes)}."
                )
            label = classes.index(class_folder.name)
            for path in _walk(class_folder):
                if path.suffix.lower() in SUFFIXES:
                    found.append((path, label))
                else:
                    others += 1
    return sorted(found, key=lambda item: (item[1], str(item[0]))), others


def _walk(folder: Path) -> Iterator[Path]:
    for parent, names, files in os.walk(folder):
        names[:] = [name for name in names if not _passed_over(Path(parent) / name)]
        yield from (Path(parent) / name for name in files if not name.startswith("."))


def _check_classes(path: Path, classes: list[str], files: dict[str, list[tuple[Path, int]]]) -> None:
    if not any(files.values()):
        raise DataError(f"{path} has class folders but no images in them; images end in {', '.join(sorted(SUFFIXES))}.")
    if not files.get("test", [None]):
        raise DataError(
            f"the test folder of {path} has no images; put some there, or remove it to have a test set cut."
        )
    for label, name in enumerate(classes):
        if not any(found == label for _, found in files["train"]):
            raise DataError(f"the class {name!r} of {path} has no training images; add some, or remove its folder.")


def _manifest(root: Path, files: dict[str, list[tuple[Path, int]]]) -> str:
    digest = hashlib.sha256(READER.encode())
    for split, items in files.items():
        for path, _ in items:
            facts = path.stat()
            digest.update(repr((split, str(path.relative_to(root)), facts.st_size, facts.st_mtime_ns)).encode())
    return digest.hexdigest()
