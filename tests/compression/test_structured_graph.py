"""What hangs together: the graph of small networks, and the smaller network cut by it."""

import pytest
import torch
from structured_networks import (
    IMAGE,
    NETWORKS,
    Concatenated,
    Depthwise,
    Excited,
    Grouped,
    Padded,
    Repeated,
    Residual,
    Shuffled,
    part,
    roughened,
    silenced,
)
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.compression.structured import dependency_graph, shrink
from zoo.compression.structured.labels import MismatchError
from zoo.compression.structured.shrink import _cut, _prove
from zoo.cost import count_macs
from zoo.errors import CompressionError, ImageSizeError


def images(count: int = 2) -> Tensor:
    return torch.randn(count, *IMAGE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("network", NETWORKS)
def test_removing_channels_that_are_zero_changes_nothing(network: type[nn.Module], ratio: float) -> None:
    model = roughened(network())
    graph = dependency_graph(model, IMAGE)
    removed = part(graph, ratio, seed=int(100 * ratio))
    assert removed
    quiet = silenced(model, graph, removed)
    small = shrink(quiet, graph, removed)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    torch.testing.assert_close(small(images()), quiet(images()), rtol=1e-10, atol=1e-12)
    assert not torch.allclose(quiet(images()), model(images()))


@pytest.mark.parametrize("network", NETWORKS)
def test_one_channel_of_each_family_can_be_left(network: type[nn.Module]) -> None:
    model = roughened(network())
    graph = dependency_graph(model, IMAGE)
    removed = {channel for family in graph.families for channel in family.channels[1:]}
    quiet = silenced(model, graph, removed)
    torch.testing.assert_close(shrink(quiet, graph, removed)(images()), quiet(images()), rtol=1e-10, atol=1e-12)


class Pooled(nn.Module):
    """A pooling to one pixel, which writes maps that are stored channels last in a way of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.adaptive_avg_pool2d(F.relu(self.last(F.relu(self.stem(x)))), 1).flatten(1))


@pytest.mark.parametrize("network", [*NETWORKS, Pooled])
def test_how_maps_are_stored_changes_nothing(network: type[nn.Module]) -> None:
    model = network()
    graph = dependency_graph(model, IMAGE)
    other = dependency_graph(model.to(memory_format=torch.channels_last), IMAGE)
    assert (other.families, other.untreated) == (graph.families, graph.untreated)


def test_a_sum_couples_what_makes_it() -> None:
    graph = dependency_graph(Residual(), IMAGE)
    assert [f.layers for f in graph.families] == [("stem", "outer"), ("inner",)]
    expected = {("stem", "out", 3), ("norm", "feature", 3), ("inner", "in", 3), ("outer", "out", 3), ("head", "in", 3)}
    assert graph.members(graph.families[0].channels[3]) == expected
    assert graph.blocks == ()
    assert graph.untreated == {}


def test_a_concatenation_reads_at_offsets_and_a_flattened_map_takes_columns() -> None:
    graph = dependency_graph(Concatenated(), IMAGE)
    left, right, last = graph.families
    assert graph.members(left.channels[2]) == {("left", "out", 2), ("norm", "feature", 2), ("last", "in", 2)}
    assert graph.members(right.channels[2]) == {("right", "out", 2), ("norm", "feature", 8), ("last", "in", 8)}
    columns = {("head", "in", 16 * 5 + place) for place in range(16)}
    assert graph.members(last.channels[5]) == {("last", "out", 5), *columns}


def test_depthwise_filters_follow_their_input() -> None:
    model = Depthwise()
    graph = dependency_graph(model, IMAGE)
    (family,) = graph.families
    assert family.layers == ("stem",)
    assert ("two", "out", 7) in graph.members(family.channels[3])
    small = shrink(model, graph, family.channels[:3])
    assert (small.one.in_channels, small.one.groups, small.two.out_channels, small.two.groups) == (5, 5, 10, 5)
    alone = shrink(model, graph, family.channels[1:])
    assert (alone.one.groups, alone.two.out_channels, alone(torch.zeros(1, *IMAGE)).shape) == (1, 2, (1, 4))


def test_groups_lose_as_many_channels_each() -> None:
    graph = dependency_graph(Grouped(), IMAGE)
    stem, middle = graph.families
    assert (len(stem.channels), len(middle.channels)) == (4, 6)
    small = shrink(Grouped(), graph, [stem.channels[1], *middle.channels[:2]])
    assert (small.middle.in_channels, small.middle.out_channels, small.middle.groups) == (12, 16, 4)
    assert small.middle.weight.shape == (16, 3, 3, 3)


def test_a_layer_called_twice_couples_its_ends() -> None:
    (family,) = dependency_graph(Repeated(), IMAGE).families
    assert family.layers == ("stem", "again")


def test_shuffled_channels_go_by_their_place() -> None:
    graph = dependency_graph(Shuffled(), IMAGE)
    (family,) = graph.families
    assert family.layers == ("stem", "side")
    made = [sorted(i for name, side, i in graph.members(c) if (name, side) == ("stem", "out")) for c in family.channels]
    assert made == [[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15]]


def test_a_gate_goes_with_what_it_opens() -> None:
    layers = [f.layers for f in dependency_graph(Excited(), IMAGE).families]
    assert layers == [("stem", "up"), ("down",)]


def test_channels_padded_with_zeros_stay() -> None:
    stem, *_ = dependency_graph(Padded(), IMAGE).families
    assert stem.layers == ("stem", "wide")
    assert len(stem.channels) == 8
    assert stem.channels[0] in dependency_graph(Padded(), IMAGE).class_of(
        dependency_graph(Padded(), IMAGE).layers["wide"].outputs[4:5]
    )


class Odd(nn.Module):
    """Something in the middle that is given."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.first, self.middle, self.last, self.head = nn.Conv2d(3, 8, 1), middle, nn.Conv2d(8, 6, 1), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.last(self.middle(self.first(x)))).mean((2, 3)))


class FixedView(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), 8, -1).reshape(len(x), 8, 12, 12)


