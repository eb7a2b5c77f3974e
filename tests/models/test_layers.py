"""The blocks that families share, where a published network does not already prove them."""

import pytest
import torch
from torch import nn

from zoo.layers import ConvNormAct


@pytest.mark.parametrize(("stride", "groups"), [(2, 8), (1, 8), (2, 1)])
def test_under_autocast_a_block_rounds_to_bfloat16_and_differs_by_no_more(stride: int, groups: int) -> None:
    torch.manual_seed(0)
    block = ConvNormAct(8, 8, 3, stride=stride, groups=groups, activation=None)  # no kink that rounding could cross
    images_NCHW = torch.randn(4, 8, 10, 10, requires_grad=True)
    exact = block(images_NCHW)
    weights = torch.randn_like(exact)
    (exact_grad,) = torch.autograd.grad((exact * weights).sum(), images_NCHW)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = block(images_NCHW)
    (rounded_grad,) = torch.autograd.grad((rounded * weights).sum(), images_NCHW)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, atol=0.05, rtol=0.05)
    assert (rounded_grad - exact_grad).norm() < 0.05 * exact_grad.norm()


def test_a_strided_grouped_convolution_is_single_precision_on_a_cpu() -> None:
    """Its half-precision gradient is so slow that it would decide how long a MobileNet trains."""
    torch.manual_seed(0)
    seen: list[torch.dtype] = []
    for stride, groups in ((2, 4), (1, 4), (2, 1)):
        block = ConvNormAct(4, 4, 3, stride=stride, groups=groups)
        convolution = block[0]
        assert isinstance(convolution, nn.Conv2d)
        convolution.register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
        with torch.autocast("cpu", torch.bfloat16):
            block(torch.randn(1, 4, 6, 6))
    assert seen == [torch.float32, torch.bfloat16, torch.bfloat16]
