"""Whole numbers: the operators that are read, the reference that computes them, and the ONNX file of them."""

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import onnx
import pytest
import torch
from exported_networks import Mixed, images, mixed, network_of, relative_error
from torch import Tensor, nn

from zoo.create import create_model
from zoo.data import Dataset, normalize
from zoo.errors import ExportError
from zoo.interop.agreement import compare
from zoo.interop.calibration import Calibration, Seen, grid_of, in_integers, measure_ranges, quantize
from zoo.interop.deployable import deployable
from zoo.interop.onnx import load_onnx
from zoo.interop.operators import AveragePool, Convolution, Graph
from zoo.interop.program import read_graph
from zoo.interop.qdq import export_int8
from zoo.interop.quantized import Grid, QuantizedNetwork, Step, Value, Weights, rescale, window_counts
from zoo.registry import architectures

IMAGE = (3, 12, 12)
FEW = Calibration(images=60, others=40)
QUICK = {"lenet_300_100", "lenet5", "lenet5_caffe", "squeezenet1_1"}
WITHOUT = {
    "xnor_lenet5": "batch_norm",
    "xnor_nin": "batch_norm",
    "slimmable_mobilenetv1": "weights|batch_norm|constant",
}
NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in architectures()]


@pytest.fixture
def little(tiny: Dataset) -> Dataset:
    """The random images at 12 x 12, in five classes."""
    return replace(tiny, images=tiny.images[:, :, ::3, ::3][:, :, :12, :12].contiguous(), classes=tiny.classes[:5],
                   labels=tiny.labels % 5)  # fmt: skip


def graph_of(model: nn.Module, image: tuple[int, int, int] = IMAGE) -> Graph:
    return read_graph(deployable(model, image), image)


@pytest.mark.parametrize("name", NAMES)
def test_the_operators_compute_what_the_network_does_or_the_layer_is_named(name: str) -> None:
    model, image = network_of(name), (3, 32, 32)
    if name in WITHOUT:
        with pytest.raises(ExportError, match=rf"integers cannot express .*({WITHOUT[name]})"):
            graph_of(model, image)
        return
    batch = images(2, image)
    with torch.no_grad():
        graph = graph_of(model, image)
        found = dict(graph.values(batch))
        assert relative_error(found[graph.output], model(batch)) < 1e-5
    assert {value: tuple(tensor.shape[1:]) for value, tensor in found.items()} == {
        value: graph.shapes[value] for value in found
    }


def test_every_operator_is_read() -> None:
    graph = graph_of(mixed())
    kinds = [type(node.operator).__name__ for node in graph.nodes]
    assert set(kinds) == {
        "Convolution", "Linear", "MaxPool", "AveragePool", "Add", "Concat", "Flatten", "PadChannels", "Function",
    }  # fmt: skip
    assert [node.clamp for node in graph.nodes if node.clamp] == ["relu", "relu6", "relu"]


def test_a_multiplier_and_a_shift_are_a_ratio() -> None:
    ratios = torch.tensor([1e-9, 3e-5, 0.1, 0.5, 0.999999, 1.0, 7.3], dtype=torch.float64)
    made = rescale(ratios)
    assert int(made.multipliers.max()) < 2**31
    for ratio, multiplier, shift in zip(ratios.tolist(), made.multipliers.tolist(), made.shifts.tolist(), strict=True):
        assert abs(multiplier / 2**shift - ratio) <= ratio * 2**-29
    sums = torch.tensor([[-(2**31), -3, -1, 0, 1, 3, 2**31 - 1]]).T.expand(7, 7)
    found = made(sums.contiguous())
    for row in range(7):
        for column in range(7):
            exact = Fraction(int(sums[row, column]) * int(made.multipliers[column]), 2 ** int(made.shifts[column]))
            assert int(found[row, column]) == math.floor(exact + Fraction(1, 2))


def test_a_grid_has_a_code_for_zero_and_rounds_to_the_nearest() -> None:
    for low, high in ((-1.0, 3.0), (0.0, 6.0), (2.0, 5.0), (-4.0, -1.0), (0.0, 0.0)):
        grid = grid_of(low, high)
        assert grid.values(grid.codes(torch.zeros(1))) == 0
        inside = torch.linspace(min(low, 0), max(high, 0), 1000)
        assert (grid.values(grid.codes(inside)) - inside).abs().max() <= grid.scale * 0.5001 + 1e-6
    assert grid_of(-1, 3).codes(torch.tensor([-9.0, 9.0])).tolist() == [0, 255]


