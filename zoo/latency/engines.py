"""One network by one engine: PyTorch as it is or compiled, or exported and run by onnxruntime."""

import os
import tempfile
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from zoo.data import Dataset
from zoo.errors import ZooError
from zoo.files import cache_folder
from zoo.interop.calibration import Calibration, quantize
from zoo.interop.onnx import export_onnx, load_onnx
from zoo.interop.qdq import export_int8
from zoo.latency.timing import Act, threads_set

ENGINES = ("eager", "compiled", "onnxruntime", "onnxruntime-int8")
ANY_RANGES = Calibration(images=16, others=8, methods=("largest",))


def ready(engine: str, network: nn.Module, images_NCHW: Tensor, *, threads: int = 1) -> Act:
    """A call of a network, which is in eval mode, on images [N, C, H, W]: by one of ENGINES, and made ready once.

    eager: PyTorch as it is. compiled: through torch.compile, for this batch alone. onnxruntime: exported, float32;
    onnxruntime-int8: exported in whole numbers, calibrated on noise, as accuracy plays no part here.
    Raises MissingPackageError, what an export raises, or ZooError where nothing can be compiled.
    """
    with threads_set(threads):
        if engine == "compiled":
            network = _compiled(network, images_NCHW)
        elif engine != "eager":
            network = _exported(network, images_NCHW, threads, int8=engine.endswith("int8"))
    return partial(network, images_NCHW)


def _compiled(network: nn.Module, images_NCHW: Tensor) -> nn.Module:
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "inductor"))
    compiled = cast(nn.Module, torch.compile(network, dynamic=False))
    try:
        with torch.inference_mode():
            compiled(images_NCHW)
    except torch._dynamo.exc.TorchDynamoException as fault:
        reason = str(fault).strip().split("\n")[0].rstrip(".")
        raise ZooError(f"the engine 'compiled' needs torch.compile, which failed ({reason}); leave it out.") from fault
    return compiled


def _exported(network: nn.Module, images_NCHW: Tensor, threads: int, *, int8: bool) -> nn.Module:
    channels, height, width = images_NCHW.shape[1:]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        if int8:
            export_int8(quantize(network, _any_images(network, images_NCHW), ANY_RANGES)[0], path)
        else:
            export_onnx(network, path, image=(channels, height, width))
        return load_onnx(path, threads=threads)


def _any_images(network: nn.Module, images_NCHW: Tensor) -> Dataset:
    """Noise to calibrate on: what comes of it computes as fast as what comes of photographs."""
    channels, height, width = images_NCHW.shape[1:]
    count, classes = ANY_RANGES.images + ANY_RANGES.others, network(images_NCHW[:1]).shape[1]
    generator = torch.Generator().manual_seed(0)
    return Dataset(
        name="noise",
        split="train",
        images=torch.randint(256, (count, channels, height, width), dtype=torch.uint8, generator=generator),
        labels=torch.zeros(count, dtype=torch.int64),
        classes=tuple(map(str, range(classes))),
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        digest="",
        mirrored=False,
    )
