"""From any image file to uint8 pixels of one size and one number of channels."""

import struct
import warnings
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from zoo.errors import DataError

Size = tuple[int, int, int]

UNFIT = {  # modes that cannot be used, and why
    "F": "floating-point pixels have no agreed range, save it with 8 or 16 bits",
    "LAB": "Lab colours are not understood, save it in RGB",
}

# What Pillow's decoders raise on a damaged file, beside OSError.
DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, EOFError, OverflowError, NotImplementedError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip


def open_image(source: str | Path | BinaryIO, name: str = "") -> Image.Image:
    """Decode a file completely, turned the way its EXIF orientation asks; of an animation, the first picture.

    name: what an error calls it; by default the path. Pillow's warnings, which are about metadata, are dropped: what
    counts here is whether the pixels come. PostScript is refused, as drawing it would run a program.
    Raises DataError naming the file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(source) as image:
                if image.format == "EPS":
                    raise ValueError("PostScript is not run, save it as PNG")
                image.load()
                turned = ImageOps.exif_transpose(image)
        if turned.mode in UNFIT:
            raise ValueError(UNFIT[turned.mode])
        return turned
    except DECODER_ERRORS as fault:
        raise DataError(f"{name or source} cannot be read as an image ({_reason(fault)}).") from fault


def _reason(fault: Exception) -> str:
    """A decoder's fault in a few words, with no name in them."""
    if isinstance(fault, UnidentifiedImageError):
        return "it is empty, or of no known image format"
    told = fault.strerror if isinstance(fault, OSError) and fault.strerror else str(fault).split("\n")[0]
    return told.rstrip(".") or type(fault).__name__


def fit_image(image: Image.Image, size: Size) -> Tensor:
    """An image of any mode as uint8 [C, H, W] for size (C, H, W), C being 1 or 3.

    The middle is cut out in the asked proportions and resized (bilinear with antialiasing): a resize of the shorter
    side and a centre crop in one step. At the right size pixels stay as they are. Transparency is laid on white,
    16-bit greys are scaled to 8. Raises DataError for a mode in UNFIT.
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
    if image.mode in UNFIT:
        raise DataError(f"the image cannot be used: {UNFIT[image.mode]}.")
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        image = Image.fromarray(np.rint(grey / 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)
