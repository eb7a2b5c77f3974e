"""The promises on safetensors files: nothing hostile is read, nothing crashes, what is written is read everywhere."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load as library_load
from safetensors.torch import save as library_save
from torch import Tensor

from zoo.errors import FileFormatError, WeightError, ZooError
from zoo.files import sha256_file
from zoo.tensorfile import DTYPES, Expected, read_header, read_tensors, write_tensors

MUTANTS = int(os.environ.get("ZOO_FUZZ", "20000"))

SEEDS: dict[str, tuple[dict[str, Tensor], dict[str, str]]] = {
    "one": ({"weight": torch.tensor([[1.5, -2.0]], dtype=torch.float16)}, {"format": "zoo-weights-1"}),
    "net": ({"0.weight": torch.ones(2, 2).half(), "0.bias": torch.tensor([0.5, 3.0])}, {}),
    "mix": (
        {
            "none": torch.empty(0, 3),
            "flags": torch.tensor([True, False]),
            "bf": torch.tensor(2.5, dtype=torch.bfloat16),
            "step": torch.tensor(7),
        },
        {"a": "b"},
    ),
}


def expected_of(tensors: dict[str, Tensor]) -> Expected:
    return {name: (tuple(tensor.shape), (tensor.dtype,)) for name, tensor in tensors.items()}


def seed_bytes(name: str, folder: Path) -> bytes:
    path = folder / f"{name}.seed"
    write_tensors(path, *SEEDS[name])
    return path.read_bytes()


def raw(header: Any, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """A file from a header (JSON value, or bytes as they are) and a payload."""
    blob = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(blob) if length is None else length).to_bytes(8, "little") + blob + payload


def entry(shape: Any = (2,), offsets: Any = (0, 8), dtype: Any = "F32", **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


def named(**entries: Any) -> bytes:
    return raw(entries, bytes(8))


TWO = b'"shape":[2],"data_offsets":[0,8]'
MANY = {f"t{i:05}": entry([], [i, i + 1], "U8") for i in range(10_001)}

STRUCTURE: dict[str, tuple[bytes, str]] = {
    "empty file": (b"", "too few"),
    "seven bytes": (b"\0" * 7, "too few"),
    "zero header": (bytes(8), "JSON object"),
    "zero header with payload": (bytes(64), "JSON object"),
    "header longer than the file": (raw(b"{}", length=3), "claims 3 bytes"),
    "header of 2^64 - 1": (raw(b"{}", length=2**64 - 1), "claims"),
    "header of 2^63": (raw(b"{}", length=2**63), "claims"),
    "header over 1 MiB": (raw(b"{" + b" " * (1 << 20) + b"}"), "more than the 1048576"),
    "pickle": (b"\x80\x04\x95" + bytes(64), "claims"),
    "zip": (b"PK\x03\x04" + bytes(64), "claims"),
    "header is a list": (raw([]), "JSON object"),
    "header is a text": (raw("text"), "JSON object"),
    "header is null": (raw(None), "JSON object"),
    "leading space": (raw(b" {}"), "JSON object"),
    "byte order mark": (raw(b"\xef\xbb\xbf{}"), "JSON object"),
    "padding by zeros": (raw(b"{}\0\0"), "JSON object"),
    "two objects": (raw(b"{}{}"), "broken"),
    "open object": (raw(b'{"a":{}'), "broken"),
    "not UTF-8": (raw(b'{"\xff":{}}'), "UTF-8"),
    "half a surrogate": (raw(b'{"\\ud800":{"dtype":"F32",' + TWO + b"}}", bytes(8)), "UTF-8"),
    "control character in a name": (raw(b'{"a\nb":{"dtype":"F32",' + TWO + b"}}", bytes(8)), "broken"),
    "tensor twice": (raw(b'{"a":{"dtype":"F32",%b},"a":{"dtype":"F32",%b}}' % (TWO, TWO), bytes(8)), "twice"),
    "field twice": (raw(b'{"a":{"dtype":"F32","dtype":"F32",' + TWO + b"}}", bytes(8)), "twice"),
    "metadata twice": (raw(b'{"__metadata__":{},"__metadata__":{}}'), "twice"),
    "metadata key twice": (raw(b'{"__metadata__":{"a":"b","a":"b"}}'), "twice"),
    "nested lists": (raw(b'{"a":' + b"[" * 500_000 + b"]" * 500_000 + b"}"), "nested"),
    "nested objects": (raw(b'{"a":' * 150_000 + b"}" * 150_000), "nested"),
    "NaN in the header": (raw(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}', bytes(8)), "NaN"),
    "Infinity in the header": (raw(b'{"a":{"dtype":"F32","shape":[Infinity],"data_offsets":[0,8]}}'), "Infinity"),
    "float overflow": (raw(b'{"a":1e999}'), "too large"),
    "integer of 5,000 digits": (raw(b'{"a":' + b"9" * 5000 + b"}"), "5000 digits"),
    "metadata is a list": (raw({"__metadata__": []}), "metadata"),
    "metadata value is a number": (raw({"__metadata__": {"a": 1}}), "metadata"),
    "tensor is a list": (named(a=[]), "described"),
    "tensor is null": (named(a=None), "described"),
    "dtype missing": (raw({"a": {"shape": [2], "data_offsets": [0, 8]}}, bytes(8)), "described"),
    "shape missing": (raw({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, bytes(8)), "described"),
    "offsets missing": (raw({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)), "described"),
    "unknown field": (named(a=entry(strides=[1])), "described"),
    "unknown dtype": (named(a=entry(dtype="F8_E4M3")), "none of"),
    "lower case dtype": (named(a=entry(dtype="f32")), "none of"),
    "dtype is a list": (named(a=entry(dtype=["F32"])), "none of"),
    "dtype is a number": (named(a=entry(dtype=32)), "none of"),
    "negative side": (named(a=entry([-2])), "whole numbers"),
    "two negative sides": (named(a=entry([-1, -2])), "whole numbers"),
    "true as a side": (named(a=entry([2, True])), "whole numbers"),
    "float side": (named(a=entry([2.0])), "whole numbers"),
    "text side": (named(a=entry(["2"])), "whole numbers"),
    "shape is a number": (named(a=entry(2)), "whole numbers"),
    "shape is an object": (named(a=entry({})), "whole numbers"),
    "rank 9": (named(a=entry([1] * 8 + [2])), "up to 8"),
    "rank 100,000": (named(a=entry([1] * 100_000)), "up to 8"),
    "product overflows to 8": (named(a=entry([2**33, 2**31 + 1, 2])), "too large"),
    "product overflows to 0": (named(a=entry([2**32, 2**32], [0, 0])), "too large"),
    "zero times huge": (named(a=entry([0, 10**17, 10**17], [0, 0])), "too large"),
    "one offset": (named(a=entry(offsets=[8])), "two whole"),
    "three offsets": (named(a=entry(offsets=[0, 4, 8])), "two whole"),
    "negative offset": (named(a=entry(offsets=[-8, 0])), "two whole"),
    "float offset": (named(a=entry(offsets=[0, 8.0])), "two whole"),
    "true as an offset": (named(a=entry([1], [False, True], "U8")), "two whole"),
    "end before begin": (named(a=entry(offsets=[8, 0])), "-8 bytes"),
    "too few bytes": (named(a=entry(offsets=[0, 4])), "4 bytes"),
    "too many bytes": (named(a=entry([1])), "8 bytes"),
    "gap at the start": (raw({"a": entry([1], [4, 8])}, bytes(8)), "begins at byte 4"),
    "gap between": (raw({"a": entry([1], [0, 4]), "b": entry([1], [8, 12])}, bytes(12)), "begins at byte 8"),
    "overlap": (raw({"a": entry([2], [0, 8]), "b": entry([2], [4, 12])}, bytes(12)), "begins at byte 4"),
    "same bytes twice": (raw({"a": entry(), "b": entry()}, bytes(8)), "begins at byte 0"),
    "empty tensor inside another": (raw({"a": entry(), "b": entry([0], [4, 4])}, bytes(8)), "begins at byte 4"),
    "empty tensor past the end": (raw({"a": entry(), "b": entry([0], [9, 9])}, bytes(8)), "begins at byte 9"),
    "beyond the file": (named(a=entry([2**40], [0, 2**42])), "payload has 8"),
    "trailing byte": (raw({"a": entry()}, bytes(9)), "payload has 9"),
    "missing byte": (raw({"a": entry()}, bytes(7)), "payload has 7"),
    "payload without tensors": (raw({}, bytes(1)), "payload has 1"),
    "10,001 tensors": (raw(MANY, bytes(10_001)), "10001 tensors"),
    "truth value 2": (raw({"a": entry([8], [0, 8], "BOOL")}, bytes([0, 1, 2, 0, 0, 0, 0, 0])), "truth"),
}

WANTED: Expected = {"a": ((2,), (torch.float32,))}
GOOD = raw({"a": entry()}, bytes(8))
HALVES = raw({"a": entry(dtype="F16", offsets=[0, 4])}, bytes(4))
MISFIT: dict[str, tuple[bytes, str]] = {
    "no tensor": (raw({}), "lacks the tensor 'a'"),
    "other name": (named(b=entry()), "lacks the tensor 'a'"),
    "surplus tensor": (raw({"a": entry(), "b": entry([0], [8, 8])}, bytes(8)), "holds the tensor 'b'"),
    "other shape": (named(a=entry([1, 2])), "[1, 2], but [2]"),
    "transposed to rank 0": (raw({"a": entry([], [0, 4])}, bytes(4)), "[], but [2]"),
    "other dtype": (HALVES, "float16, but needs torch.float32"),
    "integers": (named(a=entry(dtype="I32")), "int32"),
    "NaN": (raw({"a": entry()}, b"\0\0\xc0\x7f" + bytes(4)), "not finite"),
    "signalling NaN": (raw({"a": entry()}, bytes(4) + b"\1\0\x80\x7f"), "not finite"),
    "infinity": (raw({"a": entry()}, bytes(4) + b"\0\0\x80\x7f"), "not finite"),
    "minus infinity": (raw({"a": entry()}, b"\0\0\x80\xff" + bytes(4)), "not finite"),
}


def place(folder: Path, data: bytes) -> Path:
    path = folder / "file.safetensors"
    path.unlink(missing_ok=True)  # many times faster than to write over it: some file systems then sync
    path.write_bytes(data)
    return path


def one_sentence(error: ZooError, path: Path) -> bool:
    text = str(error)
    return str(path) in text and text.endswith(".") and "\n" not in text and len(text) < len(str(path)) + 400


@pytest.mark.parametrize("name", SEEDS)
def test_what_is_written_is_read_back_here_and_by_the_library(name: str, tmp_path: Path) -> None:
    tensors, metadata = SEEDS[name]
    path = tmp_path / "file.safetensors"
    write_tensors(path, tensors, metadata)
    read, found = read_tensors(path, expected=expected_of(tensors))
    library = library_load(path.read_bytes())
    assert found == metadata
    assert read.keys() == library.keys() == tensors.keys()
    for key, tensor in tensors.items():
        for other in (read[key], library[key]):
            assert other.dtype == tensor.dtype
            assert torch.equal(other, tensor)


def test_what_the_library_writes_is_read(tmp_path: Path) -> None:
    tensors = {str(code): torch.ones(3, 2).to(dtype) for code, dtype in DTYPES.items()}
    path = place(tmp_path, library_save(tensors, {"by": "the library"}))
    read, metadata = read_tensors(path)
    assert metadata == {"by": "the library"}
    assert {name: (t.dtype, t.tolist()) for name, t in read.items()} == {
        name: (t.dtype, t.tolist()) for name, t in tensors.items()
    }


def test_bytes_depend_on_the_contents_alone(tmp_path: Path) -> None:
    tensors = {"b": torch.ones(2), "a": torch.zeros(3, dtype=torch.uint8), "c": torch.arange(6.0).reshape(2, 3).t()}
    write_tensors(tmp_path / "x", tensors, {"k": "v", "a": "b"})
    write_tensors(tmp_path / "y", dict(reversed(tensors.items())), {"a": "b", "k": "v"})
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()
    assert torch.equal(read_tensors(tmp_path / "x")[0]["c"], tensors["c"])


def test_tensors_that_share_memory_are_stored_apart(tmp_path: Path) -> None:
    whole = torch.arange(4.0)
    write_tensors(tmp_path / "x", {"whole": whole, "part": whole[1:3]}, {})
    read, _ = read_tensors(tmp_path / "x")
    read["whole"].zero_()
    assert read["part"].tolist() == [1.0, 2.0]


def test_header_alone(tmp_path: Path) -> None:
    metadata, infos = read_header(place(tmp_path, seed_bytes("net", tmp_path)))
    assert metadata == {}
    assert (infos["0.bias"].shape, infos["0.bias"].begin, infos["0.bias"].end) == ((2,), 0, 8)
    assert (infos["0.weight"].dtype, infos["0.weight"].begin, infos["0.weight"].end) == (torch.float16, 8, 16)


@pytest.mark.parametrize("name", STRUCTURE)
def test_hostile_structure(name: str, tmp_path: Path) -> None:
    data, phrase = STRUCTURE[name]
    path = place(tmp_path, data)
    with pytest.raises(FileFormatError) as caught:
        read_tensors(path)
    assert phrase in str(caught.value)
    assert one_sentence(caught.value, path)


@pytest.mark.parametrize("name", MISFIT)
def test_hostile_contents(name: str, tmp_path: Path) -> None:
    data, phrase = MISFIT[name]
    path = place(tmp_path, data)
    with pytest.raises(WeightError) as caught:
        read_tensors(path, expected=WANTED)
    assert phrase in str(caught.value)
    assert one_sentence(caught.value, path)


def test_the_hostile_set_is_large_enough() -> None:
    assert len(STRUCTURE) + len(MISFIT) >= 48


def test_the_neighbour_of_the_hostile_files_is_read(tmp_path: Path) -> None:
    tensors, _ = read_tensors(place(tmp_path, GOOD), expected=WANTED)
    assert tensors["a"].tolist() == [0.0, 0.0]


@pytest.mark.slow
def test_optimised_python_refuses_the_same(tmp_path: Path) -> None:
    for number, (data, _) in enumerate([*STRUCTURE.values(), *MISFIT.values()]):
        (tmp_path / f"{number:03}").write_bytes(data)
    code = """
