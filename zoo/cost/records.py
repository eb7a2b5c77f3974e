"""The figures of one network, each with its definition, and their form as JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from zoo.errors import FileFormatError


@dataclass(frozen=True)
class LayerCost:
    """One module that multiplies matrices or holds parameters in use.

    name: qualified, "" for the network itself. Operators called as functions count for the module that calls them.
    kind: the module's class.
    output_shape: of its last convolution, linear layer or matrix product, else its last operator; with a batch of 1.
    params, nonzero_params: its own parameters, without its children's; a parameter used by two modules is the first's.
    macs, activations: summed over every call.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    params: int
    macs: int
    activations: int
    nonzero_params: int


@dataclass(frozen=True)
class Unsupported:
    """An operator left out of `macs` and `fvcore_total` because no rule counts it.

    operations: a rough estimate of what its calls would add: one for each element of the larger of its first input and
        its output; for a pooling one for each output element and position of the window.
    """

    calls: int
    operations: int


@dataclass(frozen=True)
class Cost:
    """What one image costs in eval mode.

    image: (channels, height, width).
    params: elements of all parameters, each once; a compressed weight that has a form (zoo.compression.forms) counts as
        the tensor that the form stands for, however it is stored, here and in every other figure.
    params_used: of those, the ones that some operator of the forward pass reads (so without auxiliary heads).
    nonzero_params: of params_used, the elements that are not zero, seen through parametrizations (masks).
    macs: multiply-accumulates of convolutions, linear layers and matrix products, by fvcore; no bias, norm or pooling.
    fvcore_total: what fvcore counts with its default rules (adds norms, adaptive pooling, upsampling; knows no
        scaled_dot_product_attention or padding="same"); None where its own rules fail on an operator.
    effective_macs: macs without the multiplications by a weight that is zero: for each call, non-zero weights times
        the positions each is applied at. A product of two activations counts in full.
    training_macs: forward and backward, all parameters trained, auxiliary heads left out: each call once, and once more
        for each of its two operands that depends on a parameter. A layer that reads the image thus counts twice (its
        input needs no gradient), any other three times.
    bit_operations: macs times weight bits times activation bits: 32 x 32, or what the innermost module around the
        call declares in the int attributes `weight_bits` and `activation_bits`. A weight that has a form declares the
        form's bits: ceil(log2 K) for K shared values, 1 for signs.
    winograd_2x2_multiplications, winograd_4x4_multiplications: macs, with every 3x3 convolution of stride 1 computed by
        F(2x2, 3x3) or F(4x4, 3x3) (zoo.winograd): one multiplication for each input of a tile, channel and filter; the
        tiles at the edges in full.
    activations: elements that convolutions, linear layers and matrix products put out: what fvcore's
        ActivationCountAnalysis counts, and the fused attention that it does not know.
    peak_activation_bytes: the most bytes of activations alive at one operator, at 4 bytes an element. Alive are the
        image, and what is made from it, from the operator that makes it to the last that reads it; inputs and outputs
        of an operator are alive together; views and in-place results share memory. Weights, tensors made of weights
        alone, integer tensors, outputs beyond an operator's first that nobody reads, and workspace do not count.
    peak_layer: qualified name of the module whose operator reaches that peak first ("" for the network itself).
    peak_activation_bytes_int8: the same at 1 byte an element, for the network as deployed: batch norm and
        one-input activations work in place where nobody reads their input again, and the parts of a concatenation are
        made where the whole lies.
    weight_bytes: parameters and buffers that the forward pass reads; floating-point ones at 4 bytes an element.
    flash_bytes: the embedded convention: 1 byte a weight (two dimensions or more), 4 bytes a bias or other vector
        element. Batch norm that directly follows a convolution or linear layer is folded into it, which then has one
        4-byte bias an output channel; any other keeps a 4-byte scale and shift a channel.
    by_layer: in order of the first call.
    unsupported: operator name -> how often, and a rough estimate of its operations; those that only move data, and
        those that fvcore itself counts as free (ReLU, clamp), are left out.
    uncalled: modules that hold parameters of which the forward pass reads none.
    """

    image: tuple[int, int, int]
    params: int
    params_used: int
    nonzero_params: int
    macs: int
    fvcore_total: int | None
    effective_macs: int
    training_macs: int
    bit_operations: int
    winograd_2x2_multiplications: int
    winograd_4x4_multiplications: int
    activations: int
    peak_activation_bytes: int
    peak_layer: str
    peak_activation_bytes_int8: int
    weight_bytes: int
    flash_bytes: int
    by_layer: tuple[LayerCost, ...]
    unsupported: dict[str, Unsupported]
    uncalled: tuple[str, ...]

    @property
    def flops(self) -> int:
        """Floating-point operations: a multiplication and an addition for each of `macs`."""
        return 2 * self.macs

    @property
    def winograd_multiplications(self) -> dict[int, int]:
        """Multiplications by the size of the tile, 2 or 4."""
        return {2: self.winograd_2x2_multiplications, 4: self.winograd_4x4_multiplications}

    def to_dict(self) -> dict[str, Any]:
        """As plain dictionaries, lists, strings and integers, ready for JSON."""
        plain = asdict(self)
        plain["image"] = list(self.image)
        plain["by_layer"] = [row | {"output_shape": list(row["output_shape"])} for row in plain["by_layer"]]
        plain["uncalled"] = list(self.uncalled)
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "Cost":
        """The inverse of `to_dict`. Raises FileFormatError where a field is missing, unknown or of the wrong kind."""
        values = dict(_checked(plain, cls))
        channels, height, width = _integers(values["image"], "image", length=3)
        values["image"] = (channels, height, width)
        rows = [dict(_checked(row, LayerCost)) for row in _list(values["by_layer"], "by_layer")]
        values["by_layer"] = tuple(
            LayerCost(**row | {"output_shape": _integers(row["output_shape"], "output_shape")}) for row in rows
        )
        if not isinstance(values["unsupported"], Mapping):
            raise FileFormatError("unsupported must be an object.")
        values["unsupported"] = {k: Unsupported(**_checked(v, Unsupported)) for k, v in values["unsupported"].items()}
        values["uncalled"] = tuple(_list(values["uncalled"], "uncalled"))
        if not all(isinstance(name, str) for name in values["uncalled"]):
            raise FileFormatError("uncalled must list names.")
        return cls(**values)


def _checked(plain: object, record: type) -> Mapping[str, Any]:
    """`plain` if it has exactly the fields of `record`, counts being integers from 0 and texts strings."""
    declared = {field.name: field.type for field in fields(record)}
    if not isinstance(plain, Mapping) or set(plain) != set(declared):
        raise FileFormatError(f"a {record.__name__} has the fields {', '.join(declared)}, no more and no fewer.")
    for name, kind in declared.items():
        value = plain[name]
        if kind == int | None and value is None:
            continue
        if kind in (int, int | None) and not _is_count(value):
            raise FileFormatError(f"{name} of a {record.__name__} must be an integer from 0; found {value!r}.")
        if kind is str and not isinstance(value, str):
            raise FileFormatError(f"{name} of a {record.__name__} must be text; found {value!r}.")
    return plain


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _list(value: object, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise FileFormatError(f"{name} must be a list; found {value!r}.")
    return value


def _integers(value: object, name: str, *, length: int | None = None) -> tuple[int, ...]:
    numbers = _list(value, name)
    if not all(_is_count(n) for n in numbers) or length not in (None, len(numbers)):
        raise FileFormatError(f"{name} must list {length or 'the'} sizes as integers; found {value!r}.")
    return tuple(numbers)
