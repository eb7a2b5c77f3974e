"""Plain C: every operator against the reference, code by code; memory that is never written over; hostile names."""

import itertools
import random
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from exported_networks import mixed, network_of, relative_error
from torch import Tensor, nn

from zoo.cost import measure
from zoo.data import Dataset, normalize
from zoo.errors import ExportError
from zoo.interop.calibration import Calibration, in_integers, measure_ranges, quantize
from zoo.interop.deployable import deployable
from zoo.interop.operators import (
    Add,
    AveragePool,
    Concat,
    Convolution,
    Flatten,
    Function,
    GlobalAverage,
    Linear,
    MaxPool,
    Operator,
    PadChannels,
    Subsample,
)
from zoo.interop.plain_c import CProject, compiled, compiler, export_c, reference
from zoo.interop.plain_c.planner import Buffer, needed, offsets, plan
from zoo.interop.program import read_graph
from zoo.interop.quantized import Grid, QuantizedNetwork, Rescale, Step, Value, Weights

needs_compiler = pytest.mark.skipif(compiler() is None, reason="there is no C compiler ($CC, or else cc)")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
WIDE = (0, -(2**15), 2**15 - 1)
LARGEST = 2**31 - 1


@dataclass(frozen=True)
class Case:
    """One operator between an image and the logits.

    zeros: codes of 0 of the image and of the result. weights: shape, or none. ratio: multiplier and shift.
    extreme: the largest weights and biases. clamp: of the result, or none for all codes.
    """

    operator: Operator
    image: tuple[int, int, int]
    result: tuple[int, ...]
    zeros: tuple[int, int] = (37, 37)
    weights: tuple[int, ...] = ()
    ratio: tuple[int, int] = (1_500_000_001, 41)
    wide: bool = False
    extreme: bool = False
    clamp: tuple[int, int] = (0, 255)


CASES = {
    "convolution": Case(
        Convolution((1, 1), (1, 1), 1), (3, 7, 5), (11, 7, 5), weights=(11, 3, 3, 3), zeros=(37, 120), clamp=(120, 199)
    ),
    "convolution, long strides": Case(
        Convolution((2, 3), (2, 0), 1), (2, 9, 10), (5, 6, 3), weights=(5, 2, 3, 4), zeros=(0, 9)
    ),
    "convolution of groups": Case(
        Convolution((1, 1), (0, 1), 2), (4, 5, 6), (18, 5, 6), weights=(18, 2, 1, 3), zeros=(255, 128)
    ),
    "depthwise": Case(Convolution((2, 2), (1, 1), 6), (6, 9, 9), (6, 5, 5), weights=(6, 1, 3, 3), zeros=(0, 0)),
    "pointwise to logits": Case(Convolution((1, 1), (0, 0), 1), (9, 1, 1), (4, 1, 1), weights=(4, 9, 1, 1), wide=True),
    "convolution of extremes": Case(
        Convolution((1, 1), (0, 0), 1), (3, 4, 4), (9, 2, 2), weights=(9, 3, 3, 3), extreme=True, ratio=(LARGEST, 1)
    ),
    "linear": Case(Linear(), (50, 1, 1), (7,), weights=(7, 50), zeros=(130, 3), clamp=(3, 255)),
    "linear of extremes": Case(Linear(), (50, 1, 1), (6,), weights=(6, 50), extreme=True, ratio=(LARGEST, 62)),
    "linear to logits": Case(Linear(), (50, 1, 1), (6,), weights=(6, 50), extreme=True, ratio=(LARGEST, 47), wide=True),
    "largest": Case(MaxPool((3, 2), (2, 2), (1, 0), True), (3, 8, 7), (3, 5, 4)),
    "average": Case(AveragePool((3, 3), (2, 2), (1, 1), True, True), (2, 8, 9), (2, 5, 5)),
    "average of the map": Case(AveragePool((3, 3), (2, 2), (1, 1), True, False), (2, 8, 9), (2, 5, 5), (200, 200)),
    "average of pairs": Case(AveragePool((1, 2), (1, 2), (0, 0), False, True), (2, 8, 8), (2, 8, 4), (100, 100)),
    "global average": Case(GlobalAverage(), (5, 4, 3), (5,), (99, 17), ratio=(LARGEST, 35)),
    "global average to logits": Case(GlobalAverage(), (5, 4, 3), (5,), (99, 0), ratio=(LARGEST, 28), wide=True),
    "add": Case(Add(), (2, 5, 5), (2, 5, 5), (37, 90), clamp=(90, 255)),
    "concatenate": Case(Concat(), (2, 5, 5), (6, 5, 5)),
    "subsample": Case(Subsample((2, 3)), (2, 5, 8), (2, 3, 3)),
    "pad channels": Case(PadChannels(1, 3), (2, 3, 3), (6, 3, 3)),
    "function": Case(Function("tanh"), (2, 3, 3), (2, 3, 3), (37, 99)),
}


