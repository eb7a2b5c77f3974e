"""Augmentation: what it does to the pixels, that chance is an argument, and what it refuses."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from zoo.data import Augment, Dataset, augment_batch, mix_batch, normalize
from zoo.data.augment import alternating_flips
from zoo.errors import RecipeError

EVERYTHING = Augment(crop_padding=3, flip="random", cutout=6, rotation=10, translation=0.1, scaling=0.1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(count: int, channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randint(256, (count, channels, height, width), dtype=torch.uint8, generator=generator(seed))


def augmented(images: Tensor, augment: Augment, seed: int = 0, epoch: int = 0) -> Tensor:
    return augment_batch(images, torch.arange(len(images)), epoch, augment, generator(seed))


def test_nothing_asked_nothing_done(tiny: Dataset) -> None:
    assert augmented(tiny.images, Augment()) is tiny.images


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 4), st.integers(1, 3), st.integers(4, 12), st.integers(4, 12), st.integers(1, 3), st.integers(0, 999)
)
def test_a_crop_is_a_window_of_the_reflected_image(
    count: int, channels: int, height: int, width: int, padding: int, seed: int
) -> None:
    images = random_images(count, channels, height, width, seed)
    crops = augmented(images, Augment(crop_padding=padding), seed)
    assert crops.shape == images.shape
    assert crops.dtype == torch.uint8
    padded = functional.pad(images.float(), (padding,) * 4, mode="reflect").to(torch.uint8)
    for crop, whole in zip(crops, padded, strict=True):
        windows = whole.unfold(1, height, 1).unfold(2, width, 1).permute(1, 2, 0, 3, 4)
        assert bool((windows == crop).flatten(2).all(2).any())


def test_every_corner_of_the_padding_is_reached_about_equally_often() -> None:
    position = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).expand(5000, 1, 8, 8)
    crops = augmented(position, Augment(crop_padding=2))
    counts = torch.bincount(crops[:, 0, 4, 4].int(), minlength=64).view(8, 8)
    assert bool((counts[2:7, 2:7] > 130).all())
    assert int(counts[2:7, 2:7].sum()) == 5000


def test_crop_and_flip_take_float_and_strided_images(tiny: Dataset) -> None:
    augment = Augment(crop_padding=2, flip="random", cutout=5)
    plain = augmented(tiny.images, augment)
    strided = augmented(tiny.images.contiguous(memory_format=torch.channels_last), augment)
    assert torch.equal(strided, plain)
    assert torch.equal(augmented(tiny.images.float(), augment).round(), plain.float())


def test_random_flips_mirror_about_half_and_leave_the_rest() -> None:
    images = random_images(2000, 1, 3, 5)
    flipped = augmented(images, Augment(flip="random"))
    mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    kept = (flipped == images).flatten(1).all(1)
    assert bool((mirrored | kept).all())
    assert 900 < int(mirrored.sum()) < 1100


@given(st.integers(0, 2**31 - 1), st.integers(0, 10000))
def test_alternating_flip_shows_both_sides_in_any_two_epochs(index: int, epoch: int) -> None:
    rows = torch.tensor([index])
    assert bool(alternating_flips(rows, epoch)) != bool(alternating_flips(rows, epoch + 1))
    assert bool(alternating_flips(rows, epoch)) == bool(alternating_flips(rows, epoch + 2))


def test_alternating_flip_is_a_pure_function_that_halves_the_set_without_pattern(tiny: Dataset) -> None:
    rows = torch.arange(60000)
    flips = alternating_flips(rows, 0).double()
    assert abs(float(flips.mean()) - 0.5) < 0.01
    for lag in (1, 2, 3, 10, 256):
        assert abs(float(((flips[lag:] - 0.5) * (flips[:-lag] - 0.5)).mean())) < 0.005
    state = generator()
    before = state.get_state()
    order = torch.randperm(100)
    got = augment_batch(tiny.images[order], order, 5, Augment(flip="alternating"), state)
    assert torch.equal(state.get_state(), before)
    wanted = augmented(tiny.images, Augment(flip="alternating"), epoch=5)
    assert torch.equal(got, wanted[order])
    assert torch.equal(wanted[0], tiny.images[0].flip(2) if alternating_flips(rows[:1], 5) else tiny.images[0])


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 12), st.integers(2, 12), st.integers(1, 14), st.integers(0, 999))
def test_cutout_erases_one_square_about_a_pixel_of_the_image(height: int, width: int, side: int, seed: int) -> None:
    images = torch.full((3, 1, height, width), 200, dtype=torch.uint8)
    erased = augment_batch(images, torch.arange(3), 0, Augment(cutout=side), generator(seed), fill=(0.5,)) != 200
    for mask in erased[:, 0]:
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        tall, wide = len(rows), len(columns)
        assert int(mask.sum()) == tall * wide
        assert (int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1) == (tall, wide)
        assert min(side - side // 2, height) <= tall <= min(side, height)
        assert min(side - side // 2, width) <= wide <= min(side, width)


def test_cutout_fills_with_the_colour_given_or_the_mean(tiny: Dataset) -> None:
    rows = torch.arange(100)
    given_colour = augment_batch(tiny.images, rows, 0, Augment(cutout=40), generator(), fill=(0.0, 0.5, 1.0))
    erased = (given_colour != tiny.images).any(1)
    assert {tuple(pixel.tolist()) for pixel in given_colour.permute(0, 2, 3, 1)[erased]} == {(0, 128, 255)}
    mean = tiny.images.float().mean((0, 2, 3)).round().to(torch.uint8)
    own = augmented(tiny.images, Augment(cutout=40))
    assert {tuple(pixel.tolist()) for pixel in own.permute(0, 2, 3, 1)[erased]} == {tuple(mean.tolist())}


def bar(height: int, width: int) -> Tensor:
    """A white horizontal bar through the middle of a black image."""
    image = torch.zeros(1, 1, height, width, dtype=torch.uint8)
    image[:, :, height // 2 - 1 : height // 2 + 1] = 255
    return image


def spread(image: Tensor) -> tuple[float, float, float]:
    """Second moments (yy, xx, xy) of the brightness about its middle."""
    weights = image.double().squeeze()
    y, x = torch.meshgrid(*(torch.arange(n).double() for n in weights.shape), indexing="ij")
    total = weights.sum()
    y, x = y - (weights * y).sum() / total, x - (weights * x).sum() / total
    return tuple(float((weights * a * b).sum() / total) for a, b in ((y, y), (x, x), (x, y)))  # type: ignore[return-value]


def test_the_affine_step_without_amplitude_in_its_draw_is_the_identity(tiny: Dataset) -> None:
    moved = augmented(tiny.images, Augment(rotation=1e-7))
    assert moved.dtype == torch.float32
    assert torch.allclose(moved, tiny.images.float(), atol=0.02)


def test_rotation_stays_within_its_angle_and_keeps_lengths_of_oblong_images() -> None:
    bars = torch.zeros(500, 1, 41, 61, dtype=torch.uint8)
    bars[:, :, 20, 20:41] = 255
    angles, lengths = [], []
    for image in augmented(bars, Augment(rotation=30)):
        yy, xx, xy = spread(image)
        angles.append(float(torch.rad2deg(0.5 * torch.atan2(torch.tensor(2 * xy), torch.tensor(xx - yy)))))
        lengths.append(xx + yy)
    assert 27 < max(angles) < 30.5
    assert -30.5 < min(angles) < -27
    assert max(lengths) / min(lengths) < 1.1


def test_translation_and_scaling_stay_within_their_shares() -> None:
    dot = torch.zeros(500, 1, 41, 41, dtype=torch.uint8)
    dot[:, :, 20, 20] = 255
    moved = augmented(dot, Augment(translation=0.25))
    x = (moved * torch.arange(41)).sum((1, 2, 3)) / moved.sum((1, 2, 3)) - 20
    y = (moved * torch.arange(41).view(-1, 1)).sum((1, 2, 3)) / moved.sum((1, 2, 3)) - 20
    for shift in (x, y):
        assert 9.5 < float(shift.max()) < 10.26
        assert -10.26 < float(shift.min()) < -9.5
    square = torch.zeros(500, 1, 41, 41, dtype=torch.uint8)
    square[:, :, 10:31, 10:31] = 255
    side = (augmented(square, Augment(scaling=0.2)).sum((1, 2, 3)) / 255).sqrt() / 21
    assert 1.17 < float(side.max()) < 1.21
    assert 0.79 < float(side.min()) < 0.83


def test_what_comes_from_outside_the_image_is_black() -> None:
    white = torch.full((50, 1, 8, 8), 255, dtype=torch.uint8)
    darkest = augmented(white, Augment(translation=0.5)).amin((1, 2, 3))
    assert int((darkest == 0).sum()) > 40


@pytest.mark.parametrize(
    "work",
    [
        lambda images, state: augment_batch(images, torch.arange(len(images)), 0, EVERYTHING, state),
        lambda images, state: mix_batch(images.float(), torch.arange(len(images)) % 10, 10, Augment(mixup=0.4), state)[
            0
        ],
        lambda images, state: mix_batch(images.float(), torch.arange(len(images)) % 10, 10, Augment(cutmix=1), state)[
            0
        ],
    ],
    ids=["augment", "mixup", "cutmix"],
)
def test_chance_comes_from_the_generator_alone(
    work: Callable[[Tensor, torch.Generator], Tensor], tiny: Dataset
) -> None:
    first = work(tiny.images, generator(5))
    torch.manual_seed(123)
    torch.rand(11)
    untouched = torch.get_rng_state()
    assert torch.equal(work(tiny.images, generator(5)), first)
    assert torch.equal(torch.get_rng_state(), untouched)
    assert not torch.equal(work(tiny.images, generator(6)), first)


def test_the_input_is_never_written_to(tiny: Dataset) -> None:
    before = tiny.images.clone()
    augmented(tiny.images, EVERYTHING)
    pixels = normalize(tiny.images, tiny.mean, tiny.std)
    kept = pixels.clone()
    for augment in (Augment(mixup=1), Augment(cutmix=1)):
        mix_batch(pixels, tiny.labels, 10, augment, generator())
    assert torch.equal(tiny.images, before)
    assert torch.equal(pixels, kept)


def test_an_empty_batch_passes_through() -> None:
    assert augmented(torch.zeros(0, 3, 8, 8, dtype=torch.uint8), EVERYTHING).shape == (0, 3, 8, 8)


def test_without_mixing_labels_stay_indices(tiny: Dataset) -> None:
    images, labels = mix_batch(tiny.images.float(), tiny.labels, 10, Augment(flip="random"), generator())
    assert labels is tiny.labels
    assert torch.equal(images, tiny.images.float())


@pytest.mark.parametrize("seed", range(8))
def test_mixup_mixes_pixels_and_labels_in_one_ratio(seed: int) -> None:
    labels = torch.arange(40)
    images = functional.one_hot(labels, 40).double().view(40, 1, 5, 8)
    mixed, shares = mix_batch(images, labels, 40, Augment(mixup=0.8), generator(seed))
    assert torch.allclose(mixed.flatten(1), shares)
    assert torch.allclose(shares.sum(1), torch.ones(40, dtype=torch.double))
    assert len(shares.diagonal().unique()) <= 2


@pytest.mark.parametrize("seed", range(8))
def test_cutmix_labels_are_the_shares_of_the_area(seed: int) -> None:
    labels = torch.arange(20)
    images = labels.view(-1, 1, 1, 1).expand(20, 2, 9, 13).float()
    mixed, shares = mix_batch(images, labels, 20, Augment(cutmix=1), generator(seed))
    for image, row in zip(mixed, shares, strict=True):
        area = torch.bincount(image[0].flatten().long(), minlength=20) / (9 * 13)
        assert torch.allclose(area, row, atol=1e-6)
        assert torch.equal(image[0], image[1])


def test_mixup_and_cutmix_together_take_turns() -> None:
    labels = torch.arange(16)
    images = labels.view(-1, 1, 1, 1).expand(16, 1, 8, 8).float()
    both = Augment(mixup=1, cutmix=1)
    patchy = [mix_batch(images, labels, 16, both, generator(seed))[0].std((1, 2, 3)).max() > 0.1 for seed in range(100)]
    assert 20 < sum(map(int, patchy)) < 80


def test_normalize_gives_mean_zero_and_deviation_one(tiny: Dataset) -> None:
    pixels = tiny.images.double() / 255
    mean, std = pixels.mean((0, 2, 3)), pixels.std((0, 2, 3))
    normal = normalize(tiny.images, mean.tolist(), std.tolist())
    assert normal.dtype == torch.float32
    wanted = (pixels - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    assert torch.allclose(normal.double(), wanted, atol=1e-5)
    assert torch.equal(normalize(tiny.images.float(), mean.tolist(), std.tolist()), normal)
    assert torch.equal(normalize(tiny.images[3:4], mean.tolist(), std.tolist())[0], normal[3])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("flip", "both"), ("crop_padding", -1), ("crop_padding", 1.5), ("crop_padding", True), ("cutout", -4),
        ("rotation", -1), ("rotation", 181), ("rotation", float("nan")), ("translation", 1.01), ("scaling", 1.0),
        ("mixup", -0.1), ("cutmix", float("inf")), ("cutmix", "1"),
    ],
)  # fmt: skip
def test_impossible_values_are_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(RecipeError) as caught:
        replace(Augment(), **{field: value})
    assert f"{field}={value!r} was given" in str(caught.value)


def test_padding_wider_than_the_image_is_refused(tiny: Dataset) -> None:
    with pytest.raises(RecipeError, match=r"crop_padding=32 .* at most 31"):
        augmented(tiny.images, Augment(crop_padding=32))
    assert augmented(tiny.images, Augment(crop_padding=31)).shape == tiny.images.shape
