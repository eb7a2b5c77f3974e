"""Learning from teachers: the targets are what other networks answer for the same images.

All of these work with any student, since an objective calls the model as it is; auxiliary classifiers are not trained.
A teacher sees the same augmented image as the student, normalised as the student's data set is.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, get_args

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import RecipeError, unknown
from zoo.training.objectives.base import Objective

Average = Literal["logits", "probabilities"]


class Teachers:
    """Networks that answer and are never trained; the answers of several are averaged.

    Not a module, so that no optimizer, average or checkpoint sees the teachers. average: "logits", their mean, which is
    a geometric mean of the probabilities; or "probabilities", their arithmetic mean (arXiv:1503.02531 allows either).
    cache: keep each image's answers, 4 bytes a class and teacher; only of use where training images are not augmented,
    for an image that was changed is another one.
    Raises RecipeError where there is no teacher, or for another average.
    """

    def __init__(self, networks: Sequence[nn.Module], *, average: Average = "logits", cache: bool = False) -> None:
        if not networks:
            raise RecipeError("there is no teacher to learn from; give one network at least.")
        if average not in get_args(Average):
            raise RecipeError(f"average={average!r} was given; {' or '.join(map(repr, get_args(Average)))} is allowed.")
        self.networks = [network.eval().requires_grad_(False) for network in networks]
        self.average: Average = average
        self.cached: dict[float, Tensor] | None = {} if cache else None

    @torch.no_grad()
    def answers(self, images_NCHW: Tensor) -> Tensor:
        """Logits of every teacher, float32 [M, N, K], on the images' device."""
        if self.cached is None:
            return self._ask(images_NCHW)
        keys = _fingerprints(images_NCHW)
        if any(key not in self.cached for key in keys):
            asked = self._ask(images_NCHW).cpu()
            self.cached.update(zip(keys, asked.unbind(1), strict=True))
        return torch.stack([self.cached[key] for key in keys], 1).to(images_NCHW.device)

    def logits(self, images_NCHW: Tensor) -> Tensor:
        """float32 [N, K]: the mean over the teachers, of logits or, as its logarithm, of probabilities."""
        answers_MNK = self.answers(images_NCHW)
        return answers_MNK.mean(0) if self.average == "logits" else _log_mean(answers_MNK.log_softmax(2))

    def as_module(self) -> nn.Module:
        """A network that answers as all of them together, for scoring."""
        return _Ensemble(self)

    def log_probabilities(self, images_NCHW: Tensor, temperature: float) -> Tensor:
        """float32 [N, K]: the averaged answers, softened by a temperature."""
        answers_MNK = self.answers(images_NCHW) / temperature
        if self.average == "logits":
            return answers_MNK.mean(0).log_softmax(1)
        return _log_mean(answers_MNK.log_softmax(2))

    def _ask(self, images_NCHW: Tensor) -> Tensor:
        return torch.stack([network.to(images_NCHW.device)(images_NCHW).float() for network in self.networks])


class _Ensemble(nn.Module):
    def __init__(self, teachers: Teachers) -> None:
        super().__init__()
        self.members = nn.ModuleList(teachers.networks)
        self.teachers = Teachers(teachers.networks, average=teachers.average)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return self.teachers.logits(images_NCHW)


def check_teachers(teachers: Teachers, student: nn.Module, image: tuple[int, int, int]) -> None:
    """Raise RecipeError where a teacher cannot take the student's image (C, H, W), or answers for other classes."""
    images_NCHW = torch.zeros(1, *image)
    modes = [(module, module.training) for module in student.modules()]
    with torch.no_grad():
        classes = student.eval()(images_NCHW).shape[1]
        for network in teachers.networks:
            name = type(network).__name__
            try:
                theirs = network(images_NCHW).shape[1]
            except RuntimeError as error:
                reason = str(error).splitlines()[0]
                raise RecipeError(
                    f"the teacher {name} does not take the student's images of {image}: {reason}; take one that was "
                    "trained on the same data set."
                ) from error
            if theirs != classes:
                raise RecipeError(
                    f"the teacher {name} has {theirs} classes and the student {classes}; take one that was trained on "
                    "the same data set."
                )
    for module, mode in modes:
        module.training = mode


class SoftTargets(Objective):
    """Distillation, (1 - weight) * cross-entropy + weight * T^2 * KL(teachers || student) (arXiv:1503.02531).

    Both sides are softened by the temperature T; its square keeps the gradient's size as T changes. Suggested: T of 2
    to 8, weight 0.5 to 0.9. label_smoothing: of the cross-entropy.
    Raises RecipeError for a temperature that is not above 0, or a weight outside 0 to 1.
    """

    def __init__(
        self, teachers: Teachers, *, temperature: float = 4.0, weight: float = 0.9, label_smoothing: float = 0.0
    ) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise RecipeError(f"temperature={temperature!r} was given; a number above 0 is allowed, such as 4.")
        if not 0 <= weight <= 1:
            raise RecipeError(f"weight={weight!r} was given; a share from 0 to 1 of the loss is allowed.")
        self.teachers = teachers
        self.temperature = temperature
        self.weight = weight
        self.label_smoothing = label_smoothing

    def forward(self, model: nn.Module, images_NCHW: Tensor, targets: Tensor) -> Tensor:
        logits_NK = model(images_NCHW).float()
        theirs = self.teachers.log_probabilities(images_NCHW, self.temperature)
        ours = (logits_NK / self.temperature).log_softmax(1)
        soft = self.temperature**2 * F.kl_div(ours, theirs, reduction="batchmean", log_target=True)
        hard = F.cross_entropy(logits_NK, targets, label_smoothing=self.label_smoothing)
        return (1 - self.weight) * hard + self.weight * soft


