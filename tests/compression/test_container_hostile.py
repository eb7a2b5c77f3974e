"""Hostile packed files: whatever the bytes are, they are refused in one sentence or stand for a whole network."""

import json
import os
import random
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from packed_files import COUNTS, HEADER, SHAPES, codec, dump, payload, raw, sealed, seeds, taken_apart, zeros

from zoo.compression.coding import encode
from zoo.compression.container import MAGIC, load_packed, unpack
from zoo.errors import FileFormatError

MUTANTS = int(os.environ.get("ZOO_FUZZ", "20000"))
GOOD = sealed(HEADER, payload())


def header(**changes: Any) -> bytes:
    """The good file with other fields, in the right order; None takes a field away."""
    order = ("model", "dataset", "classes", "image", "structure")
    fields = HEADER | changes
    known = {name: fields[name] for name in order if fields.get(name) is not None}
    return sealed(known | {name: value for name, value in changes.items() if name not in order}, payload())


def shapes(**changes: Any) -> bytes:
    """The good file with sizes of other modules: the name of a module after an underscore."""
    return header(structure={"shapes": SHAPES | {name.lstrip("_"): sizes for name, sizes in changes.items()}})


def fitting(structure: dict[str, Any], **changes: Any) -> bytes:
    """A file whose records fit its header, so that only running the network can find fault with it."""
    fields = {name: value for name, value in HEADER.items() if name != "structure"} | changes
    return zeros(fields | ({"structure": structure} if structure else {}))


def record(place: int, *parts: bytes) -> bytes:
    """The good file with another record of one tensor."""
    return sealed(HEADER, payload({place: b"".join(parts)}))


def halves(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}e", *numbers)


def fixed(symbols: list[int], alphabet: int) -> bytes:
    """Codes with their length in front."""
    data = encode(np.array(symbols), alphabet, "fixed")
    return bytes([len(data)]) + data


def bare(blob: bytes) -> bytes:
    return raw(blob, payload())


_TEXT = dump(taken_apart(GOOD)[0])
_DIGEST = json.loads(GOOD[12 : 12 + int.from_bytes(GOOD[8:12], "little")])["sha256"]
_ZEROS = bytes([0])

