"""The order of the data is a pure function of (seed, epoch, index)."""

import random
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from scenarios import RECIPE, STEPS_AN_EPOCH, images, world

from zoo.data import Augment
from zoo.recipes import Recipe
from zoo.training.batches import Batches, chance

CPU = torch.device("cpu")


def test_a_batch_depends_on_its_step_alone() -> None:
    """Asked in any order, twice, and with the global generator stirred between: always the same pixels and labels."""
    train, _ = world()
    straight = Batches(train, RECIPE, 4, CPU)
    expected = [straight(step) for step in range(3 * STEPS_AN_EPOCH)]
    order = [*range(3 * STEPS_AN_EPOCH)] * 2
    random.Random(1).shuffle(order)
    other = Batches(train, RECIPE, 4, CPU)
    for step in order:
        torch.manual_seed(step)
        pixels, targets = other(step)
        assert pixels.equal(expected[step][0])
        assert targets.equal(expected[step][1])


@pytest.mark.parametrize("count", [48, 51])
def test_every_epoch_is_a_permutation_of_its_own(count: int) -> None:
    train = images(count)
    marked = replace(train, images=torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8))
    recipe = Recipe("test", batch_size=8, augment=Augment())
    batches = Batches(marked, recipe, 0, CPU)
    assert batches.steps_an_epoch == 6
    seen = []
    for epoch in range(4):
        pixels = torch.cat([batches(6 * epoch + index)[0][:, 0, 0, 0] for index in range(6)])
        rows = (pixels * 0.2 + 0.4).mul(255).round().long()
        assert len(set(rows.tolist())) == 48
        assert set(rows.tolist()) <= set(range(count))
        seen.append(tuple(rows.tolist()))
    assert len(set(seen)) == 4


def test_every_step_takes_its_own_chances() -> None:
    """Of images that are all the same, no two batches of three epochs are cut alike."""
    train, _ = world()
    same = replace(train, images=train.images[:1].expand_as(train.images))
    batches = Batches(same, Recipe("test", batch_size=8, augment=Augment(crop_padding=3)), 0, CPU)
    seen = [batches(step)[0] for step in range(3 * STEPS_AN_EPOCH)]
    assert not any(one.equal(other) for one, other in combinations(seen, 2))


def test_labels_travel_with_their_images() -> None:
    train = images(48)
    bright = replace(train, images=(train.labels.view(-1, 1, 1, 1).expand(-1, 3, 8, 8) * 50).to(torch.uint8))
    batches = Batches(bright, Recipe("test", batch_size=8), 0, CPU)
    for step in range(6):
        pixels, labels = batches(step)
        assert (pixels[:, 0, 0, 0] * 0.2 + 0.4).mul(255 / 50).round().long().equal(labels)


@pytest.mark.parametrize("changed", ["seed", "epoch", "index"])
def test_each_part_of_the_key_counts(changed: str) -> None:
    train, _ = world()
    one = Batches(train, RECIPE, 1, CPU)(0)[0]
    other = Batches(train, RECIPE, 2 if changed == "seed" else 1, CPU)({"seed": 0, "epoch": 6, "index": 1}[changed])[0]
    assert not one.equal(other)


def test_chance_is_fixed_for_ever() -> None:
    """A change here would change every run that is resumed after it."""
    assert chance(0, "order", 0) == 0x36E5703597F5E537
    assert len({chance(s, p, i) for s in (0, 1) for p in ("order", "augment") for i in range(5)}) == 20
    assert all(0 <= chance(s, "order", 0) < 2**63 for s in range(50))
