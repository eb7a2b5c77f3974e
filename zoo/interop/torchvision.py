"""torchvision: the names of its modules in ours, and its models made to fit any image and number of classes."""

import re
from typing import TYPE_CHECKING

from torch import Tensor, nn

from zoo.errors import unknown
from zoo.interop.reshape import replace_classifier, replace_first_convolution

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

#    A convolution and its batch norm: theirs, ours.
CONV_NORM = (("conv", "0"), ("bn", "1"))
FIRE_PARTS = ("squeeze", "expand1x1", "expand3x3")
ALEXNET = {
    **{f"features.{theirs}": f"features.conv{ours}" for ours, theirs in enumerate((0, 3, 6, 8, 10), start=1)},
    **{f"classifier.{theirs}": f"classifier.{ours}" for theirs, ours in ((1, 3), (4, 6), (6, 8))},
}
#    Ours counts the stem's convolution and ReLU as one stage.
SQUEEZENET = {
    "features.0": "features.0.0",
    **{f"features.{i}.{part}": f"features.{i - 1}.{part}.0" for i in range(3, 13) for part in FIRE_PARTS},
    "classifier.1": "classifier",
}
#    Depthwise filter and projection in the first of the seventeen blocks; an expansion before them in the others.
MOBILENETV2_FIRST = {"0.0": "0.0", "0.1": "0.1", "1": "1.0", "2": "1.1"}
MOBILENETV2_OTHER = {"0.0": "0.0", "0.1": "0.1", "1.0": "1.0", "1.1": "1.1", "2": "2.0", "3": "2.1"}
MOBILENETV2 = {
    **{
        f"features.{i}.conv.{a}": f"features.{i}.layers.{b}"
        for i in range(1, 18)
        for a, b in (MOBILENETV2_FIRST if i == 1 else MOBILENETV2_OTHER).items()
    },
    "classifier.1": "classifier",
}
GOOGLENET_BRANCHES = {
    "branch1": "one",
    "branch2.0": "three.0",
    "branch2.1": "three.1",
    "branch3.0": "five.0",
    "branch3.1": "five.1",
    "branch4.1": "pool.1",
}
GOOGLENET_HEADS = {"aux1": "auxiliary.inception4a", "aux2": "auxiliary.inception4d"}
GOOGLENET = {
    **{f"conv{i}.{a}": f"features.conv{i}.{b}" for i in (1, 2, 3) for a, b in CONV_NORM},
    **{
        f"{block}.{branch}.{a}": f"features.{block}.{ours}.{b}"
        for block in (f"inception{s}" for s in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"))
        for branch, ours in GOOGLENET_BRANCHES.items()
        for a, b in CONV_NORM
    },
    **{f"{head}.conv.{a}": f"{ours}.conv.{b}" for head, ours in GOOGLENET_HEADS.items() for a, b in CONV_NORM},
    **{f"{head}.{fc}": f"{ours}.{fc}" for head, ours in GOOGLENET_HEADS.items() for fc in ("fc1", "fc2")},
    "fc": "classifier",
}
#    A block has some of these branches; "branch3x3" alone is the one convolution of Mixed_6a.
INCEPTION_V3_BRANCHES = {
    "branch1x1": "one.0",
    "branch5x5_1": "five.0",
    "branch5x5_2": "five.1",
    "branch3x3": "three.0",
    "branch3x3_1": "three.0",
    "branch3x3_2": "three.1",
    "branch3x3_2a": "three.1.row",
    "branch3x3_2b": "three.1.column",
    "branch3x3dbl_1": "twice.0",
    "branch3x3dbl_2": "twice.1",
    "branch3x3dbl_3": "twice.2",
    "branch3x3dbl_3a": "twice.2.row",
    "branch3x3dbl_3b": "twice.2.column",
    "branch7x7_1": "seven.0",
    "branch7x7_2": "seven.1",
    "branch7x7_3": "seven.2",
    "branch7x7dbl_1": "twice.0",
    "branch7x7dbl_2": "twice.1",
    "branch7x7dbl_3": "twice.2",
    "branch7x7dbl_4": "twice.3",
    "branch7x7dbl_5": "twice.4",
    "branch7x7x3_1": "seven.0",
    "branch7x7x3_2": "seven.1",
    "branch7x7x3_3": "seven.2",
    "branch7x7x3_4": "seven.3",
    "branch_pool": "pool.1",
}
INCEPTION_V3_STEM = ("1a_3x3", "2a_3x3", "2b_3x3", "3b_1x1", "4a_3x3")
INCEPTION_V3 = {
    **{f"Conv2d_{layer}.{a}": f"features.conv{layer[:2]}.{b}" for layer in INCEPTION_V3_STEM for a, b in CONV_NORM},
    **{
        f"Mixed_{block}.{branch}.{a}": f"features.mixed{block}.{ours}.{b}"
        for block in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")
        for branch, ours in INCEPTION_V3_BRANCHES.items()
        for a, b in CONV_NORM
    },
    **{
        f"AuxLogits.{layer}.{a}": f"auxiliary.mixed6e.{layer}.{b}" for layer in ("conv0", "conv1") for a, b in CONV_NORM
    },
    "AuxLogits.fc": "auxiliary.mixed6e.fc",
    "fc": "classifier",
}
MODULE_PATHS: dict[str, dict[str, str]] = {
    "alexnet": ALEXNET,
    **{f"vgg{depth}{norm}": {} for depth in (11, 13, 16, 19) for norm in ("", "_bn")},
    "squeezenet1_0": SQUEEZENET,
    "squeezenet1_1": SQUEEZENET,
    "mobilenetv2_050": MOBILENETV2,
    "mobilenetv2_100": MOBILENETV2,
    "googlenet": GOOGLENET,
    "inception_v3": INCEPTION_V3,
}

WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")
AUXILIARY_PREFIXES = ("aux1.", "aux2.", "AuxLogits.")


def create(name: str, num_classes: int, in_chans: int, image_size: int, pretrained: bool) -> nn.Module:
    """A classifier of torchvision whose forward always returns one tensor, in evaluation mode.

    The auxiliary heads of googlenet and inception_v3 are left out. What differs from the published network (first
    convolution for other than 3 channels, classifier for another number of classes) is replaced, and where
    `pretrained` the replaced convolution keeps the mean of its kernels over the colours. OSError if the weights
    cannot be fetched.
    """
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise unknown("torchvision classifier", name, known)
    weights = torchvision.models.get_model_weights(name).DEFAULT if pretrained else None
    published_classes = len(weights.meta["categories"]) if weights else num_classes
    options: dict[str, int | bool] = {"num_classes": published_classes}
    if name in WITH_AUXILIARY_HEADS:
        # Their default initialisation takes minutes; the pretrained ones renormalise colour images.
        options |= {"aux_logits": False, "init_weights": False, "transform_input": pretrained and in_chans == 3}
    if name.startswith("vit_") and not pretrained:
        options["image_size"] = image_size
    model: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    if weights:
        model.load_state_dict(_fetch(weights))
    if in_chans != 3:
        replace_first_convolution(model, in_chans)
    if num_classes != published_classes:
        replace_classifier(model, published_classes, num_classes)
    return model.eval()


def _fetch(weights: "WeightsEnum") -> dict[str, Tensor]:
    """Their weights without auxiliary heads, read as tensors only: torchvision itself would run what a file holds."""
    state: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    # DenseNet files of 2017 write "norm.1" where the modules are called "norm1".
    old_name = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
    return {old_name.sub(r"\1\2", key): v for key, v in state.items() if not key.startswith(AUXILIARY_PREFIXES)}
