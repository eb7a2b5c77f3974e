"""Pipelines: stages one after the other, each proved by a file that is written, read back and scored."""

import copy
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from zoo.compression.coding import CODERS
from zoo.compression.container import ledger, pack, unpack
from zoo.compression.receipts import LayerReceipt, Receipt
from zoo.compression.stage import Stage, Treated, Workbench
from zoo.console import chat
from zoo.data import Dataset
from zoo.errors import CompressionError, unknown
from zoo.evaluation import evaluate
from zoo.files import write_atomically
from zoo.recipes import Recipe
from zoo.registry import origin

FIXED = ("fixed", "relative")  # what a file is coded with until a stage says otherwise
_TIMED = 9  # forward passes of one image


@dataclass(frozen=True)
class Code:
    """How the file is coded from here on: the smallest of these coders, tensor by tensor. Changes no weight.

    Huffman coding (arXiv:1510.00149, section 4) adds a fifth or so to what pruning and sharing save; an arithmetic
    coder with a context model a little more, and where the zeros have a structure a good deal more.
    """

    coders: tuple[str, ...] = CODERS

    def __post_init__(self) -> None:
        for name in self.coders:
            if name not in CODERS:
                raise unknown("coder", name, CODERS)
        if not self.coders:
            raise CompressionError(f"no coder was given; any of {', '.join(CODERS)} is allowed.")

    def apply(self, model: nn.Module, work: Workbench) -> Treated:
        """The model as it is."""
        return Treated(copy.deepcopy(model))


@dataclass(frozen=True)
class Huffman(Code):
    """Code with Huffman's codes: of the codes themselves, and of the gaps between those that are not zero."""

    coders: tuple[str, ...] = ("fixed", "huffman", "relative")


@dataclass(frozen=True)
class Packed:
    """What a pipeline comes to: the model as the last stage left it, the bytes of its file, a receipt a stage."""

    model: nn.Module
    data: bytes
    receipts: tuple[Receipt, ...]

    @property
    def file_bytes(self) -> int:
        """Of the whole file, header included."""
        return len(self.data)


def compress(
    model: nn.Module,
    stages: Sequence[Stage],
    *,
    dataset: str = "",
    train: Dataset | None = None,
    valid: Dataset | None = None,
    recipe: Recipe | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    spoken: bool = False,
) -> Packed:
    """Treat a copy of a model with one stage after the other; what each leaves is packed, read back and scored.

    train: for stages that fine-tune or calibrate. valid: for those that choose, and for the accuracies of the receipts;
    images held out from training. recipe: of fine-tuning. dataset: the name that the file keeps. spoken:
    stages and the progress of training on stderr.
    Raises CompressionError for a stage that cannot do what it is asked, UnknownNameError for a model built elsewhere.
    """
    if not stages:
        raise CompressionError("no stage was given; for example [Prune(density=0.1), Share(bits=5), Huffman()].")
    origin(model)  # before any work is done
    work = Workbench(train, valid, recipe, seed, device, spoken)
    proof = _prove(model, dataset, FIXED, valid)
    coders: tuple[str, ...] = FIXED
    receipts: list[Receipt] = []
    for number, stage in enumerate(stages, start=1):
        if spoken:
            chat(f"stage {number} of {len(stages)}: {stage!r}")
        began = time.monotonic()
        treated = stage.apply(model, work)
        seconds = time.monotonic() - began
        coders = stage.coders if isinstance(stage, Code) else coders
        before, proof = proof, _prove(treated.model, dataset, coders, valid)
        receipts.append(_receipt(stage, treated, before, proof, valid, seconds))
        model = treated.model
    return Packed(model, proof.data, tuple(receipts))


def save_packed(path: str | Path, packed: Packed) -> None:
    """Write the file, atomically."""
    write_atomically(path, packed.data)


@dataclass(frozen=True)
class _Proof:
    """A file, the network that it gives back, what each tensor takes, and how many images the network gets right."""

    data: bytes
    model: nn.Module
    layers: list[LayerReceipt]
    correct: int | None

    @property
    def bits(self) -> int:
        """Of all tensors."""
        return 8 * sum(layer.file_bytes for layer in self.layers)


def _prove(model: nn.Module, dataset: str, coders: tuple[str, ...], valid: Dataset | None) -> _Proof:
    made = origin(model)
    data = pack(model, name=made.name, num_classes=made.num_classes, image=made.image, dataset=dataset, coders=coders)
    again, _ = unpack(data)
    return _Proof(data, again, ledger(data), None if valid is None else evaluate(again, valid).correct)


def _receipt(
    stage: Stage, treated: Treated, before: _Proof, after: _Proof, valid: Dataset | None, seconds: float
) -> Receipt:
    model = after.model
    layers = tuple(
        replace(layer, note=treated.layers.get(layer.name.removesuffix(".weight"), "")) for layer in after.layers
    )
    params = sum(p.numel() for p in model.parameters())
    return Receipt(
        stage=repr(stage),
        params=params,
        nonzero=sum(int(p.count_nonzero()) for p in model.parameters()),
        bits_before=before.bits,
        bits_after=after.bits,
        dense_bytes=4 * params,
        file_bytes=len(after.data),
        correct_before=before.correct,
        correct_after=after.correct,
        total=len(valid) if valid is not None else None,
        milliseconds=_milliseconds(model),
        seconds=round(seconds, 3),
        layers=layers,
        untreated=dict(treated.untreated),
    )


@torch.no_grad()
def _milliseconds(model: nn.Module) -> float:
    image_NCHW = torch.zeros(1, *origin(model).image)
    times = []
    for _ in range(_TIMED):
        began = time.perf_counter()
        model(image_NCHW)
        times.append(time.perf_counter() - began)
    return round(1e3 * statistics.median(times), 3)
