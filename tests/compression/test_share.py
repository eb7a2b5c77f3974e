"""Weight sharing: k-means of numbers, its beginnings, and the gradient of a centroid."""

from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import LAYERS, network, weight, workbench
from torch import nn

from zoo.compression.prune import Prune
from zoo.compression.share import Codebook, Share, first_centroids, k_means
from zoo.compression.stage import Workbench
from zoo.data import Dataset

# arXiv:1510.00149, figure 3: sixteen weights, their gradients, four centroids.
WEIGHTS = [[2.09, -0.98, 1.48, 0.09], [0.05, -0.14, -1.08, 2.12], [-0.91, 1.92, 0, -1.03], [1.87, 0, 1.53, 1.49]]
CODES = [[3, 0, 2, 1], [1, 1, 0, 3], [0, 3, 1, 0], [3, 1, 2, 2]]
GRADIENTS = [
    [-0.03, -0.01, 0.03, 0.02],
    [-0.01, 0.01, -0.02, 0.12],
    [-0.01, 0.02, 0.04, 0.01],
    [-0.07, -0.02, 0.01, -0.02],
]


def error(values: np.ndarray, centroids: np.ndarray) -> float:
    return float(np.square(np.abs(values[:, None] - centroids[None]).min(1)).sum())


def optimum(values: np.ndarray, count: int) -> float:
    """The least squared error of any partition of the sorted values into `count` runs."""
    ordered = np.sort(values)
    cuts = ((0, *inner, len(values)) for inner in combinations(range(1, len(values)), count - 1))
    return min(sum(float(np.square((run := ordered[a:b]) - run.mean()).sum()) for a, b in pairwise(c)) for c in cuts)


def test_the_example_of_the_paper() -> None:
    values = np.array(WEIGHTS, np.float32).ravel()
    centroids, labels = k_means(values, first_centroids(values, 4, "linear"), 100)
    assert centroids.tolist() == pytest.approx([-1.00, 0.00, 1.50, 2.00], abs=1e-6)
    assert labels.reshape(4, 4).tolist() == CODES


def test_the_gradient_of_a_centroid_is_the_sum_of_its_weights() -> None:
    book = Codebook(torch.tensor(CODES), torch.tensor([-1.0, 0.0, 1.5, 2.0]), pinned=False)
    (book() * torch.tensor(GRADIENTS)).sum().backward()
    assert book.centroids.grad is not None
    assert book.centroids.grad.tolist() == pytest.approx([-0.03, 0.04, 0.02, 0.04])


def test_a_pinned_zero_has_no_gradient_and_does_not_move() -> None:
    book = Codebook(torch.tensor([[0, 1], [2, 0]]), torch.tensor([5.0, 7.0]), pinned=True)
    book().sum().backward()
    assert book.centroids.grad is not None
    assert book.centroids.grad.tolist() == [1, 1]
    assert book().tolist() == [[0, 5], [7, 0]]
    assert book.form().codebook.tolist() == [0, 5, 7]


@pytest.mark.parametrize("init", ["linear", "density", "random"])
def test_well_separated_values_reach_the_optimum(init: Any) -> None:
    chance = np.random.default_rng(0)
    values = np.concatenate([chance.normal(centre, 0.05, 4) for centre in (-3.0, 0.0, 3.0)]).astype(np.float32)
    centroids, _ = k_means(values, first_centroids(values, 3, init, seed=1), 100)
    assert error(values, centroids) == pytest.approx(optimum(values.astype(np.float64), 3), rel=1e-6)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=40), st.integers(1, 6), st.integers(0, 9))
def test_the_result_is_a_fixed_point_of_lloyds_iteration(numbers: list[float], count: int, seed: int) -> None:
    values = np.array(numbers, np.float32)
    start = first_centroids(values, min(count, len(values)), "random", seed)
    centroids, labels = k_means(values, start, 1000)
    away = np.abs(values[:, None].astype(np.float64) - centroids[None])
    assert np.allclose(away[np.arange(len(values)), labels], away.min(1))
    for index, centroid in enumerate(centroids):
        assert np.isclose(values[labels == index].astype(np.float64).mean(), centroid, atol=1e-6)
    assert error(values, centroids) <= error(values, start) + 1e-9


