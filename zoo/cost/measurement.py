"""measure(): one model in, one Cost out, the model as it was."""

from dataclasses import replace

from torch import Tensor, nn
from torch.nn.utils import parametrize

from zoo.cost.counters import count_with_fvcore, require_fvcore
from zoo.cost.records import Cost, LayerCost, Unsupported
from zoo.cost.subject import blank_image, image_fits, left_as_it_was, plain_model
from zoo.cost.trace import Trace, flash_bytes, peak_elements, trace
from zoo.cost.weights import storage, weights_of
from zoo.errors import ZooError
from zoo.registry import Image

UNSEEN = "seen by torch.utils.flop_counter alone"


def measure(model: nn.Module, image: Image) -> Cost:
    """Count what `model` costs for one image (channels, height, width), on its own device and in its own dtype.

    Mode, buffers, hooks and random state are as before afterwards; hooks of the caller's own do run.
    Raises MissingPackageError without fvcore, ImageSizeError for an image that does not pass through, and ZooError for
    a model without values (meta device) or whose operators cannot be seen (scripted, quantized, partly compiled).
    """
    require_fvcore()
    model = plain_model(model)
    if any(t.is_meta for t in (*model.parameters(), *model.buffers())):
        raise ZooError(
            "the model is on the meta device and has no values to count; build it on a CPU, then measure it."
        )
    batch = blank_image(model, image)
    with left_as_it_was(model):
        with image_fits(model, image):
            seen = trace(model, batch)
        try:
            counted = count_with_fvcore(model, batch)
        except RuntimeError as error:
            raise ZooError(
                f"fvcore cannot trace {type(model).__name__}: {error}. zoo.cost.count_macs counts it without fvcore."
            ) from error
        return _cost(model, image, seen, counted.macs, counted.total, counted.unsupported)


def _cost(
    model: nn.Module, image: Image, seen: Trace, macs: int, total: int | None, unsupported: dict[str, Unsupported]
) -> Cost:
    layers = _by_layer(model, seen)
    matrix = [step for step in seen.steps if step.macs is not None]
    unseen = sum(row.macs for row in layers) - macs
    if unseen > 0:
        unsupported = unsupported | {UNSEEN: Unsupported(1, unseen)}
    peak, peak_layer = peak_elements(seen, deployed=False)
    weights = weights_of(model)
    used = list(seen.weights.values())
    behind = {s for weight in weights for s in weight.storages}
    buffers = [b for b in model.buffers() if storage(b) in seen.read - behind]
    channels, height, width = image
    return Cost(
        image=(channels, height, width),
        params=sum(weight.tensor.numel() for weight in weights),
        params_used=sum(weight.tensor.numel() for weight in used),
        nonzero_params=sum(row.nonzero_params for row in layers),
        macs=macs,
        fvcore_total=total,
        effective_macs=sum(step.effective_macs for step in matrix),
        training_macs=sum(step.training_macs for step in matrix),
        bit_operations=sum(step.bit_operations for step in matrix),
        winograd_2x2_multiplications=sum(step.winograd[0] for step in matrix),
        winograd_4x4_multiplications=sum(step.winograd[1] for step in matrix),
        activations=sum(row.activations for row in layers),
        peak_activation_bytes=4 * peak,
        peak_layer=peak_layer,
        peak_activation_bytes_int8=peak_elements(seen, deployed=True)[0],
        weight_bytes=sum(_fp32_bytes(t) for t in (*(weight.tensor for weight in used), *buffers)),
        flash_bytes=flash_bytes(seen),
        by_layer=layers,
        unsupported=unsupported,
        uncalled=_uncalled(model, seen),
    )


def _fp32_bytes(tensor: Tensor) -> int:
    return tensor.numel() * (4 if tensor.is_floating_point() else tensor.element_size())


def _by_layer(model: nn.Module, seen: Trace) -> tuple[LayerCost, ...]:
    """One row for each module that runs a matrix operator or holds parameters read, in order of the first call."""
    modules = dict(model.named_modules())
    rows: dict[str, LayerCost] = {}
    settled: set[str] = set()
    for step in seen.steps:
        row = rows.get(step.layer) or _row(step.layer, modules)
        if step.macs is not None:
            activations = row.activations + _count(step.output_shape)
            row = replace(row, output_shape=step.output_shape, macs=row.macs + step.macs, activations=activations)
            settled.add(step.layer)
        elif step.layer not in settled:
            row = replace(row, output_shape=step.output_shape)
        rows[step.layer] = row
    for weight in seen.weights.values():
        row = rows.get(weight.layer) or _row(weight.layer, modules)
        nonzero = row.nonzero_params + int(weight.tensor.count_nonzero())
        rows[weight.layer] = replace(row, params=row.params + weight.tensor.numel(), nonzero_params=nonzero)
    return tuple(row for row in rows.values() if row.macs or row.params)


def _row(name: str, modules: dict[str, nn.Module]) -> LayerCost:
    kind = parametrize.type_before_parametrizations(modules[name]).__name__
    return LayerCost(name, kind, output_shape=(), params=0, macs=0, activations=0, nonzero_params=0)


def _count(shape: tuple[int, ...]) -> int:
    elements = 1
    for size in shape:
        elements *= size
    return elements


def _uncalled(model: nn.Module, seen: Trace) -> tuple[str, ...]:
    held = {name: list(module.parameters(recurse=False)) for name, module in model.named_modules()}
    return tuple(n for n, own in held.items() if own and not any(storage(p) in seen.read for p in own))
