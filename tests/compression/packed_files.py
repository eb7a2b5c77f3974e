"""Small packed files for the tests: models of every form, files made by hand, and files with their digest put right."""

import base64
import hashlib
import json
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from zoo.compression.container import MAGIC, pack
from zoo.compression.forms import Form, Plain, Scaled, Shared, Signs, Vectors, values
from zoo.compression.structure import skeleton, stored_state
from zoo.registry import build

KINDS = ("plain", "sparse", "shared", "scaled", "signs", "vectors")
SHAPES = {"0": [1, 2, 1], "3": [2, 3, 1], "7": [12, 4], "9": [4, 3], "11": [3, 4]}  # of a very small LeNet-5
HEADER = {"model": "lenet5", "dataset": "digits", "classes": 4, "image": [1, 16, 16], "structure": {"shapes": SHAPES}}
COUNTS = (50, 2, 150, 3, 48, 4, 12, 3, 12, 4)  # values of its tensors


class Held(nn.Module):
    """A parametrization that is a given form, whatever the tensor was."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self._form = form

    def form(self) -> Form:
        return self._form

    def forward(self, _weight: Tensor) -> Tensor:
        return values(self._form)


def form_of(kind: str, weight: Tensor, chance: torch.Generator) -> Form:
    """A random form of a weight's shape, about two thirds of it zero where the kind knows zeros."""
    shape, rows = tuple(weight.shape), weight.shape[0]
    columns = weight.numel() // rows
    kept = torch.rand(shape, generator=chance) < 1 / 3
    noise = torch.randn(shape, generator=chance)
    codes = torch.randint(1, 16, shape, generator=chance) * kept
    scale = torch.rand(rows, generator=chance) + 0.01
    if kind == "sparse":
        return Plain(torch.where(kept, noise, 0.0))
    if kind == "shared":
        return Shared(codes, torch.cat([torch.zeros(1), torch.randn(15, generator=chance)]))
    if kind == "scaled":
        per_row = bool(torch.rand((), generator=chance) < 0.5)
        zero = torch.randint(0, 9, (rows,), generator=chance)
        return Scaled(codes, scale if per_row else scale[:1], zero if per_row else zero[:1])
    if kind == "signs":
        return Signs(codes % 2, scale)
    if kind == "vectors":
        block, entries = (columns, 2) if rows < 16 else (next(d for d in (4, 3, 2, 5, 1) if columns % d == 0), 8)
        codes = torch.randint(0, entries, (2, rows, columns // block), generator=chance)
        return Vectors(codes, torch.randn(2, columns // block, entries, block, generator=chance), shape)
    return Plain(noise)


def treated(model: nn.Module, kinds: tuple[str, ...], seed: int = 0) -> nn.Module:
    """Give the weights of a model, in place, these kinds of form in turn, and its other tensors random values."""
    chance = torch.Generator().manual_seed(seed)
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for name, tensor in model.state_dict().items():
        if tensor.ndim == 1:
            tensor.copy_(torch.rand(tensor.shape, generator=chance) + (0.5 if "var" in name else 0.0))
    for number, layer in enumerate(layers):
        form = form_of(kinds[number % len(kinds)], layer.weight, chance)
        parametrize.register_parametrization(layer, "weight", Held(form), unsafe=True)
    return model.eval()


def small_lenet() -> nn.Module:
    """A LeNet-5 of 2 and 3 maps and 4 and 3 neurons, for four classes of 16 x 16 pixels."""
    model = build("lenet5", num_classes=4, in_chans=1, image_size=16)
    model[0], model[3] = nn.Conv2d(1, 2, 5, padding=2), nn.Conv2d(2, 3, 5)
    model[7], model[9], model[11] = nn.Linear(12, 4), nn.Linear(4, 3), nn.Linear(3, 4)
    return model


def small_perceptron() -> nn.Module:
    """A LeNet-300-100 of 5 and 6 neurons, for images of 6 x 6."""
    model = build("lenet_300_100", num_classes=3, in_chans=1, image_size=6)
    model[1], model[3], model[5] = nn.Linear(36, 5), nn.Linear(5, 6), nn.Linear(6, 3)
    return model


def small_nin() -> nn.Module:
    """A Network-in-Network of two maps a layer, its batch norms folded, for images of 8 x 8."""
    model = build("nin", num_classes=2, in_chans=1, image_size=8)
    before = 1
    for label, module in list(model.named_modules()):
        parent, _, leaf = label.rpartition(".")
        if isinstance(module, nn.Conv2d):
            layer = nn.Conv2d(before, 2, module.kernel_size, module.stride, module.padding)
            model.get_submodule(parent).add_module(leaf, layer)
            before = 2
        elif isinstance(module, nn.BatchNorm2d):
            model.get_submodule(parent).add_module(leaf, nn.Identity())
    return model


def seeds() -> dict[str, bytes]:
    """Three small files that between them use every form, several coders, planes, shapes and folding."""
    coders = ("fixed", "huffman", "relative")
    lenet = treated(small_lenet(), ("sparse", "shared", "scaled", "signs", "plain"), 1)
    perceptron = treated(small_perceptron(), ("vectors", "shared", "plain"), 2)
    nin = treated(small_nin(), ("shared", "plain", "scaled"), 3)
    return {
        "lenet5": pack(lenet, name="lenet5", num_classes=4, image=(1, 16, 16), dataset="digits", coders=coders),
        "lenet_300_100": pack(perceptron, name="lenet_300_100", num_classes=3, image=(1, 6, 6), coders=coders),
        "nin": pack(nin, name="nin", num_classes=2, image=(1, 8, 8), coders=("range",)),
    }


def taken_apart(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Header, without its digest, and payload of a file."""
    length = int.from_bytes(data[8:12], "little")
    header = json.loads(data[12 : 12 + length])
    del header["sha256"]
    return header, data[12 + length :]


def dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def raw(blob: bytes, payload: bytes) -> bytes:
    """A file with the right length of its header, whatever that is."""
    return MAGIC + len(blob).to_bytes(4, "little") + blob + payload


def sealed(header: dict[str, Any], payload: bytes) -> bytes:
    """A file whose digest is right, whatever header and payload are, so that the checks behind it are reached."""
    digest = base64.b64encode(hashlib.sha256(dump(header) + payload).digest()).decode().rstrip("=")
    return raw(dump(header | {"sha256": digest}), payload)


def codec(form: str, coder: int = 0, *, half: bool = False, planes: bool = False) -> bytes:
    return bytes([KINDS.index(form) << 5 | planes << 4 | half << 3 | coder])


def zeros(header: dict[str, Any]) -> bytes:
    """The good file of any header: every tensor zero, in half precision."""
    structure = {"folded": False, "shapes": {}} | header.get("structure", {})
    network = skeleton(header["model"], header["classes"], tuple(header["image"]), structure)
    counts = [tensor.numel() for tensor in stored_state(network).values()]
    return sealed(header, b"".join(codec("plain", half=True) + bytes(2 * count) for count in counts))


def payload(changes: dict[int, bytes] | None = None) -> bytes:
    """Records of the small LeNet-5 of HEADER, all zeros in half precision but for those given."""
    records = [codec("plain", half=True) + bytes(2 * count) for count in COUNTS]
    for place, record in (changes or {}).items():
        records[place] = record
    return b"".join(records)
