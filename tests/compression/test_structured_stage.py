"""The stages and the scores: what goes, how much of it, and what is refused."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from structured_networks import Grouped, Residual
from torch import nn
from torch.nn.functional import cross_entropy

from zoo import registry
from zoo.compression.prune import Prune
from zoo.compression.stage import Workbench
from zoo.compression.structured import IMPORTANCES, DropLayers, PruneChannels, dependency_graph, importance, shrink
from zoo.compression.structured.choice import size_without
from zoo.cost import count_macs
from zoo.data import Dataset, normalize
from zoo.errors import CompressionError, UnknownNameError
from zoo.recipes import get_recipe

Digits = tuple[Dataset, Dataset]


def lenet() -> nn.Module:
    torch.manual_seed(0)
    return registry.build("lenet5", image_size=32)


def small_bench(digits: Digits) -> Workbench:
    train = digits[0].subset(range(256))
    return Workbench(train, None, replace(get_recipe("smoke"), epochs=1))


def convolutional(image: tuple[int, int, int]) -> nn.Module:
    """Two convolutions, one with a norm, for images of any size."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(image[0], 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 10),
    ).eval()


def test_the_least_important_go_and_each_layer_is_told() -> None:
    model = lenet()
    with torch.no_grad():
        model[0].weight[[1, 4]] *= 1e-3
    treated = PruneChannels(ratios={"0": 1 / 3}).apply(model, Workbench())
    assert treated.layers == {"0": "kept 4 of 6 channels"}
    assert torch.equal(treated.model[0].weight, model[0].weight[[0, 2, 3, 5]])
    assert torch.equal(treated.model[3].weight, model[3].weight[:, [0, 2, 3, 5]])
    assert model[0].out_channels == 6


def test_channels_are_kept_in_multiples_and_above_the_floor() -> None:
    model = registry.build("lenet5_caffe")
    wide = PruneChannels(0.5, multiple_of=8).apply(model, Workbench()).model
    assert [wide[0].out_channels, wide[2].out_channels, wide[5].out_features] == [16, 32, 256]
    floored = PruneChannels(0.9, min_channels=5).apply(model, Workbench()).model
    assert [floored[0].out_channels, floored[2].out_channels, floored[5].out_features] == [5, 5, 50]
    groups = PruneChannels(0.5, multiple_of=8)
    model = Grouped()
    model.zoo_origin = registry.Origin("grouped", 4, 3, 12)
    assert groups.apply(model, Workbench()).model.middle.out_channels == 16


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_share_of_macs_or_parameters_is_reached(scope: str) -> None:
    model = lenet()
    macs = PruneChannels(0.6, target="macs", scope=scope).apply(model, Workbench()).model
    assert 0.3 < count_macs(macs, (1, 32, 32)) / count_macs(model, (1, 32, 32)) <= 0.4
    params = PruneChannels(0.6, target="params", scope=scope).apply(model, Workbench()).model
    assert 0.3 < sum(p.numel() for p in params.parameters()) / 61_706 <= 0.4


def test_the_predicted_size_is_the_counted_one() -> None:
    model = registry.build("mobilenetv2_050", num_classes=10, image_size=32)
    graph = dependency_graph(model, (3, 32, 32))
    removed = [c for f in graph.families for c in f.channels[::2][1:]]
    small = shrink(model, graph, removed)
    size = size_without(model, graph, removed)
    assert (size.macs, size.params) == (count_macs(small, (3, 32, 32)), sum(p.numel() for p in small.parameters()))


def test_a_target_out_of_reach_is_told() -> None:
    treated = PruneChannels(0.999, target="params", min_channels=4).apply(lenet(), Workbench())
    assert "no more can be" in treated.untreated["(target)"]


def test_global_ranking_takes_from_where_it_matters_least() -> None:
    model = registry.build("resnet20")
    with torch.no_grad():
        model.stages[0][0].conv1[1].weight.mul_(0.01)
    treated = PruneChannels(0.03, importance="bn", scope="global").apply(model, Workbench())
    assert treated.model.stages[0][0].conv1[0].out_channels < 10
    assert treated.layers.keys() == {"stages.0.0.conv1.0", "stages.0.0.conv1.1"}


def test_scores_are_what_the_papers_define(digits: Digits) -> None:
    train = digits[0].subset(range(100))
    model = convolutional(train.image)
    graph = dependency_graph(model, train.image)
    first, second = graph.families
    with torch.no_grad():
        model[1].weight.copy_(torch.linspace(-1, 1, 8))
        model[1].bias[3] = -100
    l1, l2 = importance(model, graph, "l1"), importance(model, graph, "l2")
    assert l1[first.channels[2]] == pytest.approx(float(model[0].weight[2].detach().abs().sum()))
    assert l2[second.channels[1]] == pytest.approx(float(model[3].weight[1].detach().norm()))
    assert importance(model, graph, "bn").keys() == set(first.channels)
    assert importance(model, graph, "bn")[first.channels[0]] == pytest.approx(1.0)
    apoz = importance(model, graph, "apoz", data=train)
    images_NCHW = normalize(train.images, train.mean, train.std)
    with torch.no_grad():
        zeros = (model[:3](images_NCHW) == 0).double().mean((0, 2, 3))
    assert apoz[first.channels[3]] == 0
    assert [apoz[c] for c in first.channels] == pytest.approx((1 - zeros).tolist())
    cross_entropy(model(images_NCHW), train.labels).backward()
    gate = model[1].weight * model[1].weight.grad + model[1].bias * model[1].bias.grad
    filters = (model[3].weight * model[3].weight.grad).sum((1, 2, 3)) + model[3].bias * model[3].bias.grad
    taylor = importance(model, graph, "taylor", data=train)
    assert [taylor[c] for c in first.channels] == pytest.approx((gate**2).tolist(), rel=1e-3)
    assert [taylor[c] for c in second.channels] == pytest.approx((filters**2).tolist(), rel=1e-2)
    assert model[1].weight.grad is None
    assert importance(model, graph, "random", seed=1) != importance(model, graph, "random", seed=2)