import sys, torch
from pathlib import Path
from zoo.errors import FileFormatError, WeightError
from zoo.tensorfile import read_tensors
refused = 0
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        read_tensors(path, expected={"a": ((2,), (torch.float32,))})
    except (FileFormatError, WeightError):
        refused += 1
print(__debug__, refused)
"""
    done = subprocess.run([sys.executable, "-O", "-c", code, tmp_path], capture_output=True, text=True)
    assert done.stdout.split() == ["False", str(len(STRUCTURE) + len(MISFIT))], done.stderr


@pytest.mark.slow
def test_a_hostile_mebibyte_needs_less_than_64_more(tmp_path: Path) -> None:
    mebibyte = (1 << 20) - 64
    filled: dict[str, bytes] = {
        "lists": b'{"a":[' + b"[]," * (mebibyte // 3) + b"[]]}",
        "objects": b'{"a":[' + b"{}," * (mebibyte // 3) + b"{}]}",
        "numbers": b'{"a":[' + b"9999," * (mebibyte // 5) + b"0]}",
        "names": b"{" + b",".join(b'"%06x":0' % i for i in range(mebibyte // 11)) + b"}",
        "metadata": b'{"__metadata__":{' + b",".join(b'"%06x":{}' % i for i in range(mebibyte // 12)) + b"}}",
        "nested": b'{"a":' + b"[" * mebibyte,
        "text": b'{"' + b"x" * mebibyte,
        "claim": json.dumps({"a": entry([2**40], [0, 2**42])}).encode(),
    }
    for name, blob in filled.items():
        (tmp_path / name).write_bytes(raw(blob, bytes(max(0, mebibyte - len(blob)))))
    code = """