class FixedSplit(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        one, two = x.split(4, 1)
        return torch.cat([two, one], 1)


class UnevenCut(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, 3:], x[:, :3]], 1)


class MeanOverChannels(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(1, keepdim=True)


class BySize(nn.Module):
    """Channels turned about by what looks like a place but is a fixed number."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flip(1) if x.shape[1] == 8 else x


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class ComputedWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, 2 * self.conv.weight)


class SlicedWeight(ComputedWeight):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([F.conv2d(x[:, :4], self.conv.weight[:4, :4]), x[:, 4:]], 1)


@pytest.mark.parametrize(
    ("middle", "word"),
    [
        (FixedView(), "number of channels"),
        (FixedSplit(), ""),
        (UnevenCut(), "slice"),
        (MeanOverChannels(), "mean"),
        (BySize(), "does not read"),
        (Scale(), "fixed size"),
        (nn.GroupNorm(2, 8), "group_norm"),
        (nn.LayerNorm(12), "layer_norm"),
        (nn.Softmax(1), "softmax"),
        (nn.ConvTranspose2d(8, 8, 1), "convolution"),
        (nn.PReLU(8), "prelu"),
        (ComputedWeight(), "convolution"),
        (SlicedWeight(), "convolution"),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else "",
)
def test_what_is_not_understood_is_told_and_left_alone(middle: nn.Module, word: str) -> None:
    model = roughened(Odd(middle))
    graph = dependency_graph(model, IMAGE)
    removable = {name for f in graph.families for name in f.layers}
    assert "last" in removable
    if not isinstance(middle, FixedSplit):  # two parts of equal size stay so where both lose the same places
        assert "first" not in removable
        assert any(word in reason for reason in graph.untreated.values()), graph.untreated
    removed = part(graph, 0.5)
    quiet = silenced(model, graph, removed)
    torch.testing.assert_close(shrink(quiet, graph, removed)(images()), quiet(images()), rtol=1e-10, atol=1e-12)


def test_a_weight_that_two_layers_share_is_left_alone() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1), nn.Flatten(), nn.Linear(1152, 4))
    model[2].weight = model[1].weight
    graph = dependency_graph(model, IMAGE)
    assert graph.families == ()
    assert {"1", "2"} <= graph.untreated.keys()


def test_the_proof_sees_a_channel_in_the_wrong_place(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Odd(nn.Identity())
    graph = dependency_graph(model, IMAGE)
    removed = graph.families[0].channels[:2]
    small = _cut(model, graph, removed)
    _prove(small, graph, removed)
    small.middle.forward = lambda x: x.flip(1)  # type: ignore[method-assign]
    with pytest.raises(MismatchError, match="last does not read the channels"):
        _prove(small, graph, removed)


def test_the_original_is_left_as_it_was_and_the_copy_keeps_names_and_types() -> None:
    model = Residual().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    graph = dependency_graph(model, IMAGE)
    small = shrink(model, graph, part(graph, 0.5))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert model.training
    assert small.state_dict().keys() == before.keys()
    assert [type(m) for m in small.modules()] == [type(m) for m in model.modules()]
    assert count_macs(small, IMAGE) == sum(layer.macs for layer in graph.smaller(part(graph, 0.5)).values())
    assert count_macs(model, IMAGE) == sum(layer.macs for layer in graph.layers.values())


def test_no_layer_loses_all_and_no_wrong_image_passes() -> None:
    model = Residual()
    graph = dependency_graph(model, IMAGE)
    with pytest.raises(CompressionError, match="stem would lose every channel"):
        shrink(model, graph, graph.families[0].channels)
    with pytest.raises(ImageSizeError):
        dependency_graph(model, (5, 12, 12))
