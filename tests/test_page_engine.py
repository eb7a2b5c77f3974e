"""The page's engine computes what PyTorch computes, and a drawing becomes an image like those of MNIST."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from page_scripts import NODE, call, needs_node, run_script
from torch import Tensor
from weight_files import model_of

from zoo.data import Dataset, load_dataset, normalize
from zoo.interop.deployable import deployable
from zoo.interop.operators import (
    FUNCTIONS,
    Add,
    AveragePool,
    Concat,
    Convolution,
    Flatten,
    Function,
    GlobalAverage,
    Graph,
    Linear,
    MaxPool,
    Node,
    Operator,
    PadChannels,
    Subsample,
    compute,
)
from zoo.interop.program import read_graph
from zoo.report.page.networks import graph_plain, network_plain, weight_plain
from zoo.weights import list_cards, load_for_card, weights_path

TOLERANCE = 1e-3  # of the largest logit
MAPS = (8, 9, 13)  # of the values that operators are tried on
OPERATORS: tuple[tuple[Operator, tuple[int, ...] | None], ...] = (  # each with the shape of its weight
    (Convolution((1, 1), (1, 1), 1), (6, 8, 3, 3)),
    (Convolution((2, 1), (0, 2), 1), (6, 8, 3, 5)),
    (Convolution((1, 1), (0, 0), 1), (5, 8, 1, 1)),
    (Convolution((2, 2), (1, 1), 8), (8, 1, 3, 3)),
    (Convolution((3, 3), (2, 2), 4), (12, 2, 2, 2)),
    (Linear(), (10, 8)),
    (MaxPool((3, 3), (2, 2), (1, 1), True), None),
    (MaxPool((2, 3), (2, 2), (0, 1), False), None),
    (AveragePool((3, 3), (2, 2), (1, 1), False, True), None),
    (AveragePool((3, 2), (2, 2), (1, 1), True, True), None),
    (AveragePool((2, 3), (2, 3), (1, 1), True, False), None),
    (GlobalAverage(), None),
    (Add(), None),
    (Concat(), None),
    (Flatten(), None),
    (Subsample((2, 3)), None),
    (PadChannels(3, 2), None),
    *((Function(name), None) for name in FUNCTIONS),
)


def alone(operator: Operator, weight_shape: tuple[int, ...] | None) -> tuple[Graph, Tensor, Tensor]:
    """A network of one operator, something to give it, [1, ...], and what it makes of it."""
    torch.manual_seed(0)
    x = 3 * torch.randn(1, *(MAPS[:1] if isinstance(operator, Linear) else MAPS))
    weight = None if weight_shape is None else torch.randn(weight_shape)
    bias = None if weight_shape is None else torch.randn(weight_shape[0])
    inputs = ("x", "x") if isinstance(operator, Add | Concat) else ("x",)
    node = Node(operator, "", inputs, "y", weight, bias, "relu6" if isinstance(operator, Add) else None)
    y = compute(node, [x] * len(inputs))
    return Graph((node,), "x", "y", {"x": tuple(x.shape[1:]), "y": tuple(y.shape[1:])}), x, y


def logits_of(jobs: Sequence[tuple[dict[str, Any], Tensor, int | None]]) -> list[Any]:
    """What the engine makes of images [N, ...]: the logits of each job, and the bytes of its weights."""
    given = [{"network": plain, "images": images.flatten(1).tolist(), "bits": bits} for plain, images, bits in jobs]
    return run_script("logits.mjs", "engine.mjs", given)


def difference(found: list[list[float]], expected: Tensor) -> float:
    """The largest, as a share of the largest of what was expected."""
    return float((torch.tensor(found) - expected.flatten(1)).abs().max() / expected.abs().max())


@needs_node
def test_every_operator_computes_what_pytorch_computes() -> None:
    cases = [alone(operator, shape) for operator, shape in OPERATORS]
    found = logits_of([(graph_plain(graph), x, None) for graph, x, _ in cases])
    for (operator, _), (_, _, expected), answer in zip(OPERATORS, cases, found, strict=True):
        assert difference(answer["logits"], expected) < TOLERANCE / 10, operator
    assert {type(operator) for operator, _ in OPERATORS} == set(Operator.__args__)  # type: ignore[attr-defined]


@needs_node
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_fewer_bits_round_every_filter_to_its_grid(bits: int, digits: tuple[Dataset, Dataset]) -> None:
    image = digits[1].image
    network = deployable(model_of("lenet5", "digits"), image)
    graph = read_graph(network, image)
    for node in graph.nodes:
        if node.weight is not None:
            rows = node.weight.flatten(1)
            scales = rows.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
            node.weight.copy_((torch.round(rows / scales) * scales).reshape(node.weight.shape))
    images = normalize(digits[1].images[:4], digits[1].mean, digits[1].std)
    expected = dict(graph.values(images))[graph.output]
    plain = network_plain(model_of("lenet5", "digits"), image)
    (found,) = logits_of([(plain, images, bits)])
    assert difference(found["logits"], expected) < TOLERANCE
    weights = [node.weight for node in graph.nodes if node.weight is not None]
    assert found["bytes"] == sum((w.numel() * bits + 7) // 8 + 8 * len(w) for w in weights)


@pytest.mark.parametrize("density", [1.0, 0.1])
def test_a_written_weight_comes_back(density: float) -> None:
    torch.manual_seed(0)
    weight = torch.randn(7, 3, 5, 5) * (torch.rand(7, 3, 5, 5) < density)
    weight[2] = 0
    plain = weight_plain(weight)
    assert ("mask" in plain) == (density < 1)
    if NODE is not None:
        graph = {"nodes": [{"weight": plain}]}
        values = call("engine.mjs", "decodeNetwork", graph)["nodes"][0]["weight"]["values"]
        worst = weight.abs().amax((1, 2, 3), keepdim=True) / 65534
        assert bool(((torch.tensor(values).reshape(weight.shape) - weight).abs() <= worst * 1.001).all())


@needs_node
@pytest.mark.slow
def test_stored_networks_answer_as_pytorch_does(data_root: Path) -> None:
    """Every network that takes digits and is small enough for the page, on real test images."""
    cards = [card for card in list_cards(dataset="mnist") if card.macs < 50_000_000 and card.params < 500_000]
    assert len(cards) >= 5
    test = load_dataset("mnist", "test")
    images = normalize(test.images[:8], test.mean, test.std)
    jobs, expected = [], []
    for card in cards:
        network = load_for_card(card, weights_path(card)).eval()
        with torch.no_grad():
            expected.append(network(images))
        jobs.append((network_plain(network, card.image), images, None))
    for card, found, logits in zip(cards, logits_of(jobs), expected, strict=True):
        assert difference(found["logits"], logits) < TOLERANCE, card.stem
        assert torch.equal(torch.tensor(found["logits"]).argmax(1), logits.argmax(1)), card.stem


def strokes_of(scale: float, left: float) -> list[list[list[float]]]:
    """A seven, as large and as far from the left as wanted."""
    corners = [(0.0, 0.0), (0.5, 0.0), (0.2, 0.7)]
    return [[[left + scale * x, 0.1 + scale * y] for x, y in corners]]


@needs_node
def test_a_drawing_becomes_an_image_like_those_of_mnist() -> None:
    large, small, empty, dot = run_script("call.mjs", "drawing.mjs",
        [["digitOf", strokes] for strokes in (strokes_of(1, 0.4), strokes_of(0.5, 0.1), [], [[[0.1, 0.9]]])],
    )  # fmt: skip
    image = torch.tensor(large).reshape(28, 28)
    assert (image - torch.tensor(small).reshape(28, 28)).abs().max() <= 1, "neither place nor size matters"
    rows, columns = image.sum(1), image.sum(0)
    assert 19 <= int((rows > 0).sum()) <= 21
    assert int((columns > 0).sum()) <= 20
    middle = torch.arange(28) + 0.5
    for sums in (rows, columns):
        assert abs(float((sums * middle).sum() / sums.sum()) - 14) <= 0.5
    assert image.max() == 255
    assert sum(empty) == 0
    assert torch.tensor(dot).reshape(28, 28)[12:16, 12:16].sum() > 0
    (pixels,) = run_script("call.mjs", "drawing.mjs", [["normalised", [0, 255], 0.1307, 0.3081]])
    assert pixels == pytest.approx([-0.1307 / 0.3081, (1 - 0.1307) / 0.3081], rel=1e-6)


@needs_node
@pytest.mark.slow
def test_a_drawn_seven_is_a_seven(data_root: Path) -> None:
    card = next(card for card in list_cards(model="lenet5", dataset="mnist") if not card.tag)
    (pixels,) = run_script("call.mjs", "drawing.mjs", [["digitOf", strokes_of(1, 0.2)]])
    network = load_for_card(card, weights_path(card)).eval()
    image = torch.tensor(pixels).round().to(torch.uint8).reshape(1, 1, 28, 28)
    with torch.no_grad():
        assert int(network(normalize(image, card.mean, card.std)).argmax()) == 7
