"""BranchyNet (arXiv:1709.01686): classifiers after some stages of a network, so that easy images leave early.

`EarlyExits` puts them on any network, whatever its forward method does: its stages are the names of modules, and it
watches these. An exit is the paper's: a convolution and a linear layer; one more pooling where the map is large.
What an image that leaves skips is really skipped: those that stay go on as a smaller batch. When to leave is decided by
`zoo.dynamic.ExitRule`.

`forward` runs the whole network and no exit, so that costs and accuracy are those of the last classifier.
Differences from the paper: its LeNet-5 has three convolutions; here the networks are the zoo's own.

Exits of branchy_lenet5 at 28 px: after 20x12x12; of branchy_vgg11_bn at 32: after 128x8x8 and 256x4x4; of
branchy_resnet56 at 32: after 16x32x32 and 32x16x16.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import RecipeError, unknown
from zoo.layers import ConvNormAct, init_weights
from zoo.registry import Image, architecture, register

PAPER = "arXiv:1709.01686"
LARGEST_MAP = 8  # pixels a side; a larger one is pooled before an exit

Leaves = Callable[[int, Tensor], Tensor]  # exit, logits [N, K] -> bool [N]: which images leave there
_Watcher = Callable[[int, Tensor], Tensor | None]


class EarlyExits(nn.Module):
    """float [N, C, H, W] -> logits [N, num_classes] of the last classifier.

    backbone: any network that maps images to logits. stages: names of modules of it, in the order in which they run; an
    exit takes what the module puts out. exits: a module for each. auxiliary_weights: of each exit's loss in training,
    where that of the last classifier is 1 (section III.B).
    `add_exits` builds one, and says what does not fit.
    """

    def __init__(
        self, backbone: nn.Module, stages: Sequence[str], exits: Sequence[nn.Module], weights: Sequence[float]
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.stages = tuple(stages)
        self.exits = nn.ModuleList(exits)
        self.auxiliary_weights = tuple(weights)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        logits_NK: Tensor = self.backbone(images_NCHW)
        return logits_NK

    def forward_with_auxiliary(self, images_NCHW: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits [N, K] of the whole network, and those of every exit: what training needs."""
        answers: list[Tensor] = []
        with self._watched(lambda index, features: answers.append(self.exits[index](features))):
            last = self.backbone(images_NCHW)
        return last, answers

    def forward_until(self, images_NCHW: Tensor, index: int) -> list[Tensor]:
        """Logits [N, K] of the exits up to that one, without what comes after: what leaving there costs."""
        answers: list[Tensor] = []

        def answer(exit_index: int, features: Tensor) -> None:
            answers.append(self.exits[exit_index](features))
            if exit_index == index:
                raise _NoneLeft

        try:
            with self._watched(answer):
                answers.append(self.backbone(images_NCHW))
        except _NoneLeft:
            pass
        return answers

    def forward_early(self, images_NCHW: Tensor, leaves: Leaves) -> tuple[Tensor, Tensor]:
        """Logits [N, K], and int64 [N]: the exit by which each image left, the number of exits for the last.

        Those that leave are computed no further, and the rest goes on as a smaller batch. For inference: no gradients.
        """
        state = _Leaving(self.exits, leaves)
        with torch.no_grad(), self._watched(state.part):
            try:
                last = self.backbone(images_NCHW)
            except _NoneLeft:
                return state.finished()
        return state.finished(last)

    @contextmanager
    def _watched(self, watcher: _Watcher) -> Iterator[None]:
        """`watcher(exit, features)` is told what each stage puts out, and may put something else in its place."""
        modules = [self.backbone.get_submodule(stage) for stage in self.stages]
        handles = [
            module.register_forward_hook(lambda _m, _x, output, index=index: watcher(index, output))
            for index, module in enumerate(modules)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


class _Leaving:
    """Who has left so far, and with what. Nothing is made for images that all stay or all leave at once."""

    def __init__(self, exits: nn.ModuleList, leaves: Leaves) -> None:
        self.exits = exits
        self.leaves = leaves
        self.gone: list[tuple[int, Tensor, Tensor]] = []  # exit, rows, their logits
        self.staying_N: Tensor | None = None  # rows; None for all

    def part(self, index: int, features: Tensor) -> Tensor | None:
        """Let some leave at an exit; the features of the others, or None where all stay."""
        answers_NK = self.exits[index](features)
        leave_N = self.leaves(index, answers_NK)
        leaving = int(leave_N.count_nonzero())
        if leaving == 0:
            return None
        rows_N = torch.arange(len(leave_N), device=leave_N.device) if self.staying_N is None else self.staying_N
        if leaving == len(leave_N):
            self.gone.append((index, rows_N, answers_NK))
            raise _NoneLeft
        self.gone.append((index, rows_N[leave_N], answers_NK[leave_N]))
        self.staying_N = rows_N[~leave_N]
        return features[~leave_N]

    def finished(self, last_NK: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits [N, K] of all in their order, and the exits taken, int64 [N]. last_NK: of those that never left."""
        parts = list(self.gone)
        if last_NK is not None:
            rows_N = torch.arange(len(last_NK), device=last_NK.device) if self.staying_N is None else self.staying_N
            parts.append((len(self.exits), rows_N, last_NK))
        taken_N = torch.cat([torch.full_like(rows_N, index) for index, rows_N, _ in parts])
        if len(parts) == 1:
            return parts[0][2], taken_N
        order_N = torch.cat([rows_N for _, rows_N, _ in parts]).argsort()
        return torch.cat([logits_NK for _, _, logits_NK in parts])[order_N], taken_N[order_N]


class _NoneLeft(Exception):  # noqa: N818  # no error: the network is left by way of it
    """All images have left."""


def add_exits(
    backbone: nn.Module,
    stages: Sequence[str],
    *,
    image: Image,
    num_classes: int,
    weights: Sequence[float] | None = None,
) -> EarlyExits:
    """`backbone` with a new exit after each of `stages`; its own modules and weights, not copies.

    stages: names of its modules; put into the order in which they run. image: (C, H, W), to find the shapes with.
    weights: of the exits' losses, in that order; 1 each by default.
    Raises UnknownNameError for a stage that does not exist, RecipeError for one after which no layer is left, that a
    shortcut passes by (a block within a residual stage), or that gives no map.
    """
    modules = dict(backbone.named_modules())
    for stage in stages:
        if stage not in modules or not stage:
            raise unknown("stage", stage, [name for name in modules if name])
    modes = [(module, module.training) for module in backbone.modules()]
    backbone.eval()
    with torch.no_grad():
        shapes, followed = _shapes(backbone, stages, image)
        ordered = list(shapes)
        for stage in stages:
            if stage in shapes and not followed[stage]:
                raise RecipeError(
                    f"an exit after {stage!r} would come after the last layer and save nothing; take an earlier stage."
                )
            if stage not in shapes or len(shapes[stage]) != 4:
                raise RecipeError(f"the stage {stage!r} gives an exit no map; take one that is called once and does.")
        exits = [_exit(shapes[stage][1], shapes[stage][2], num_classes) for stage in ordered]
        weights = tuple(weights) if weights is not None else (1.0,) * len(ordered)
        if len(weights) != len(ordered) or any(weight < 0 for weight in weights):
            raise RecipeError(f"weights={weights} was given; {len(ordered)} numbers of 0 or more are allowed.")
        model = EarlyExits(backbone, ordered, exits, weights)
        for index, stage in enumerate(ordered):
            if not _all_passes_through(model, index, image):
                raise RecipeError(
                    f"a shortcut passes by the stage {stage!r}, so an image cannot leave there; take a stage that "
                    "everything passes through, such as the whole group of its block."
                )
    for module, mode in modes:
        module.training = mode
    return model


def _exit(channels: int, side: int, num_classes: int) -> nn.Module:
    """[N, channels, side, side] -> logits [N, num_classes]."""
    layers: list[nn.Module] = []
    while side > LARGEST_MAP:
        layers.append(nn.MaxPool2d(2, ceil_mode=True))
        side = -(-side // 2)
    layers += [ConvNormAct(channels, channels, 3), nn.Flatten(), nn.Linear(channels * side**2, num_classes)]
    return init_weights(nn.Sequential(*layers))


def _shapes(
    backbone: nn.Module, stages: Sequence[str], image: Image
) -> tuple[dict[str, tuple[int, ...]], dict[str, bool]]:
    """Shape that each stage puts out, in the order in which they run, and whether a layer with weights follows it."""
    shapes: dict[str, tuple[int, ...]] = {}
    followed = dict.fromkeys(stages, False)

    def note(stage: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            shapes[stage] = tuple(output.shape) if stage not in shapes else ()

        return hook

    def follow(_module: nn.Module, _inputs: Any) -> None:
        followed.update(dict.fromkeys(shapes, True))

    handles = [backbone.get_submodule(stage).register_forward_hook(note(stage)) for stage in stages]
    leaves = [m for m in backbone.modules() if any(True for _ in m.parameters(recurse=False))]
    handles += [leaf.register_forward_pre_hook(follow) for leaf in leaves]
    try:
        backbone(torch.zeros(1, *image))
    finally:
        for handle in handles:
            handle.remove()
    return shapes, followed


def _all_passes_through(model: EarlyExits, index: int, image: Image) -> bool:
    """Whether the backbone takes it that one of three images leaves at an exit."""
    try:
        with model._watched(lambda stage, features: features[1:] if stage == index else None):
            return len(model.backbone(torch.zeros(3, *image))) == 2
    except RuntimeError:
        return False


def _branchy(name: str, stages: Sequence[str], num_classes: int, in_chans: int, image_size: int) -> EarlyExits:
    backbone = architecture(name).build(num_classes, in_chans, image_size)
    return add_exits(backbone, stages, image=(in_chans, image_size, image_size), num_classes=num_classes)


@register(family="branchy", paper=PAPER, year=2016, role="efficient")
def branchy_lenet5(num_classes: int = 10, in_chans: int = 1, image_size: int = 28) -> nn.Module:
    """Caffe's LeNet with an exit after the first pooling."""
    return _branchy("lenet5_caffe", ["1"], num_classes, in_chans, image_size)


@register(family="branchy", paper=PAPER, year=2016, role="efficient")
def branchy_vgg11_bn(num_classes: int = 10, in_chans: int = 3, image_size: int = 32) -> nn.Module:
    """VGG-11 with exits after the second and the third pooling."""
    return _branchy("vgg11_bn", ["features.7", "features.14"], num_classes, in_chans, image_size)


@register(family="branchy", paper=PAPER, year=2016, role="efficient")
def branchy_resnet56(num_classes: int = 10, in_chans: int = 3, image_size: int = 32) -> nn.Module:
    """ResNet-56 with exits after the first and the second stage."""
    return _branchy("resnet56", ["stages.0", "stages.1"], num_classes, in_chans, image_size)