import resource, sys
from pathlib import Path
import zoo.tensorfile as t
from zoo.errors import FileFormatError
try:
    t.read_tensors(Path(sys.argv[1]) / "text")
except FileFormatError:
    pass
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + (64 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        t.read_tensors(path)
    except FileFormatError as error:
        print("refused", path.name)
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, timeout=60)
    assert sorted(line.split()[1] for line in done.stdout.splitlines()) == sorted(filled), done.stderr


@pytest.mark.parametrize(
    "kind", ["missing", "folder", "pipe", "device", "link to a folder", "loop", "zero in the name"]
)
def test_only_regular_files_are_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    make: dict[str, Callable[[], object]] = {
        "missing": lambda: None,
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "link to a folder": lambda: path.symlink_to(tmp_path),
        "loop": lambda: path.symlink_to(path),
        "zero in the name": lambda: None,
    }
    make[kind]()
    with pytest.raises(FileFormatError, match="cannot be read"):
        read_tensors(f"{path}\0" if kind == "zero in the name" else path)


def test_links_are_followed_only_where_allowed(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(place(tmp_path, GOOD))
    assert read_tensors(link)[0].keys() == {"a"}
    with pytest.raises(FileFormatError, match="it is a symbolic link"):
        read_tensors(link, follow_links=False)


def test_digest_is_compared_before_anything_is_parsed(tmp_path: Path) -> None:
    path = place(tmp_path, GOOD)
    digest = sha256_file(path)
    assert read_tensors(path, sha256=digest)[0].keys() == {"a"}
    path.write_bytes(STRUCTURE["nested lists"][0])
    with pytest.raises(WeightError, match=f"{digest[:12]}.*was expected"):
        read_tensors(path, sha256=digest)


@pytest.mark.parametrize("name", SEEDS)
def test_every_prefix_is_refused(name: str, tmp_path: Path) -> None:
    data = seed_bytes(name, tmp_path)
    for length in range(len(data)):
        with pytest.raises(FileFormatError):
            read_tensors(place(tmp_path, data[:length]))


@pytest.mark.parametrize("name", SEEDS)
def test_every_flipped_bit_is_refused_or_harmless(name: str, tmp_path: Path) -> None:
    """Without the digest a flip may pass only as another finite value, or as another text of the metadata."""
    data = seed_bytes(name, tmp_path)
    expected = expected_of(SEEDS[name][0])
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        survive(place(tmp_path, damaged), expected)


@pytest.mark.parametrize("name", SEEDS)
def test_every_flipped_bit_is_refused_by_the_digest(name: str, tmp_path: Path) -> None:
    data = seed_bytes(name, tmp_path)
    digest = sha256_file(place(tmp_path, data))
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(WeightError, match="digest"):
            read_tensors(place(tmp_path, damaged), sha256=digest)


def survive(path: Path, expected: Expected | None) -> bool:
    """Read a damaged file: whether it passed. What passes must be finite and as expected, what fails must be ours."""
    refusal: ZooError | None = None
    try:
        tensors, _ = read_tensors(path, expected=expected)
    except (FileFormatError, WeightError) as error:
        refusal = error
    if refusal is not None:
        assert one_sentence(refusal, path)
        return False
    assert sum(t.nbytes for t in tensors.values()) <= path.stat().st_size
    assert all(bool(torch.isfinite(t).all()) for t in tensors.values())
    if expected is not None:
        assert {name: tuple(t.shape) for name, t in tensors.items()} == {n: s for n, (s, _) in expected.items()}
        assert all(t.dtype in expected[name][1] for name, t in tensors.items())
    return True


TOKENS = [b"{", b"}", b"[", b"]", b'"', b",", b":", b"0", b"-1", b"1e9", b"NaN", b"null", b"true", b"[" * 99, b"\xff"]
TOKENS += [b'"shape"', b'"F32"', b'"BOOL"', b"99999999999", b'"__metadata__"', b"\\ud800", b"[]", b"0,0"]


def mutant(chance: random.Random, seeds: list[bytes]) -> bytes:
    """One to four random damages, some of which keep the header's length right so that they reach the checks behind."""
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.randint(1, 4)):
        at, until = sorted(chance.randint(0, len(data)) for _ in range(2))
        match chance.randrange(7):
            case 0 if data:
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            case 1:
                del data[at : min(until, at + 16)]
            case 2:
                data[at:at] = chance.choice(TOKENS)
            case 3:
                token = chance.choice(TOKENS)
                data[at : at + len(token)] = token
            case 4:
                data[at:at] = data[at:until]
            case 5:
                other = chance.choice(seeds)
                data[at:until] = other[at:until]
            case _:
                digits = [i for i in range(8, len(data)) if 48 <= data[i] <= 57]
                if digits:
                    data[chance.choice(digits)] = chance.randrange(48, 58)
    end = data.rfind(b"}")
    if end > 8 and chance.random() < 0.7:
        data[:8] = (end - 7).to_bytes(8, "little")
    return bytes(data)


