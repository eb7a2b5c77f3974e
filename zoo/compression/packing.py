"""Records: the bytes of one tensor in a packed file, and the form that they stand for.

A record says nothing that the network says: its name, shape and dtype (float32) are those of the network's own state.

    1 byte    the codec: form << 5 | planes << 4 | half << 3 | coder
    numbers   that the form needs (LEB128; see _FIELDS)
    codes     their length (LEB128), then as many bytes as zoo.compression.coding made; nothing for an alphabet of one
    floats    of 2 bytes each if `half`, else 4; with `planes` byte by byte: all first bytes coded, then all second, ...

Floats take 2 bytes only where each of them is exactly a float16. Codes are those of zoo.compression.forms, renumbered
such that code 0 stands for zero wherever there are zeros. Negative zeros become zeros.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zoo.compression.coding import best, decode, relative
from zoo.compression.coding.bits import read_varint, write_varint
from zoo.compression.forms import Form, Plain, Scaled, Shared, Signs, Vectors, values
from zoo.strict import RefusedError

# Their places are the format: entries are added at the end alone.
CODES = ("fixed", "huffman", "relative", "range", "context")
FORMS = ("plain", "sparse", "shared", "scaled", "signs", "vectors")
MAX_ALPHABET = 1 << 16
MAX_LEVELS = 16  # of residual quantisation
_MANY = 16  # floats from which coding their bytes is worth a try
_FEW = 1 << 12  # values up to which each way of writing them is tried
_FEW_CODES = 1 << 8  # codes up to which many values are surely not better written one by one
_FOR_BYTES = ("fixed", "huffman", "range")  # the others live on zeros
_PLAIN, _SPARSE, _SHARED, _SCALED, _SIGNS, _VECTORS = range(len(FORMS))

# form -> the numbers behind its codec
_FIELDS = {
    _PLAIN: (),
    _SPARSE: (),  # codes: 1 where a value is not zero; floats: these values
    _SHARED: ("alphabet",),  # floats: the codebook
    _SCALED: ("alphabet", "largest", "scales"),  # code c stands for c up to `largest`, beyond for c - alphabet
    _SIGNS: ("scales",),
    _VECTORS: ("alphabet", "levels", "blocks"),  # floats: the codebooks
}


@dataclass(frozen=True)
class Record:
    """What is known of a tensor in a file besides its values.

    Its fields are those of zoo.compression.receipts.LayerReceipt. form: one of FORMS. coder: "" where nothing is coded.
    """

    form: str
    coder: str
    alphabet: int
    index_bytes: int
    code_bytes: int
    float_bytes: int
    file_bytes: int


@dataclass(frozen=True)
class _Draft:
    """A form as it will be written: codes int64 [rows, columns] (None: none), floats float32 [n]."""

    form: int
    numbers: tuple[int, ...]
    codes: np.ndarray | None
    alphabet: int
    floats: np.ndarray


def write_record(form: Form, coders: Sequence[str]) -> bytes:
    """The shortest record that gives exactly `values(form)`, which must be float32 and finite."""
    tensor = values(form) + 0.0  # makes zeros of negative zeros
    own = _own(form)
    drafts = ([] if own is None else [own]) + _shared(tensor)
    if tensor.numel() <= _FEW or not any(draft.alphabet <= _FEW_CODES for draft in drafts):
        drafts += _one_by_one(tensor)
    return min((_write(draft, coders, tensor.numel()) for draft in drafts), key=len)


def _own(form: Form) -> _Draft | None:
    """A form as its method made it; None where the values tell as much, or where it is beyond the limits."""
    if isinstance(form, Scaled):
        steps = _rows((form.codes - form.zero.reshape(-1, *[1] * (form.codes.ndim - 1))).numpy())
        largest, least = max(0, int(steps.max())), min(0, int(steps.min()))
        alphabet = largest - least + 1
        if alphabet > MAX_ALPHABET:
            return None
        codes = np.where(steps < 0, steps + alphabet, steps)
        return _Draft(_SCALED, (alphabet, largest, len(form.scale)), codes, alphabet, _flat(form.scale))
    if isinstance(form, Signs):
        return _Draft(_SIGNS, (len(form.scale),), _rows(form.codes.numpy()), 2, _flat(form.scale))
    if isinstance(form, Vectors) and form.codes.shape[0] <= MAX_LEVELS:
        levels, _, blocks = form.codes.shape
        alphabet = form.codebooks.shape[2]
        codes = form.codes.reshape(-1, blocks).numpy()
        if alphabet <= MAX_ALPHABET:
            return _Draft(_VECTORS, (alphabet, levels, blocks), codes, alphabet, _flat(form.codebooks))
    return None


def _shared(tensor: Tensor) -> list[_Draft]:
    """The draft of a codebook of all values that are different, if these are few."""
    flat = _flat(tensor)
    book, codes = np.unique(flat, return_inverse=True)
    if len(book) > min(MAX_ALPHABET, max(1, len(flat) // 2)):
        return []
    order = np.argsort(book != 0, kind="stable")  # zero first, then by value
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    codes = places[codes].reshape(_rows(tensor.numpy()).shape)
    return [_Draft(_SHARED, (len(book),), codes, len(book), book[order])]


def _one_by_one(tensor: Tensor) -> list[_Draft]:
    """Drafts of the values as they are: all of them, and those that are not zero if some are."""
    flat = _flat(tensor)
    nonzero = (_rows(tensor.numpy()) != 0).astype(np.int64)
    whole = _Draft(_PLAIN, (), None, 0, flat)
    return [whole] if nonzero.all() else [whole, _Draft(_SPARSE, (), nonzero, 2, flat[flat != 0])]


def _write(draft: _Draft, coders: Sequence[str], count: int) -> bytes:
    """The record of a draft, for a tensor of `count` values."""
    coder, codes = 0, b""
    if draft.codes is not None and draft.alphabet > 1:
        name, data = best(draft.codes, draft.alphabet, tuple(coders))
        coder, codes = CODES.index(name), write_varint(len(data)) + data
    half, planes, floats = _write_floats(draft.floats, coders, count)
    codec = draft.form << 5 | planes << 4 | half << 3 | coder
    return bytes([codec]) + b"".join(write_varint(number) for number in draft.numbers) + codes + floats


def _write_floats(floats: np.ndarray, coders: Sequence[str], count: int) -> tuple[bool, bool, bytes]:
    """Whether they are of two bytes, whether they are in planes, and their bytes: whatever is shortest.

    Planes are for up to `count` floats: a reader must not be made to expect more than the tensor has values.
    """
    with np.errstate(over="ignore"):
        halves = floats.astype("<f2")
    half = bool((halves.astype(np.float32) == floats).all())
    raw = halves.tobytes() if half else floats.astype("<f4").tobytes()
    fitting = tuple(name for name in coders if name in _FOR_BYTES)
    if not _MANY <= len(floats) <= count or not fitting:
        return half, False, raw
    planes = b""
    for plane in np.frombuffer(raw, np.uint8).reshape(len(floats), -1).T[::-1]:
        name, data = best(plane.astype(np.int64), 256, fitting)
        planes += bytes([CODES.index(name)]) + write_varint(len(data)) + data
    return (half, True, planes) if len(planes) < len(raw) else (half, False, raw)


def _rows(array: np.ndarray) -> np.ndarray:
    """An array of any shape as [rows, columns], [n] or, of a single number, [1]."""
    return array.reshape(array.shape[0], -1) if array.ndim > 1 else array.reshape(-1)


def _flat(tensor: Tensor) -> np.ndarray:
    return tensor.reshape(-1).numpy()


class Reader:
    """Takes records off the bytes of a payload, one after the other, each checked before it is believed."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    @property
    def left(self) -> int:
        """Bytes not yet taken."""
        return len(self._data) - self.at

    def record(self, shape: tuple[int, ...]) -> tuple[Form, Record]:
        """The next record, of a tensor of this shape. Raises RefusedError. No array is larger than the tensor's."""
        began, (codec,) = self.at, self._take(1)
        form, planes, half, coder = codec >> 5, codec >> 4 & 1, codec >> 3 & 1, codec & 7
        if form >= len(FORMS) or coder >= len(CODES):
            raise RefusedError(f"its codec is {codec}, which no format of this version has")
        numbers = {name: self._number(MAX_ALPHABET, name) for name in _FIELDS[form]}
        alphabet, size = _codes_size(form, shape, numbers)
        before = self.at
        codes = self._codes(size, alphabet, coder)
        coded, written = CODES[coder] if alphabet > 1 else "", self._data[before : self.at]
        index_bytes = _index_bytes(written, form, coded)
        before = self.at
        count = _float_count(form, shape, numbers, codes)
        if planes and not _MANY <= count <= math.prod(shape):
            raise RefusedError(f"{count} floats are in planes, in a tensor of {math.prod(shape)} values")
        floats = self._floats(count, half, planes)
        sizes = index_bytes, len(written) - index_bytes, self.at - before, self.at - began
        record = Record(FORMS[form], coded, alphabet, *sizes)
        return _form(form, shape, numbers, codes, floats), record

    def _take(self, count: int) -> bytes:
        if count > self.left:
            raise RefusedError(f"it needs {count} bytes where {self.left} are left")
        self.at += count
        return self._data[self.at - count : self.at]

    def _number(self, limit: int, what: str) -> int:
        number, self.at = read_varint(self._data, self.at, limit)
        if what == "largest" or number:
            return number
        raise RefusedError(f"its {what} is 0")

    def _codes(self, size: tuple[int, ...], alphabet: int, coder: int) -> np.ndarray:
        if alphabet < 2:
            if coder:
                raise RefusedError("it names a coder, but nothing is coded")
            return np.zeros(size if alphabet else 0, np.int64)
        length, self.at = read_varint(self._data, self.at, self.left)
        return decode(self._take(length), size, alphabet, CODES[coder])

    def _floats(self, count: int, half: int, planes: int) -> Tensor:
        width = 2 if half else 4
        raw = self._planes(count, width) if planes else self._take(count * width)
        floats = np.frombuffer(raw, "<f2" if half else "<f4").astype(np.float32)
        if not np.isfinite(floats).all():
            raise RefusedError("it holds numbers that are not finite")
        return torch.from_numpy(floats)

    def _planes(self, count: int, width: int) -> bytes:
        table = np.empty((count, width), np.uint8)
        for place in reversed(range(width)):
            (coder,) = self._take(1)
            if coder >= len(CODES):
                raise RefusedError(f"it names coder {coder}, which no format of this version has")
            length, self.at = read_varint(self._data, self.at, self.left)
            table[:, place] = decode(self._take(length), (count,), 256, CODES[coder])
        return table.tobytes()