STRUCTURE: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "does not begin with ZOOPACK1"),
    "magic alone": (MAGIC, "does not begin with ZOOPACK1 and a length"),
    "half a length": (GOOD[:10], "does not begin with ZOOPACK1 and a length"),
    "other magic": (b"SAFETENS" + GOOD[8:], "does not begin with ZOOPACK1"),
    "later version": (b"ZOOPACK2" + GOOD[8:], "this version of zoo reads ZOOPACK1"),
    "header beyond the file": (MAGIC + b"\xff\xff\0\0" + GOOD[12:], "its header claims 65535 bytes"),
    "header of 2 MiB": (raw(b"{" + b" " * (2 << 20), b""), "1048576 are allowed"),
    "no header": (bare(b""), "not a JSON object"),
    "list": (bare(b"[]"), "not a JSON object"),
    "space before": (bare(b" " + _TEXT), "not a JSON object"),
    "broken JSON": (bare(_TEXT[:-1]), "JSON is broken"),
    "not UTF-8": (bare(_TEXT.replace(b"lenet5", b"lene\xff5")), "not UTF-8"),
    "half a character": (bare(_TEXT.replace(b"lenet5", b"\\ud800")), "not UTF-8"),
    "NaN": (bare(_TEXT.replace(b":4", b":NaN")), "not a number"),
    "huge number": (bare(_TEXT.replace(b":4", b":" + b"9" * 5000)), "an integer of 5000 digits"),
    "key twice": (bare(_TEXT.replace(b"{", b'{"model":"lenet5",', 1)), "'model' twice"),
    "nested": (bare(b'{"model":' + b"[" * 200_000), "nested too deeply"),
    "nested within limits": (header(structure={"shapes": {"0": [[[[1]]]]}}), "'structure' of its header"),
    "another spelling": (bare(_TEXT[:-1].replace(b"lenet5", b"\\u006cenet5") + b',"sha256":"x"}'), "in the one way"),
    "another order": (sealed(dict(reversed(HEADER.items())), payload()), "in the one way"),
    "space in it": (bare(_TEXT[:-1] + b', "sha256":"x"}'), "in the one way"),
    "no digest": (bare(_TEXT), "its header has no digest"),
    "digest a number": (bare(_TEXT[:-1] + b',"sha256":1}'), "its header has no digest"),
    "digest of other bytes": (GOOD.replace(_DIGEST.encode(), b"A" * 43), "digest is not that"),
    "digest padded": (bare(_TEXT[:-1] + b',"sha256":"' + _DIGEST.encode() + b'="}'), "digest is not that"),
    "digest first": (bare(b'{"sha256":"' + _DIGEST.encode() + b'",' + _TEXT[1:]), "in the one way"),
    "one byte more": (GOOD + b"\0", "digest is not that"),
    "other data set": (GOOD.replace(b"digits", b"digitz"), "digest is not that"),
    "no model": (header(model=None), "lacks field 'model'"),
    "no classes": (header(classes=None), "lacks field 'classes'"),
    "no image": (header(image=None), "lacks field 'image'"),
    "unknown field": (header(homepage="x"), "unknown field 'homepage'"),
    "model a number": (header(model=5), "field 'model' of its header is 5"),
    "model unknown": (header(model="lenet55"), "no model is called"),
    "model of another library": (header(model="timm/resnet18"), "no model is called"),
    "model a path": (header(model="../lenet5"), "no model is called"),
    "data set a number": (header(dataset=5), "field 'dataset' of its header is 5"),
    "data set empty": (header(dataset=""), "in the one way"),
    "no classes at all": (header(classes=0), "not sizes of a network"),
    "classes true": (header(classes=True), "field 'classes' of its header is True"),
    "classes a fraction": (header(classes=4.0), "field 'classes' of its header is 4.0"),
    "classes a million million": (header(classes=10**12), "not sizes of a network"),
    "classes too many": (header(model="vgg19", classes=60_000, image=[3, 224, 224], structure=None), "too few for"),
    "image too large": (header(model="lenet_300_100", image=[64, 4096, 4096], structure=None), "too few for"),
    "image of two numbers": (header(image=[1, 16]), "field 'image'"),
    "image a text": (header(image="1x16x16"), "field 'image'"),
    "image of fractions": (header(image=[1, 16.0, 16]), "field 'image'"),
    "image not square": (header(image=[1, 16, 17]), "not sizes of a network"),
    "image empty": (header(image=[0, 16, 16]), "not sizes of a network"),
    "image negative": (header(image=[1, -16, -16]), "not sizes of a network"),
    "image too small": (fitting({}, image=[1, 1, 1]), "cannot be built"),
    "structure a list": (header(structure=[]), "field 'structure'"),
    "structure empty": (header(structure={}), "in the one way"),
    "structure with more": (header(structure={"shapes": SHAPES, "x": 1}), "field 'structure'"),
    "folded false": (header(structure={"folded": False, "shapes": SHAPES}), "field 'structure'"),
    "folded a number": (header(structure={"folded": 1, "shapes": SHAPES}), "field 'structure'"),
    "no shapes": (header(structure={"shapes": {}}), "field 'structure'"),
    "shapes a list": (header(structure={"shapes": [1]}), "field 'structure'"),
    "sizes a number": (shapes(_0=1), "field 'structure'"),
    "sizes true": (shapes(_0=[1, True, 1]), "field 'structure'"),
    "size negative": (shapes(_0=[1, -2, 1]), "instead of whole numbers"),
    "size zero": (shapes(_0=[1, 0, 1]), "not within [1, 6, 1]"),
    "larger than registered": (shapes(_0=[1, 7, 1]), "not within [1, 6, 1]"),
    "size too few": (shapes(_0=[1, 2]), "instead of 3 numbers"),
    "size too many": (shapes(_0=[1, 2, 1, 0, 0]), "instead of 3 numbers"),
    "bias neither": (shapes(_0=[1, 2, 1, 2]), "instead of 3 numbers"),
    "nothing changed": (shapes(_0=[1, 6, 1]), "the sizes that it has"),
    "more groups": (shapes(_3=[2, 4, 2]), "not within [6, 16, 1]"),
    "groups that do not divide": (
        header(model="mobilenetv1_025", image=[1, 32, 32], structure={"shapes": {"features.1.0.0": [8, 8, 3]}}),
        "in 3 groups",
    ),
    "groups that let it grow": (
        header(model="mobilenetv1_025", image=[1, 32, 32], structure={"shapes": {"features.1.0.0": [8, 8, 1]}}),
        "in 1 groups",
    ),
    "module that is not there": (shapes(_12=[1, 1]), "'12', which the network does not have"),
    "the network itself": (header(structure={"shapes": {"": []}}), "names '', which has none"),
    "activation with sizes": (shapes(_1=[1, 1]), "sizes to '1', which takes none"),
    "sizes that do not meet": (fitting({"shapes": SHAPES | {"3": [3, 3, 1]}}), "cannot be built"),
    "layer taken away": (fitting({"shapes": SHAPES | {"3": []}}), "cannot be built"),
    "classes taken away": (fitting({"shapes": SHAPES | {"11": [3, 3]}}), "gives [3] numbers instead of 4"),
    "what is in what is gone": (
        header(model="resnet20", image=[1, 32, 32], structure={"shapes": {"stem": [], "stem.0": [1, 1, 1]}}),
        "which the network does not have",
    ),
    "auxiliary head": (
        header(model="googlenet", image=[3, 96, 96], structure={"shapes": {"auxiliary": []}}),
        "names 'auxiliary', which has none",
    ),
}

