"""One image, from wherever it comes, to what a network takes: the same pixels and numbers as in training."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from zoo.data.augment import normalize
from zoo.data.dataset import Dataset, DatasetInfo
from zoo.data.load import dataset_info
from zoo.data.pixels import fit_image, open_image
from zoo.errors import DataError


@dataclass(frozen=True)
class Preprocess:
    """PIL image, path, or uint8 array [H, W] or [H, W, C] -> float32 [1, C, H, W].

    image: (C, H, W) of the result. mean, std: per channel, of pixels scaled to 0..1.
    An image of another size has its shorter side resized and its middle cut out; one of the right size and mode
    comes out bit for bit as `normalize` gives it.
    Raises DataError naming what cannot be read.
    """

    image: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, picture: Image.Image | str | Path | np.ndarray) -> Tensor:
        if isinstance(picture, (str, Path)):
            picture = open_image(picture)
        elif not isinstance(picture, Image.Image):
            picture = _from_array(picture)
        return normalize(fit_image(picture, self.image)[None], self.mean, self.std)


def preprocess(dataset: str | Dataset | DatasetInfo) -> Preprocess:
    """The preprocessing that belongs to a data set, given by itself, by its facts or by its name."""
    facts = dataset_info(dataset) if isinstance(dataset, str) else dataset
    return Preprocess(facts.image, facts.mean, facts.std)


def _from_array(array: np.ndarray) -> Image.Image:
    pixels = np.asarray(array)
    grey = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 1)
    if pixels.dtype != np.uint8 or pixels.size == 0 or not (grey or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))):
        raise DataError(
            f"an array of {pixels.dtype} {list(pixels.shape)} was given; it must be uint8 [H, W] or [H, W, C] "
            "with 1, 3 or 4 channels."
        )
    return Image.fromarray(np.ascontiguousarray(pixels.reshape(pixels.shape[:2]) if grey else pixels))
