"""Reading files that may be hostile: only regular files, never more than asked, and JSON that means one thing.

The functions raise `RefusedError` with what was found; the caller, who knows the path and the remedy, makes a
sentence of it (`sentence`).
"""

import errno
import json
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, NoReturn

from zoo.errors import FileFormatError, ZooError

INTEGER_DIGITS = 18  # more than any size or count in a file, and safely within 64 bits


class RefusedError(Exception):
    """What was found in a file that may not be read. Never reaches a user as it is."""


@contextmanager
def sentence(
    path: str | Path,
    remedy: str = "get the file again, or write it anew",
    kind: type[ZooError] = FileFormatError,
) -> Iterator[None]:
    """Turn RefusedError into an error for the user: the path, what was found, what to do."""
    try:
        yield
    except RefusedError as found:
        raise kind(f"{path} cannot be read: {found}; {remedy}.") from None


def open_regular(path: str | Path, *, follow_links: bool = True) -> FileIO:
    """Open a file for reading without ever waiting for a pipe or device. Raises RefusedError."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow_links else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise RefusedError("there is no such file") from None
    except (OSError, ValueError) as error:
        if not follow_links and getattr(error, "errno", None) == errno.ELOOP:
            raise RefusedError("it is a symbolic link, which is not followed here") from None
        raise RefusedError(f"it cannot be opened ({getattr(error, 'strerror', None) or error})") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RefusedError("it is not a regular file but a folder, pipe or device")
    return FileIO(descriptor, "rb")


def read_exactly(file: FileIO, target: memoryview) -> None:
    """Fill `target` from the file. Raises RefusedError where the file ends first or the disk fails."""
    while len(target):
        try:
            read = file.readinto(target)
        except OSError as error:
            raise RefusedError(f"it cannot be read ({error.strerror})") from None
        if not read:
            raise RefusedError(f"it ends {len(target)} bytes early")
        target = target[read:]


def read_small(path: str | Path, limit: int, *, follow_links: bool = True) -> bytes:
    """All bytes of a regular file of at most `limit` bytes. Raises RefusedError."""
    with open_regular(path, follow_links=follow_links) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise RefusedError(f"it has {size} bytes, more than the {limit} allowed")
        data = bytearray(size)
        read_exactly(file, memoryview(data))
        return bytes(data)


def parse_json(data: bytes) -> Any:
    """JSON without duplicate keys, NaN, infinities, outsized integers or broken text. Raises RefusedError."""
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_without_twins,
            parse_constant=_constant,
            parse_int=_integer,
            parse_float=_float,
        )
        if b"\\u" in data:
            json.dumps(value, ensure_ascii=False).encode()  # an escape may spell half a character
    except RecursionError:
        raise RefusedError("its JSON is nested too deeply") from None
    except UnicodeError:
        raise RefusedError("its JSON is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise RefusedError(f"its JSON is broken ({error})") from None
    return value


def quoted(value: object, limit: int = 60) -> str:
    """A value from a file as it may stand in a message: escaped and of bounded length."""
    text = repr(value[: limit + 1] if isinstance(value, (str, list)) else value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        seen: set[str] = set()
        twin = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise RefusedError(f"its JSON has the key {quoted(twin)} twice")
    return table


def _constant(text: str) -> NoReturn:
    raise RefusedError(f"its JSON holds {text}, which is not a number")


def _integer(text: str) -> int:
    if len(text.lstrip("-")) > INTEGER_DIGITS:
        raise RefusedError(f"its JSON holds an integer of {len(text)} digits")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise RefusedError(f"its JSON holds {quoted(text)}, which is too large")
    return value
