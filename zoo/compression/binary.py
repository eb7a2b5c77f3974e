"""Binary weights as a stage, and XNOR networks computed with exclusive or and population count (arXiv:1603.05279).

`Binarize` gives any model binary weights (section 3.1, Binary-Weight-Networks): one bit a weight and one scale a
filter; inputs stay as they are. `pack_network` turns a network of `zoo.models.xnor` into one whose binary convolutions
run on 64-bit words, and whose outputs are those of the simulated network to the last bit, on a CPU in float32. In numpy
this is no gain in time: PyTorch's float convolutions are faster (benchmarks/results/xnor_speed.jsonl).
"""

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zoo.compression.forms import Form, Scaled, Signs
from zoo.compression.stage import Treated, Workbench
from zoo.compression.treat import Layer, Made, check_number, choose, fine_tune, finished, layers_of, put
from zoo.errors import CompressionError
from zoo.models.xnor import BinaryConv2d, binarise, rescale

Words = NDArray[np.uint64]
WORD = 64  # bits
BLOCK_BYTES = 1 << 20  # of the exclusive ors in work at one time, so that they stay in a core's own cache
COUNTS = np.array([bin(n).count("1") for n in range(1 << 16)], dtype=np.uint8)


class BinaryWeight(Made):
    """A weight alpha sign(latent) [F, ...], with alpha the mean magnitude of each filter of what trains, `latent`.

    kept: bool like it, or None where nothing is pruned. What is pruned stays zero, and the weight is ternary.
    """

    kept: Tensor | None

    def __init__(self, weight: Tensor, kept: Tensor | None) -> None:
        super().__init__()
        self.latent = nn.Parameter(weight.detach().clone())
        self.register_buffer("kept", kept)

    def forward(self) -> Tensor:
        signs, scale = binarise(self.latent, self.kept)
        return signs * scale.reshape(-1, *[1] * (signs.ndim - 1))

    def form(self) -> Form:
        """Signs, or, where something is pruned, Scaled with the codes 0, 1 and 2 for -alpha, 0 and alpha."""
        signs, scale = (t.cpu() for t in binarise(self.latent.detach(), self.kept))
        if self.kept is None:
            return Signs((signs > 0).long(), scale)
        return Scaled(signs.long() + 1, scale, torch.ones(len(scale), dtype=torch.int64))


@dataclass(frozen=True)
class Binarize:
    """Binary weights with a scale for each filter; what is zero, as a pruned weight is, stays zero.

    first_and_last: also those two layers, which the paper leaves in full precision. epochs: of fine-tuning
    by the workbench's recipe, at the learning rate lr in place of its own; without any, accuracy falls to near chance.
    Order: after pruning. A later stage that shares or quantises weights takes the place of this one.
    """

    first_and_last: bool = False
    epochs: int = 0
    lr: float | None = None

    def __post_init__(self) -> None:
        check_number("epochs", self.epochs, 0, math.inf, whole=True)
        if self.lr is not None:
            check_number("lr", self.lr, 0, math.inf)

    def apply(self, model: nn.Module, work: Workbench) -> Treated:
        """Raises CompressionError where no layer is left to treat, or for epochs without images or recipe."""
        model = copy.deepcopy(model)
        # An auxiliary head is no last layer: it is there for training only.
        found = layers_of(model)
        inner = [name for name in found if not name.startswith("auxiliary.")]
        ends = [] if self.first_and_last else [*inner[:1], *inner[-1:]]
        chosen, untreated = choose(model, True, skip=set(ends))
        untreated |= dict.fromkeys(ends, "the first and the last layer stay in full precision")
        layers = {name: _binarise_layer(found[name]) for name in chosen}
        treated = finished(model, layers, untreated)
        fine_tune(model, work, self.epochs, self.lr)
        model.eval()
        return treated


def _binarise_layer(layer: Layer) -> str:
    """Put a BinaryWeight on a layer, in the place of what its weight was made of; says what was done."""
    weight = layer.weight
    zeros = int((weight == 0).sum())
    put(layer, BinaryWeight(weight, weight != 0 if zeros else None))
    kept = f", {zeros} of {weight.numel()} weights stay zero" if zeros else ""
    return f"{'ternary' if zeros else 'binary'}, {len(weight)} scales{kept}"


