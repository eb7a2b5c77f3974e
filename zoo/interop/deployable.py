"""A network made ready to leave PyTorch: a plain copy for inference alone, and its operators as a program."""

import copy
import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.compression.fold import fold_batch_norm
from zoo.compression.forms import HasSigns, materialise
from zoo.cost.subject import blank_image, image_fits, plain_model
from zoo.data import normalize
from zoo.errors import ExportError
from zoo.registry import Image

BATCH = "batch"  # name of the dimension that may have any size
INPUT, OUTPUT = "images", "logits"


class PixelInput(nn.Module):
    """A network with its normalisation in front: uint8 [N, C, H, W] -> logits [N, K]."""

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        scale, shift = normalisation(mean, std)
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, pixels_NCHW: Tensor) -> Tensor:
        scale, shift = cast(Tensor, self.scale), cast(Tensor, self.shift)
        logits_NK: Tensor = self.network(pixels_NCHW.float() * scale - shift)
        return logits_NK


class SignConv2d(nn.Module):
    """A BinaryConv2d whose signs and scales are worked out: the same sums of the same whole numbers."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        codes, scale = cast(HasSigns, layer).weight_signs()
        self.stride, self.padding = layer.stride, cast(tuple[int, int], layer.padding)
        self.register_buffer("signs", codes.float() * 2 - 1)
        self.register_buffer("scale", scale.float()[:, None, None])
        self.register_buffer("shift", None if layer.bias is None else layer.bias.detach().cpu()[:, None, None].clone())

    def forward(self, features_NCHW: Tensor) -> Tensor:
        one = features_NCHW.new_ones(())
        signs_NCHW = torch.where(features_NCHW >= 0, one, -one)
        dots_NFHW = F.conv2d(signs_NCHW, cast(Tensor, self.signs), None, self.stride, self.padding)
        scaled = dots_NFHW * cast(Tensor, self.scale)
        return scaled if self.shift is None else scaled + cast(Tensor, self.shift)


def normalisation(mean: Sequence[float], std: Sequence[float]) -> tuple[Tensor, Tensor]:
    """What `zoo.data.normalize` multiplies pixels by and what it then subtracts, to the last bit: [1, C, 1, 1]."""
    black, one = torch.zeros(1, len(mean), 1, 1), torch.ones(1, len(mean), 1, 1)
    return normalize(one, [0.0] * len(mean), std), -normalize(black, mean, std)


def deployable(model: nn.Module, image: Image) -> nn.Module:
    """A copy of a network for inference alone, on the CPU, in float32 and eval mode.

    Compressed weights become the plain values that they stand for, batch norms are folded into the convolutions before
    them, binary filters become their signs. What `forward` computes stays the same up to rounding.
    image: (C, H, W). Raises ImageSizeError if it does not pass, ZooError for a network whose operators cannot be seen.
    """
    plain = copy.deepcopy(plain_model(model)).cpu().float().eval()
    plain = materialise(fold_batch_norm(plain, image)).eval().requires_grad_(False)
    for name, module in list(plain.named_modules()):
        if isinstance(module, HasSigns) and isinstance(module, nn.Conv2d):
            parent, _, leaf = name.rpartition(".")
            plain.get_submodule(parent).add_module(leaf, SignConv2d(module))
    return plain


def traced(network: nn.Module, image: Image, *, pixels: bool = False) -> torch.export.ExportedProgram:
    """The operators of a `deployable` network as a program that takes any number of images.

    pixels: the network takes uint8 images instead of float32 ones.
    Raises ImageSizeError for an image that does not pass, ExportError for a network that decides by values.
    """
    example = blank_image(network, image).expand(2, -1, -1, -1).to(torch.uint8 if pixels else torch.float32)
    example = example.contiguous()
    with torch.no_grad(), image_fits(network, image):
        network(example)
    try:
        with torch.no_grad(), quiet():
            return torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim(BATCH)},))
    except (RuntimeError, ValueError, torch._dynamo.exc.UserError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
        raise ExportError(
            f"{type(network).__name__} cannot be written down as a list of operators ({reason}); "
            "its forward method must do the same for every batch of images."
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """PyTorch's exporters say what they think of a network at length; inside, they do not."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def layer_of(node: torch.fx.Node) -> str:
    """Name and class of the module that an operator of a program belongs to."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    if not stack:
        return "the network"
    path, kind = stack[-1]
    return f"{path or 'the network'} ({str(kind).rpartition('.')[2]})"
