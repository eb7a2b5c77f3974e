"""The packed file (`.zpk`): a whole network in as few bytes as its tensors need, read as if it were hostile.

    8 bytes   ZOOPACK1
    4 bytes   length of the header, little-endian
    header    JSON without spaces, in this order: model, dataset (if known), classes, image [C, H, W], structure (where
              the network is not as the registry builds it: zoo.compression.structure), sha256
    payload   one record a tensor (zoo.compression.packing), in the order of the network's own state

sha256 is of the header without it, then of the payload, in base64 without padding: a file with any bit changed is
refused. Names, shapes and types are the architecture's and not in the file, which may hold 1,500 bytes in all.
Auxiliary classifiers and batch counters are left out, as in zoo.weights.
"""

import base64
import copy
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.compression.coding import CODERS
from zoo.compression.forms import forms_of, values
from zoo.compression.packing import Reader, Record, write_record
from zoo.compression.receipts import LayerReceipt
from zoo.compression.structure import apply, build_plain, check_runs, describe, is_stored, skeleton, stored_state
from zoo.errors import CompressionError, WeightError
from zoo.layers import SMALL_IMAGE
from zoo.registry import Image
from zoo.strict import RefusedError, parse_json, quoted, read_small, sentence

MAGIC = b"ZOOPACK1"
MAX_HEADER_BYTES = 1 << 20
MAX_FILE_BYTES = 1 << 30
FREE_VALUES = 1 << 20  # values of a network for which no byte of the file is asked,
VALUES_A_BYTE = 1 << 9  # and values that each byte of it may stand for, so that a small file claims no large network
MAX_VALUES = 1 << 28
_PREFIX = len(MAGIC) + 4


@dataclass(frozen=True)
class PackedInfo:
    """What the header of a file says. image: (C, H, W). dataset: "" if not known. structure: as `describe` has it."""

    model: str
    dataset: str
    num_classes: int
    image: Image
    structure: str

    @property
    def description(self) -> dict[str, Any]:
        """The structure as zoo.compression.structure has it."""
        found = json.loads(self.structure)
        return {"folded": found.get("folded", False), "shapes": found.get("shapes", {})}


def pack(
    model: nn.Module,
    *,
    name: str,
    num_classes: int,
    image: Image,
    dataset: str = "",
    coders: Sequence[str] = CODERS,
) -> bytes:
    """The file of a model, compressed or not: every tensor by the shortest of the ways that give exactly its values.

    name, num_classes, image: of the registered network that it is, or came from. coders: those that may be used.
    Raises CompressionError for a model that is not of this network, or that a reader would refuse.
    """
    structure = describe(model, name, num_classes, image)
    info = PackedInfo(
        name, dataset, num_classes, image, _dump({key: value for key, value in structure.items() if value})
    )
    try:
        network, shapes = _described(info)
        check_runs(network, num_classes, image)
    except RefusedError as found:
        raise CompressionError(
            f"the model cannot be packed as a {name}: {found}; no file could say what it is."
        ) from None
    forms = {key: form for key, form in forms_of(model).items() if is_stored(key)}
    if (own := {key: tuple(form.shape) for key, form in forms.items()}) != shapes:
        odd = min((key for key in own.keys() | shapes.keys() if own.get(key) != shapes.get(key)), default="")
        raise CompressionError(
            f"the model cannot be packed as a {name}: its {odd!r} is {own.get(odd)}, but {shapes.get(odd)} is needed."
        )
    records = []
    for key in shapes:
        tensor = values(forms[key])
        if tensor.dtype != torch.float32 or not bool(tensor.isfinite().all()):
            raise CompressionError(f"the tensor {key!r} is not float32, or not finite; train in single precision.")
        records.append(write_record(forms[key], coders))
    payload = b"".join(records)
    header = _header(info)
    header["sha256"] = _digest(header, payload)
    blob = _dump(header).encode()
    data = MAGIC + len(blob).to_bytes(4, "little") + blob + payload
    if not _believable(shapes, len(data)):
        raise CompressionError(
            f"the model cannot be packed: {len(data)} bytes are too few for a reader to believe in a {name}; "
            "is every weight the same?"
        )
    return data