def network(case: Case) -> QuantizedNetwork:
    """The image, a function of it as the second input of those that have two, the operator, and logits in a row."""
    generator = torch.Generator().manual_seed(5)
    grid = Grid(0.01, case.zeros[1], *((WIDE[1], WIDE[2]) if case.wide else (0, 255)))
    grid = replace(grid, zero=0) if case.wide else grid
    image = Value("image", case.image, Grid(1 / 255, case.zeros[0]))
    other = Value("other", case.image, Grid(1 / 255, 250 if isinstance(case.operator, Add) else case.zeros[0]))
    result, row = Value("result", case.result, grid), Value("row", (prod(case.result),), grid)
    codes, multiplier, shift = torch.arange(256), *case.ratio
    table = codes[torch.randperm(256, generator=generator)].byte()
    inputs: tuple[Value, ...] = (image,)
    rescales: tuple[Rescale, ...] = (Rescale(torch.tensor([multiplier]), torch.tensor([shift])),)
    weights = None
    if isinstance(case.operator, Add):
        inputs, rescales = (image, other), tuple(Rescale(torch.tensor([m]), torch.tensor([20])) for m in (700000, 99))
    if isinstance(case.operator, Concat):
        inputs = (image, other, other)
    if case.weights:
        filters = case.weights[0]
        numbers = torch.randint(-127, 128, case.weights, generator=generator)
        bias = torch.randint(-20000, 20000, (filters,), generator=generator)
        if case.extreme:
            signs = torch.tensor([1, -1]).repeat(filters)[:filters]
            numbers, bias = 127 * signs.reshape(-1, *[1] * (numbers.ndim - 1)) * numbers.ge(-90), (2**30 - 1) * signs
        weights = Weights(numbers.to(torch.int8), torch.ones(filters), bias.int())
        spread = torch.arange(filters) % 3 * (0 if case.extreme else 1)
        rescales = (Rescale(torch.full((filters,), multiplier) - spread, torch.full((filters,), shift) - spread),)
    clamp = (grid.low, grid.high) if case.wide else case.clamp
    steps = [
        Step(Function("tanh"), "first (Tanh)", (image,), other, (0, 255), table=table),
        Step(case.operator, "0.alone (Layer)", inputs, result, clamp, weights, rescales, table),
    ]
    if len(inputs) == 1:
        del steps[0]
    if isinstance(case.operator, Linear):
        flat = replace(image, name="flat", shape=(prod(case.image),))
        steps = [Step(Flatten(), "flat (Flatten)", (image,), flat, (0, 255)), replace(steps[0], inputs=(flat,))]
    if case.result != row.shape:
        steps.append(Step(Flatten(), "flat (Flatten)", (result,), row, (grid.low, grid.high)))
    return QuantizedNetwork(case.image, image, row if case.result != row.shape else result, tuple(steps))