RECORDS: dict[str, tuple[bytes, str]] = {
    "last byte missing": (sealed(HEADER, payload()[:-1]), "'11.bias' is broken: it needs 8 bytes where 7 are left"),
    "last record missing": (sealed(HEADER, payload({9: b""})), "'11.bias' is broken: it needs 1 bytes where 0"),
    "no payload": (sealed(HEADER, b""), "'0.weight' is broken"),
    "one byte after": (sealed(HEADER, payload() + b"\0"), "1 bytes follow its last tensor"),
    "a record after": (sealed(HEADER, payload() + payload()), "bytes follow its last tensor"),
    "unknown form": (record(1, bytes([7 << 5])), "codec is 224, which no format"),
    "unknown coder": (record(1, codec("shared", 7), b"\2" + fixed([0, 1], 2) + bytes(8)), "which no format"),
    "coder of nothing": (record(1, codec("plain", 1, half=True), bytes(4)), "names a coder, but nothing is coded"),
    "coder of one code": (record(1, codec("shared", 1, half=True), b"\1", bytes(2)), "names a coder, but nothing"),
    "number cut off": (sealed(HEADER, payload()[:-9] + codec("shared") + b"\x80"), "a number is cut off"),
    "number padded": (record(1, codec("shared"), b"\x82\x00"), "padded"),
    "number endless": (record(1, codec("shared"), b"\xff" * 20), "more than 65536"),
    "no codebook": (record(1, codec("shared"), b"\0"), "its alphabet is 0"),
    "codebook for more": (record(1, codec("shared"), b"\3"), "codebook of 3 is for 2 values"),
    "codebook cut off": (record(9, codec("shared"), b"\2", fixed([0, 1, 1, 0], 2), bytes(7)), "it needs 8 bytes"),
    "codes beyond the file": (record(9, codec("shared"), b"\2\x7f"), "more than 1"),
    "codes too few": (record(1, codec("shared"), b"\2\0", bytes(8)), "'0.bias' is broken"),
    "codes too many": (record(1, codec("shared"), b"\2\2\0\0", bytes(8)), "'0.bias' is broken"),
    "code outside": (record(3, codec("shared"), b"\3\1\xff", bytes(12)), "'3.bias' is broken"),
    "padding set": (record(1, codec("shared"), b"\2\1\x3f", bytes(8)), "'0.bias' is broken"),
    "codebook NaN": (record(1, codec("shared", half=True), b"\1", halves(float("nan"))), "not finite"),
    "value infinite": (record(1, codec("plain", half=True), halves(0, float("inf"))), "not finite"),
    "values of sparse missing": (record(9, codec("sparse"), fixed([1, 1, 1, 1], 2), bytes(15)), "it needs 16 bytes"),
    "scales for other rows": (record(0, codec("scaled"), b"\2\1\3"), "3 scales for 2 rows"),
    "no scales": (record(0, codec("scaled"), b"\2\1\0"), "its scales is 0"),
    "signs of other rows": (record(0, codec("signs"), b"\5"), "5 scales for 2 rows"),
    "largest code too large": (record(0, codec("scaled"), b"\2\2\1"), "largest code is 2 of 2"),
    "scale overflows": (
        record(1, codec("scaled"), b"\3\2\1", fixed([2, 0], 3), struct.pack("<f", 3e38)),
        "'0.bias' is not finite",
    ),
    "sum overflows": (
        record(4, codec("vectors"), b"\1\2\x0c", struct.pack("<96f", *[3e38] * 96)),
        "'7.weight' is not finite",
    ),
    "too many levels": (record(4, codec("vectors"), b"\1\x11\1"), "17 levels"),
    "blocks that do not divide": (record(4, codec("vectors"), b"\1\1\5"), "5 blocks"),
    "no blocks": (record(4, codec("vectors"), b"\1\1\0"), "its blocks is 0"),
    "vectors of a bias": (record(1, codec("vectors"), b"\1\1\1"), "1 levels of 1 blocks for [2]"),
    "codebooks beyond the file": (record(4, codec("vectors"), b"\x80\x80\2\1\1"), "'7.weight' is broken"),
    "planes of few": (record(1, codec("plain", planes=True), bytes(9)), "2 floats are in planes"),
    "planes of more than there are": (
        record(4, codec("vectors", planes=True), b"\1\x10\1", bytes(200)),
        "192 floats are in planes",
    ),
    "planes of an unknown coder": (record(0, codec("plain", planes=True), b"\7\0"), "it names coder 7"),
    "planes cut off": (record(0, codec("plain", planes=True), b"\0\x32", bytes(50), b"\0\x32"), "is broken"),
    "plane too short": (record(0, codec("plain", planes=True), b"\0\x31", bytes(49)), "'0.weight' is broken"),
    **{
        f"{name} of nothing": (record(0, codec("shared", number), b"\2\0", bytes(8)), "'0.weight' is broken")
        for number, name in enumerate(("fixed", "huffman", "relative", "range", "context"))
    },
    **{
        f"{name} of noise": (
            record(0, codec("shared", number), b"\2\x09\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8\xf7", bytes(8)),
            "",
        )
        for number, name in enumerate(("fixed", "huffman", "relative", "range", "context"))
    },
}
HOSTILE = STRUCTURE | RECORDS


