"""ONNX: a network as one file that other runtimes execute.

PyTorch's own exporter writes the graph; around it, the network is made plain first (zoo.interop.deployable), what the
exporter notes about the machine it ran on is left out, and the file carries what it takes to use it.
"""

import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zoo.errors import ExportError, FileFormatError, MissingPackageError
from zoo.files import write_atomically
from zoo.interop.deployable import BATCH, INPUT, OUTPUT, PixelInput, deployable, layer_of, quiet, traced
from zoo.registry import Image

if TYPE_CHECKING:
    import onnx

OPSET = 20  # of every file written here; onnxruntime runs it since 1.17
PRODUCER = "zoo"


def export_onnx(
    model: nn.Module,
    path: str | Path,
    *,
    image: Image,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a network as ONNX, opset 20: `images` float32 [batch, C, H, W] -> `logits` float32 [batch, K].

    The batch may have any size; batch norms are folded; weights of compressed form are written as their values.
    image: (C, H, W). metadata: words by name that the file carries.
    mean, std: per channel, of pixels scaled to 0..1; given, the normalisation is in the graph, and `images` are uint8.
    Raises ExportError naming the layer that ONNX cannot express, ImageSizeError, or MissingPackageError.
    """
    need_onnx()
    network = deployable(model, image)
    pixels = mean is not None and std is not None
    if mean is not None and std is not None:
        network = PixelInput(network, mean, std)
    write_onnx(path, translated(traced(network, image, pixels=pixels)), metadata or {})


def translated(program: torch.export.ExportedProgram) -> "onnx.ModelProto":
    """A traced program as ONNX. Raises ExportError naming the layer that cannot be expressed."""
    try:
        with quiet():
            made = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise _inexpressible(program, error) from error
    if made is None:
        raise ExportError("PyTorch's exporter returned no program; update torch.")
    proto: onnx.ModelProto = made.model_proto
    for end in (*proto.graph.input, *proto.graph.output):
        end.type.tensor_type.shape.dim[0].dim_param = BATCH
    return proto


def write_onnx(path: str | Path, proto: "onnx.ModelProto", metadata: Mapping[str, str]) -> None:
    """Write a model, checked by onnx itself, without what tells of the machine and with words of our own."""
    import onnx

    graph = proto.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    del graph.value_info[:]
    del proto.metadata_props[:]
    graph.name, proto.producer_name, proto.producer_version = "network", PRODUCER, ""
    onnx.helper.set_model_props(proto, {name: metadata[name] for name in sorted(metadata)})
    onnx.checker.check_model(proto, full_check=True)
    write_atomically(path, proto.SerializeToString(deterministic=True))


class OnnxNetwork(nn.Module):
    """A file run by onnxruntime on the CPU, as a module: [N, C, H, W] -> logits float32 [N, K].

    `load_onnx` makes it. metadata: the words by name that the file carries. pixels: whether it takes uint8 images.
    """

    def __init__(self, session: Any) -> None:
        super().__init__()
        self.session = session
        self.metadata: dict[str, str] = dict(session.get_modelmeta().custom_metadata_map)
        self.pixels: bool = session.get_inputs()[0].type == "tensor(uint8)"

    def forward(self, images_NCHW: Tensor) -> Tensor:
        (logits_NK,) = self.session.run([OUTPUT], {INPUT: images_NCHW.contiguous().numpy()})
        return torch.from_numpy(logits_NK)


def load_onnx(path: str | Path, *, threads: int | None = None) -> OnnxNetwork:
    """A file that `export_onnx` or `export_int8` wrote, ready to run.

    threads: by default as many as PyTorch uses. Raises FileFormatError for a file that onnxruntime refuses, and
    MissingPackageError.
    """
    need_onnx()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    data, refusals = Path(path).read_bytes(), _refusals(onnxruntime)
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except refusals as error:
        raise FileFormatError(
            f"{path} is nothing that onnxruntime can run ({_last(error)}); export it again."
        ) from error
    return OnnxNetwork(session)


def need_onnx() -> None:
    """Raise MissingPackageError where a package for ONNX is not installed."""
    for name in ("onnx", "onnxruntime", "onnxscript"):
        try:
            import_module(name)
        except ImportError:
            raise MissingPackageError(f"ONNX needs {name}: `pip install 'zoo[onnx]'` and run this again.") from None


def _inexpressible(program: torch.export.ExportedProgram, error: Exception) -> ExportError:
    """The exporter names an operator, perhaps one that it made of another; the layer is found by that name."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    named = re.search(r"OpOverload\(op='\w+\.(\w+)'", str(cause))
    if named is None:
        first = str(cause).strip().splitlines()[0].rstrip(".")
        return ExportError(f"ONNX cannot express this network: {first}.")
    operator = named[1]
    nodes = [*program.graph.nodes, *program.run_decompositions().graph.nodes]
    layer = next((layer_of(node) for node in nodes if operator in str(node.target)), "one that is not known")
    return ExportError(
        f"ONNX cannot express the operator {operator} of the layer {layer}; "
        "replace it, or export with --format torch-export."
    )


def _last(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].rstrip(".")


def _refusals(onnxruntime: Any) -> tuple[type[Exception], ...]:
    """What onnxruntime raises on a file it cannot read: classes of its compiled module, with no common base."""
    kinds = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented", "RuntimeException")
    state = onnxruntime.capi.onnxruntime_pybind11_state
    return (RuntimeError, ValueError, *(getattr(state, kind) for kind in kinds if hasattr(state, kind)))
