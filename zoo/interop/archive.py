"""The archive of torch.export: a network as PyTorch's own operators, to be run without its Python source."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from zoo.files import write_atomically
from zoo.interop.deployable import PixelInput, deployable, quiet, traced
from zoo.registry import Image


def export_archive(
    model: nn.Module,
    path: str | Path,
    *,
    image: Image,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> nn.Module:
    """Write a network as a `.pt2` archive for any number of images; returns the program that was written, to run.

    image, mean, std: as zoo.interop.onnx.export_onnx takes them. metadata: words by name, each an extra file of the
    archive, which torch.export.load gives back. It also unpickles parts of an archive: read only those you trust.
    Raises ExportError or ImageSizeError.
    """
    network = deployable(model, image)
    pixels = mean is not None and std is not None
    if mean is not None and std is not None:
        network = PixelInput(network, mean, std)
    program = traced(network, image, pixels=pixels)
    buffer = io.BytesIO()
    with quiet():
        torch.export.save(program, buffer, extra_files=dict(metadata or {}))
    write_atomically(path, buffer.getvalue())
    return program.module()