def refusal(data: bytes) -> str | None:
    """What a reader says of bytes; None if it takes them. Nothing but our error may come, and it is one sentence."""
    try:
        model, _ = unpack(data, source="x.zpk")
    except FileFormatError as error:
        text = str(error)
        assert text.startswith("x.zpk cannot be read: ")
        assert "\n" not in text
        assert len(text) < 500
        return text
    assert all(bool(torch.isfinite(tensor).all()) for tensor in model.state_dict().values())
    return None


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name: str) -> None:
    data, phrase = HOSTILE[name]
    text = refusal(data)
    assert text is not None
    assert phrase in text


def test_the_hostile_set_is_large_enough() -> None:
    assert len(HOSTILE) >= 48
    assert len({data for data, _ in HOSTILE.values()}) == len(HOSTILE)


def test_the_neighbour_of_the_hostile_files_is_read() -> None:
    model, info = unpack(GOOD)
    assert sum(tensor.numel() for tensor in model.parameters()) == sum(COUNTS)
    assert (info.model, info.dataset, info.num_classes, info.image) == ("lenet5", "digits", 4, (1, 16, 16))
    for place, parts in (
        (1, (codec("shared"), b"\2", fixed([0, 1], 2), bytes(8))),
        (0, (codec("scaled"), b"\2\1\2", fixed([0, 1] * 25, 2), bytes(8))),
        (4, (codec("vectors"), b"\1\2\x0c", bytes(4 * 2 * 12))),
        (0, (codec("plain", planes=True), *[b"\0\x32" + bytes(50)] * 4)),
    ):
        assert refusal(record(place, *parts)) is None


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return seeds()


