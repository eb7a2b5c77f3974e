"""From any image file to uint8 pixels of one size and one number of channels."""

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from zoo.errors import DataError

Size = tuple[int, int, int]

NO_RANGE = "floating-point pixels have no agreed range, save it with 8 or 16 bits"

# What Pillow's decoders raise on a damaged file, beside OSError.
DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, EOFError, OverflowError, NotImplementedError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip


def open_image(path: str | Path) -> Image.Image:
    """Decode a file completely, turned the way its EXIF orientation asks. Raises DataError naming the file.

    Pillow's warnings, which are about metadata, are dropped: what counts here is whether the pixels come.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                image.load()
                turned = ImageOps.exif_transpose(image)
        if turned.mode == "F":
            raise ValueError(NO_RANGE)
        return turned
    except DECODER_ERRORS as fault:
        reason = fault.strerror if isinstance(fault, OSError) and fault.strerror else str(fault).split("\n")[0]
        raise DataError(f"{path} cannot be read as an image ({reason or type(fault).__name__}).") from fault


def fit_image(image: Image.Image, size: Size) -> Tensor:
    """An image of any mode as uint8 [C, H, W] for size (C, H, W), C being 1 or 3.

    The middle is cut out in the asked proportions and resized (bilinear with antialiasing): a resize of the shorter
    side and a centre crop in one step. At the right size pixels stay as they are. Transparency is laid on white,
    16-bit greys are scaled to 8. Raises DataError for floating-point images.
    """
    channels, height, width = size
    plain = _plain(image, "L" if channels == 1 else "RGB")
    if plain.size != (width, height):
        scale = min(plain.width / width, plain.height / height)
        wide, tall = min(scale * width, plain.width), min(scale * height, plain.height)
        left, top = (plain.width - wide) // 2, (plain.height - tall) // 2
        plain = plain.resize((width, height), Image.Resampling.BILINEAR, box=(left, top, left + wide, top + tall))
    pixels = np.array(plain, dtype=np.uint8).reshape(height, width, channels)
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def _plain(image: Image.Image, mode: str) -> Image.Image:
    """The image in mode L or RGB."""
    if image.mode == "F":
        raise DataError(f"the image cannot be used: {NO_RANGE}.")
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        image = Image.fromarray(np.rint(grey / 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)
