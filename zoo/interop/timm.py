"""timm: the names of its modules in ours, its models, and our models among its own."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from zoo import registry
from zoo.errors import ImageSizeError, WeightError, ZooError, unknown
from zoo.interop import timm_entries
from zoo.interop.torchvision import INCEPTION_V3
from zoo.registry import Architecture

PREFIX = "zoo_"
#    Blocks of each timm stage, in the order of our one sequence.
MOBILENETV1_REPEATS = (1, 2, 2, 6, 2)
MOBILENETV2_REPEATS = (1, 2, 3, 4, 3, 3, 1)
SEPARABLE = {"conv_dw": "0.0", "bn1": "0.1", "conv_pw": "1.0", "bn2": "1.1"}
INVERTED = {"conv_pw": "0.0", "bn1": "0.1", "conv_dw": "1.0", "bn2": "1.1", "conv_pwl": "2.0", "bn3": "2.1"}


def _blocks(repeats: tuple[int, ...]) -> list[str]:
    """`blocks.<stage>.<repeat>` in order: the first is our features.1, after the stem."""
    return [f"blocks.{stage}.{repeat}" for stage, count in enumerate(repeats) for repeat in range(count)]


MOBILENETV1 = {
    "conv_stem": "features.0.0",
    "bn1": "features.0.1",
    **{
        f"{block}.{a}": f"features.{i}.{b}"
        for i, block in enumerate(_blocks(MOBILENETV1_REPEATS), start=1)
        for a, b in SEPARABLE.items()
    },
}
#    The first block has no expansion, so it reads like MobileNet-v1's.
MOBILENETV2 = {
    "conv_stem": "features.0.0",
    "bn1": "features.0.1",
    **{
        f"{block}.{a}": f"features.{i}.layers.{b}"
        for i, block in enumerate(_blocks(MOBILENETV2_REPEATS), start=1)
        for a, b in (SEPARABLE if i == 1 else INVERTED).items()
    },
    "conv_head": "features.18.0",
    "bn2": "features.18.1",
}
#    Places of separable convolutions and batch norms in a block's body; block1 starts without a ReLU.
XCEPTION_BODY = {**{f"block{n}": ((1, 4, 7), (2, 5, 8)) for n in range(2, 13)}, "block1": ((0, 3), (1, 4))}
XCEPTION = {
    **{f"conv{i}": f"features.conv{i}.0" for i in (1, 2)},
    **{f"bn{i}": f"features.conv{i}.1" for i in (1, 2)},
    **{
        f"{block}.rep.{i}.{a}": f"features.{block}.body.{i}.{b}"
        for block, (convolutions, _) in XCEPTION_BODY.items()
        for i in convolutions
        for a, b in (("conv1", "depthwise"), ("pointwise", "pointwise"))
    },
    **{f"{block}.rep.{i}": f"features.{block}.body.{i}" for block, (_, norms) in XCEPTION_BODY.items() for i in norms},
    **{f"{block}.skip": f"features.{block}.skip.0" for block in XCEPTION_BODY},
    **{f"{block}.skipbn": f"features.{block}.skip.1" for block in XCEPTION_BODY},
    **{
        f"conv{i}.{a}": f"features.conv{i}.separable.{b}"
        for i in (3, 4)
        for a, b in (("conv1", "depthwise"), ("pointwise", "pointwise"))
    },
    **{f"bn{i}": f"features.conv{i}.norm" for i in (3, 4)},
    "fc": "classifier",
}
MODULE_PATHS: dict[str, dict[str, str]] = {
    "mobilenetv1_100": MOBILENETV1,
    "mobilenetv2_050": MOBILENETV2,
    "mobilenetv2_100": MOBILENETV2,
    "inception_v3": INCEPTION_V3,
    "xception": XCEPTION,
}


def create(name: str, num_classes: int, in_chans: int, image_size: int, pretrained: bool) -> nn.Module:
    """A model of timm, in evaluation mode; networks that are built for one image size are built for this one."""
    import timm

    if not timm.is_model(name):
        every = """python -c "import timm; print(*timm.list_models(), sep='\\n')\""""
        raise unknown("timm model", name, timm.list_models(), every)
    try:
        model: nn.Module = timm.create_model(
            name, pretrained=pretrained, num_classes=num_classes, in_chans=in_chans, img_size=image_size
        )
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        model = timm.create_model(name, pretrained=pretrained, num_classes=num_classes, in_chans=in_chans)
    return model.eval()


def register_with_timm() -> list[str]:
    """Enter every model of ours into timm as `zoo_<name>`; their names there. Calling it again changes nothing.

    `timm.create_model("zoo_squeezenet1_1", num_classes=10, in_chans=3, img_size=32)` then builds ours. What is not
    given is that of the published network.
    """
    import timm

    names = []
    for arch in registry.architectures().values():
        name = PREFIX + arch.name
        names.append(name)
        if timm.is_model(name):
            continue
        timm_entries.default_cfgs[name] = {"input_size": arch.image, "num_classes": arch.num_classes}
        entry = _entry(arch)
        setattr(timm_entries, name, entry)
        timm.models.register_model(entry)
    return names


def _entry(arch: Architecture) -> Callable[..., nn.Module]:
    """The function that timm calls; it takes what `timm.create_model` and timm's own trainer always pass."""
    import timm

    def entry(
        pretrained: bool = False,
        pretrained_cfg: Mapping[str, Any] | None = None,
        pretrained_cfg_overlay: object = None,
        pretrained_model_args: object = None,
        cache_dir: object = None,
        num_classes: int | None = None,
        in_chans: int = arch.image[0],
        img_size: int | tuple[int, int] = arch.image[1],
        drop_rate: float = 0.0,
    ) -> nn.Module:
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        if height != width:
            raise ImageSizeError(f"img_size={img_size} was given for {PREFIX}{arch.name}; our networks take squares.")
        stored = dict(pretrained_cfg or {})  # of a folder or a hub's page, which zoo.interop.hf writes
        if num_classes is None:
            num_classes = int(stored.get("num_classes", arch.num_classes))
        if pretrained and stored.get("source") not in ("local-dir", "hf-hub"):
            call = f"zoo.create_model({arch.name!r}, dataset='cifar10', pretrained=True)"
            raise WeightError(f"our weights belong to a data set, which timm cannot name; use {call}.")
        if drop_rate:
            raise ZooError(
                f"drop_rate={drop_rate} was given for {PREFIX}{arch.name}; our networks bring their own: use 0."
            )
        model = registry.build(arch.name, num_classes=num_classes, in_chans=in_chans, image_size=height).train()
        config = timm_entries.default_cfgs[PREFIX + arch.name] | stored | {"input_size": (in_chans, height, width)}
        # timm's trainer reads these two from the model.
        vars(model).update(num_classes=num_classes, pretrained_cfg=config | {"num_classes": num_classes})
        if pretrained:
            timm.models.load_pretrained(model, stored, num_classes=num_classes, in_chans=in_chans)
        return model

    entry.__name__ = entry.__qualname__ = PREFIX + arch.name
    entry.__module__ = timm_entries.__name__
    return entry
