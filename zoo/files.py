"""Files that are either whole or not there: every file this package writes goes through here."""

import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path


def write_atomically(path: str | Path, data: bytes | str) -> None:
    """Write `data` under a temporary name beside `path`, sync it, rename it, sync the folder.

    At any failure (disk full, I/O error, Ctrl-C) the old file is intact and the temporary one gone; OSError passes on,
    with the name of a file.
    """
    write_chunks_atomically(path, [data.encode() if isinstance(data, str) else data])


def write_chunks_atomically(path: str | Path, chunks: Iterable[bytes | memoryview]) -> None:
    """`write_atomically` for data that come in pieces, so that a large file is never held twice in memory."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        try:
            for chunk in chunks:
                _write_all(descriptor, chunk)
            os.fchmod(descriptor, 0o666 & ~_umask())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = error.filename or str(path)
        raise


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_file(path: str | Path) -> str:
    """Hex digest of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def cache_folder() -> Path:
    """The one folder outside the current one that is ever written: $ZOO_CACHE, default ~/.cache/zoo."""
    return Path(os.environ.get("ZOO_CACHE", "~/.cache/zoo")).expanduser()


def _write_all(descriptor: int, chunk: bytes | memoryview) -> None:
    view = memoryview(chunk).cast("B")
    while len(view):
        view = view[os.write(descriptor, view) :]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
