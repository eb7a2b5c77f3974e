"""Product and residual quantisation: blocks, levels, and k-means of vectors."""

from typing import Any

import pytest
import torch
from small_networks import network, weight, workbench
from torch import nn

from zoo.compression.stage import Workbench
from zoo.compression.vectors import ProductQuantize, ResidualQuantize, VectorCodebooks, vector_k_means
from zoo.data import Dataset


def test_clusters_that_lie_apart_are_found_in_every_block() -> None:
    generator = torch.Generator().manual_seed(0)
    centres_SKD = torch.tensor([[[0.0, 0], [9, 9]], [[-5, 5], [5, -5]]])
    order_SR = torch.stack([torch.arange(20) % 2, torch.arange(20) // 10])
    points_SRD = centres_SKD.gather(1, order_SR[..., None].expand(-1, -1, 2))
    points_SRD = points_SRD + 0.1 * torch.randn(2, 20, 2, generator=generator)
    found = [vector_k_means(points_SRD, 2, 50, seed) for seed in range(4)]
    centroids_SKD, labels_SR = min(found, key=lambda pair: error(points_SRD, *pair))
    for block in range(2):
        for cluster in range(2):
            members = points_SRD[block][labels_SR[block] == cluster]
            assert torch.allclose(members.mean(0), centroids_SKD[block, cluster], atol=1e-5)
            assert len(members) == 10


def error(points_SRD: torch.Tensor, centroids_SKD: torch.Tensor, labels_SR: torch.Tensor) -> float:
    chosen = centroids_SKD.gather(1, labels_SR[..., None].expand_as(points_SRD))
    return float((points_SRD - chosen).square().sum())


def test_iterations_never_raise_the_error_and_labels_are_nearest() -> None:
    points_SRD = torch.randn(3, 40, 4, generator=torch.Generator().manual_seed(1))
    errors = [error(points_SRD, *vector_k_means(points_SRD, 8, n, seed=5)) for n in (0, 1, 3, 100)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.8 * errors[0]
    centroids_SKD, labels_SR = vector_k_means(points_SRD, 8, 100, seed=5)
    assert torch.equal(labels_SR, (points_SRD[:, :, None] - centroids_SKD[:, None]).square().sum(3).argmin(2))


def test_as_many_entries_as_rows_lose_nothing() -> None:
    layer = nn.Conv2d(6, 8, 2)
    result = ProductQuantize(4, 3).apply(nn.Sequential(layer), Workbench())
    assert result.layers == {"0": "6 blocks of 4 columns, 1 x 8 entries each"}
    assert torch.allclose(weight(result.model, "0"), layer.weight.detach(), atol=1e-6)


def test_each_level_codes_what_the_ones_before_leave() -> None:
    model = network()
    errors = [
        float((weight(ResidualQuantize(4, 2, levels).apply(model, Workbench()).model, "9") - weight(model, "9")).norm())
        for levels in (1, 2, 3)
    ]
    assert errors[0] > 1.3 * errors[1] > 1.6 * errors[2]
    product = ProductQuantize(4, 2).apply(model, Workbench()).model
    assert torch.equal(weight(product, "9"), weight(ResidualQuantize(4, 2, 1).apply(model, Workbench()).model, "9"))


def test_one_block_may_be_as_wide_as_the_matrix() -> None:
    """The residual quantisation of the paper, section 3.2.3."""
    result = ResidualQuantize(72, {"6": 3}, 2).apply(nn.Sequential(*network()[:6], nn.Conv2d(8, 32, 3)), Workbench())  # type: ignore[index]
    assert result.layers == {"6": "1 blocks of 72 columns, 2 x 8 entries each"}


def test_layers_that_do_not_fit_are_left_with_the_reason() -> None:
    result = ProductQuantize(4, 4).apply(nn.Sequential(network(), nn.Linear(8, 20)), Workbench())
    assert result.untreated["0.0"] == "its 9 columns are no multiple of the width 4"
    assert result.untreated["0.9"] == "has 10 outputs, fewer than the 16 entries of 4 bits"
    assert list(result.layers) == ["0.6", "1"]


def test_entries_are_trained_and_codes_stay(digits: tuple[Dataset, Dataset]) -> None:
    work = workbench(digits)
    before, after = (
        stage.apply(network(), work).model
        for stage in (ProductQuantize(3, 3), ProductQuantize(3, 3, epochs=1, lr=1e-3))
    )
    books: list[list[Any]] = [
        [m for m in model.modules() if isinstance(m, VectorCodebooks)] for model in (before, after)
    ]
    assert len(books[0]) == 3
    for first, second in zip(*books, strict=True):
        assert torch.equal(first.codes, second.codes)
        assert not torch.equal(first.codebooks, second.codebooks)


def test_blocks_may_be_compared_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    points_SRD = torch.randn(5, 30, 3, generator=torch.Generator().manual_seed(2))
    together, labels_SR = vector_k_means(points_SRD, 4, 10, 0)
    monkeypatch.setattr("zoo.compression.vectors._AT_ONCE", 240)
    apart, again_SR = vector_k_means(points_SRD, 4, 10, 0)
    assert torch.equal(labels_SR, again_SR)
    assert torch.equal(together, apart)
