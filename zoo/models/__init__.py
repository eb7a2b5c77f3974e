"""The registered families: baselines first, then efficient networks by year, then yardsticks,
then networks that adapt their depth or width.

Importing a family's module registers its models.
"""

from zoo.models import (  # isort: skip
    lenet,
    alexnet,
    vgg,
    nin,
    squeezenet,
    mobilenetv1,
    mobilenetv2,
    googlenet,
    inception_v2,
    inception_v3,
    xnor,
    xception,
    resnet,
    branchy,
    slimmable,
)

__all__ = [
    "alexnet",
    "branchy",
    "googlenet",
    "inception_v2",
    "inception_v3",
    "lenet",
    "mobilenetv1",
    "mobilenetv2",
    "nin",
    "resnet",
    "slimmable",
    "squeezenet",
    "vgg",
    "xception",
    "xnor",
]