class PackedConv2d(nn.Module):
    """A BinaryConv2d on words: float [N, C, H, W] -> float [N, F, H', W'], the same to the last bit.

    The channels of one pixel are packed into words, 1 for +1 and 0 for -1, the rest of the last word being 0 in inputs
    and weights. For n signs a dot product is n - 2 popcount(x xor w). A padded pixel is worth 0 but packed as zeros, so
    it disagrees with the ones of the weight; both are put right by a table of each output position and filter.
    """

    scale: Tensor
    bias: Tensor | None

    def __init__(self, layer: BinaryConv2d) -> None:
        super().__init__()
        codes, scale = layer.weight_signs()
        self.kernel = (int(codes.shape[2]), int(codes.shape[3]))
        self.padding = (int(layer.padding[0]), int(layer.padding[1]))
        self.stride = (int(layer.stride[0]), int(layer.stride[1]))
        self.channels = layer.in_channels
        self.words = pack(codes.numpy() == 1)  # [F, h, w, words]
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().cpu().clone())
        self._tables: dict[tuple[int, int], NDArray[np.int32]] = {}

    def forward(self, features_NCHW: Tensor) -> Tensor:
        inputs = pack((features_NCHW >= 0).numpy())
        size = (inputs.shape[1], inputs.shape[2])
        if size not in self._tables:
            self._tables[size] = self._table(size)
        dots = self._tables[size][:, None] - 2 * self._disagreements(inputs).astype(np.int32)
        dots_NFHW = torch.from_numpy(np.ascontiguousarray(dots.swapaxes(0, 1), dtype=np.float32))
        return rescale(dots_NFHW, self.scale, self.bias)

    def _disagreements(self, inputs: Words) -> NDArray[Any]:
        """Bits in which inputs [N, H, W, words] and weights differ: [F, N, H', W']."""
        patches = self._patches(inputs)
        count, height, width = patches.shape[:3]
        columns = np.ascontiguousarray(patches.reshape(count * height * width, -1).T)
        differing = count_differing(columns, self.words.reshape(len(self.words), -1))
        return differing.reshape(-1, count, height, width)

    def _patches(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """What the kernel sees at each position, zero where it is padded: [N, H, W, D] -> [N, H', W', h, w, D]."""
        (top, left), (down, right) = self.padding, self.stride
        padded = np.pad(pixels, ((0, 0), (top, top), (left, left), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.kernel, axis=(1, 2))
        return windows[:, ::down, ::right].transpose(0, 1, 2, 4, 5, 3)

    def _table(self, size: tuple[int, int]) -> NDArray[np.int32]:
        """For images of one size [F, H', W']: the signs that meet, and twice the weight's ones that meet padding."""
        inside = self._patches(np.ones((1, *size, 1), dtype=bool))[0, ..., 0]  # [H', W', h, w]
        ones = popcount(self.words).sum(-1, dtype=np.int32)  # [F, h, w]
        met: NDArray[np.int32] = self.channels * inside.sum((-2, -1), dtype=np.int32)
        unmet: NDArray[np.int32] = np.einsum("ijhw,fhw->fij", (~inside).astype(np.int32), ones)
        return met + 2 * unmet


def pack_network(model: nn.Module) -> nn.Module:
    """A copy of a network for inference on a CPU whose binary convolutions are PackedConv2d; all else is as it was.

    Raises CompressionError where it has no layer with binary weights and binary inputs.
    """
    packed = copy.deepcopy(model).cpu().eval()
    names = [name for name, module in packed.named_modules() if isinstance(module, BinaryConv2d)]
    if not names:
        raise CompressionError(
            f"{type(model).__name__} has no layer with binary weights and inputs; xnor_lenet5 and xnor_nin have."
        )
    for name in names:
        layer = packed.get_submodule(name)
        assert isinstance(layer, BinaryConv2d)
        parent, _, child = name.rpartition(".")
        setattr(packed.get_submodule(parent), child, PackedConv2d(layer))
    return packed


def pack(bits: NDArray[np.bool_]) -> Words:
    """The channels of each pixel in words, zeros behind the last: bool [N, C, H, W] -> [N, H, W, ceil(C / 64)]."""
    count, channels, height, width = bits.shape
    octets = -(-channels // WORD) * WORD // 8
    full = np.zeros((count, octets * 8, height, width), dtype=np.uint8)
    full[:, :channels] = bits
    full = full.reshape(count, octets, 8, height, width)
    packed = full[:, :, 0].copy()
    for place in range(1, 8):  # ten times faster than packbits, which works along the last dimension
        packed |= full[:, :, place] << np.uint8(place)
    return np.ascontiguousarray(packed.transpose(0, 2, 3, 1)).view(np.uint64)


def popcount(words: Words) -> NDArray[np.uint8]:
    """Ones in each word."""
    if hasattr(np, "bitwise_count"):  # numpy 2
        counts: NDArray[np.uint8] = np.bitwise_count(words)
    else:
        counts = COUNTS[words.view(np.uint16).reshape(*words.shape, 4)].sum(-1, dtype=np.uint8)
    return counts


def count_differing(columns: Words, rows: Words) -> NDArray[Any]:
    """Bits in which each row [F, K] differs from each column [K, M]: uint16 [F, M], uint32 where they may be more."""
    filters, depth = rows.shape
    narrow = depth * WORD < 1 << 16
    total = np.zeros((filters, columns.shape[1]), dtype=np.uint16 if narrow else np.uint32)
    step = max(WORD, BLOCK_BYTES // (8 * filters))
    for start in range(0, columns.shape[1], step):
        block = total[:, start : start + step]
        differing = np.empty(block.shape, dtype=np.uint64)
        for k in range(depth):
            block += popcount(np.bitwise_xor(rows[:, k, None], columns[k, start : start + step], out=differing))
    return total
