"""cached_cost(): the cost of a registered network, counted once and remembered until any source it rests on changes.

One JSON file for each (name, image, number of classes), written atomically, so that processes that ask at once do the
same work at worst. A file that is damaged, or was written by other sources or versions, is counted again and replaced.
"""

import hashlib
import json
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zoo import files, registry
from zoo.cost.counters import require_fvcore
from zoo.cost.measurement import measure
from zoo.cost.records import Cost
from zoo.errors import ImageSizeError, ZooError
from zoo.registry import Image


def cached_cost(name: str, image: Image, num_classes: int) -> Cost:
    """`measure` of the registered network `name` built for square images (channels, height, width) on a CPU.

    It is counted with every parameter set to one: what an architecture costs does not hang on chance zeros.
    A cache folder that cannot be read or written costs time only. Raises UnknownNameError and ImageSizeError like
    `registry.build`, MissingPackageError without fvcore.
    """
    channels, height, width = image
    if height != width:
        raise ImageSizeError(f"image={tuple(image)} was given; registered networks take square images.")
    key = _key(name, image, num_classes)
    path = files.cache_folder() / "costs" / f"{name}.{channels}x{height}x{width}.{num_classes}.json"
    found = _read(path, key)
    if found is not None:
        return found
    cost = measure(_filled(name, image, num_classes), image)
    with suppress(OSError):
        files.write_atomically(path, _text(key, cost))
    return cost


def _filled(name: str, image: Image, num_classes: int) -> nn.Module:
    """The network with parameters of one and buffers of zero: no time spent on drawing random numbers."""
    with torch.device("meta"):
        model = registry.build(name, num_classes=num_classes, in_chans=image[0], image_size=image[1])
    model = model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1)
        for buffer in model.buffers():
            buffer.zero_()
    return model


def _key(name: str, image: Image, num_classes: int) -> dict[str, Any]:
    """All that the figures depend on, as plain JSON."""
    require_fvcore()
    return {
        "name": name,
        "image": list(image),
        "num_classes": num_classes,
        "torch": torch.__version__.split("+")[0],
        "fvcore": metadata.version("fvcore"),
        "sources": _digest(),
    }


def _digest() -> str:
    """SHA-256 of this package's files, the registry, the shared layers and all families, some of which use others."""
    package = Path(__file__).parent
    shared = [package.parent / "layers.py", package.parent / "registry.py"]
    families = (package.parent / "models").glob("*.py")
    digest = hashlib.sha256()
    for path in (*sorted(package.glob("*.py")), *shared, *sorted(families)):
        digest.update(files.sha256_file(path).encode())
    return digest.hexdigest()


def _text(key: dict[str, Any], cost: Cost) -> str:
    body = {"key": key, "cost": cost.to_dict()}
    return json.dumps({"sha256": _checksum(body)} | body, indent=1) + "\n"


def _checksum(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _read(path: Path, key: dict[str, Any]) -> Cost | None:
    """The cost stored under `key`, or None where the file is absent, damaged or stale."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, ZooError):
        stored = json.loads(path.read_bytes())
        body = {"key": stored["key"], "cost": stored["cost"]}
        if body["key"] == key and stored["sha256"] == _checksum(body):
            return Cost.from_dict(body["cost"])
    return None