def _codes_size(form: int, shape: tuple[int, ...], numbers: dict[str, int]) -> tuple[int, tuple[int, ...]]:
    """Alphabet and shape of a record's codes, once its numbers have been found to fit the tensor."""
    count = math.prod(shape)
    rows = shape[0] if len(shape) else 1
    size: tuple[int, ...] = (rows, count // rows) if len(shape) > 1 else (count,)
    alphabet = {_PLAIN: 0, _SPARSE: 2, _SIGNS: 2}.get(form, numbers.get("alphabet", 0))
    if form == _SHARED and alphabet > count:
        raise RefusedError(f"its codebook of {alphabet} is for {count} values")
    if form in (_SCALED, _SIGNS) and numbers["scales"] not in (1, rows):
        raise RefusedError(f"it has {numbers['scales']} scales for {rows} rows")
    if form == _SCALED and numbers["largest"] >= alphabet:
        raise RefusedError(f"its largest code is {numbers['largest']} of {alphabet}")
    if form == _VECTORS:
        levels, blocks = numbers["levels"], numbers["blocks"]
        if levels > MAX_LEVELS or len(shape) < 2 or size[1] % blocks:
            raise RefusedError(f"it has {levels} levels of {blocks} blocks for {list(shape)}")
        size = (levels * rows, blocks)
    return alphabet, size


def _index_bytes(written: bytes, form: int, coder: str) -> int:
    """How many bytes of a record's codes, their length in front, say where the values that are not zero are."""
    if form == _SPARSE:
        return len(written)
    if coder != "relative":
        return 0
    _, at = read_varint(written, 0, len(written))
    return at + relative.index_bytes(written[at:])


def _float_count(form: int, shape: tuple[int, ...], numbers: dict[str, int], codes: np.ndarray) -> int:
    count = math.prod(shape)
    if form in (_PLAIN, _SPARSE):
        return int(codes.sum()) if form == _SPARSE else count
    if form in (_SCALED, _SIGNS):
        return numbers["scales"]
    return numbers["alphabet"] * (numbers["levels"] * (count // shape[0]) if form == _VECTORS else 1)


def _form(form: int, shape: tuple[int, ...], numbers: dict[str, int], codes: np.ndarray, floats: Tensor) -> Form:
    if form == _PLAIN:
        return Plain(floats.reshape(shape))
    if form == _SPARSE:
        tensor = torch.zeros(shape)
        tensor.view(-1)[torch.from_numpy(codes.reshape(-1) != 0)] = floats
        return Plain(tensor)
    if form == _VECTORS:
        levels, blocks = numbers["levels"], numbers["blocks"]
        books = floats.reshape(levels, blocks, numbers["alphabet"], -1)
        return Vectors(torch.from_numpy(codes).reshape(levels, shape[0], blocks), books, shape)
    indices = torch.from_numpy(codes).reshape(shape)
    if form == _SHARED:
        return Shared(indices, floats)
    if form == _SIGNS:
        return Signs(indices, floats)
    steps = torch.where(indices > numbers["largest"], indices - numbers["alphabet"], indices)
    return Scaled(steps, floats, torch.zeros(len(floats), dtype=torch.int64))
