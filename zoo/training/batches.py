"""Augmented batches as a pure function of (seed, step): nothing to save, nothing to fast-forward on resume."""

import hashlib

import torch
from torch import Tensor

from zoo.data import Dataset, augment_batch, mix_batch, normalize
from zoo.recipes import Recipe


def chance(seed: int, purpose: str, index: int) -> int:
    """A seed for one purpose at one index, independent of all others: 63 bits of SHA-256."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class Batches:
    """The batches of a run. The images live on the device as uint8; an epoch's last, incomplete batch is dropped."""

    def __init__(self, train: Dataset, recipe: Recipe, seed: int, device: torch.device) -> None:
        self.train = train.to(device)
        self.recipe = recipe
        self.seed = seed
        self.device = device
        self.generator = torch.Generator(device)
        self.steps_an_epoch = len(train) // recipe.batch_size
        self._epoch = -1
        self._order_N = torch.empty(0, dtype=torch.int64, device=device)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Batch `step` of the run: float32 [B, C, H, W] and labels, int64 [B] or shares [B, K]."""
        epoch, index = divmod(step, self.steps_an_epoch)
        if epoch != self._epoch:
            order = torch.Generator().manual_seed(chance(self.seed, "order", epoch))
            self._order_N = torch.randperm(len(self.train), generator=order).to(self.device)
            self._epoch = epoch
        size = self.recipe.batch_size
        rows_B = self._order_N[index * size : (index + 1) * size]
        self.generator.manual_seed(chance(self.seed, "augment", step))
        train, augment = self.train, self.recipe.augment
        pixels = augment_batch(train.images[rows_B], rows_B, epoch, augment, self.generator, fill=train.mean)
        images_BCHW = normalize(pixels, train.mean, train.std)
        return mix_batch(images_BCHW, train.labels[rows_B], train.num_classes, augment, self.generator)
