"""One forward pass as a list of aten operators in order, and what follows from it: liveness, bytes, weights read.

A TorchDispatchMode sees every operator after composite ones were taken apart, whatever the Python code around it looks
like, and names memory by storage, so that views and in-place results share it without further bookkeeping.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from zoo.cost.counters import operator_macs
from zoo.cost.weights import Weight, bits_of_form, owner, storage, weights_of

FULL_BITS = 32

# Positions of the two operands of a matrix operator, its weight (if any) among them; fused attention has no such pair.
OPERANDS = dict.fromkeys(("convolution", "mm", "bmm", "mv", "dot"), (0, 1)) | {"addmm": (1, 2), "baddbmm": (1, 2)}
BATCH_NORMS = ("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm", "miopen_batch_norm")
RECTIFIERS = frozenset(("relu", "hardtanh", "clamp", "clamp_min", "clamp_max", "leaky_relu", "_prelu_kernel", "elu"))
ACTIVATIONS = RECTIFIERS | {
    "sigmoid",
    "hardsigmoid",
    "tanh",
    "silu",
    "hardswish",
    "gelu",
    "mish",
    "celu",
    "selu",
    "sign",
}


@dataclass(frozen=True)
class Step:
    """One operator. reads, writes: storages, in order of the arguments; of the writes only those of floating point.

    layer: qualified name of the module that calls it. macs: None unless it is a matrix operator, and so are
    effective_macs, training_macs, bit_operations and winograd, as `Cost` defines them. weight: storage of its weight
    operand. norm_channels: channels, if it is a batch norm with fixed statistics, else 0.
    """

    operator: str
    layer: str
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    output_shape: tuple[int, ...]
    macs: int | None = None
    effective_macs: int = 0
    training_macs: int = 0
    bit_operations: int = 0
    winograd: tuple[int, int] = (0, 0)
    weight: int | None = None
    norm_channels: int = 0


@dataclass(frozen=True)
class Trace:
    """All steps; `elements` of each storage made from the image; storages of image and outputs; weights read, by one
    of their storages.
    """

    steps: tuple[Step, ...]
    elements: dict[int, int]
    image: int
    outputs: frozenset[int]
    weights: Mapping[int, Weight]

    @property
    def read(self) -> frozenset[int]:
        """Every storage that some operator reads."""
        return frozenset(s for step in self.steps for s in step.reads)


class _Recorder(TorchDispatchMode):
    """Appends a Step for each operator. Storages are kept until the end, so that no name is given a second time."""

    def __init__(self, model: nn.Module, batch: Tensor) -> None:
        super().__init__()
        self.calls: list[tuple[str, nn.Module]] = [("", model)]
        self.steps: list[Step] = []
        self.elements = {storage(batch): batch.numel()}
        self.learned = {storage(p) for p in model.parameters()}
        self.kept: list[Any] = []
        self.nonzero: dict[tuple[int, int, int], int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        inputs = list(_tensors((args, kwargs)))
        outputs = list(_tensors(output))
        self.kept += [t.untyped_storage() for t in inputs + outputs]
        if not outputs:
            return output
        reads = tuple(storage(t) for t in inputs)
        if self.learned.intersection(reads):
            self.learned.update(storage(t) for t in outputs)
        if any(s in self.elements for s in reads):
            for t in outputs:
                if t.is_floating_point():
                    self.elements.setdefault(storage(t), t.untyped_storage().nbytes() // t.element_size())
        self.steps.append(self._step(func._overloadpacket, args, kwargs, output, reads, outputs))
        return output

    def _step(
        self, packet: Any, args: Any, kwargs: dict[str, Any], output: Any, reads: tuple[int, ...], outputs: list[Tensor]
    ) -> Step:
        name = packet.__name__
        writes = tuple(storage(t) for t in outputs if t.is_floating_point())
        shape = tuple(outputs[0].shape)
        layer = self.calls[-1][0]
        macs = operator_macs(packet, args, kwargs, output)
        if macs is None:
            fixed = name in BATCH_NORMS and storage(args[0]) in self.elements and (len(args) < 8 or args[5] is False)
            return Step(name, layer, reads, writes, shape, norm_channels=args[0].shape[1] if fixed else 0)
        operands = [args[p] for p in OPERANDS.get(name, ())]
        weight = next((t for t in reversed(operands) if storage(t) not in self.elements), None)
        effective = macs if weight is None else macs * self._count_nonzero(weight) // weight.numel()
        gradients = sum(storage(t) in self.learned for t in operands)
        if not operands and self.learned.intersection(reads):
            gradients = 2
        bits = self._declared("weight_bits") * self._declared("activation_bits")
        source = None if weight is None else storage(weight)
        filtering = winograd_multiplications(name, args, shape, macs)
        training = macs * (1 + gradients)
        return Step(name, layer, reads, writes, shape, macs, effective, training, macs * bits, filtering, source)

    def _count_nonzero(self, weight: Tensor) -> int:
        key = (storage(weight), int(weight.storage_offset()), weight.numel())
        if key not in self.nonzero:
            self.nonzero[key] = int(weight.count_nonzero())
        return self.nonzero[key]

    def _declared(self, attribute: str) -> int:
        """What the innermost module around the call declares."""
        for _, module in reversed(self.calls):
            bits = getattr(module, attribute, None)
            if bits is None and attribute == "weight_bits":
                bits = bits_of_form(module)
            if isinstance(bits, int):
                return bits
        return FULL_BITS


def trace(model: nn.Module, batch: Tensor) -> Trace:
    """Run `model` once on `batch` [1, C, H, W], recording; `model` is in eval mode and gradients are off."""
    recorder = _Recorder(model, batch)
    with _calls_followed(model, recorder.calls), recorder:
        output = model(batch)
    returned = frozenset(storage(t) for t in _tensors(output))
    read = {s for step in recorder.steps for s in step.reads}
    used = [(weight, next((s for s in weight.storages if s in read), None)) for weight in weights_of(model)]
    weights = {source: weight for weight, source in used if source is not None}
    return Trace(tuple(recorder.steps), recorder.elements, storage(batch), returned, weights)


def winograd_multiplications(operator: str, args: Any, shape: tuple[int, ...], macs: int) -> tuple[int, int]:
    """Multiplications with F(2x2, 3x3) and with F(4x4, 3x3); `macs` for all but 3x3 convolutions of stride 1."""
    if operator != "convolution":
        return macs, macs
    weight, strides, dilations, transposed = args[1], args[3], args[5], args[6]
    if tuple(weight.shape[2:]) != (3, 3) or {*strides, *dilations} != {1} or transposed:
        return macs, macs
    filters, height, width = shape[-3:]
    tiles = ((size, -(-height // size) * -(-width // size)) for size in (2, 4))
    small, large = (filters * weight.shape[1] * count * (size + 2) ** 2 for size, count in tiles)
    return small, large


def peak_elements(trace: Trace, *, deployed: bool) -> tuple[int, str]:
    """Most elements of activations alive at one operator, and the module that calls it; definitions at `Cost`.

    deployed: batch norm and one-input activations work in place where nobody reads their input again, and the parts of
    a concatenation are made where the whole lies.
    """
    last = {trace.image: 0}
    for position, step in enumerate(trace.steps):
        last |= dict.fromkeys((*step.reads, *step.writes), position)
    last |= dict.fromkeys(trace.outputs, len(trace.steps))
    born = {trace.image: 0}
    same: dict[int, int] = {}
    for position, step in enumerate(trace.steps):
        for rank, result in enumerate(step.writes):
            if result in born or result not in trace.elements or (rank and last[result] == position):
                continue
            source = same.get(step.reads[0], step.reads[0]) if step.reads else None
            if deployed and not rank and source in born and last[source] == position and _in_place(trace, step):
                same[result] = source
                last[source] = last[result]
            born[result] = position
            if deployed and step.operator == "cat":
                _join(trace, step, same, born, last)
    change = [0] * (len(trace.steps) + 2)
    for result, position in born.items():
        if result not in same:
            change[position] += trace.elements[result]
            change[last[result] + 1] -= trace.elements[result]
    most, alive, where = trace.elements[trace.image], 0, ""
    for step, difference in zip(trace.steps, change, strict=False):
        alive += difference
        if alive > most:
            most, where = alive, step.layer
    return most, where


def _join(trace: Trace, step: Step, same: dict[int, int], born: dict[int, int], last: dict[int, int]) -> None:
    """Let the parts of a concatenation lie in the whole, which is alive from the first of them to the last reader."""
    whole = step.writes[0]
    parts = [same.get(part, part) for part in step.reads]
    if sum(trace.elements.get(part, 0) for part in set(parts)) != trace.elements[whole]:
        return
    for part in parts:
        if part in born:
            born[whole] = min(born[whole], born.pop(part))
            last[whole] = max(last[whole], last[part])


def flash_bytes(trace: Trace) -> int:
    """Bytes of the network in flash by the embedded convention; definition at `Cost`."""
    norms = {frozenset(trace.weights.keys() & set(s.reads)) or s.layer: s for s in trace.steps if s.norm_channels}
    in_norms = {s for step in norms.values() for s in step.reads}
    plain = [weight.tensor for source, weight in trace.weights.items() if source not in in_norms]
    makers = {step.writes[0]: step for step in trace.steps if step.weight is not None}
    calls = Counter(step.weight for step in makers.values())
    readers = Counter(s for step in trace.steps for s in set(step.reads))
    total = sum(p.numel() * (1 if p.dim() >= 2 else 4) for p in plain)
    for step in norms.values():
        maker = makers.get(step.reads[0])
        if maker is None or calls[maker.weight] > 1 or readers[step.reads[0]] > 1:
            total += 8 * step.norm_channels
        elif (
            len(maker.reads) == 2
        ):  # input and weight: the fold gives it a bias; with three it has one, counted already
            total += 4 * step.norm_channels
    return total


def _in_place(trace: Trace, step: Step) -> bool:
    """Whether a deployed operator can write over its input: elementwise, and the input is all of its memory."""
    elementwise = step.norm_channels > 0 or step.operator in ACTIVATIONS
    return elementwise and trace.elements[step.reads[0]] == trace.elements[step.writes[0]]


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in nested lists, tuples and dictionaries, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)


@contextmanager
def _calls_followed(model: nn.Module, calls: list[tuple[str, nn.Module]]) -> Iterator[None]:
    """While open, `calls` ends with the (qualified name, module) that is running."""
    with ExitStack() as stack:
        for name, module in model.named_modules():
            if not name:
                continue
            entry = (owner(name), module)
            begin = module.register_forward_pre_hook(lambda _m, _x, e=entry: calls.append(e), prepend=True)
            end = module.register_forward_hook(lambda _m, _x, _y: _drop_last(calls), always_call=True)
            stack.callback(begin.remove)
            stack.callback(end.remove)
        yield


def _drop_last(calls: list[tuple[str, nn.Module]]) -> None:
    calls.pop()
