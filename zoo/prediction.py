"""What trained models make of images: files, folders of them and standard input, of any size and mode.

Images are decoded one by one and answered a batch at a time. One that cannot be read says why, and the others are
answered all the same.
"""

import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from zoo.data import normalize
from zoo.data.layout import images_below
from zoo.data.pixels import Size, fit_image, open_image
from zoo.errors import DataError
from zoo.trained import Trained

STDIN = "-"
BATCH = 256
MIDDLE = 127.5  # between black and white


class Guess(NamedTuple):
    """A class and its probability, a share."""

    label: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """What is made of one image, which is its path or "-".

    answers: a model's likeliest classes, best first, in the order of the models; none where there is a fault.
    fault: why it cannot be read, as a sentence.
    upside_down: whether it is dark on light where a model of grey images knows light on dark alone.
    """

    image: str
    answers: tuple[tuple[Guess, ...], ...] = ()
    fault: str | None = None
    upside_down: bool = False


def find_images(given: Sequence[str]) -> list[str]:
    """Paths and "-" as they came, each folder replaced by the image files below it, by name.

    Raises DataError for a folder without any, and for a second "-".
    """
    if given.count(STDIN) > 1:
        raise DataError(f"{STDIN!r} was given {given.count(STDIN)} times; standard input holds one image.")
    return [name for one in given for name in ([one] if one == STDIN or not Path(one).is_dir() else images_below(one))]


def predict(
    models: Sequence[Trained], images: Sequence[str], *, top: int = 3, invert: bool = False, batch_size: int = BATCH
) -> Iterator[Prediction]:
    """A prediction an image, in their order; each is decoded once for all models.

    top: classes a model names, or all where it has fewer. invert: turn every image to its negative first.
    Nothing is raised for an image that cannot be read.
    """
    for start in range(0, len(images), batch_size):
        yield from _batch(models, images[start : start + batch_size], top, invert)


@torch.inference_mode()
def _batch(models: Sequence[Trained], images: Sequence[str], top: int, invert: bool) -> Iterator[Prediction]:
    sizes = list(dict.fromkeys(model.preprocess.image for model in models))
    pixels: dict[Size, list[Tensor]] = {size: [] for size in sizes}
    faults: dict[int, str] = {}
    for row, name in enumerate(images):
        try:
            picture = _open(name)
            fitted = [fit_image(picture, size) for size in sizes]
        except DataError as fault:
            faults[row] = str(fault)
            continue
        for size, pixels_CHW in zip(sizes, fitted, strict=True):
            pixels[size].append(255 - pixels_CHW if invert else pixels_CHW)
    readable = len(images) - len(faults)
    answers = (
        [_answers(model, torch.stack(pixels[model.preprocess.image]), top) for model in models] if readable else []
    )
    wrong = [_upside_down(model, pixels[model.preprocess.image]) for model in models]
    place = 0
    for row, name in enumerate(images):
        if row in faults:
            yield Prediction(name, fault=faults[row])
        else:
            yield Prediction(name, tuple(a[place] for a in answers), upside_down=any(w[place] for w in wrong))
            place += 1


def _open(name: str) -> Image.Image:
    return open_image(io.BytesIO(sys.stdin.buffer.read()), "standard input") if name == STDIN else open_image(name)


def _answers(model: Trained, pixels_NCHW: Tensor, top: int) -> list[tuple[Guess, ...]]:
    images_NCHW = normalize(pixels_NCHW, model.preprocess.mean, model.preprocess.std)
    logits_NK = model.network(images_NCHW.contiguous(memory_format=torch.channels_last))
    best = logits_NK.double().softmax(1).topk(min(top, logits_NK.shape[1]))
    rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [tuple(Guess(model.classes[i], p) for i, p in zip(*row, strict=True)) for row in rows]


def _upside_down(model: Trained, pixels: Sequence[Tensor]) -> list[bool]:
    """Of each uint8 image [1, H, W] of a model that learned from light on dark, whether its edge is light."""
    if len(model.preprocess.mean) != 1 or 255 * model.preprocess.mean[0] > MIDDLE:
        return [False] * len(pixels)
    return [float(_edge(pixels_CHW).mean()) > MIDDLE for pixels_CHW in pixels]


def _edge(pixels_CHW: Tensor) -> Tensor:
    """The outermost pixels, as float."""
    sides = (pixels_CHW[:, 0], pixels_CHW[:, -1], pixels_CHW[:, :, 0], pixels_CHW[:, :, -1])
    return torch.cat([side.flatten() for side in sides]).float()
