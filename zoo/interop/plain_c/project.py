"""The files of a network in plain C; and the same compiled, to be held against the Python that they were made from."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

import numpy as np
import torch
from torch import Tensor

from zoo.errors import ExportError
from zoo.files import write_atomically
from zoo.interop.plain_c.source import source_text
from zoo.interop.plain_c.text import array, c_name, comment, listed
from zoo.interop.quantized import Grid, QuantizedNetwork

TEMPLATES = Path(__file__).parent / "templates"
FLAGS = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Werror")


@dataclass(frozen=True)
class CProject:
    """A folder with `<name>.h`, `<name>.c`, `<name>_vectors.h`, `test.c`, `run.c` and a Makefile.

    logits: what their codes mean. weight_bytes: weights and biases. arena_bytes: static memory.
    """

    folder: Path
    name: str
    classes: int
    logits: Grid
    weight_bytes: int
    arena_bytes: int


@dataclass(frozen=True)
class Program:
    """A compiled `run.c`: called with uint8 [N, C, H, W] it gives float32 logits [N, K]."""

    path: Path
    project: CProject

    def __call__(self, pixels_NCHW: Tensor) -> Tensor:
        return self.project.logits.values(self.codes(pixels_NCHW))

    def codes(self, pixels_NCHW: Tensor) -> Tensor:
        """Codes of the logits, int32 [N, K]. Raises ExportError where the program fails."""
        done = subprocess.run([self.path], input=pixels_NCHW.contiguous().numpy().tobytes(), capture_output=True)
        if done.returncode or done.stderr:
            raise ExportError(f"{self.path.name} failed with status {done.returncode}: {done.stderr.decode().strip()}")
        codes = np.frombuffer(done.stdout, np.int16).reshape(-1, self.project.classes)
        return torch.from_numpy(codes.astype(np.int32))


def export_c(
    network: QuantizedNetwork,
    folder: str | Path,
    *,
    name: str,
    title: str,
    classes: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    pixels_NCHW: Tensor,
) -> CProject:
    """Write a network as C.

    name: of the files and of what they define; what C does not allow in a name becomes `_`.
    title: what the header says first. mean, std: that the images were normalised with, which is folded in.
    pixels_NCHW: uint8 images of the test vectors. Raises ExportError naming a layer that cannot be expressed.
    """
    folder, name = Path(folder), c_name(name)
    source = source_text(network, name, classes, mean, std)
    logits = network.output.grid
    channels, height, width = network.image
    words = {
        "name": name,
        "NAME": name.upper(),
        "title": comment(title),
        "normalisation": f"(pixel / 255 - mean) / std with the means {listed(mean)} and the deviations {listed(std)}",
        "channels": channels,
        "height": height,
        "width": width,
        "image_bytes": channels * height * width,
        "classes": len(classes),
        "arena_bytes": source.arena_bytes,
        "weight_bytes": source.weight_bytes,
        "logit_scale": f"{logits.scale!r}f",
        "logit_zero": logits.zero,
        "flags": " ".join(FLAGS),
    }
    files = {
        f"{name}.h": "network.h",
        "test.c": "test.c",
        "run.c": "run.c",
        "Makefile": "Makefile",
    }
    write_atomically(folder / f"{name}.c", source.text)
    write_atomically(folder / f"{name}_vectors.h", vectors_text(network, name, mean, std, pixels_NCHW))
    for file, template in files.items():
        write_atomically(folder / file, Template((TEMPLATES / template).read_text()).substitute(words))
    return CProject(folder, name, len(classes), logits, source.weight_bytes, source.arena_bytes)


def reference(network: QuantizedNetwork, mean: Sequence[float], std: Sequence[float], pixels_NCHW: Tensor) -> Tensor:
    """What the C must compute: the codes of the logits, int32 [N, K], of uint8 images."""
    tables = network.pixel_codes(mean, std)
    codes = [table[maps.long()] for table, maps in zip(tables, pixels_NCHW.unbind(1), strict=True)]
    return network.run(torch.stack(codes, 1).int())


def vectors_text(
    network: QuantizedNetwork, name: str, mean: Sequence[float], std: Sequence[float], pixels_NCHW: Tensor
) -> str:
    """The header with the test vectors: images, and the logits that they must have."""
    logits_NK = reference(network, mean, std, pixels_NCHW)
    parts = (
        "/* Images and the codes of their logits. */",
        f"#define {name.upper()}_VECTORS {len(pixels_NCHW)}",
        array(f"{name}_images", pixels_NCHW.flatten(1)),
        array(f"{name}_logits", logits_NK.short()),
    )
    return "\n\n".join(parts) + "\n"


def compiler() -> str | None:
    """The path of the C compiler: $CC, or else cc; None where there is none."""
    return shutil.which(os.environ.get("CC", "cc"))


def compiled(project: CProject, folder: str | Path, *flags: str) -> Program:
    """The program of `run.c`, written into a folder. flags: after FLAGS.

    Raises ExportError where there is no C compiler, or it does not take the files.
    """
    command = compiler()
    if command is None:
        raise ExportError("no C compiler was found; install one, or name it in the environment variable CC.")
    path = Path(folder).resolve() / f"{project.name}_run"
    files = (project.folder / "run.c", project.folder / f"{project.name}.c")
    done = subprocess.run([command, *FLAGS, *flags, "-o", path, *files], capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip() or f"status {done.returncode}").splitlines()[0]
        raise ExportError(f"{command} does not take {files[1]}: {reason}")
    return Program(path, project)
