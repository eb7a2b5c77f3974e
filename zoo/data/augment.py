"""Augmentation of whole batches, on the device that holds them, with chance as an argument.

Everything here works on a CPU and on an accelerator alike; the generator must be on the images' device.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from zoo.errors import RecipeError

Flip = Literal["none", "random", "alternating"]
FLIPS: tuple[Flip, ...] = ("none", "random", "alternating")


@dataclass(frozen=True)
class Augment:
    """What is done to a training image. All zero, the default, leaves it as it is.

    crop_padding: pixels of reflected border, of which a window of the image's own size is cut at random.
    flip: mirror left-right at `random`, or in every other epoch (`alternating`, see augment_batch).
    cutout: side in pixels of a square that is erased (arXiv:1708.04552).
    rotation (degrees), translation (share of the side), scaling (share): each drawn evenly from -x to +x.
    mixup (arXiv:1710.09412), cutmix (arXiv:1905.04899): alpha of the Beta distribution; mix_batch applies them.
    Raises RecipeError for a value out of its range.
    """

    crop_padding: int = 0
    flip: Flip = "none"
    cutout: int = 0
    rotation: float = 0
    translation: float = 0
    scaling: float = 0
    mixup: float = 0
    cutmix: float = 0

    def __post_init__(self) -> None:
        if self.flip not in FLIPS:
            raise RecipeError(f"flip={self.flip!r} was given; it can be {', '.join(map(repr, FLIPS))}.")
        for name in ("crop_padding", "cutout"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise RecipeError(f"{name}={value!r} was given; it must be a whole number of pixels, 0 or more.")
        limits = {"rotation": 180, "translation": 1, "scaling": 0.9, "mixup": 100, "cutmix": 100}
        for name, most in limits.items():
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 <= value <= most:
                raise RecipeError(f"{name}={value!r} was given; it must be a number from 0 to {most}.")


def augment_batch(
    images_NCHW: Tensor,
    indices_N: Tensor,
    epoch: int,
    augment: Augment,
    generator: torch.Generator,
    *,
    fill: Sequence[float] | None = None,
) -> Tensor:
    """Affine step, flip, crop, cutout, in this order: uint8 [N, C, H, W] -> the same shape on the same device.

    The result is uint8, or float32 in 0..255 after an affine step (bilinear, black outside), and shares no memory that
    is written to; with nothing to do it is `images_NCHW` itself.
    indices_N: int64, the images' rows in the training set. With flip="alternating" image i is mirrored in epoch e when
    hash(i) + e is even: a pure function, no chance taken, each image seen both ways in any two epochs (as in airbench).
    fill: the colour of an erased square, pixels scaled to 0..1 (a data set's mean); None takes the batch's own mean.
    """
    if len(images_NCHW) == 0:
        return images_NCHW
    images = images_NCHW
    if augment.rotation or augment.translation or augment.scaling:
        images = _affine(images, augment, generator)
    if augment.flip == "random":
        images = _mirror(images, _uniform(len(images), 1, generator)[:, 0] < 0.5)
    elif augment.flip == "alternating":
        images = _mirror(images, alternating_flips(indices_N.to(images.device), epoch))
    if augment.crop_padding:
        images = _crop(images, augment.crop_padding, generator)
    if augment.cutout:
        images = _cutout(images, augment.cutout, fill, generator)
    return images


def alternating_flips(indices_N: Tensor, epoch: int) -> Tensor:
    """Which images are mirrored in this epoch, bool [N]: those whose hashed row plus the epoch is even.

    The hash is the 32-bit integer mixer of two multiply-xorshift rounds, so that neighbouring rows are independent.
    """
    mixed = indices_N & 0xFFFFFFFF
    for _ in range(2):
        mixed = ((mixed ^ (mixed >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    return (((mixed ^ (mixed >> 16)) + epoch) & 1) == 0


def mix_batch(
    images_NCHW: Tensor, labels_N: Tensor, num_classes: int, augment: Augment, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Mix each image of a normalised float batch with another of the same batch: (images, labels).

    Labels come back as they came (int64 [N]) when nothing is mixed, else as shares of the classes (float [N, K]).
    One ratio is drawn for a whole batch, as in both papers; with mixup and cutmix both set, each has half the batches.
    """
    if not (augment.mixup or augment.cutmix):
        return images_NCHW, labels_N
    device = images_NCHW.device
    # The Beta distribution of torch takes no generator; the standard library's takes a seed drawn from ours.
    chance = Random(int(torch.randint(2**62, (1,), generator=generator, device=device)))
    partner = torch.randperm(len(images_NCHW), generator=generator, device=device)
    if augment.mixup and (not augment.cutmix or chance.random() < 0.5):
        kept = chance.betavariate(augment.mixup, augment.mixup)
        mixed = torch.lerp(images_NCHW[partner], images_NCHW, kept)
    else:
        mixed, kept = _cutmix(images_NCHW, partner, chance.betavariate(augment.cutmix, augment.cutmix), chance)
    shares = functional.one_hot(labels_N, num_classes).to(images_NCHW.dtype)
    return mixed, torch.lerp(shares[partner], shares, kept)


def normalize(images_NCHW: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Pixels 0..255 (uint8 or float) -> float32 of mean 0 and deviation 1, for the mean and std of pixels in 0..1."""
    mean_C = torch.tensor(mean, dtype=torch.float64)
    std_C = torch.tensor(std, dtype=torch.float64)
    scale, shift = (t.float().view(-1, 1, 1).to(images_NCHW.device) for t in (1 / (255 * std_C), mean_C / std_C))
    return (images_NCHW * scale).sub_(shift)


def _uniform(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Float [rows, columns] in [0, 1) on the generator's device."""
    return torch.rand(rows, columns, generator=generator, device=generator.device)


def _mirror(images: Tensor, which_N: Tensor) -> Tensor:
    return torch.where(which_N.view(-1, 1, 1, 1), images.flip(3), images)


def _crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """A random window of each reflect-padded image.

    All windows are one strided view of the padded batch, whose first dimension is the memory offset of the window's
    corner; picking N of them is a single index_select, several times faster than gathering pixel by pixel.
    """
    count, channels, height, width = images.shape
    padded = _reflect(images, padding)
    rows, columns = padded.shape[2:]
    corner = torch.randint(2 * padding + 1, (2, count), generator=generator, device=images.device)
    start = torch.arange(count, device=images.device) * (channels * rows * columns) + corner[0] * columns + corner[1]
    last = ((channels - 1) * rows + height - 1) * columns + width - 1
    windows = padded.as_strided(
        (padded.numel() - last, channels, height, width), (1, rows * columns, columns, 1), padded.storage_offset()
    )
    return windows.index_select(0, start)


def _reflect(images: Tensor, padding: int) -> Tensor:
    """Reflect padding of all four sides, contiguous; torch's own takes no uint8."""
    count, channels, height, width = images.shape
    if padding >= min(height, width):
        raise RecipeError(
            f"crop_padding={padding} was given for images of {height} x {width}; it can be at most "
            f"{min(height, width) - 1}."
        )
    padded = images.new_empty(count, channels, height + 2 * padding, width + 2 * padding)
    rows = padded[:, :, padding:-padding]
    rows[..., padding:-padding] = images
    rows[..., :padding] = images[..., 1 : padding + 1].flip(3)
    rows[..., -padding:] = images[..., -padding - 1 : -1].flip(3)
    padded[:, :, :padding] = rows[:, :, 1 : padding + 1].flip(2)
    padded[:, :, -padding:] = rows[:, :, -padding - 1 : -1].flip(2)
    return padded


def _cutout(images: Tensor, side: int, fill: Sequence[float] | None, generator: torch.Generator) -> Tensor:
    """Erase a square about a pixel drawn evenly; what falls outside the image is lost, as in arXiv:1708.04552."""
    count, channels, height, width = images.shape
    if fill is None:
        colour = images.float().mean((0, 2, 3))
    else:
        colour = torch.tensor(fill, device=images.device, dtype=torch.float32) * 255
    if not images.is_floating_point():
        colour = colour.round()
    within = []
    for size in (height, width):
        corner = torch.randint(size, (count, 1), generator=generator, device=images.device) - side // 2
        pixel = torch.arange(size, device=images.device)
        within.append((pixel >= corner) & (pixel < corner + side))
    square = within[0][:, None, :, None] & within[1][:, None, None, :]
    return torch.where(square, colour.to(images.dtype).view(1, channels, 1, 1), images)


def _affine(images: Tensor, augment: Augment, generator: torch.Generator) -> Tensor:
    """Rotate, scale and shift each image by its own draw: float32 [N, C, H, W] in 0..255, bilinear, black outside.

    The matrix maps each output position, in -1..1, to where it is read from; width and height enter it so that a
    rotation of an image that is not square stays a rotation.
    """
    count, _, height, width = images.shape
    draw = _uniform(count, 4, generator) * 2 - 1
    angle = draw[:, 0] * math.radians(augment.rotation)
    zoom = 1 + draw[:, 1] * augment.scaling
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    shift = draw[:, 2:] * (2 * augment.translation)
    matrix = torch.stack((cos, sin * (height / width), shift[:, 0], -sin * (width / height), cos, shift[:, 1]), 1).view(
        count, 2, 3
    )
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    return functional.grid_sample(images.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _cutmix(images: Tensor, partner: Tensor, kept: float, chance: Random) -> tuple[Tensor, float]:
    """Paste one box of the partners' pixels into every image: (images, the share of the area that was kept)."""
    height, width = images.shape[2:]
    half = math.sqrt(1 - kept) / 2
    middle_y, middle_x = chance.randrange(height), chance.randrange(width)
    top, bottom = (min(max(round(middle_y + sign * half * height), 0), height) for sign in (-1, 1))
    left, right = (min(max(round(middle_x + sign * half * width), 0), width) for sign in (-1, 1))
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[partner, :, top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (height * width)