def by_hand(step: Step, codes: Tensor) -> list[int]:
    """The first filter of a convolution with Python's own integers: codes of its output, row by row."""
    operator, weights, source = step.operator, step.weights, step.inputs[0]
    assert isinstance(operator, Convolution)
    assert weights is not None
    _, height, width = source.shape
    found = []
    for top in range(0, height + 2 * operator.padding[0] - weights.codes.shape[2] + 1, operator.stride[0]):
        for left in range(0, width + 2 * operator.padding[1] - weights.codes.shape[3] + 1, operator.stride[1]):
            total = int(weights.bias[0])
            for channel in range(weights.codes.shape[1]):
                for y in range(weights.codes.shape[2]):
                    for x in range(weights.codes.shape[3]):
                        row, column = top + y - operator.padding[0], left + x - operator.padding[1]
                        if 0 <= row < height and 0 <= column < width:
                            code = int(codes[0, channel, row, column]) - source.grid.zero
                            total += code * int(weights.codes[0, channel, y, x])
            multiplier, shift = int(step.rescales[0].multipliers[0]), int(step.rescales[0].shifts[0])
            scaled = (total * multiplier + (1 << (shift - 1))) >> shift
            found.append(max(step.clamp[0], min(step.clamp[1], scaled + step.output.grid.zero)))
    return found


@pytest.mark.parametrize(("stride", "padding", "largest"), [(1, 1, 127), (2, 0, 127), (2, 1, 3)])
def test_a_convolution_is_exact(stride: int, padding: int, largest: int) -> None:
    generator = torch.Generator().manual_seed(stride)
    codes = torch.randint(256, (1, 60, 6, 5), generator=generator)
    kernel = torch.randint(-largest, largest + 1, (4, 60, 3, 3), generator=generator).to(torch.int8)
    kernel[0] = largest  # the sum is as large as it can be
    weights = Weights(kernel, torch.full((4,), 0.01), torch.tensor([5, -70000, 0, 3], dtype=torch.int32))
    side = Value("x", (60, 6, 5), Grid(0.02, 3)), Value("y", (4, 6, 5), Grid(40.0, 9))
    ratios = torch.full((4,), 0.02 * 0.01 / 40.0, dtype=torch.float64)
    operator = Convolution((stride, stride), (padding, padding), 1)
    step = Step(operator, "here", side[:1], side[1], (9, 255), weights, (rescale(ratios),))
    found = step.run([codes.to(torch.int32)])
    assert found[0, 0].flatten().tolist() == by_hand(step, codes)
    assert found.min() >= 9, "the clamp holds"


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("ceil", [True, False])
def test_windows_are_counted_as_pytorch_counts_them(counted: bool, ceil: bool) -> None:
    operator = AveragePool((3, 3), (2, 2), (1, 1), ceil, counted)
    batch = images(1, (1, 8, 8))
    wanted = nn.AvgPool2d(3, 2, 1, ceil, counted)(batch)
    sums = nn.functional.avg_pool2d(batch, 3, 2, 1, ceil, True, 1)
    assert torch.allclose(sums / window_counts(operator, (8, 8)), wanted, atol=1e-6)


def integers(model: nn.Module, data: Dataset) -> QuantizedNetwork:
    graph = graph_of(model, data.image)
    ranges = {name: seen.range("largest") for name, seen in measure_ranges(graph, data).items()}
    return in_integers(graph, ranges, data.image)


def test_every_operator_comes_near_in_whole_numbers(little: Dataset) -> None:
    model = mixed()
    network = integers(model, little)
    batch = normalize(little.images, little.mean, little.std)
    with torch.no_grad():
        assert relative_error(network(batch), model(batch)) < 0.05
    codes = network.run(network.input.grid.codes(batch))
    assert codes.dtype == torch.int32
    assert codes.abs().max() < 2**15
    assert len(codes.unique()) > 256, "logits have more than 8 bits"
    pixels = network.pixel_codes(little.mean, little.std)
    looked_up = torch.stack([pixels[channel][little.images[:, channel].long()] for channel in range(3)], 1)
    assert torch.equal(looked_up.int(), network.input.grid.codes(batch))


