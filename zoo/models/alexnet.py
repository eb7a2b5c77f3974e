"""AlexNet in its one-tower form (arXiv:1404.5997; the network of NIPS 2012 without the split over two machines).

Where it differs from the paper: no local response normalisation, as in torchvision, whose weights load by
`zoo.interop`.

Small-image form (<= 64 px): a 5x5 stride-1 stem instead of 11x11 / 4, whose stride alone is the first two halvings;
all poolings kept, padded; one linear layer after a global average pool instead of three after dropout. The
convolutions keep their widths.

Shape after each stage:

| stage               | 224 px       | 32 px        |
|---------------------|--------------|--------------|
| features.conv1      | 64 x 55 x 55 | 64 x 32 x 32 |
| features.pool1      | 64 x 27 x 27 | 64 x 16 x 16 |
| features.conv2      | 192 x 27 x 27 | 192 x 16 x 16 |
| features.pool2      | 192 x 13 x 13 | 192 x 8 x 8 |
| features.conv3      | 384 x 13 x 13 | 384 x 8 x 8 |
| features.conv5      | 256 x 13 x 13 | 256 x 8 x 8 |
| features.pool5      | 256 x 6 x 6  | 256 x 4 x 4  |
"""

from collections import OrderedDict

from torch import Tensor, nn

from zoo.layers import GlobalAveragePool, init_weights, is_small
from zoo.registry import register

#         channels kernel stride padding pool after             arXiv:1404.5997, section 5
NATIVE = (
    (64, 11, 4, 2, True),
    (192, 5, 1, 2, True),
    (384, 3, 1, 1, False),
    (256, 3, 1, 1, False),
    (256, 3, 1, 1, True),
)
SMALL = ((64, 5, 1, 2, True), *NATIVE[1:])


class AlexNet(nn.Module):
    """Five convolutions, then three linear layers (native) or one (small): float [N, C, H, W] -> logits [N, K]."""

    def __init__(self, num_classes: int, in_chans: int, small: bool) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        inputs = in_chans
        for number, (outputs, kernel, stride, padding, pooled) in enumerate(SMALL if small else NATIVE, start=1):
            layers[f"conv{number}"] = nn.Conv2d(inputs, outputs, kernel, stride, padding)
            layers[f"relu{number}"] = nn.ReLU(inplace=True)
            if pooled:
                layers[f"pool{number}"] = nn.MaxPool2d(3, 2, padding=1 if small else 0)
            inputs = outputs
        self.features = nn.Sequential(layers)
        if small:
            self.classifier = nn.Sequential(GlobalAveragePool(), nn.Linear(inputs, num_classes))
        else:
            self.classifier = _published_classifier(inputs, num_classes)
        init_weights(self)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        logits_NK: Tensor = self.classifier(self.features(images_NCHW))
        return logits_NK


def _published_classifier(inputs: int, num_classes: int) -> nn.Sequential:
    """Three linear layers of 58.6 million parameters: [N, 256, 6, 6] -> [N, K]; other sizes are averaged to 6x6."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(6),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(inputs * 6 * 6, 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(4096, 4096),
        nn.ReLU(inplace=True),
        nn.Linear(4096, num_classes),
    )


@register(family="alexnet", paper="arXiv:1404.5997", year=2014, role="baseline")
def alexnet(num_classes: int = 1000, in_chans: int = 3, image_size: int = 224) -> nn.Module:
    """AlexNet, one tower (arXiv:1404.5997), no local response normalisation.

    Small form: 5x5 stride-1 stem, one linear layer after a global average pool, no dropout.
    """
    return AlexNet(num_classes, in_chans, is_small(image_size))
