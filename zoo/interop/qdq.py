"""A network in whole numbers as ONNX: every value and weight between a QuantizeLinear and a DequantizeLinear node.

Runtimes replace the float operators between such pairs by integer ones ("QDQ"); one that does not know how computes the
same in floating point. Sums are rounded by the runtime, so a code may differ by one from zoo.interop.quantized's.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.interop.deployable import BATCH, INPUT, OUTPUT, normalisation
from zoo.interop.onnx import OPSET, need_onnx, write_onnx
from zoo.interop.operators import (
    CLAMPS,
    Add,
    AveragePool,
    Concat,
    Convolution,
    Function,
    GlobalAverage,
    Linear,
    MaxPool,
    Operator,
    PadChannels,
    Subsample,
)
from zoo.interop.quantized import Grid, QuantizedNetwork, Step, Value

if TYPE_CHECKING:
    import onnx

IR_VERSION = 10  # of opset 20 and onnxruntime 1.20
FUNCTION_NODES = {"relu": "Relu", "relu6": "Clip", "tanh": "Tanh"}
FUNCTION_LIMITS = {"relu6": CLAMPS["relu6"]}  # what a Clip is told


def export_int8(
    network: QuantizedNetwork,
    path: str | Path,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a network in whole numbers as ONNX, opset 20: `images` float32 [batch, C, H, W] -> `logits` float32.

    mean, std: per channel; given, the normalisation is in the graph, and `images` are uint8.
    metadata: words by name that the file carries. Raises MissingPackageError.
    """
    need_onnx()
    write_onnx(path, _Writer(network).model(mean, std), metadata or {})


class _Writer:
    """Nodes and constants as they gather. Values are known by the name of their dequantised tensor."""

    def __init__(self, network: QuantizedNetwork) -> None:
        self.network = network
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.shared: dict[Hashable, str] = {}

    def model(self, mean: Sequence[float] | None, std: Sequence[float] | None) -> "onnx.ModelProto":
        """The whole file."""
        from onnx import TensorProto, helper

        network, kind = self.network, TensorProto.FLOAT
        source = INPUT
        if mean is not None and std is not None:
            kind, source = TensorProto.UINT8, self._normalised(mean, std)
        self._rounded(source, network.input)
        for step in network.steps:
            self._step(step)
        if not _is_wide(network.output.grid):
            self._node("Identity", [network.output.name], OUTPUT)
        ends = (
            helper.make_tensor_value_info(INPUT, kind, [BATCH, *network.image]),
            helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [BATCH, *network.output.shape]),
        )
        graph = helper.make_graph(self.nodes, "network", ends[:1], ends[1:], list(self.constants.values()))
        opset = helper.make_opsetid("", OPSET)
        made: onnx.ModelProto = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
        return made

    def _normalised(self, mean: Sequence[float], std: Sequence[float]) -> str:
        """uint8 pixels to what the network was trained on."""
        from onnx import TensorProto

        scale, shift = (tensor.numpy() for tensor in normalisation(mean, std))
        self._node("Cast", [INPUT], "pixels", to=TensorProto.FLOAT)
        self._node("Mul", ["pixels", self._constant("pixel_scale", scale)], "scaled")
        return self._node("Sub", ["scaled", self._constant("pixel_shift", shift)], "normalised")

    def _step(self, step: Step) -> None:
        name = step.output.name
        inputs = [value.name for value in step.inputs]
        if step.weights is not None:
            inputs += self._weights(step)
        wide = _is_wide(step.output.grid)
        result = OUTPUT if wide and name == self.network.output.name else f"{name}_real"
        made = list(_nodes(step.operator, step))
        for number, (kind, attributes, constants) in enumerate(made):
            place = result if number == len(made) - 1 else f"{name}_{number}"
            extra = [self._shared(value) for value in constants]
            inputs = [self._node(kind, [*inputs, *extra], place, **attributes)]
        if wide:
            if result != OUTPUT:  # what comes after moves these floats on
                self._node("Identity", [result], name)
        else:
            self._rounded(result, step.output)

    def _rounded(self, source: str, value: Value) -> None:
        """Round a tensor to its codes and back."""
        grid = value.grid
        names = [self._shared(np.float32(grid.scale)), self._shared(np.uint8(grid.zero))]
        self._node("QuantizeLinear", [source, *names], f"{value.name}_codes")
        self._node("DequantizeLinear", [f"{value.name}_codes", *names], value.name)

    def _weights(self, step: Step) -> list[str]:
        """Names of the weight and the bias, as floats that stand for integers."""
        assert step.weights is not None
        name, found = step.output.name, step.weights
        layer = step.layer.partition(" ")[0]
        scales = found.scales.numpy()
        sums = (found.scales * step.inputs[0].grid.scale).numpy()
        parts = (("weight", found.codes.numpy(), scales), ("bias", found.bias.numpy(), sums))
        for part, codes, scale in parts:
            inputs = [self._constant(f"{layer}.{part}", codes), self._constant(f"{layer}.{part}.scale", scale)]
            self._node("DequantizeLinear", inputs, f"{name}_{part}", axis=0)
        return [f"{name}_weight", f"{name}_bias"]

    def _node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def _shared(self, value: "np.ndarray | np.generic") -> str:
        """A small constant, kept once for all who have the same."""
        array = np.asarray(value)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.shared:
            self.shared[key] = self._constant(f"constant_{len(self.shared)}", array)
        return self.shared[key]

    def _constant(self, name: str, value: "np.ndarray | np.generic") -> str:
        from onnx import numpy_helper

        self.constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name


