"""A file is whole or not there: every operation of a write may fail, with no room or a broken disk."""

import errno
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zoo.files import cache_folder, sha256_file, write_atomically, write_chunks_atomically

# What a write may call, in the order of its steps; `os.open` and the last `fsync`, `close` are the folder's.
OPERATIONS = ((tempfile, "mkstemp"), *((os, name) for name in ("write", "fchmod", "fsync", "close", "replace", "open")))
ERRORS = (errno.ENOSPC, errno.EIO)


def calls_of(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> int:
    """How many file operations an action makes."""
    return _with_fault(monkeypatch, action, None, 0)


def fail_at(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object], number: int, code: int) -> None:
    """Let the n-th file operation of an action fail. A failing close has closed, as on Linux."""
    with pytest.raises(OSError, match=os.strerror(code)) as caught:
        _with_fault(monkeypatch, action, number, code)
    assert caught.value.errno == code


def _with_fault(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object], number: int | None, code: int) -> int:
    made = 0

    def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*arguments: Any, **named: Any) -> Any:
            nonlocal made
            made += 1
            if made == number:
                if name == "close":
                    function(*arguments)
                raise OSError(code, os.strerror(code))
            return function(*arguments, **named)

        return operation

    with monkeypatch.context() as patch:
        for owner, name in OPERATIONS:
            patch.setattr(owner, name, watched(name, getattr(owner, name)))
        action()
    return made


@pytest.mark.parametrize("code", ERRORS, ids=errno.errorcode.get)
def test_whichever_operation_fails_a_file_is_old_or_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Up to the rename the old file stays; after it (the folder's own sync) the new one is whole."""
    path = tmp_path / "file"

    def write() -> None:
        write_chunks_atomically(path, [b"new ", b"contents"])

    path.write_bytes(b"old")
    operations = calls_of(monkeypatch, write)
    assert operations >= 10
    seen = set()
    for number in range(1, operations + 1):
        path.write_bytes(b"old")
        fail_at(monkeypatch, write, number, code)
        assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
        seen.add(path.read_bytes())
        assert path.read_bytes() in ((b"old",) if number <= operations - 3 - 1 else (b"old", b"new contents"))
    assert seen == {b"old", b"new contents"}


def test_a_write_that_takes_less_than_it_was_given_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    write_atomically(tmp_path / "file", "abcdefghij")
    assert (tmp_path / "file").read_bytes() == b"abcdefghij"


def test_an_interruption_leaves_the_old_file(tmp_path: Path) -> None:
    def chunks() -> Any:
        yield b"half"
        raise KeyboardInterrupt

    write_atomically(tmp_path / "file", "old")
    with pytest.raises(KeyboardInterrupt):
        write_chunks_atomically(tmp_path / "file", chunks())
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("file", "old")]


def test_synced_before_the_rename_and_the_folder_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rename that reaches the disk before the data would leave an empty file after a power cut."""
    order: list[str] = []
    for name in ("write", "fsync", "replace"):
        function = getattr(os, name)

        def noted(*arguments: Any, name: str = name, function: Callable[..., Any] = function) -> Any:
            kind = ""
            if name == "fsync":
                kind = " folder" if stat.S_ISDIR(os.fstat(arguments[0]).st_mode) else " file"
            order.append(name + kind)
            return function(*arguments)

        monkeypatch.setattr(os, name, noted)
    write_atomically(tmp_path / "file", "data")
    assert order == ["write", "fsync file", "replace", "fsync folder"]


def test_the_usual_permissions(tmp_path: Path) -> None:
    """A temporary file is private; a finished one is as any program's."""
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", "x")
        assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
    finally:
        os.umask(before)


def test_folders_are_made_and_text_is_utf8(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "b", "ä")
    assert (tmp_path / "a" / "b").read_bytes() == b"\xc3\xa4"
    assert sha256_file(tmp_path / "a" / "b") == "33e6d73fee82904c8d7afb78de1154d1e8dc2a0edb08120e63df5b9385c2d9cc"


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("ZOO_CACHE")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache_folder() == Path("/home/somebody/.cache/zoo")