def test_the_seeds_use_every_part_of_the_format(files: dict[str, bytes]) -> None:
    from zoo.compression.container import ledger

    entries = [entry for data in files.values() for entry in ledger(data)]
    assert {entry.form for entry in entries} == {"plain", "sparse", "shared", "scaled", "signs", "vectors"}
    assert len({entry.coder for entry in entries}) >= 4
    assert all(refusal(data) is None for data in files.values())


def test_every_prefix_is_refused(files: dict[str, bytes]) -> None:
    for data in files.values():
        for length in range(len(data)):
            assert refusal(data[:length]) is not None


def test_every_flipped_bit_is_refused(files: dict[str, bytes]) -> None:
    for data in files.values():
        for bit in range(8 * len(data)):
            damaged = bytearray(data)
            damaged[bit // 8] ^= 1 << bit % 8
            assert refusal(bytes(damaged)) is not None, bit


@pytest.mark.slow
def test_every_prefix_and_flip_of_a_payload_whose_digest_is_right(files: dict[str, bytes]) -> None:
    passed = total = 0
    for data in files.values():
        fields, body = taken_apart(data)
        for length in range(len(body)):
            assert refusal(sealed(fields, body[:length])) is not None
        for bit in range(8 * len(body)):
            damaged = bytearray(body)
            damaged[bit // 8] ^= 1 << bit % 8
            passed += refusal(sealed(fields, bytes(damaged))) is None
            total += 1
    assert 0 < passed < total


WORDS = [None, True, -1, 0, 1, 2, 3, 5, 16, 255, 65536, 10**15, 1.5, "", "x", "nin", "lenet5", [], [1], [1, 1, 1], {}]


def changed(value: Any, chance: random.Random) -> Any:
    """A JSON value with one part of it replaced, added or taken away."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        table = dict(value)
        name = chance.choice(list(table))
        match chance.randrange(8):
            case 0:
                del table[name]
            case 1:
                table[chance.choice([*table, "x", "0", "features"])] = chance.choice(WORDS)
            case _:
                table[name] = changed(table[name], chance)
        return table
    if isinstance(value, list) and value and chance.random() < 0.9:
        items = list(value)
        place = chance.randrange(len(items))
        items[place] = changed(items[place], chance)
        return items
    if type(value) is int and chance.random() < 0.7:
        return value + chance.choice((-1, 1, 2, -value, value))
    return chance.choice(WORDS)


def damaged(data: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    """Bytes with one to four damages: flipped bits, bytes left out, repeated, made up or taken from elsewhere."""
    body = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at, until = sorted(chance.randint(0, len(body)) for _ in range(2))
        match chance.randrange(6):
            case 0 if body:
                body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
            case 1 if body:
                body[chance.randrange(len(body))] = chance.choice((0, 1, 127, 128, 255))
            case 2:
                del body[at : min(until, at + 8)]
            case 3:
                body[at:at] = chance.randbytes(chance.randint(1, 8))
            case 4:
                body[at:at] = body[at : min(until, at + 64)]
            case _:
                body[at:until] = chance.choice(others)[at:until]
    return bytes(body)


def mutant(chance: random.Random, files: list[bytes], parts: list[tuple[dict[str, Any], bytes]]) -> bytes:
    """A damaged file; mostly one whose digest was put right, so that the checks behind it are reached.

    parts: headers and payloads of the files.
    """
    place = chance.randrange(len(files))
    fields, body = parts[place]
    choice = chance.random()
    if choice < 0.1:
        return damaged(files[place], chance, files)
    if choice < 0.3:
        found = changed(fields, chance)
        return sealed(found, body) if isinstance(found, dict) else raw(dump(found), body)
    return sealed(fields, damaged(body, chance, [other for _, other in parts]))


@pytest.mark.slow
def test_random_mutants(files: dict[str, bytes]) -> None:
    """20,000 by default, in half a minute of one core; ZOO_FUZZ=1000000 for the long run."""
    chance = random.Random(2016)
    whole = list(files.values())
    parts = [taken_apart(file) for file in whole]
    passed = sum(refusal(mutant(chance, whole, parts)) is None for _ in range(MUTANTS))
    assert 0 < passed < MUTANTS / 2


@pytest.mark.slow
def test_a_hostile_mebibyte_needs_less_than_64_more(tmp_path: Path) -> None:
    noise = random.Random(1).randbytes((1 << 20) - 4096)
    big = {"model": "vgg19", "classes": 1000, "image": [3, 224, 224]}
    claims = {
        "noise": sealed(HEADER, noise),
        "noise for a large network": sealed(big, noise),
        "many classes": sealed(big | {"classes": 1 << 16}, noise),
        "large image": sealed({"model": "lenet_300_100", "classes": 9, "image": [3, 4096, 4096]}, noise),
        "large codebooks": sealed(HEADER, payload({4: codec("vectors", planes=True) + b"\x80\x80\4\x10\x0c" + noise})),
        "many sizes": sealed(HEADER | {"structure": {"shapes": {f"{i:06}": [i] for i in range(60_000)}}}, b""),
        "lists": raw(b'{"model":[' + b"[]," * 300_000 + b"[]]}", b""),
        "text": raw(b'{"model":"' + b"x" * (1 << 20), b""),
    }
    for name, data in claims.items():
        (tmp_path / f"{name}.zpk").write_bytes(data)
    (tmp_path / "0 first.zpk").write_bytes(GOOD)
    code = """
import resource, sys
from pathlib import Path
from zoo.compression.container import load_packed
from zoo.errors import FileFormatError
first, *paths = sorted(Path(sys.argv[1]).iterdir())
load_packed(first)
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + (64 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in paths:
    try:
        load_packed(path)
    except FileFormatError as error:
        print("refused", path.stem)
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, timeout=60)
    assert sorted(line.partition(" ")[2] for line in done.stdout.splitlines()) == sorted(claims), done.stderr


@pytest.mark.slow
def test_optimised_python_refuses_the_same(tmp_path: Path) -> None:
    for number, (data, _) in enumerate(HOSTILE.values()):
        (tmp_path / f"{number:03}").write_bytes(data)
    code = """
import sys
from pathlib import Path
from zoo.compression.container import load_packed
from zoo.errors import FileFormatError
refused = 0
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        load_packed(path)
    except FileFormatError:
        refused += 1
print(__debug__, refused)
"""
    done = subprocess.run([sys.executable, "-O", "-c", code, tmp_path], capture_output=True, text=True)
    assert done.stdout.split() == ["False", str(len(HOSTILE))], done.stderr


def test_a_file_is_read_as_its_bytes_are(tmp_path: Path) -> None:
    path = tmp_path / "x.zpk"
    path.write_bytes(GOOD[:-1])
    with pytest.raises(FileFormatError, match="digest"):
        load_packed(path)