def _nodes(operator: Operator, step: Step) -> Iterator[tuple[str, dict[str, Any], list[np.ndarray | np.generic]]]:
    """Kind, attributes and further constant inputs of the ONNX nodes of one operator, in order."""
    if isinstance(operator, Convolution):
        pads = [*operator.padding, *operator.padding]
        yield "Conv", {"strides": operator.stride, "pads": pads, "group": operator.groups}, []
    elif isinstance(operator, Linear):
        yield "Gemm", {"transB": 1}, []
    elif isinstance(operator, MaxPool | AveragePool):
        shape: dict[str, Any] = {"kernel_shape": operator.kernel, "strides": operator.stride}
        shape |= {"pads": [*operator.padding, *operator.padding], "ceil_mode": int(operator.ceil)}
        if isinstance(operator, AveragePool):
            yield "AveragePool", shape | {"count_include_pad": int(operator.count_padding)}, []
        else:
            yield "MaxPool", shape, []
    elif isinstance(operator, GlobalAverage):
        yield "GlobalAveragePool", {}, []
        yield "Flatten", {}, []
    elif isinstance(operator, Subsample):
        starts, ends = np.zeros(2, np.int64), np.full(2, np.iinfo(np.int64).max)
        yield "Slice", {}, [starts, ends, np.array([2, 3]), np.array(operator.step)]
    elif isinstance(operator, PadChannels):
        yield "Pad", {}, [np.array([0, operator.before, 0, 0, 0, operator.after, 0, 0])]
    elif isinstance(operator, Concat):
        yield "Concat", {"axis": 1}, []
    elif isinstance(operator, Function):
        yield FUNCTION_NODES[operator.name], {}, [np.float32(limit) for limit in FUNCTION_LIMITS.get(operator.name, ())]
    else:
        yield "Add" if isinstance(operator, Add) else "Flatten", {}, []
    grid = step.output.grid
    if step.clamp != (grid.low, grid.high):
        yield "Clip", {}, [np.float32((code - grid.zero) * grid.scale) for code in step.clamp]


def _is_wide(grid: Grid) -> bool:
    """Whether codes are the 16 bits of logits."""
    return grid.low < 0