def means(quantized: QuantizedNetwork) -> dict[str, list[float]]:
    """Normalisation under which the code of a pixel is the pixel."""
    channels = quantized.image[0]
    return {"mean": [quantized.input.grid.zero / 255] * channels, "std": [1.0] * channels}


def pixels_of(image: Sequence[int], count: int = 20) -> Tensor:
    """Random images, a black and a white one."""
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(256, (count, *image), generator=generator, dtype=torch.uint8)
    pixels[0], pixels[1] = 0, 255
    return pixels


def written(
    quantized: QuantizedNetwork, folder: Path, pixels: Tensor, classes: Sequence[str] | None = None
) -> CProject:
    names = classes or [f"class {number}" for number in range(prod(quantized.output.shape))]
    return export_c(
        quantized, folder, name="little", title="A test", classes=names, pixels_NCHW=pixels[:3], **means(quantized)
    )


@needs_compiler
@pytest.mark.parametrize("name", CASES)
def test_an_operator_alone_computes_what_the_reference_does(name: str, tmp_path: Path) -> None:
    quantized = network(CASES[name])
    pixels = pixels_of(quantized.image)
    assert torch.equal(quantized.pixel_codes(**means(quantized))[0], torch.arange(256, dtype=torch.uint8))
    wanted = reference(quantized, pixels_NCHW=pixels, **means(quantized))
    assert len(wanted.unique()) > 1
    program = compiled(written(quantized, tmp_path, pixels), tmp_path, "-fsanitize=undefined")
    assert torch.equal(program.codes(pixels), wanted)


def integers(model: nn.Module, images: Dataset) -> QuantizedNetwork:
    """Whole numbers by the largest values that the images cause."""
    graph = read_graph(deployable(model, images.image), images.image)
    ranges = {name: seen.range("largest") for name, seen in measure_ranges(graph, images).items()}
    return in_integers(graph, ranges, images.image)


@pytest.fixture
def little(tiny: Dataset) -> Dataset:
    """40 random images of 12 x 12 in five classes."""
    some = tiny.subset(range(40))
    return replace(some, images=some.images[:, :, :12, :12].contiguous(), classes=tiny.classes[:5])