def test_a_family_that_cannot_be_judged_is_told(digits: Digits) -> None:
    work = small_bench(digits)
    treated = PruneChannels(0.5, importance="bn").apply(convolutional(digits[0].image), work)
    assert treated.layers.keys() == {"0", "1"}
    assert "cannot judge" in treated.untreated["3"]


@pytest.mark.parametrize("method", sorted(IMPORTANCES))
def test_every_importance_prunes_and_trains_the_same_twice(method: str, digits: Digits) -> None:
    model = convolutional(digits[0].image)
    stage = PruneChannels(0.5, importance=method, epochs=1, samples=64)
    state = stage.apply(model, small_bench(digits)).model.state_dict()
    torch.rand(7)
    other = stage.apply(model, small_bench(digits)).model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in other.items())
    assert state["0.weight"].shape[0] == 4


def test_pruned_weights_stay_zero_in_what_is_left(digits: Digits) -> None:
    work = small_bench(digits)
    sparse = Prune(density=0.3).apply(convolutional(digits[0].image), work).model
    small = PruneChannels(0.5, epochs=1).apply(sparse, work).model
    assert small[3].weight.shape == (3, 4, 3, 3)
    zeros = PruneChannels(0.5).apply(sparse, work).model[3].weight == 0
    assert bool(zeros.any())
    assert bool((small[3].weight[zeros] == 0).all())
    assert not torch.equal(small[3].weight, PruneChannels(0.5).apply(sparse, work).model[3].weight)


def test_the_block_that_matters_least_is_dropped(digits: Digits) -> None:
    work = small_bench(digits)
    model = registry.build("resnet20", in_chans=digits[0].image[0], image_size=28)
    half = work.train.subset(torch.randperm(256, generator=torch.Generator().manual_seed(0))[:128])
    images_NCHW = normalize(half.images, half.mean, half.std)
    losses = {}
    for name in ("0.0", "0.1", "0.2", "1.1", "1.2", "2.1", "2.2"):
        trial = deepcopy(model)
        trial.stages[int(name[0])][int(name[2])] = nn.Identity()
        with torch.no_grad():
            losses[f"stages.{name}"] = float(cross_entropy(trial(images_NCHW), half.labels))
    treated = DropLayers(samples=128).apply(model, work)
    assert list(treated.layers) == [min(losses, key=losses.__getitem__)]


def test_named_blocks_are_dropped() -> None:
    model = registry.build("resnet20")
    with torch.no_grad():
        model.stages[0][1].conv2[1].weight.zero_()
        model.stages[2][2].conv2[1].weight.zero_()
    treated = DropLayers(names=("stages.0.1", "stages.2.2")).apply(model, Workbench())
    assert list(treated.layers) == ["stages.0.1", "stages.2.2"]
    assert isinstance(treated.model.stages[2][2], nn.Identity)
    assert not isinstance(model.stages[2][2], nn.Identity)
    images_NCHW = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(treated.model(images_NCHW), model(images_NCHW))


@pytest.mark.parametrize("ratio", [-0.1, 1, 1.5, float("nan"), "half", True])
def test_ratios_out_of_range_are_refused(ratio: object) -> None:
    with pytest.raises(CompressionError, match="0 to below 1"):
        PruneChannels(ratio)
    with pytest.raises(CompressionError, match="0 to below 1"):
        PruneChannels(ratios={"0": ratio})


def test_wrong_names_and_settings_are_refused(digits: Digits) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'taylor'"):
        PruneChannels(importance="tailor")
    with pytest.raises(CompressionError, match="scope"):
        PruneChannels(scope="all")
    with pytest.raises(CompressionError, match="leave out scope"):
        PruneChannels(ratios={"0": 0.5}, scope="global")
    with pytest.raises(UnknownNameError, match=r"Did you mean 'stages\.0\.0\.conv1\.0'"):
        PruneChannels(ratios={"stages.0.0.conv1": 0.5}).apply(registry.build("resnet20"), Workbench())
    with pytest.raises(CompressionError, match="cannot lose channels"):
        PruneChannels(ratios={"11": 0.5}).apply(lenet(), Workbench())
    with pytest.raises(CompressionError, match="needs images"):
        PruneChannels(importance="apoz").apply(lenet(), Workbench())
    with pytest.raises(CompressionError, match="size of image"):
        PruneChannels().apply(Residual(), Workbench())
    model = Residual()
    model.zoo_origin = registry.Origin("residual", 4, 3, 12)
    with pytest.raises(CompressionError, match="the same ratio"):
        PruneChannels(ratios={"stem": 0.5, "outer": 0.25}).apply(model, Workbench())
    with pytest.raises(CompressionError, match="has 0 blocks"):
        DropLayers().apply(lenet(), Workbench())
    with pytest.raises(UnknownNameError, match="Did you mean"):
        DropLayers(names=("stages.0.9",)).apply(registry.build("resnet20"), Workbench())