class Cut(nn.Module):
    """A branch behind a ReLU and one without, joined: they share their codes, and only one may go below zero."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([torch.relu(self.left(x)), self.right(x)], 1).flatten(1)


def test_a_relu_cuts_off_where_its_codes_could_go_on(little: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Cut().eval()
    network = integers(model, little)
    export_int8(network, tmp_path / "x.onnx")
    batch = normalize(little.images, little.mean, little.std)
    with torch.no_grad():
        wanted = model(batch)
    for found in (network(batch), load_onnx(tmp_path / "x.onnx")(batch)):
        left = found[:, : found.shape[1] // 2]
        assert left.min() == 0
        assert found.min() < 0
        assert relative_error(found, wanted) < 0.02


@pytest.mark.parametrize("pixels", [False, True])
def test_the_file_is_the_reference_to_one_code_in_a_hundred(pixels: bool, little: Dataset, tmp_path: Path) -> None:
    network = integers(mixed(), little)
    inside = (little.mean, little.std) if pixels else (None, None)
    export_int8(network, tmp_path / "x.onnx", mean=inside[0], std=inside[1], metadata={"a": "b"})
    exported = load_onnx(tmp_path / "x.onnx")
    assert exported.metadata == {"a": "b"}
    batch = normalize(little.images, little.mean, little.std)
    found = exported(little.images if pixels else batch)
    assert relative_error(found, network(batch)) < 0.01
    for one in (1, 7):
        assert torch.allclose(exported((little.images if pixels else batch)[:one]), found[:one], atol=1e-6)


def test_the_file_holds_8_bits_a_weight(little: Dataset, tmp_path: Path) -> None:
    export_int8(integers(mixed(), little), tmp_path / "x.onnx")
    constants = onnx.load(tmp_path / "x.onnx").graph.initializer
    whole = onnx.TensorProto.INT8, onnx.TensorProto.INT32, onnx.TensorProto.UINT8
    weights = [c for c in constants if len(c.dims) > 1]
    assert {c.data_type for c in weights} == {onnx.TensorProto.INT8}
    assert {c.name for c in weights} >= {"stem.weight", "head.weight"}
    assert sum(math.prod(c.dims) for c in constants if c.data_type not in whole) < 200, "scales alone are floats"


def test_calibration_chooses_and_leaves_the_model_as_it_is(digits: tuple[Dataset, Dataset]) -> None:
    train, test = digits
    model = create_model("lenet5", dataset="mnist", pretrained=True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    network, choice = quantize(model, train, FEW)
    assert choice.errors[choice.method] == min(choice.errors.values())
    assert set(choice.errors) == set(FEW.methods)
    again, _ = quantize(model, train, FEW)
    batch = normalize(test.images[:50], test.mean, test.std)
    assert torch.equal(network(batch), again(batch)), "no chance but the seed's"
    found = compare(model, network, test.subset(range(200)))
    assert found.agreement > 0.97
    assert abs(found.correct - found.exported_correct) <= 6
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_range_can_leave_out_what_is_rare() -> None:
    seen = Seen()
    values = torch.cat([torch.rand(100_000), torch.tensor([50.0])])
    seen.widen(values)
    seen.count(values)
    assert seen.range("largest") == (0.0, 50.0) or seen.range("largest")[1] == 50.0
    assert seen.range("99.9 %")[1] < 1.1
    assert seen.range("least square")[1] <= 50.0


def with_classes(data: Dataset, classes: Sequence[str]) -> Dataset:
    return replace(data, classes=tuple(classes))


def test_images_that_do_not_fit_are_told_apart(digits: tuple[Dataset, Dataset], tiny: Dataset) -> None:
    model = create_model("lenet5", dataset="mnist", pretrained=True)
    with pytest.raises(ExportError, match="images of tiny are 3 x 32 x 32, the network takes 1 x 28 x 28"):
        quantize(model, tiny)
    with pytest.raises(ExportError, match="has 11 classes, the network 10"):
        quantize(model, with_classes(digits[0], map(str, range(11))))
    with pytest.raises(ExportError, match="has 50 training images; calibration takes 60"):
        quantize(model, digits[0].subset(range(50)), FEW)


class Odd(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x)


def test_an_operator_beyond_integers_is_told_with_its_layer() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), Odd()), nn.Flatten(), nn.Linear(400, 5)).eval()
    with pytest.raises(ExportError, match=r"operator sin of the layer 1\.1 \(Odd\); export with --format onnx"):
        graph_of(model)
    dilated = nn.Sequential(nn.Conv2d(3, 4, 3, dilation=2), nn.Flatten()).eval()
    with pytest.raises(ExportError, match=r"convolution with dilation .*layer 0 \(Conv2d\)"):
        graph_of(dilated)
    assert graph_of(Mixed().eval()).nodes
