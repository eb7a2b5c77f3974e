"""Tensors in a file: the safetensors format, written atomically and read as if the file were hostile.

A file is: u64 little-endian header length, JSON header, payload. The safetensors library itself accepts duplicate
names and NaN; here every byte must be accounted for, and nothing is allocated that the file does not hold. Files that
the library writes are read, and the library reads what is written here.

Structure that is wrong raises FileFormatError, contents that do not fit or are not finite raise WeightError.
"""

import hashlib
import json
import math
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.errors import WeightError
from zoo.files import write_chunks_atomically
from zoo.strict import RefusedError, open_regular, parse_json, quoted, read_exactly, sentence

MAX_HEADER_BYTES = 1 << 20
MAX_TENSORS = 10_000
MAX_RANK = 8
METADATA = "__metadata__"
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_CODES = {dtype: code for code, dtype in DTYPES.items()}
_PREFIX_BYTES = 8
_CHUNK_BYTES = 1 << 20

Expected = Mapping[str, tuple[Sequence[int], Collection[torch.dtype]]]


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor stands: its bytes are payload[begin:end]."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class TensorFile:
    """An open file whose header has been checked; made by `open_tensors`."""

    path: Path
    metadata: dict[str, str]
    infos: dict[str, TensorInfo]
    _file: FileIO

    def read(self) -> dict[str, Tensor]:
        """All tensors, on the CPU, each in memory of its own. Raises FileFormatError, or WeightError if not finite."""
        tensors = {}
        with sentence(self.path):  # the file stands at the payload, which the infos cover in order
            for name, info in sorted(self.infos.items(), key=lambda item: (item[1].begin, item[1].end)):
                tensors[name] = _read_tensor(self._file, name, info)
                _refuse_nonfinite(self.path, name, tensors[name])
        return {name: tensors[name] for name in self.infos}


@contextmanager
def open_tensors(path: str | Path, *, sha256: str | None = None, follow_links: bool = True) -> Iterator[TensorFile]:
    """Open a file, compare its digest first if one is given, and check its header against its size.

    Raises FileFormatError (structure) or WeightError (the digest differs).
    """
    path = Path(path)
    with sentence(path):
        file = open_regular(path, follow_links=follow_links)
    with file:
        if sha256 is not None:
            _check_digest(file, path, sha256)
        with sentence(path):
            metadata, infos = _read_header(file)
        yield TensorFile(path, metadata, infos, file)


def read_header(path: str | Path) -> tuple[dict[str, str], dict[str, TensorInfo]]:
    """Metadata and tensor table of a file; no tensor is read. Raises FileFormatError."""
    with open_tensors(path) as file:
        return file.metadata, file.infos