def unpack(data: bytes, *, source: str | Path = "a packed model") -> tuple[nn.Module, PackedInfo]:
    """The network of a file, in eval mode, with exactly the values that were packed, and what its header says.

    source: where the bytes come from, for the error. Raises FileFormatError for bytes that `pack` did not write.
    """
    with sentence(source):
        info, payload = _open(data)
        return _filled(info, {name: tensor for name, tensor, _ in _records(info, payload, len(data))}), info


def ledger(data: bytes, *, source: str | Path = "a packed model") -> list[LayerReceipt]:
    """What each tensor of a file takes and holds, counted in the file itself. Raises FileFormatError."""
    entries = []
    with sentence(source):
        info, payload = _open(data)
        for name, tensor, record in _records(info, payload, len(data)):
            counts = (tuple(tensor.shape), tensor.numel(), int(tensor.count_nonzero()))
            entries.append(LayerReceipt(name, *counts, **vars(record)))
    return entries


def load_packed(path: str | Path, *, sha256: str | None = None) -> tuple[nn.Module, PackedInfo]:
    """The network of a file and what its header says.

    sha256: hex digest that the whole file must have (its card's), compared first.
    Raises FileFormatError for a broken file, WeightError for one that was changed.
    """
    with sentence(path):
        data = read_small(path, MAX_FILE_BYTES, follow_links=False)
    if sha256 is not None and (found := hashlib.sha256(data).hexdigest()) != sha256:
        raise WeightError(
            f"{path} has the SHA-256 digest {found[:12]}..., but {sha256[:12]}... was expected: "
            "the file was changed or damaged; get it again."
        )
    return unpack(data, source=path)


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _header(info: PackedInfo) -> dict[str, Any]:
    """The header without its digest."""
    header: dict[str, Any] = {"model": info.model}
    if info.dataset:
        header["dataset"] = info.dataset
    header |= {"classes": info.num_classes, "image": list(info.image)}
    return header | ({"structure": json.loads(info.structure)} if info.structure != "{}" else {})


def _digest(header: dict[str, Any], payload: bytes) -> str:
    digest = hashlib.sha256(_dump(header).encode() + payload).digest()
    return base64.b64encode(digest).decode().rstrip("=")


def _open(data: bytes) -> tuple[PackedInfo, bytes]:
    """The header and the payload of a file whose digest is right."""
    if data[:7] == MAGIC[:7] and data[7:8] not in (MAGIC[7:], b""):
        raise RefusedError(f"its format is {quoted(data[:8])}, and this version of zoo reads {MAGIC.decode()}")
    if len(data) < _PREFIX or not data.startswith(MAGIC):
        raise RefusedError(f"it does not begin with {MAGIC.decode()} and a length")
    length = int.from_bytes(data[len(MAGIC) : _PREFIX], "little")
    if length > min(MAX_HEADER_BYTES, len(data) - _PREFIX):
        raise RefusedError(
            f"its header claims {length} bytes, but {len(data) - _PREFIX} follow and {MAX_HEADER_BYTES} are allowed"
        )
    blob, payload = data[_PREFIX : _PREFIX + length], data[_PREFIX + length :]
    if not blob.startswith(b"{"):
        raise RefusedError("its header is not a JSON object")
    header = parse_json(blob)
    stated = header.pop("sha256", None)
    if not isinstance(stated, str):
        raise RefusedError("its header has no digest")
    info = _info(header)
    if _dump(_header(info) | {"sha256": stated}).encode() != blob:
        raise RefusedError("its header is not written in the one way that there is")
    if stated != _digest(header, payload):
        raise RefusedError("its SHA-256 digest is not that of its contents: it was changed or damaged")
    return info, payload


