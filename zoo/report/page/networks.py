"""A trained network as plain values: the operators of zoo.interop.operators and their weights, for engine.mjs.

A weight is stored as 16-bit whole numbers with one scale for each filter, which changes it by at most 1/65534 of the
filter's largest value. Where most of them are zero, a bit for each says which are not.
"""

import base64
from dataclasses import asdict
from typing import Any

import numpy as np
from torch import Tensor, nn

from zoo.interop.deployable import deployable
from zoo.interop.operators import Graph, Node
from zoo.interop.program import read_graph
from zoo.registry import Image

CODES = 32767  # the largest magnitude of a weight's whole number
SPARSE = 0.75  # share of non-zero weights under which the bit for each pays


def network_plain(network: nn.Module, image: Image) -> dict[str, Any]:
    """What engine.mjs runs. image: (C, H, W).

    Raises ExportError naming the layer whose operator it does not know, and what `deployable` raises.
    """
    return graph_plain(read_graph(deployable(network, image), image))


def graph_plain(graph: Graph) -> dict[str, Any]:
    """Of operators that are read already."""
    return {
        "input": graph.input,
        "output": graph.output,
        "shapes": {name: list(shape) for name, shape in graph.shapes.items()},
        "nodes": [_node(node) for node in graph.nodes],
    }


def _node(node: Node) -> dict[str, Any]:
    operator = node.operator
    plain: dict[str, Any] = {"kind": type(operator).__name__, **asdict(operator)}
    plain |= {"inputs": list(node.inputs), "output": node.output}
    if node.clamp is not None:
        plain["clamp"] = node.clamp
    if node.weight is not None:
        plain["weight"] = weight_plain(node.weight)
    if node.bias is not None:
        plain["bias"] = _text(node.bias.numpy().astype("<f4"))
    return plain


def weight_plain(weight: Tensor) -> dict[str, Any]:
    """float32 [F, ...] -> shape, scales float32 [F], codes int16 [F, ...] and, of a sparse one, a mask of bits."""
    values = weight.numpy().astype(np.float64)
    rows = values.reshape(len(values), -1)
    scales = (np.abs(rows).max(1) / CODES).astype("<f4")
    codes = np.rint(rows / np.where(scales > 0, scales, 1)[:, None]).clip(-CODES, CODES).astype("<i2")
    plain = {"shape": list(weight.shape), "scales": _text(scales)}
    kept = codes != 0
    if kept.mean() >= SPARSE:
        return plain | {"codes": _text(codes)}
    return plain | {"codes": _text(codes[kept]), "mask": _text(np.packbits(kept.reshape(-1), bitorder="little"))}


def _text(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()
