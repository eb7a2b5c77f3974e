"""From any image file to uint8 pixels of one size and one number of channels."""

import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from zoo.errors import DataError

Size = tuple[int, int, int]

# What Pillow's decoders raise on a damaged file, beside OSError.
DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, EOFError, OverflowError, NotImplementedError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip


def open_image(path: str | Path) -> Image.Image:
    """Decode a file completely, turned the way its EXIF orientation asks. Raises DataError naming the file."""
    try:
        with Image.open(path) as image:
            image.load()
            return ImageOps.exif_transpose(image)
    except DECODER_ERRORS as fault:
        reason = fault.strerror if isinstance(fault, OSError) and fault.strerror else str(fault).split("\n")[0]
        raise DataError(f"{path} cannot be read as an image ({reason or type(fault).__name__}).") from fault


def fit_image(image: Image.Image, size: Size) -> Tensor:
    """An image of any mode as uint8 [C, H, W] for size (C, H, W), C being 1 or 3.

    The shorter side is resized (bilinear with antialiasing) and the middle cut out; at the right size pixels stay as
    they are. Transparency is laid on white. 16-bit greys are scaled to 8. Raises DataError for floating-point images.
    """
    channels, height, width = size
    plain = _plain(image, "L" if channels == 1 else "RGB")
    scale = max(height / plain.height, width / plain.width)
    resized = max(width, round(plain.width * scale)), max(height, round(plain.height * scale))
    if resized != plain.size:
        plain = plain.resize(resized, Image.Resampling.BILINEAR)
    left, top = (resized[0] - width) // 2, (resized[1] - height) // 2
    pixels = np.array(plain, dtype=np.uint8)[top : top + height, left : left + width]
    return torch.from_numpy(pixels.reshape(height, width, channels).transpose(2, 0, 1).copy())


def _plain(image: Image.Image, mode: str) -> Image.Image:
    """The image in mode L or RGB."""
    if image.mode == "F":
        raise DataError("an image of floating-point pixels has no agreed range; save it with 8 or 16 bits.")
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        image = Image.fromarray(np.rint(grey / 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)
