"""The model to be measured: what can be measured, and how it is left as it was."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import ImageSizeError, ZooError
from zoo.registry import Image

HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)


def plain_model(model: nn.Module) -> nn.Module:
    """The network itself, out of the wrappers of torch.compile and data parallel training.

    Raises ZooError for models whose operators cannot be seen: scripted, quantized by torch.ao, partly compiled, lazy.
    """
    while True:
        inner = getattr(model, "_orig_mod", None)
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            break
        model = inner
    for name, module in model.named_modules():
        where = f"{name or 'the model'} ({type(module).__name__})"
        if isinstance(module, torch.jit.ScriptModule):
            raise ZooError(f"{where} is scripted; measure the Python model that it was made from.")
        if type(module).__module__.startswith(("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")):
            raise ZooError(
                f"{where} is quantized and hides its weights; measure the model before torch.ao quantized it."
            )
        if hasattr(module, "_orig_mod"):
            raise ZooError(f"{where} is compiled; measure the model with that module not compiled.")
    if any(nn.parameter.is_lazy(p) for p in model.parameters()):
        raise ZooError("a lazy parameter has no shape yet; pass one batch through the model, then measure it.")
    return model


def blank_image(model: nn.Module, image: Image) -> Tensor:
    """Zeros [1, C, H, W] of the model's own device and dtype. Raises ImageSizeError if `image` is not (C, H, W)."""
    if len(image) != 3 or not all(isinstance(n, int) and n >= 1 for n in image):
        raise ImageSizeError(f"image={image!r} was given; it must be (channels, height, width), each at least 1.")
    floating = [t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()]
    like = floating[0] if floating else torch.empty(0)
    return torch.zeros(1, *image, dtype=like.dtype, device=like.device)


@contextmanager
def image_fits(model: nn.Module, image: Image) -> Iterator[None]:
    """Turns what a forward pass inside raises over its input into an ImageSizeError."""
    try:
        yield
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise ImageSizeError(
            f"an image of {tuple(image)} does not pass through {type(model).__name__}: {reason}. "
            "Give the (channels, height, width) that the model was built for."
        ) from error


@contextmanager
def left_as_it_was(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients or compiled calls inside; afterwards mode, buffers, hooks, random state as before.

    The fused attention of eval mode is off inside: it hides its matrix products from both counters. No parameter asks
    for a gradient inside: torch.utils.flop_counter hangs hooks on those that do, and fails where gradients are off. A
    module whose class says what it `counts_as` is of that class inside: another way to compute the same.
    """
    modules = list(model.modules())
    trained = [p for p in model.parameters() if p.requires_grad]
    modes = [m.training for m in modules]
    compiled = [m._compiled_call_impl for m in modules]
    buffers = [dict(m._buffers) for m in modules]
    values = {id(b): b.clone() for held in buffers for b in held.values() if b is not None}
    hooks = [{kind: set(getattr(m, kind)) for kind in HOOKS} for m in modules]
    fused_attention = torch.backends.mha.get_fastpath_enabled()
    stand_ins: list[tuple[nn.Module, Any]] = [(m, type(m)) for m in modules if hasattr(type(m), "counts_as")]
    cuda = {t.device for t in (*model.parameters(), *model.buffers()) if t.device.type == "cuda"}
    with torch.no_grad(), torch.random.fork_rng(devices=sorted(cuda, key=str), device_type="cuda"):
        try:
            model.eval()
            model.requires_grad_(False)
            for module in modules:
                module._compiled_call_impl = None
            torch.backends.mha.set_fastpath_enabled(False)
            for module, kind in stand_ins:
                module.__class__ = kind.counts_as
            yield
        finally:
            for module, kind in stand_ins:
                module.__class__ = kind
            torch.backends.mha.set_fastpath_enabled(fused_attention)
            for parameter in trained:
                parameter.requires_grad_(True)
            for module, mode, call, held, before in zip(modules, modes, compiled, buffers, hooks, strict=True):
                module.training = mode
                module._compiled_call_impl = call
                _restore_buffers(module, held, values)
                for kind, known in before.items():
                    registered = getattr(module, kind)
                    for key in [k for k in registered if k not in known]:
                        del registered[key]


def _restore_buffers(module: nn.Module, held: dict[str, Tensor | None], values: dict[int, Tensor]) -> None:
    module._buffers.clear()
    module._buffers.update(held)
    for buffer in held.values():
        if buffer is not None and not buffer.is_meta and not torch.equal(buffer, values[id(buffer)]):
            buffer.copy_(values[id(buffer)])
