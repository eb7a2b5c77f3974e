"""A folder that timm loads by `local-dir:` and the Hugging Face hub shows: config.json, model.safetensors, README.md.

timm builds a network by the name of its architecture and fills it by the names of its tensors. Models of timm therefore
load with timm alone; ours are known to it as `zoo_<name>` once `zoo.interop.register_with_timm()` was called. A network
with fewer channels than its architecture, or with batch norms folded, is none that such a name can build.
"""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from zoo.compression.forms import materialise
from zoo.cost.subject import plain_model
from zoo.data import Preprocess
from zoo.errors import ExportError
from zoo.files import write_atomically
from zoo.interop.timm import PREFIX, register_with_timm

CONFIG, WEIGHTS, README = "config.json", "model.safetensors", "README.md"
TIMM = "timm/"


@dataclass(frozen=True)
class ModelCard:
    """What the page of a model says. facts: name -> text, in order; what is not known is left out.

    licence: an identifier such as "Apache-2.0". dataset: a name, "" if none. top1: a share, None if not measured.
    """

    title: str
    licence: str
    dataset: str
    top1: float | None
    facts: Mapping[str, str]


def export_hf(
    model: nn.Module,
    name: str,
    folder: str | Path,
    *,
    classes: tuple[str, ...],
    preprocess: Preprocess,
    card: ModelCard,
) -> None:
    """Write the three files. The weights are float32, and those of compressed form are what they stand for.

    name: as zoo.create_model takes it; `timm/<name>` is written as timm's own.
    Raises ExportError for a network that its name does not build.
    """
    plain = materialise(copy.deepcopy(plain_model(model))).cpu()
    state = {key: tensor.detach().contiguous() for key, tensor in plain.state_dict().items()}
    architecture, arguments = timm_architecture(name, preprocess, plain)
    _check_buildable(architecture, arguments, len(classes), state)
    folder = Path(folder)
    config = {
        "architecture": architecture,
        "num_classes": len(classes),
        "label_names": list(classes),
        "model_args": arguments,
        "pretrained_cfg": pretrained_config(len(classes), preprocess, card, fixed="img_size" in arguments),
    }
    write_atomically(folder / WEIGHTS, save(state, {"format": "pt"}))
    write_atomically(folder / CONFIG, json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    write_atomically(folder / README, model_page(card, architecture))


def load_hf(folder: str | Path) -> nn.Module:
    """The network of such a folder as timm builds it, in eval mode. Raises ExportError where timm refuses it."""
    import timm

    register_with_timm()
    try:
        model: nn.Module = timm.create_model(f"local-dir:{Path(folder).resolve()}", pretrained=True)
    except (RuntimeError, TypeError, ValueError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
        raise ExportError(f"timm does not load {folder} ({reason}); export it again.") from error
    return model.eval()


def timm_architecture(name: str, preprocess: Preprocess, model: nn.Module) -> tuple[str, dict[str, Any]]:
    """timm's name of an architecture, and what it takes to build it for these images."""
    channels, size, _ = preprocess.image
    arguments: dict[str, Any] = {"in_chans": channels}
    if name.startswith(TIMM):
        # Networks that are built for one size say so; others would refuse the word.
        if "img_size" in getattr(model, "_model_args", {}):
            arguments["img_size"] = size
        return name.removeprefix(TIMM), arguments
    if "/" in name:
        raise ExportError(f"{name} is none of timm's architectures nor of ours; export it with --format onnx.")
    return PREFIX + name, arguments | {"img_size": size}


def pretrained_config(num_classes: int, preprocess: Preprocess, card: ModelCard, *, fixed: bool) -> dict[str, Any]:
    """What timm reads to prepare images as in training. fixed: whether the network is built for one size."""
    return {
        "input_size": list(preprocess.image),
        "fixed_input_size": fixed,
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "crop_mode": "center",
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
        "num_classes": num_classes,
        "pool_size": None,
        "first_conv": None,
        "classifier": None,
        "license": card.licence.lower(),
    }


def model_page(card: ModelCard, architecture: str) -> str:
    """The page, with the header that the hub reads."""
    header = ["---", f"license: {card.licence.lower()}", "library_name: timm", "pipeline_tag: image-classification"]
    header += ["tags:", "- image-classification", "- timm"]
    if card.dataset:
        header += ["datasets:", f"- {card.dataset}"]
    if card.dataset and card.top1 is not None:
        header += [
            "model-index:",
            f"- name: {architecture}",
            "  results:",
            "  - task: {type: image-classification}",
            f"    dataset: {{name: {card.dataset}, type: {card.dataset}, split: test}}",
            f"    metrics: [{{type: accuracy, value: {100 * card.top1:.2f}}}]",
        ]
    rows = [f"| {name} | {text} |" for name, text in card.facts.items()]
    ours = architecture.startswith(PREFIX)
    register = ["import zoo", "", "zoo.interop.register_with_timm()"] if ours else []
    return "\n".join(
        [
            *header, "---", "", f"# {card.title}", "", "| | |", "|---|---|", *rows, "",
            *(["The architecture is one of the package `zoo`, which tells timm of it.", ""] if ours else []),
            "```python", "import timm", *register,
            'model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()',
            "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)",
            "```", "",
        ]
    )  # fmt: skip


def _check_buildable(
    architecture: str, arguments: Mapping[str, Any], num_classes: int, state: Mapping[str, torch.Tensor]
) -> None:
    """Raise ExportError where the tensors are not those of the architecture that the name builds."""
    import timm

    register_with_timm()
    built = timm.create_model(architecture, num_classes=num_classes, **arguments).state_dict()
    shapes = ({key: tensor.shape for key, tensor in tensors.items()} for tensors in (built, state))
    wanted, found = shapes
    if wanted == found:
        return
    name = min(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key))
    raise ExportError(
        f"timm would build {architecture} whole, and this network differs from it at {name!r} (fewer channels, or "
        "batch norms folded); export it with --format onnx."
    )
