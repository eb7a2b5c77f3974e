"""The source file of a network in plain C, step by step."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from zoo.errors import ExportError
from zoo.interop.operators import (
    Add,
    AveragePool,
    Concat,
    Convolution,
    Flatten,
    Function,
    GlobalAverage,
    Linear,
    MaxPool,
    PadChannels,
    Subsample,
)
from zoo.interop.plain_c.planner import Plan, parts, plan
from zoo.interop.plain_c.text import array, c_string, wrapped
from zoo.interop.quantized import Grid, QuantizedNetwork, Step, Value

KERNELS = Path(__file__).parent / "kernels"
#         in the order of the file: a kernel uses those above it
ORDER = (
    *("numbers", "look_up_pixels", "convolve", "connect", "window", "pool_largest", "pool_average", "average_maps"),
    *("add", "look_up", "copy", "fill", "subsample", "widen"),
)
LARGEST_SUM = 2**31 - 1

Field = int | str | Mapping[str, int]


@dataclass(frozen=True)
class Source:
    """text: of the file. weight_bytes: of weights and biases."""

    text: str
    arena_bytes: int
    weight_bytes: int


def source_text(
    network: QuantizedNetwork, name: str, classes: Sequence[str], mean: Sequence[float], std: Sequence[float]
) -> Source:
    """The source file. name: what all its names begin with. Raises ExportError naming what C cannot express."""
    writer = _Writer(network)
    channels, height, width = network.image
    writer.use("look_up_pixels")
    writer.data.append(array("pixel_codes", network.pixel_codes(mean, std).flatten()))
    writer.calls.append(
        f"look_up_pixels(pixel_codes, {channels}, {height * width}, image, {writer.at(network.input)});"
    )
    for step in network.steps:
        writer.step(step)
    if not is_wide(network.output.grid):
        writer.use("widen")
        writer.calls.append(f"widen({prod(network.output.shape)}, {writer.at(network.output)}, logits);")
    kernels = [(KERNELS / f"{kernel}.c").read_text() for kernel in ORDER if kernel in writer.kernels]
    strings = ",\n".join(f"    {c_string(one)}" for one in classes)
    macro = name.upper()
    functions = (
        f"static uint8_t arena[{macro}_ARENA_BYTES];",
        f"const char *const {name}_classes[{macro}_CLASSES] = {{\n{strings},\n}};",
        f"uint8_t *{name}_image(void)\n{{\n    return {writer.at(network.input)};\n}}",
        f"void {name}_run(const uint8_t image[{macro}_IMAGE_BYTES], int16_t logits[{macro}_CLASSES])\n{{\n"
        + "".join(f"    {call}\n" for call in writer.calls)
        + "}",
    )
    text = "\n".join((f'#include "{name}.h"\n', *kernels)) + "\n"
    return Source(text + "\n\n".join((*writer.data, *functions)) + "\n", writer.plan.bytes, writer.weight_bytes)


def is_wide(grid: Grid) -> bool:
    """Whether codes are the 16 bits of logits."""
    return grid.low < 0


class _Writer:
    """Constants, calls and the kernels that they need, as they gather."""

    def __init__(self, network: QuantizedNetwork) -> None:
        self.plan: Plan = plan(network)
        self.data: list[str] = []
        self.calls: list[str] = []
        self.kernels: set[str] = set()
        self.names = {step.output.name: _name(number, step) for number, step in enumerate(network.steps)}
        self.weight_bytes = 0

    def step(self, step: Step) -> None:
        """Write one step. Raises ExportError."""
        write = _STEPS.get(type(step.operator))
        if write is None:
            raise ExportError(
                f"plain C has no {type(step.operator).__name__}, which the layer {step.layer} needs; "
                f"it has {', '.join(sorted(kind.__name__ for kind in _STEPS))}."
            )
        write(self, step)

    def use(self, *kernels: str) -> None:
        self.kernels.update(kernels)

    def at(self, value: Value, within: int = 0) -> str:
        """Where a value, or what follows so many bytes after its begin, lies."""
        return f"arena + {self.plan.offsets[value.name] + within}"

    def target(self, value: Value) -> str:
        """The `target` of a kernel that can write logits."""
        if is_wide(value.grid):
            return "(target){.logits = logits}"
        return f"(target){{.codes = {self.at(value)}}}"

    def describe(self, kind: str, step: Step, fields: Mapping[str, Field]) -> str:
        """Write the descriptor of a step; returns its name."""
        words = []
        for field, value in fields.items():
            if isinstance(value, Mapping):
                value = "{" + ", ".join(f".{key} = {number}" for key, number in value.items()) + "}"
            words.append(f".{field} = {value}")
        name = self.names[step.output.name]
        self.data.append(f"static const {kind} {name} = {{\n{wrapped(words)}\n}};")
        return name

    def weights(self, step: Step) -> dict[str, Field]:
        """Write the weights of a step; returns the fields of its descriptor that name them."""
        assert step.weights is not None
        weights, rescale, name = step.weights, step.rescales[0], self.names[step.output.name]
        _check_sums(step)
        named = {
            "weights": weights.codes.flatten(),
            "multipliers": rescale.multipliers.int(),
            "shifts": rescale.shifts.byte(),
        }
        self.weight_bytes += weights.codes.numel()
        if bool(weights.bias.any()):
            named["bias"] = weights.bias
            self.weight_bytes += 4 * len(weights.bias)
        self.data.extend(array(f"{name}_{part}", values) for part, values in named.items())
        return {part: f"{name}_{part}" for part in named}


def _name(number: int, step: Step) -> str:
    """What the constants of a step are called: the number keeps apart what is called alike."""
    path = re.sub(r"[^A-Za-z0-9]+", "_", step.layer.partition(" (")[0]).strip("_")
    return f"layer{number}_{path}"


def _check_sums(step: Step) -> None:
    """Raise ExportError for a step whose sums of products may not fit 32 bits."""
    assert step.weights is not None
    grid = step.inputs[0].grid
    largest = max(grid.high - grid.zero, grid.zero - grid.low)
    sums = step.weights.codes.long().abs().flatten(1).sum(1) * largest + step.weights.bias.long().abs()
    if int(sums.max()) > LARGEST_SUM:
        raise ExportError(
            f"the sums of the layer {step.layer} may reach {int(sums.max()):,} and 32 bits hold {LARGEST_SUM:,}; "
            "export with --format int8 instead."
        )


def _limits(step: Step) -> dict[str, int]:
    return {"zero": step.output.grid.zero, "low": step.clamp[0], "high": step.clamp[1]}


def _convolution(writer: _Writer, step: Step) -> None:
    operator = step.operator
    assert isinstance(operator, Convolution)
    assert step.weights is not None
    kernel = (step.weights.codes.shape[2], step.weights.codes.shape[3])
    fields: dict[str, Field] = dict(zip(("channels", "height", "width"), step.inputs[0].shape, strict=True))
    fields |= dict(zip(("filters", "rows", "columns"), step.output.shape, strict=True))
    fields |= _window(kernel, operator.stride, operator.padding)
    fields |= {"groups": operator.groups, "zero": step.inputs[0].grid.zero}
    fields |= writer.weights(step) | {"limits": _limits(step)}
    writer.use("numbers", "convolve")
    name = writer.describe("convolution", step, fields)
    writer.calls.append(f"convolve(&{name}, {writer.at(step.inputs[0])}, {writer.target(step.output)});")


def _linear(writer: _Writer, step: Step) -> None:
    source = step.inputs[0]
    fields: dict[str, Field] = {"inputs": prod(source.shape), "outputs": prod(step.output.shape)}
    fields |= {"zero": source.grid.zero} | writer.weights(step) | {"limits": _limits(step)}
    writer.use("numbers", "connect")
    name = writer.describe("linear", step, fields)
    writer.calls.append(f"connect(&{name}, {writer.at(source)}, {writer.target(step.output)});")


def _pooling(writer: _Writer, step: Step) -> None:
    operator, source = step.operator, step.inputs[0]
    assert isinstance(operator, MaxPool | AveragePool)
    fields: dict[str, Field] = dict(zip(("channels", "height", "width"), source.shape, strict=True))
    fields |= {"rows": step.output.shape[1], "columns": step.output.shape[2]}
    fields |= _window(operator.kernel, operator.stride, operator.padding)
    kernel = "pool_largest"
    if isinstance(operator, AveragePool):
        kernel = "pool_average"
        fields |= {"zero": source.grid.zero, "count_padding": int(operator.count_padding)}
    writer.use("window", kernel)
    name = writer.describe("pooling", step, fields)
    writer.calls.append(f"{kernel}(&{name}, {writer.at(source)}, {writer.at(step.output)});")


def _window(kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> dict[str, Field]:
    names = ("kernel_height", "kernel_width", "stride_y", "stride_x", "pad_y", "pad_x")
    return dict(zip(names, (*kernel, *stride, *padding), strict=True))


def _global_average(writer: _Writer, step: Step) -> None:
    source, rescale = step.inputs[0], step.rescales[0]
    fields: dict[str, Field] = {"channels": source.shape[0], "area": prod(source.shape[1:]), "zero": source.grid.zero}
    fields |= {"multiplier": int(rescale.multipliers), "shift": int(rescale.shifts), "limits": _limits(step)}
    writer.use("numbers", "average_maps")
    name = writer.describe("averaging", step, fields)
    writer.calls.append(f"average_maps(&{name}, {writer.at(source)}, {writer.target(step.output)});")


def _add(writer: _Writer, step: Step) -> None:
    (one, other), multipliers = step.inputs, [int(rescale.multipliers) for rescale in step.rescales]
    if max(multipliers) > LARGEST_SUM:
        raise ExportError(
            f"the layer {step.layer} adds values whose scales differ by more than 32 bits hold; "
            "export with --format int8 instead."
        )
    fields: dict[str, Field] = {"size": prod(step.output.shape)}
    fields |= {"zero": one.grid.zero, "multiplier": multipliers[0]}
    fields |= {"other_zero": other.grid.zero, "other_multiplier": multipliers[1]}
    fields |= {"shift": int(step.rescales[0].shifts), "limits": _limits(step)}
    writer.use("numbers", "add")
    name = writer.describe("addition", step, fields)
    call = f"add(&{name}, {writer.at(one)}, {writer.at(other)}, {writer.target(step.output)});"
    writer.calls.append(call)


def _concat(writer: _Writer, step: Step) -> None:
    """Only what does not lie there already."""
    for value, within in parts(step):
        source, output = writer.at(value), writer.at(step.output, within)
        if source != output:
            writer.use("copy")
            writer.calls.append(f"copy({prod(value.shape)}, {source}, {output});")


def _flatten(writer: _Writer, step: Step) -> None:
    """The same bytes."""


def _subsample(writer: _Writer, step: Step) -> None:
    operator, source = step.operator, step.inputs[0]
    assert isinstance(operator, Subsample)
    sizes = ", ".join(map(str, (*source.shape, *operator.step)))
    writer.use("subsample")
    writer.calls.append(f"subsample({sizes}, {writer.at(source)}, {writer.at(step.output)});")


def _pad_channels(writer: _Writer, step: Step) -> None:
    operator, source = step.operator, step.inputs[0]
    assert isinstance(operator, PadChannels)
    area, size, zero = prod(source.shape[1:]), prod(source.shape), source.grid.zero
    writer.use("fill", "copy")
    begin, end = operator.before * area, operator.after * area
    writer.calls.append(f"fill({begin}, {zero}, {writer.at(step.output)});")
    writer.calls.append(f"copy({size}, {writer.at(source)}, {writer.at(step.output, begin)});")
    writer.calls.append(f"fill({end}, {zero}, {writer.at(step.output, begin + size)});")


def _function(writer: _Writer, step: Step) -> None:
    assert step.table is not None
    name = f"{writer.names[step.output.name]}_table"
    writer.data.append(array(name, step.table))
    writer.use("look_up")
    sizes, source, output = prod(step.output.shape), writer.at(step.inputs[0]), writer.at(step.output)
    writer.calls.append(f"look_up({name}, {sizes}, {source}, {output});")


_STEPS: dict[type, Callable[[_Writer, Step], None]] = {
    Add: _add,
    AveragePool: _pooling,
    Concat: _concat,
    Convolution: _convolution,
    Flatten: _flatten,
    Function: _function,
    GlobalAverage: _global_average,
    Linear: _linear,
    MaxPool: _pooling,
    PadChannels: _pad_channels,
    Subsample: _subsample,
}
