"""The tracer: runs a network once and follows every channel from the layer that makes it to the layers that read it.

It works on the operators below PyTorch's Python surface, so that any model will do. What it does not understand
freezes the channels that it touches and is told in `untreated`; nothing is assumed.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

from zoo.compression.structured import rules
from zoo.compression.structured.labels import FROZEN, Classes, MismatchError
from zoo.cost.subject import blank_image, image_fits, left_as_it_was
from zoo.registry import Image


@dataclass(frozen=True)
class Layer:
    """A layer that can be made smaller, with the label of each of its input and output channels (or columns and rows).

    kind: "dense" (convolution or linear layer that mixes all inputs), "grouped", "depthwise" (each output has the label
    of its input) or "norm" (outputs = inputs). macs: of all its calls for one image.
    """

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    macs: int


@dataclass(frozen=True)
class Event:
    """An operator that pins the channels it touches. layer: where it was called."""

    layer: str
    reason: str
    labels: tuple[int, ...]


class Tracer(TorchDispatchMode):
    """Follows labels through one forward pass.

    With `known`, the layers expected of a smaller network and their classes, sealed, it checks instead of learning:
    whatever does not arrive as expected raises MismatchError.
    """

    def __init__(self, model: nn.Module, classes: Classes, known: Mapping[str, Layer] | None = None) -> None:
        super().__init__()
        self.classes = classes
        self.known = known
        self.layers: dict[str, Layer] = {}
        self.events: list[Event] = []
        self.labels: dict[int, Tensor] = {}
        self.kept: list[Tensor] = []
        self.running: list[tuple[str, int]] = [("", 0)]  # names of the modules under way, and identity of their input
        self.blocks: list[str] = []
        self.names = {module: name for name, module in model.named_modules()}
        self.owners = _owners(model)
        self.latest: Tensor | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = [t for t in rules.tensors((args, kwargs or {})) if self.of(t) is not None]
        try:
            output = func(*args, **(kwargs or {}))
        except RuntimeError as error:
            if self.known is None:
                raise
            raise MismatchError(self._all(inputs), str(error).splitlines()[0]) from error
        if inputs:
            name = func._overloadpacket.__name__
            rules.follow(self, name, func, args, kwargs or {}, output)
            self._note_skip(name, args)
        return output

    def of(self, tensor: Any) -> Tensor | None:
        """The labels of a tensor; None where it does not stem from the image."""
        return self.labels.get(id(tensor)) if isinstance(tensor, Tensor) else None

    def give(self, tensor: Tensor, labels: Tensor) -> None:
        """Label a tensor; it is kept alive, so that its identity is given once."""
        self.labels[id(tensor)] = labels
        self.kept.append(tensor)
        self.latest = tensor

    def pin(self, labels: Tensor, reason: str) -> None:
        """Channels that have to stay, and why."""
        if self.known is None:
            self.events.append(Event(self.running[-1][0], reason, tuple(labels.unique().tolist())))
        elif free := self.classes.free(labels):
            raise MismatchError(free, reason)

    def parameter_owner(self, tensor: Any) -> tuple[str, nn.Module] | None:
        """The module whose weight, or running mean, this tensor is, whole; None for slices and computed weights."""
        if not isinstance(tensor, Tensor):
            return None
        owner = self.owners.get(tensor.untyped_storage()._cdata)
        if owner is None:
            return None
        name, module, numel = owner
        return (name, module) if tensor.numel() == numel else None

    def meet(self, name: str, kind: str, inputs: Tensor, outputs: int, macs: int) -> Tensor:
        """A layer is called with these input labels [in]; returns the labels of its outputs [outputs]."""
        inputs = inputs.clone()
        before = self.layers.get(name)
        if before is not None:
            self.classes.join(torch.tensor(before.inputs), inputs)
            self.layers[name] = Layer(before.kind, before.inputs, before.outputs, before.macs + macs)
            return torch.tensor(before.outputs)
        if self.known is not None:
            expected = self.known.get(name)
            if expected is None or expected.inputs != tuple(inputs.tolist()):
                raise MismatchError(inputs.tolist(), f"{name} does not read the channels that it was cut for")
            self.layers[name] = expected
            return torch.tensor(expected.outputs)
        mixes = kind in ("dense", "grouped")
        made = self.classes.fresh(outputs) if mixes else inputs.repeat_interleave(outputs // len(inputs))
        self.layers[name] = Layer(kind, tuple(inputs.tolist()), tuple(made.tolist()), macs)
        return made

    def _all(self, inputs: list[Tensor]) -> list[int]:
        return [label for t in inputs for label in self.labels[id(t)].unique().tolist()]

    def _note_skip(self, name: str, args: Any) -> None:
        """A sum with a running module's own input makes the innermost such module a residual block."""
        if name in ("add", "add_"):
            operands = {id(a) for a in args[:2]}
            self.blocks += [block for block, source in self.running if source in operands][-1:]


def trace(
    model: nn.Module, image: Image, classes: Classes, known: Mapping[str, Layer] | None = None
) -> tuple[Tracer, Tensor]:
    """Run a model once in eval mode on a blank image (C, H, W); (what was seen, labels of its outputs, unique).

    Auxiliary classifiers take part where the model has them. Raises ImageSizeError for an image that does not pass,
    and MismatchError with `known`.
    """
    tracer = Tracer(model, classes, known)
    batch = blank_image(model, image)
    call = getattr(model, "forward_with_auxiliary", model)
    with left_as_it_was(model), _calls_followed(tracer):
        tracer.give(batch, torch.full((1,) * batch.dim(), FROZEN))
        if known is None:
            with image_fits(model, image), tracer:
                output = call(batch)
        else:
            with tracer:
                output = _call_smaller(tracer, call, batch)
        ends = [labels for t in rules.tensors(output) if (labels := tracer.of(t)) is not None]
    return tracer, torch.cat([e.reshape(-1) for e in [torch.tensor([FROZEN]), *ends]]).unique()


def _call_smaller(tracer: Tracer, call: Any, batch: Tensor) -> Any:
    """What Python code raises on its way to an operator is a mismatch of the channels seen last."""
    try:
        return call(batch)
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        latest = tracer.latest
        labels = [] if latest is None else tracer.labels[id(latest)].unique().tolist()
        raise MismatchError(labels, str(error).splitlines()[0] if str(error) else type(error).__name__) from error


def _owners(model: nn.Module) -> dict[int, tuple[str, nn.Module, int]]:
    """Storage -> (name, module, elements) of what identifies a layer. A tensor that two modules share names neither."""
    owners: dict[int, tuple[str, nn.Module, int]] = {}
    shared: set[int] = set()
    for name, module in model.named_modules():
        for tensor in (getattr(module, "weight", None), getattr(module, "running_mean", None)):
            if isinstance(tensor, Tensor):
                key = tensor.untyped_storage()._cdata
                if key in owners:
                    shared.add(key)
                owners[key] = (name, module, tensor.numel())
    return {key: owner for key, owner in owners.items() if key not in shared}


@contextmanager
def _calls_followed(tracer: Tracer) -> Iterator[None]:
    """While open, the tracer knows which module runs, and on which tensor."""

    def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
        if module in tracer.names:
            tracer.running.append((tracer.names[module], id(args[0]) if len(args) == 1 else 0))

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        if module in tracer.names:
            tracer.running.pop()

    begin = register_module_forward_pre_hook(enter)
    end = register_module_forward_hook(leave, always_call=True)
    try:
        yield
    finally:
        begin.remove()
        end.remove()