@pytest.mark.slow
def test_random_mutants(tmp_path: Path) -> None:
    """20,000 by default; ZOO_FUZZ=1000000 for the long run."""
    chance = random.Random(2016)
    names = list(SEEDS)
    seeds = [seed_bytes(name, tmp_path) for name in names]
    passed = 0
    for number in range(MUTANTS):
        path = place(tmp_path, mutant(chance, seeds))
        passed += survive(path, None)
        survive(path, expected_of(SEEDS[names[number % 3]][0]))
    assert 0 < passed < MUTANTS / 2


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_nothing_that_is_not_finite_is_written(value: float, dtype: torch.dtype, tmp_path: Path) -> None:
    path = tmp_path / "old"
    path.write_bytes(b"old")
    with pytest.raises(WeightError, match=r"'layer\.weight' is not finite"):
        write_tensors(path, {"fine": torch.ones(2), "layer.weight": torch.tensor([1.0, value]).to(dtype)}, {})
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("tensors", "metadata", "phrase"),
    [
        ({"a": torch.ones(2, dtype=torch.complex64)}, {}, "complex64"),
        ({"__metadata__": torch.ones(2)}, {}, "__metadata__"),
        ({"a": torch.ones((1,) * 9)}, {}, "up to 8"),
        ({"a": torch.ones(1)}, {"state": "x" * (1 << 20)}, "1048576"),
        ({"\ud800": torch.ones(1)}, {}, "surrogates"),
        ({str(i): torch.ones(()) for i in range(10_001)}, {}, "10001"),
    ],
    ids=["complex", "reserved name", "rank 9", "long metadata", "half a surrogate", "too many"],
)
def test_nothing_is_written_that_could_not_be_read(
    tensors: dict[str, Tensor], metadata: dict[str, str], phrase: str, tmp_path: Path
) -> None:
    with pytest.raises(WeightError, match="is not written") as caught:
        write_tensors(tmp_path / "file", tensors, metadata)
    assert phrase in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = place(tmp_path, raw({"a": entry([4], [0, 16])}, bytes(8)))
    stat = path.stat()
    monkeypatch.setattr("os.fstat", lambda _descriptor: os.stat_result([*stat[:6], stat.st_size + 8, *stat[7:]]))
    with pytest.raises(FileFormatError, match="ends 8 bytes early"):
        read_tensors(path)
