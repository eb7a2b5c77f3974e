"""Small weight files and cards for the tests, and the maker of the fixture of each released format.

`python tests/weight_files.py` writes tests/fixtures/weights-v1.*; a released fixture is never written again.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.cost import count_macs
from zoo.data import DATASETS, Dataset
from zoo.evaluation import evaluate
from zoo.files import sha256_file, write_atomically
from zoo.registry import build
from zoo.weights import FORMAT, Card, SeedResult, card_stem, save_weights, write_card

FIXTURES = Path(__file__).parent / "fixtures"
IMAGE = (1, 16, 16)  # of the fixture: the smallest registered network is then 42 kB


def model_of(name: str = "lenet5", dataset: str = "digits", seed: int = 0) -> nn.Module:
    """A registered network for a data set, with weights that depend on the seed alone, statistics included."""
    info = DATASETS[dataset]
    model = build(name, num_classes=len(info.classes), in_chans=info.image[0], image_size=info.image[1])
    return shuffled(model, seed)


def shuffled(model: nn.Module, seed: int) -> nn.Module:
    """Fill parameters and buffers of a model, in place, with numbers that depend on the seed alone."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.2 + 0.01)
    return model


def write_untrained(name: str, digits: tuple[Dataset, Dataset], folder: Path) -> None:
    """Store an untrained network for the digits, (train, test), with a card that is right in every figure."""
    torch.manual_seed(0)
    train, test = digits
    model = build(name, num_classes=10, in_chans=1, image_size=28)
    path = folder / f"{name}.digits.safetensors"
    save_weights(path, model)
    scored = evaluate(model, test)
    card = replace(
        card_of(name, "digits", path),
        params=sum(p.numel() for p in model.parameters()),
        macs=count_macs(model, test.image),
        correct=scored.correct,
        total=scored.total,
        seed=0,
        loss=scored.loss,
        seeds=(SeedResult(0, scored.correct, scored.total),),
        data_digest={"train": train.digest, "test": test.digest},
    )
    write_card(path.with_suffix(".json"), card)


def card_of(model_name: str, dataset: str, weights: Path, **changes: Any) -> Card:
    """A card that is right for `weights` but for its accuracy and costs, which are given or made up."""
    info = DATASETS[dataset]
    card = Card(
        model=model_name,
        dataset=dataset,
        tag="",
        file=weights.name,
        format=FORMAT,
        sha256=sha256_file(weights),
        file_bytes=weights.stat().st_size,
        num_classes=len(info.classes),
        classes=info.classes,
        image=info.image,
        mean=info.mean,
        std=info.std,
        params=61_706,
        macs=416_520,
        correct=90,
        total=100,
        loss=0.25,
        seed=1,
        seeds=(SeedResult(1, 90, 100), SeedResult(2, 94, 100)),
        recipe={"name": "quick", "lr": 0.1, "augment": {"flip": "none"}},
        epochs=3,
        command=f"python train.py --model {model_name}",
        commit="",
        versions={"torch": "2.11"},
        device="cpu",
        threads=1,
        seconds=1.5,
        data_digest={"train": "0" * 64, "test": "1" * 64},
        data_note="",
        licence="Apache-2.0",
        paper="",
        created="2026-01-31",
        note="",
    )
    return replace(card, **changes)


def store(folder: Path, model_name: str = "lenet5", dataset: str = "digits", tag: str = "", **changes: Any) -> Path:
    """Weights and card of a shuffled model in a zoo folder: the card's path."""
    stem = card_stem(model_name, dataset, tag)
    weights = folder / f"{stem}.safetensors"
    save_weights(weights, model_of(model_name, dataset))
    card = folder / f"{stem}.json"
    write_card(card, card_of(model_name, dataset, weights, tag=tag, **changes))
    return card


def probe() -> Tensor:
    """The images, float [2, 1, 16, 16], on which the fixture's logits were recorded."""
    return torch.linspace(-1, 1, 2 * 16 * 16).reshape(2, *IMAGE)


def write_fixture(folder: Path) -> None:
    """weights-v1.safetensors, its card, and the logits that the stored weights gave when they were made."""
    model = shuffled(build("lenet5", num_classes=4, in_chans=1, image_size=16), 1998)
    weights = folder / "weights-v1.safetensors"
    save_weights(weights, model)
    stored = {n: t.half().float() if t.ndim >= 2 else t for n, t in model.state_dict().items()}
    model.load_state_dict(stored)
    with torch.no_grad():
        logits = model(probe())
    changes = {"dataset": "folder:fixture", "image": IMAGE, "num_classes": 4, "classes": ("a", "b", "c", "d")}
    card = replace(card_of("lenet5", "digits", weights), **changes)
    note = "made by tests/weight_files.py to show that files of format 1 load for ever; untrained, figures made up"
    params = sum(p.numel() for p in model.parameters())
    write_card(folder / "weights-v1.json", replace(card, params=params, macs=94_896, note=note))
    write_atomically(folder / "weights-v1.logits.json", json.dumps(logits.tolist()) + "\n")


if __name__ == "__main__":
    write_fixture(FIXTURES)