def test_a_centroid_without_values_is_dropped() -> None:
    centroids, labels = k_means(np.array([0.0, 0.1, 10.0]), np.array([0.0, 5.0, 10.0]), 10)
    assert centroids.tolist() == pytest.approx([0.05, 10.0])
    assert labels.tolist() == [0, 0, 1]


def test_where_k_means_starts() -> None:
    values = np.array([-1.0, 0.0, 0.0, 0.0, 0.1, 0.2, 0.3, 7.0])
    assert first_centroids(values, 5, "linear").tolist() == [-1, 1, 3, 5, 7]
    assert first_centroids(np.arange(1001.0), 4, "density").tolist() == [125, 375, 625, 875]
    drawn = first_centroids(values, 8, "random", seed=3)
    assert sorted(drawn) == sorted(values)
    assert not np.array_equal(drawn, first_centroids(values, 8, "random", seed=4))


def test_linear_is_widest_and_density_follows_the_weights() -> None:
    """What section 3.2 of the paper says of the three, on weights with two humps."""
    chance = np.random.default_rng(0)
    values = np.concatenate([chance.normal(-0.05, 0.015, 5000), chance.normal(0.05, 0.015, 5000)])
    linear, density = (first_centroids(values, 16, init) for init in ("linear", "density"))
    assert linear[-1] == values.max() > density[-1]
    assert np.abs(density).min() > np.abs(linear).min()


def test_a_pruned_layer_has_its_zero_and_as_many_values_as_bits_allow() -> None:
    shared = Share(3, init="density").apply(Prune(0.5).apply(network(), Workbench()).model, Workbench()).model
    for name in LAYERS:
        assert len(weight(shared, name).unique()) == 9
        assert 0 in weight(shared, name)
    dense = Share(3, init="density").apply(network(), Workbench()).model
    assert len(weight(dense, "9").unique()) == 8


def test_biases_are_shared_on_request() -> None:
    result = Share(3, init="density", biases_bits=2).apply(network(), Workbench())
    assert result.layers["0.bias"] == "16 weights share 4 values"
    layer: Any = result.model.get_submodule("0")
    assert len(layer.bias.unique()) == 4
    assert "3.bias" not in result.layers | result.untreated


def test_a_layer_with_too_few_values_is_left_as_it_is() -> None:
    model = network()
    result = Share(8, biases_bits=5).apply(model, Workbench())
    assert result.untreated["0"] == "has 144 values other than zero, fewer than the 256 of 8 bits"
    assert result.untreated["9.bias"] == "has 10 values other than zero, fewer than the 32 of 5 bits"
    assert torch.equal(weight(result.model, "0"), weight(model, "0"))
    assert "9" in result.layers


def test_training_moves_the_values_and_not_the_codes(digits: tuple[Dataset, Dataset]) -> None:
    work = workbench(digits)
    pruned = Prune(0.5).apply(network(), work).model
    before = Share(3).apply(pruned, work).model
    after = Share(3, epochs=1, lr=1e-3).apply(pruned, work).model
    books: list[list[Any]] = [[m for m in model.modules() if isinstance(m, Codebook)] for model in (before, after)]
    for first, second in zip(*books, strict=True):
        assert torch.equal(first.codes, second.codes)
        assert not torch.equal(first.centroids, second.centroids)


def test_two_million_weights_are_shared_exactly_once() -> None:
    """Speed is not asserted; what is slow here would be noticed as a test of minutes."""
    values = np.random.default_rng(0).normal(size=2_400_000).astype(np.float32)
    centroids, labels = k_means(values, first_centroids(values, 256, "linear"), 5)
    assert len(centroids) <= 256
    assert np.abs(values - centroids[labels]).max() < 0.1


def test_weights_keep_their_layout() -> None:
    layer = nn.Conv2d(8, 8, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model = nn.Sequential(layer)
    shared = Share(8).apply(model, Workbench()).model
    assert float((weight(shared, "0") - layer.weight.detach()).abs().max()) < 0.01