class LogitRegression(Objective):
    """Half the squared distance of the logits to the teachers' (arXiv:1312.6184): no temperature, no labels.

    Summed over the classes, averaged over the batch. Softened answers come to the same at high temperatures
    (arXiv:1503.02531, section 2.1), but for the mean of the logits, which is free there.
    """

    def __init__(self, teachers: Teachers) -> None:
        super().__init__()
        self.teachers = teachers

    def forward(self, model: nn.Module, images_NCHW: Tensor, targets: Tensor) -> Tensor:
        difference_NK: Tensor = model(images_NCHW).float() - self.teachers.logits(images_NCHW)
        return difference_NK.square().sum(1).mean() / 2


class Hints(Objective):
    """FitNets (arXiv:1412.6550): first the student's guided layer learns to predict the teacher's hint layer.

    It does so for `steps` steps, through a regressor that is trained with it; nothing above the guided layer is. Then
    `then`, distillation as a rule, takes over. The regressor is a 1x1 convolution, or a linear layer where the features
    are vectors; the larger map is averaged down to the smaller, where the paper's regressor has larger kernels.
    hint, guided: names of modules of the teacher and of the student; their outputs are taken.
    image: (C, H, W), to find the shapes with.
    Raises UnknownNameError for a layer that does not exist, RecipeError for features that do not go together.
    """

    def __init__(
        self,
        teacher: nn.Module,
        student: nn.Module,
        *,
        hint: str,
        guided: str,
        image: tuple[int, int, int],
        steps: int,
        then: Objective,
    ) -> None:
        super().__init__()
        if steps < 1:
            raise RecipeError(f"steps={steps!r} was given; 1 step with hints or more is allowed.")
        self.teacher = [teacher.eval().requires_grad_(False)]  # in a list: not to be trained, averaged or stored
        self.hint = hint
        self.guided = guided
        self.steps = steps
        self.then = then
        shapes = []
        for network, name, owner in ((teacher, hint, "teacher"), (student, guided, "student")):
            names = [name for name, _ in network.named_modules() if name]
            if name not in names:
                raise unknown(f"layer of the {owner}", name, names)
            training = network.training
            with torch.no_grad(), _output_of(network.eval(), name) as outputs:
                network(torch.zeros(1, *image))
            network.train(training)
            if len(outputs) != 1 or outputs[0].ndim not in (2, 4):
                raise RecipeError(
                    f"the {owner}'s layer {name!r} gives no hint: it must be called once and put out maps or vectors."
                )
            shapes.append(tuple(outputs[0].shape))
        theirs, ours = shapes
        if len(theirs) != len(ours):
            raise RecipeError(
                f"the hint {hint!r} is of shape {list(theirs[1:])} and the guided layer {guided!r} of "
                f"{list(ours[1:])}; take two layers that both put out maps, or both vectors."
            )
        regressor = nn.Linear(ours[1], theirs[1]) if len(ours) == 2 else nn.Conv2d(ours[1], theirs[1], 1)
        with torch.no_grad():
            fixed = torch.Generator().manual_seed(0)  # not the global generator: the same run, whatever came before
            for parameter in regressor.parameters():
                parameter.uniform_(-(ours[1] ** -0.5), ours[1] ** -0.5, generator=fixed)
        self.regressor: nn.Module = regressor
        self.steps_done: Tensor
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.int64))

    def forward(self, model: nn.Module, images_NCHW: Tensor, targets: Tensor) -> Tensor:
        if int(self.steps_done) >= self.steps:
            loss: Tensor = self.then(model, images_NCHW, targets)
            unused = list(self.regressor.parameters())
        else:
            self.steps_done += 1
            teacher = self.teacher[0].to(images_NCHW.device)
            with torch.no_grad(), _output_of(teacher, self.hint) as theirs:
                teacher(images_NCHW)
            with _output_of(model, self.guided) as ours:
                model(images_NCHW)
            loss = _distance(self.regressor(ours[0]), theirs[0])
            unused = list(model.parameters())
        if dist.is_available() and dist.is_initialized():  # data parallelism waits for a gradient of every parameter
            loss = loss + sum(0.0 * parameter.sum() for parameter in unused if parameter.requires_grad)
        return loss


def _distance(ours: Tensor, theirs: Tensor) -> Tensor:
    """Half the mean squared difference, of maps averaged down to the smaller size."""
    ours, theirs = ours.float(), theirs.float()
    if ours.ndim == 4:
        size = min(ours.shape[2], theirs.shape[2]), min(ours.shape[3], theirs.shape[3])
        ours, theirs = F.adaptive_avg_pool2d(ours, size), F.adaptive_avg_pool2d(theirs, size)
    return F.mse_loss(ours, theirs) / 2


@contextmanager
def _output_of(model: nn.Module, name: str) -> Iterator[list[Tensor]]:
    """Gives a list that receives what the module called `name` puts out."""
    outputs: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_hook(lambda _m, _x, output: outputs.append(output))
    try:
        yield outputs
    finally:
        handle.remove()


def _log_mean(logs_MNK: Tensor) -> Tensor:
    return logs_MNK.logsumexp(0) - math.log(len(logs_MNK))


def _fingerprints(images_NCHW: Tensor) -> list[float]:
    """A number for each image: its product with fixed chance values, in float64; equal for equal images."""
    flat = images_NCHW.flatten(1).double()
    fixed = torch.Generator().manual_seed(0)
    return (flat * torch.randn(flat.shape[1], dtype=torch.float64, generator=fixed).to(flat.device)).sum(1).tolist()
