"""`zoo compress`: stored weights through a pipeline, into a numbered folder with the file, its card and the receipts.

runs/compress/<n>-<model>-<dataset>/
    <model>.<dataset>.<tag>.zpk + .json     the network, and its card: accuracy measured on the stored file
    receipts.json                           what each stage did, layer by layer
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import torch

from zoo import recipes, runs
from zoo.cards import PACKED, Card, SeedResult, card_stem, write_card
from zoo.compression import Receipt, Stage, compress, load_packed, save_packed, write_receipts
from zoo.cost import count_macs
from zoo.create import create_model
from zoo.data import Dataset, load_dataset, split_validation
from zoo.errors import CompressionError
from zoo.evaluation import evaluate
from zoo.files import sha256_file
from zoo.recipes import Recipe, default_recipe
from zoo.training.distributed import choose_device
from zoo.weights import find_card

ROOT = Path("runs/compress")
TRAINING_SHARE = 0.1  # of the recipe's peak learning rate, for weights that are trained already


@dataclass(frozen=True)
class Job:
    """What to compress and how. tag: of the stored weights to begin with; new_tag: of those that come out.

    valid_images: held out from training, to choose on. recipe: of fine-tuning.
    """

    model: str
    dataset: str
    stages: tuple[Stage, ...]
    new_tag: str
    command: str
    tag: str | None = None
    seed: int = 0
    valid_images: int | None = None
    recipe: Recipe | None = None
    device: str | None = None


def run(job: Job, say: Callable[[str], None]) -> tuple[Path, Card, tuple[Receipt, ...]]:
    """Compress, store, measure the stored file on the test set. Returns (run folder, card, receipts).

    Raises CompressionError, WeightError where there are no weights to begin with, or what a stage refuses.
    """
    began = time.monotonic()
    base = find_card(job.model, job.dataset, job.tag)
    if job.new_tag == base.tag:
        raise CompressionError(f"tag={job.new_tag!r} is that of the weights to begin with; give another --tag.")
    model = create_model(job.model, dataset=job.dataset, pretrained=True, tag=base.tag)
    images = load_dataset(job.dataset, "train")
    held_out = len(images) // 10 if job.valid_images is None else job.valid_images
    train, valid = split_validation(images, held_out, job.seed)
    recipe = job.recipe or fine_tuning_recipe(job.model, job.dataset)
    folder = runs.new_folder(job.model, job.dataset, ROOT)
    say(f"run folder: {folder}")
    packed = compress(
        model,
        job.stages,
        dataset=base.dataset,
        train=train,
        valid=valid,
        recipe=recipe,
        seed=job.seed,
        device=job.device,
        spoken=True,
    )
    stem = card_stem(job.model, base.dataset, job.new_tag)
    path = folder / f"{stem}.zpk"
    save_packed(path, packed)
    write_receipts(folder / "receipts.json", packed.receipts)
    card = packed_card(
        path,
        base,
        load_dataset(job.dataset, "test"),
        tag=job.new_tag,
        stages=job.stages,
        recipe=recipe,
        command=job.command,
        trained_on=len(train),
        seconds=round(time.monotonic() - began, 1),
        seed=job.seed,
        device=job.device,
    )
    write_card(folder / f"{stem}.json", card)
    say(f"test: {card.correct} of {card.total} correct, {card.top1:.2%}, measured on {path.name}")
    say(f"run folder: {folder}")
    return folder, card, packed.receipts


def fine_tuning_recipe(model: str, dataset: str) -> Recipe:
    """The recipe that trained such a model, at a tenth of its learning rate."""
    recipe = default_recipe(model, dataset)
    return dataclasses.replace(recipe, lr=recipe.lr * TRAINING_SHARE)


def packed_card(
    path: Path,
    base: Card,
    test: Dataset,
    *,
    tag: str,
    stages: Sequence[Stage],
    recipe: Recipe,
    command: str,
    trained_on: int,
    seconds: float,
    seed: int = 0,
    device: str | None = None,
) -> Card:
    """The card of a packed file: what its weights began as, and what the file that is now on disk gets right."""
    digest = sha256_file(path)
    stored, _ = load_packed(path, sha256=digest)
    measured = evaluate(stored, test)
    return dataclasses.replace(
        base,
        tag=tag,
        file=path.name,
        format=PACKED,
        sha256=digest,
        file_bytes=path.stat().st_size,
        params=sum(p.numel() for p in stored.parameters()),
        macs=count_macs(stored, test.image),
        correct=measured.correct,
        total=measured.total,
        loss=measured.loss,
        seed=seed,
        seeds=(SeedResult(seed, measured.correct, measured.total),),
        recipe=recipes.to_dict(recipe),
        epochs=sum(getattr(stage, "epochs", 0) for stage in stages),
        command=command,
        commit=runs.commit(),
        versions=runs.versions(),
        device=runs.device_name(choose_device(device)),
        threads=torch.get_num_threads(),
        seconds=seconds,
        created=datetime.now(timezone.utc).date().isoformat(),
        note=f"{base.stem}, {base.top1:.2%}, through {'; '.join(map(repr, stages))}; trained on {trained_on} images",
    )