def _info(header: dict[str, Any]) -> PackedInfo:
    lacking = {"model", "classes", "image"} - header.keys()
    surplus = header.keys() - {"model", "dataset", "classes", "image", "structure"}
    for what, names in (("lacks", lacking), ("has the unknown", surplus)):
        if names:
            raise RefusedError(f"its header {what} field {quoted(min(names))}")
    model, dataset, classes, image = (header.get(key, "") for key in ("model", "dataset", "classes", "image"))
    structure = header.get("structure", {})
    for holds, what, value in (
        (isinstance(model, str), "model", model),
        (isinstance(dataset, str), "dataset", dataset),
        (type(classes) is int, "classes", classes),
        (isinstance(image, list) and len(image) == 3 and all(type(side) is int for side in image), "image", image),
        (_is_structure(structure), "structure", structure),
    ):
        if not holds:
            raise RefusedError(f"the field {what!r} of its header is {quoted(value)}")
    return PackedInfo(model, dataset, classes, tuple(image), _dump(structure))


def _is_structure(value: Any) -> bool:
    """Whether it is {"folded": true, "shapes": {name: whole numbers, ...}}, or the part of it that says something."""
    if not isinstance(value, dict) or not value.keys() <= {"folded", "shapes"}:
        return False
    folded, shapes = value.get("folded", True), value.get("shapes", {"": []})
    if folded is not True or not isinstance(shapes, dict) or not shapes:
        return False
    return all(isinstance(sizes, list) and all(type(side) is int for side in sizes) for sizes in shapes.values())


@lru_cache(maxsize=8)
def _described(info: PackedInfo) -> tuple[nn.Module, dict[str, tuple[int, ...]]]:
    """(the network that a header describes, without memory and to be copied; name and shape of its tensors, in order).

    Raises RefusedError.
    """
    network = skeleton(info.model, info.num_classes, info.image, info.description)
    return network, {name: tuple(tensor.shape) for name, tensor in stored_state(network).items()}


def _believable(shapes: dict[str, tuple[int, ...]], file_bytes: int) -> bool:
    count = sum(math.prod(shape) for shape in shapes.values())
    return count <= min(MAX_VALUES, FREE_VALUES + VALUES_A_BYTE * file_bytes)


def _records(info: PackedInfo, payload: bytes, file_bytes: int) -> Iterator[tuple[str, Tensor, Record]]:
    """Name, values and record of every tensor, in order."""
    _, shapes = _described(info)
    if not _believable(shapes, file_bytes):
        raise RefusedError(f"it has {file_bytes} bytes, too few for the network that it describes")
    reader = Reader(payload)
    for name, shape in shapes.items():
        try:
            form, record = reader.record(shape)
        except RefusedError as found:
            raise RefusedError(f"its tensor {quoted(name)} is broken: {found}") from None
        tensor = values(form) + 0.0
        if not all(bool(torch.isfinite(extreme)) for extreme in torch.aminmax(tensor)):
            raise RefusedError(f"its tensor {quoted(name)} is not finite (NaN or infinity)")
        yield name, tensor, record
    if reader.left:
        raise RefusedError(f"{reader.left} bytes follow its last tensor")


def _filled(info: PackedInfo, tensors: dict[str, Tensor]) -> nn.Module:
    """The network of a header with these tensors for its own; only what they do not cover is initialised."""
    model = copy.deepcopy(_described(info)[0])
    if max(info.image) > SMALL_IMAGE:
        check_runs(model, info.num_classes, info.image)  # before it has memory: the image may be a hostile one
    model.load_state_dict(tensors, strict=False, assign=True)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.num_batches_tracked = torch.zeros((), dtype=torch.int64)
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):  # auxiliary classifiers
        model = build_plain(info.model, info.num_classes, info.image)
        apply(model, info.description)
        model.load_state_dict(tensors, strict=False)
    if max(info.image) <= SMALL_IMAGE:
        check_runs(model, info.num_classes, info.image)
    return model
