"""Costs, cards and rows for tests of ranking, report and command line: small, and with round numbers."""

from dataclasses import replace

from zoo.cards import Card, SeedResult
from zoo.cost import Cost, LayerCost
from zoo.data import DATASETS
from zoo.ranking import Row

COSTS = {  # name -> (params, macs), of the models that the tests rank
    "lenet5": (1_000, 10_000),
    "vgg16_bn": (1_000_000, 100_000_000),
    "squeezenet1_1": (100_000, 5_000_000),
    "mobilenetv1_025": (50_000, 8_000_000),
}


def fake_cost(name: str, image: tuple[int, int, int] = (3, 32, 32), num_classes: int = 10) -> Cost:
    """A cost with the figures of COSTS, and a layer for each half of them."""
    params, macs = COSTS[name]
    layers = tuple(
        LayerCost(part, kind, (1, 8, 4, 4), params // 2, macs // 2, 128, params // 2)
        for part, kind in (("features.0", "Conv2d"), ("head", "Linear"))
    )
    return Cost(
        image=image,
        params=params + 7,
        params_used=params,
        nonzero_params=params,
        macs=macs,
        fvcore_total=macs,
        effective_macs=macs,
        training_macs=3 * macs,
        bit_operations=1024 * macs,
        winograd_2x2_multiplications=macs,
        winograd_4x4_multiplications=macs,
        activations=256,
        peak_activation_bytes=4096,
        peak_layer="features.0",
        peak_activation_bytes_int8=1024,
        weight_bytes=4 * params,
        flash_bytes=params,
        by_layer=layers,
        unsupported={},
        uncalled=("auxiliary.a",),
    )


def fake_card(model: str, dataset: str = "cifar10", correct: int = 9000, tag: str = "", runs: int = 1) -> Card:
    """A card of 10,000 test images; each further run gets ten images more."""
    info = DATASETS[dataset]
    stem = f"{model}.{dataset}" + (f".{tag}" if tag else "")
    params, macs = COSTS[model]
    return Card(
        model=model,
        dataset=dataset,
        tag=tag,
        file=f"{stem}.safetensors",
        format="zoo-weights-1",
        sha256="0" * 64,
        file_bytes=2 * params,
        num_classes=10,
        classes=info.classes,
        image=info.image,
        mean=info.mean,
        std=info.std,
        params=params,
        macs=macs,
        correct=correct,
        total=10_000,
        loss=0.3,
        seed=0,
        seeds=tuple(SeedResult(seed, correct + 10 * seed, 10_000) for seed in range(runs)),
        recipe={"name": "small"},
        epochs=30,
        command="python train.py",
        commit="",
        versions={},
        device="cpu",
        threads=1,
        seconds=1.0,
        data_digest={"train": "0" * 64, "test": "0" * 64},
        data_note="",
        licence="Apache-2.0",
        paper="",
        created="2026-01-01",
        note="",
    )


def fake_row(name: str, top1: float | None, macs: int, **values: object) -> Row:
    """A row with as many parameters as MACs and a byte for each, and a reason where the accuracy is missing."""
    missing = {} if top1 is not None else {"top1": "no weights", "correct": "no weights", "netscore": "no weights"}
    row = Row(name, "cifar10", (3, 32, 32), params=macs, macs=macs, bytes=macs, top1=top1, missing=missing)
    return replace(row, **values)  # type: ignore[arg-type]