@needs_compiler
@pytest.mark.parametrize("flags", [SANITIZERS, ("-O3",), ("-Os",)], ids=["sanitizers", "O3", "Os"])
def test_a_network_of_many_operators(flags: tuple[str, ...], little: Dataset, tmp_path: Path) -> None:
    quantized, norms = integers(mixed(), little), {"mean": little.mean, "std": little.std}
    project = export_c(
        quantized,
        tmp_path / "c",
        name="Mixed 5!",
        title="*/ #error",
        classes=little.classes,
        pixels_NCHW=little.images[:2],
        **norms,
    )
    assert project.name == "mixed_5"
    program = compiled(project, tmp_path, *flags)
    assert torch.equal(program.codes(little.images), reference(quantized, pixels_NCHW=little.images, **norms))
    with torch.no_grad():
        assert relative_error(program(little.images), mixed()(normalize(little.images, **norms))) < 0.1


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("name", ["lenet5", "mobilenetv1_025", "squeezenet1_1"])
def test_a_whole_network_on_digits_under_sanitizers(name: str, digits: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    train, test = digits[0], digits[1].subset(range(30))
    model = network_of(name, train.image[1], in_chans=1)
    for key, bias in model.named_parameters():
        if key.endswith("bias") and not bias.any():  # C leaves out a bias of zeros
            nn.init.normal_(bias, std=0.1)
    quantized, _ = quantize(model, train, Calibration(40, 20, ("largest",)))
    norms = {"mean": train.mean, "std": train.std}
    project = export_c(
        quantized, tmp_path, name=name, title=name, classes=train.classes, pixels_NCHW=test.images[:2], **norms
    )
    program = compiled(project, tmp_path, *SANITIZERS)
    assert torch.equal(program.codes(test.images), reference(quantized, pixels_NCHW=test.images, **norms))
    cost = measure(model, train.image)
    assert project.weight_bytes == cost.flash_bytes
    assert project.arena_bytes <= cost.peak_activation_bytes_int8


@needs_compiler
def test_make_test_passes_and_fails_when_a_logit_is_another(tmp_path: Path) -> None:
    quantized = network(CASES["linear"])
    written(quantized, tmp_path, pixels_of(quantized.image))
    made = subprocess.run(["make", "-C", tmp_path, "test", "run"], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert "3 test vectors, 0 wrong logits" in made.stdout
    vectors = tmp_path / "little_vectors.h"
    head, mark, tail = vectors.read_text().partition("little_logits[3][7] = {\n    {\n    ")
    assert mark
    vectors.write_text(f"{head}{mark}1{tail}")
    made = subprocess.run(["make", "-C", tmp_path, "test"], capture_output=True, text=True)
    assert made.returncode != 0
    assert "3 test vectors, 1 wrong logits" in made.stdout


@needs_compiler
def test_an_image_that_is_cut_short_is_told(tmp_path: Path) -> None:
    quantized = network(CASES["linear"])
    program = compiled(written(quantized, tmp_path, pixels_of(quantized.image)), tmp_path)
    with pytest.raises(ExportError, match="the last image has 49 of 50 bytes"):
        program.codes(torch.zeros(99, dtype=torch.uint8))


@needs_compiler
def test_names_of_classes_come_out_as_they_went_in(tmp_path: Path) -> None:
    names = ['"; int x; "', "back\\slash\\", "??/??'", "%s\n\t", "ß 猫 \x7f", "*/ //", ""]
    quantized = network(CASES["linear"])
    written(quantized, tmp_path, pixels_of(quantized.image), names)
    main = '#include <stdio.h>\n#include "little.h"\nint main(void)\n{\n    int i;\n    for (i = 0; i < 7; i++)\n'
    (tmp_path / "main.c").write_text(f'{main}        printf("%s%c", little_classes[i], 0);\n    return 0;\n}}\n')
    command = [str(compiler()), "-std=c99", "-Wall", "-Wextra", "-Werror", "-o", "main", "main.c", "little.c"]
    subprocess.run(command, cwd=tmp_path, check=True)
    said = subprocess.run([tmp_path / "main"], capture_output=True, check=True).stdout
    assert said.decode().split("\0")[:-1] == names


def test_an_operator_without_a_kernel_is_named(tmp_path: Path) -> None:
    class Softmax:
        """What C has no kernel for."""

    quantized = network(CASES["linear"])
    odd = replace(quantized, steps=(quantized.steps[0], replace(quantized.steps[1], operator=Softmax())))  # type: ignore[arg-type]
    with pytest.raises(
        ExportError, match=r"plain C has no Softmax, which the layer 0.alone \(Layer\) needs; it has Add"
    ):
        written(odd, tmp_path, pixels_of(quantized.image))
    assert not list(tmp_path.iterdir())


def test_sums_beyond_32_bits_are_refused(tmp_path: Path) -> None:
    quantized = network(CASES["linear of extremes"])
    flat, step = quantized.steps
    assert step.weights is not None
    large = replace(step, weights=replace(step.weights, bias=torch.full((6,), LARGEST, dtype=torch.int32)))
    with pytest.raises(ExportError, match=r"the sums of the layer 0\.alone \(Layer\) may reach 2,14\d,"):
        written(replace(quantized, steps=(flat, large)), tmp_path, pixels_of(quantized.image))


def test_without_a_compiler_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quantized = network(CASES["linear"])
    project = written(quantized, tmp_path, pixels_of(quantized.image))
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(ExportError, match="no C compiler was found; install one, or name it in"):
        compiled(project, tmp_path)


def some_buffers(seed: int, count: int) -> list[Buffer]:
    chance = random.Random(seed)
    spans = [sorted((chance.randrange(6), chance.randrange(6))) for _ in range(count)]
    return [Buffer(chance.randint(1, 9), first, last) for first, last in spans]


def least_of_all(buffers: Sequence[Buffer]) -> int:
    """Bytes of the best arena, by trying every offset that the sizes of others add up to."""
    sums = {sum(chosen) for n in range(len(buffers)) for chosen in itertools.combinations([b.size for b in buffers], n)}

    def fits(placed: list[int], limit: int) -> bool:
        if len(placed) == len(buffers):
            return True
        mine = buffers[len(placed)]
        together = [(at, b.size) for at, b in zip(placed, buffers, strict=False) if touch(b, mine)]
        return any(
            all(at + mine.size <= start or start + size <= at for start, size in together)
            and fits([*placed, at], limit)
            for at in sums
            if at + mine.size <= limit
        )

    return next(limit for limit in itertools.count(needed(buffers)) if fits([], limit))


def touch(one: Buffer, other: Buffer) -> bool:
    return one.first <= other.last and other.first <= one.last


@pytest.mark.parametrize("seed", range(60))
def test_few_buffers_take_the_least_bytes_there_are(seed: int) -> None:
    buffers = some_buffers(seed, 5)
    placed = offsets(buffers)
    assert max(at + b.size for at, b in zip(placed, buffers, strict=True)) == least_of_all(buffers)


@pytest.mark.parametrize("seed", range(20))
def test_buffers_that_are_needed_at_once_lie_apart(seed: int) -> None:
    buffers = some_buffers(seed, 30)
    placed = offsets(buffers)
    for (at, one), (start, other) in itertools.combinations(zip(placed, buffers, strict=True), 2):
        assert not touch(one, other) or at + one.size <= start or start + other.size <= at
    assert max(at + b.size for at, b in zip(placed, buffers, strict=True)) <= 1.15 * needed(buffers)


class Crossing(nn.Module):
    """[N, 3, 12, 12] -> [N, 5]: parts that go into two concatenations, into one twice, and are read again after it."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, padding=1)
        self.last, self.head = nn.Conv2d(4, 24, 1), nn.Linear(24 * 144, 5)

    def forward(self, x: Tensor) -> Tensor:
        left, right = torch.tanh(self.left(x)), self.right(x)
        inner = torch.cat([left, right], 1)
        outer = torch.cat([inner, right, torch.tanh(inner), left], 1)
        flat = torch.flatten(self.last(left), 1)
        return self.head(torch.tanh(flat) + torch.flatten(outer, 1) + flat)


@pytest.mark.parametrize("make", [mixed, Crossing], ids=["mixed", "crossing"])
def test_no_value_is_written_over_while_it_is_still_to_be_read(make: type[nn.Module], little: Dataset) -> None:
    torch.manual_seed(0)
    quantized = integers(make().eval(), little)
    planned = plan(quantized)
    arena = np.zeros(planned.bytes, np.uint8)
    image = normalize(little.images[:1], little.mean, little.std)
    held = {quantized.input.name: quantized.input.grid.codes(image)}

    def place(value: Value) -> slice:
        return slice(planned.offsets[value.name], planned.offsets[value.name] + prod(value.shape))

    arena[place(quantized.input)] = held[quantized.input.name].flatten()
    for step in quantized.steps:
        for value in step.inputs:
            assert arena[place(value)].tolist() == held[value.name].flatten().tolist(), f"{value} of {step}"
        held[step.output.name] = step.run([held[value.name] for value in step.inputs])
        if step.output.name in planned.offsets:
            arena[place(step.output)] = held[step.output.name].flatten()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg11_bn", "resnet20", "nin", "googlenet", "mobilenetv2_050", "inception_v3"])
def test_memory_is_what_the_count_predicts(name: str, tiny: Dataset) -> None:
    model = network_of(name)
    quantized, predicted = integers(model, tiny.subset(range(2))), measure(model, tiny.image)
    assert 0.9 * predicted.peak_activation_bytes_int8 <= plan(quantized).bytes
    assert plan(quantized).bytes <= 1.1 * predicted.peak_activation_bytes_int8
