"""Data sets in memory: subsets, statistics, and validation splits."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zoo.data import DATASETS, Dataset, load_dataset, split_validation
from zoo.data.dataset import channel_statistics, first_occurrences, stratified_rows
from zoo.errors import DataError


def test_subset_keeps_order_and_carries_inexact_rows_along(tiny: Dataset) -> None:
    part = replace(tiny, inexact_rows=(3, 50)).subset([50, 4, 3])
    assert torch.equal(part.images, tiny.images[[50, 4, 3]])
    assert torch.equal(part.labels, tiny.labels[[50, 4, 3]])
    assert part.inexact_rows == (0, 2)
    assert (part.image, part.num_classes, len(part)) == ((3, 32, 32), 10, 3)


def test_to_moves_both_tensors(tiny: Dataset) -> None:
    moved = tiny.to("meta")
    assert moved.images.device.type == moved.labels.device.type == "meta"
    assert tiny.images.device.type == "cpu"


def test_a_dataset_refuses_tensors_of_another_kind(tiny: Dataset) -> None:
    with pytest.raises(DataError, match="images must be uint8"):
        replace(tiny, images=tiny.images.float())
    with pytest.raises(DataError, match="labels must be int64"):
        replace(tiny, labels=tiny.labels[:-1])


@given(st.lists(st.integers(0, 6), min_size=2, max_size=80), st.data(), st.integers(0, 2**31))
def test_stratified_rows_are_exact_and_in_proportion(labels: list[int], data: st.DataObject, seed: int) -> None:
    labels_N = torch.tensor(labels)
    count = data.draw(st.integers(1, len(labels)))
    rows = stratified_rows(labels_N, count, seed)
    assert len(rows) == count == len(set(rows.tolist()))
    assert torch.equal(rows, rows.sort().values)
    shares = torch.bincount(labels_N[rows], minlength=7) - torch.bincount(labels_N, minlength=7) * count / len(labels)
    assert float(shares.abs().max()) < 1


def test_validation_split_is_stratified_exact_and_in_order(tiny: Dataset) -> None:
    rest, valid = split_validation(tiny, 30, seed=1)
    assert (len(rest), len(valid)) == (70, 30)
    assert valid.split == "validation"
    assert torch.bincount(valid.labels).tolist() == [3] * 10
    row_of = {bytes(image): row for row, image in enumerate(tiny.images.numpy())}
    for part in (rest, valid):
        rows = [row_of[bytes(image)] for image in part.images.numpy()]
        assert rows == sorted(rows)
        assert torch.equal(part.labels, tiny.labels[rows])
    assert not set(map(bytes, valid.images.numpy())) & set(map(bytes, rest.images.numpy()))


def test_validation_split_depends_on_its_seed_and_on_nothing_else(tiny: Dataset) -> None:
    first = split_validation(tiny, 20, seed=3)[1]
    torch.manual_seed(99)
    torch.rand(17)
    assert torch.equal(split_validation(tiny, 20, seed=3)[1].images, first.images)
    assert not torch.equal(split_validation(tiny, 20, seed=4)[1].images, first.images)


def test_repeated_images_stay_in_the_training_part(tiny: Dataset) -> None:
    images = tiny.images.clone()
    images[10:20] = images[0:10]
    twins = {bytes(image) for image in images[:10].numpy()}
    for seed in range(5):
        valid = split_validation(replace(tiny, images=images), 40, seed)[1]
        assert not twins & {bytes(image) for image in valid.images.numpy()}


@pytest.mark.parametrize("images", [0, -1, 100, 101])
def test_impossible_validation_sizes_are_refused(tiny: Dataset, images: int) -> None:
    with pytest.raises(DataError, match=f"{images} images was asked .* 1 to 99"):
        split_validation(tiny, images, seed=0)


def test_first_occurrences_points_at_the_first_copy() -> None:
    images = torch.zeros(4, 1, 2, 2, dtype=torch.uint8)
    images[1] = images[3] = 9
    images[2, 0, 1, 1] = 1
    assert first_occurrences(images).tolist() == [0, 1, 2, 1]


def test_channel_statistics_equal_those_of_the_float_pixels(tiny: Dataset) -> None:
    mean, std = channel_statistics(tiny.images)
    pixels = tiny.images.double().transpose(0, 1).flatten(1) / 255
    assert mean == pytest.approx(pixels.mean(1).tolist(), abs=1e-12)
    assert std == pytest.approx(pixels.std(1, correction=0).tolist(), abs=1e-12)


def test_digits_constants_are_measured(digits: tuple[Dataset, Dataset]) -> None:
    mean, std = channel_statistics(digits[0].images)
    assert (round(mean[0], 4), round(std[0], 4)) == (DATASETS["digits"].mean[0], DATASETS["digits"].std[0])


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_constants_are_those_of_the_real_training_images(name: str, data_root: Path) -> None:
    train = load_dataset(name, "train", root=data_root)
    mean, std = channel_statistics(train.images)
    assert mean == pytest.approx(train.mean, abs=5.1e-5)
    assert std == pytest.approx(train.std, abs=5.1e-5)
    assert len(train) == {"mnist": 60000, "cifar10": 50000}[name]


def test_only_sets_without_writing_may_be_mirrored() -> None:
    assert {name for name, info in DATASETS.items() if info.mirrored} == {"fashion_mnist", "cifar10", "cifar100"}
    assert {name: len(info.classes) for name, info in DATASETS.items()} == {
        "mnist": 10, "fashion_mnist": 10, "cifar10": 10, "cifar100": 100, "digits": 10,
    }  # fmt: skip