def read_tensors(
    path: str | Path, *, expected: Expected | None = None, sha256: str | None = None, follow_links: bool = True
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors (CPU) and metadata of a file.

    expected: name -> (shape, allowed dtypes) of exactly the tensors that must be there, compared before any is read.
    sha256: hex digest of the file, compared before anything is parsed.
    Raises FileFormatError for a file that is broken, WeightError for one that does not fit or is not finite.
    """
    with open_tensors(path, sha256=sha256, follow_links=follow_links) as file:
        if expected is not None:
            check_fit(file, expected)
        return file.read(), file.metadata


def check_fit(file: TensorFile, expected: Expected) -> None:
    """Raise WeightError unless the file holds exactly the expected names, shapes and dtypes."""
    absent, surplus = expected.keys() - file.infos.keys(), file.infos.keys() - expected.keys()
    for verb, why, names in (("lacks", "is needed", absent), ("holds", "does not belong there", surplus)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise WeightError(
                f"{file.path} {verb} the tensor {quoted(min(names))}{more}, which {why}; "
                "take the file that was made for it."
            )
    for name, (shape, dtypes) in expected.items():
        info = file.infos[name]
        if info.shape != tuple(shape):
            raise WeightError(
                f"{file.path} holds {quoted(name)} as {list(info.shape)}, but {list(shape)} is needed; "
                "take the file that was made for it."
            )
        if info.dtype not in dtypes:
            allowed = " or ".join(sorted(str(dtype) for dtype in dtypes))
            raise WeightError(f"{file.path} holds {quoted(name)} as {info.dtype}, but needs {allowed}; save it again.")


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and metadata atomically; the same contents give the same bytes.

    Raises WeightError, before anything is written, for a tensor that is not finite and for what could not be read back.
    """
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    order = sorted(ready, key=lambda name: (-ready[name].itemsize, name))  # keeps every tensor aligned
    header: dict[str, Any] = {METADATA: dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    for name in order:
        tensor = ready[name]
        if tensor.dtype not in _CODES or name == METADATA:
            raise WeightError(f"{path} is not written: {quoted(name)} ({tensor.dtype}) cannot be stored; leave it out.")
        _refuse_nonfinite(path, name, tensor)
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": _CODES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    try:
        blob = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        blob += b" " * (-len(blob) % _PREFIX_BYTES)
        _parse_header(blob, end)
    except (RefusedError, UnicodeError) as found:
        raise WeightError(f"{path} is not written, as none could read it: {found}; change what is saved.") from None
    payload = (memoryview(_bytes_of(ready[name]).numpy().data) for name in order if ready[name].nbytes)
    write_chunks_atomically(path, [len(blob).to_bytes(_PREFIX_BYTES, "little") + blob, *payload])


def _check_digest(file: FileIO, path: Path, sha256: str) -> None:
    digest = hashlib.sha256()
    with sentence(path):
        try:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
        except OSError as error:
            raise RefusedError(f"it cannot be read ({error.strerror})") from None
    if digest.hexdigest() != sha256:
        raise WeightError(
            f"{path} has the SHA-256 digest {digest.hexdigest()[:12]}..., but {sha256[:12]}... was expected: "
            "the file was changed or damaged; get it again."
        )
    file.seek(0)


def _read_header(file: FileIO) -> tuple[dict[str, str], dict[str, TensorInfo]]:
    size = os.fstat(file.fileno()).st_size
    if size < _PREFIX_BYTES:
        raise RefusedError(f"it has {size} bytes, too few for a header")
    prefix = bytearray(_PREFIX_BYTES)
    read_exactly(file, memoryview(prefix))
    length = int.from_bytes(prefix, "little")
    if length > MAX_HEADER_BYTES:
        raise RefusedError(f"its header claims {length} bytes, more than the {MAX_HEADER_BYTES} allowed")
    if length > size - _PREFIX_BYTES:
        raise RefusedError(f"its header claims {length} bytes, but only {size - _PREFIX_BYTES} follow")
    blob = bytearray(length)
    read_exactly(file, memoryview(blob))
    return _parse_header(bytes(blob), size - _PREFIX_BYTES - length)


def _parse_header(blob: bytes, payload_bytes: int) -> tuple[dict[str, str], dict[str, TensorInfo]]:
    if len(blob) > MAX_HEADER_BYTES:
        raise RefusedError(f"its header has {len(blob)} bytes, more than the {MAX_HEADER_BYTES} allowed")
    if not blob.startswith(b"{") or not blob.rstrip(b" ").endswith(b"}"):
        raise RefusedError("its header is not a JSON object")
    table = parse_json(blob)
    metadata = table.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise RefusedError("its metadata are not texts by name")
    if len(table) > MAX_TENSORS:
        raise RefusedError(f"it lists {len(table)} tensors, more than the {MAX_TENSORS} allowed")
    infos = {name: _tensor_info(name, entry) for name, entry in table.items()}
    position = 0
    for name, info in sorted(infos.items(), key=lambda item: (item[1].begin, item[1].end)):
        if info.begin != position:
            raise RefusedError(
                f"the tensor {quoted(name)} begins at byte {info.begin} of the payload instead of {position}"
            )
        position = info.end
    if position != payload_bytes:
        raise RefusedError(f"its tensors take {position} bytes, but its payload has {payload_bytes}")
    return metadata, infos


def _tensor_info(name: str, entry: Any) -> TensorInfo:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise RefusedError(f"the tensor {quoted(name)} is not described by exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise RefusedError(
            f"the tensor {quoted(name)} has the dtype {quoted(dtype)}, which is none of {', '.join(DTYPES)}"
        )
    if not _sizes(shape) or len(shape) > MAX_RANK:
        raise RefusedError(
            f"the tensor {quoted(name)} has the shape {quoted(shape)}, not up to {MAX_RANK} whole numbers"
        )
    if not _sizes(offsets) or len(offsets) != 2:
        raise RefusedError(f"the tensor {quoted(name)} has the offsets {quoted(offsets)}, not two whole numbers")
    itemsize = DTYPES[dtype].itemsize
    if itemsize * math.prod(max(side, 1) for side in shape) >= 1 << 63:
        raise RefusedError(f"the tensor {quoted(name)} has the shape {quoted(shape)}, which is too large")
    begin, end = offsets
    if end - begin != itemsize * math.prod(shape):
        raise RefusedError(f"the tensor {quoted(name)} has {end - begin} bytes, not those of {dtype} {quoted(shape)}")
    return TensorInfo(DTYPES[dtype], tuple(shape), begin, end)


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _read_tensor(file: FileIO, name: str, info: TensorInfo) -> Tensor:
    tensor = torch.empty(info.shape, dtype=info.dtype)
    if info.end > info.begin:
        raw = _bytes_of(tensor)
        read_exactly(file, memoryview(raw.numpy().data))
        if info.dtype is torch.bool and int(raw.max()) > 1:
            raise RefusedError(f"the tensor {quoted(name)} holds truth values other than 0 and 1")
    return tensor


def _bytes_of(tensor: Tensor) -> Tensor:
    """A contiguous tensor's memory as uint8 [nbytes]."""
    return tensor.reshape(-1).view(torch.uint8)


def _refuse_nonfinite(path: str | Path, name: str, tensor: Tensor) -> None:
    """Raise WeightError for NaN or infinity; the extremes alone tell, and cost no memory."""
    if not tensor.is_floating_point() or not tensor.numel():
        return
    if not all(bool(torch.isfinite(extreme)) for extreme in torch.aminmax(tensor)):
        raise WeightError(f"{path}: the tensor {quoted(name)} is not finite (NaN or infinity); save or get it again.")
