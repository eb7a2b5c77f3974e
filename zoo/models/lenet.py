"""LeNet: the baselines of MNIST, and of every compression paper (LeCun et al., Proc. IEEE 86(11), 1998).

`lenet5` is the form in common use: the third convolution layer of the paper is the first linear layer here (the same
parameters at 32 x 32), the second layer sees all six maps (the paper's sparse table is dropped), tanh is kept, average
pooling has no trained scale, the output is linear. An image of 28 px is padded to 32, as the paper does.

`lenet5_caffe` is the 20-50-500-10 network of Caffe's examples, the "LeNet-5" of Deep Compression (arXiv:1510.00149);
its only activation follows the first linear layer. `lenet_300_100` is the two-layer perceptron of the 1998 paper.

Shapes at 32 px: c1 6x28x28, s2 6x14x14, c3 16x10x10, s4 16x5x5, 120, 84, classes.
"""

from torch import nn

from zoo.registry import register

PAPER = "LeCun et al., Proc. IEEE 86(11), 1998"


@register(family="lenet", paper=PAPER, year=1998, role="baseline")
def lenet_300_100(num_classes: int = 10, in_chans: int = 1, image_size: int = 28) -> nn.Module:
    """LeNet-300-100: two hidden layers of 300 and 100, ReLU as in arXiv:1510.00149."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(in_chans * image_size**2, 300),
        nn.ReLU(),
        nn.Linear(300, 100),
        nn.ReLU(),
        nn.Linear(100, num_classes),
    )


@register(family="lenet", paper=PAPER, year=1998, role="baseline")
def lenet5(num_classes: int = 10, in_chans: int = 1, image_size: int = 32) -> nn.Module:
    """LeNet-5 of 1998, section II.B, in the common form of 61,706 parameters."""
    padding = 2 if image_size < 32 else 0
    side = _halve(_halve(image_size + 2 * padding - 4) - 4)
    return nn.Sequential(
        nn.Conv2d(in_chans, 6, 5, padding=padding),
        nn.Tanh(),
        nn.AvgPool2d(2, ceil_mode=True),
        nn.Conv2d(6, 16, 5),
        nn.Tanh(),
        nn.AvgPool2d(2, ceil_mode=True),
        nn.Flatten(),
        nn.Linear(16 * side**2, 120),
        nn.Tanh(),
        nn.Linear(120, 84),
        nn.Tanh(),
        nn.Linear(84, num_classes),
    )


@register(family="lenet", paper="Caffe examples/mnist; arXiv:1510.00149", year=2014, role="baseline")
def lenet5_caffe(num_classes: int = 10, in_chans: int = 1, image_size: int = 28) -> nn.Module:
    """Caffe's LeNet: 20 and 50 maps of 5 x 5, max pooling, 500 hidden units, 431,080 parameters at 28 px."""
    side = _halve(_halve(image_size - 4) - 4)
    return nn.Sequential(
        nn.Conv2d(in_chans, 20, 5),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Flatten(),
        nn.Linear(50 * side**2, 500),
        nn.ReLU(),
        nn.Linear(500, num_classes),
    )


def _halve(side: int) -> int:
    """Side after a pooling of 2 that rounds up; at least 1, so that what is too small fails where it runs, not here."""
    return max(1, -(-side // 2))
