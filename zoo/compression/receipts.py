"""Receipts: what a stage did, in figures that a counter finds again in the file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from zoo.files import write_atomically

FORMAT = "zoo-receipts-1"


@dataclass(frozen=True)
class LayerReceipt:
    """One tensor of a file.

    values, nonzero: counted on the tensor that the file gives back. form, coder: how it is stored. alphabet: how many
    different codes there are; 0 where the values themselves are stored. index_bytes: of the positions of what is not
    zero; 0 where zeros are coded among the other codes. code_bytes: of the codes. float_bytes: of values, codebook or
    scales. file_bytes: of all that, and of the few bytes that say how to read it. note: what the stage says it did.
    """

    name: str
    shape: tuple[int, ...]
    values: int
    nonzero: int
    form: str
    coder: str
    alphabet: int
    index_bytes: int
    code_bytes: int
    float_bytes: int
    file_bytes: int
    note: str = ""

    @property
    def density(self) -> float:
        """Share of the values that are not zero."""
        return self.nonzero / self.values

    @property
    def bits_a_value(self) -> float:
        """Stored bits for each value, zeros counted."""
        return 8 * self.file_bytes / self.values


@dataclass(frozen=True)
class Receipt:
    """One stage of a pipeline.

    params, nonzero: of the network as it is after the stage. bits_before, bits_after: of its tensors in the file.
    dense_bytes: of its parameters in fp32. file_bytes: of the whole file after the stage. correct_before,
    correct_after, total: on the images given for validation, of what the file gives back; None without any.
    milliseconds: median time of one image on this CPU, a figure for orientation. seconds: that the stage took.
    untreated: what the method could not treat, and why.
    """

    stage: str
    params: int
    nonzero: int
    bits_before: int
    bits_after: int
    dense_bytes: int
    file_bytes: int
    correct_before: int | None
    correct_after: int | None
    total: int | None
    milliseconds: float
    seconds: float
    layers: tuple[LayerReceipt, ...]
    untreated: Mapping[str, str]

    @property
    def top1_before(self) -> float | None:
        """A share; None where nothing was scored."""
        return self.correct_before / self.total if self.total and self.correct_before is not None else None

    @property
    def top1_after(self) -> float | None:
        """A share; None where nothing was scored."""
        return self.correct_after / self.total if self.total and self.correct_after is not None else None


def write_receipts(path: str | Path, receipts: Sequence[Receipt]) -> None:
    """Keep receipts as JSON, atomically."""
    content = {"format": FORMAT, "receipts": [asdict(receipt) for receipt in receipts]}
    write_atomically(path, json.dumps(content, indent=1) + "\n")
