"""Batch-norm statistics measured anew: after weights have changed, the old ones describe another network."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from zoo.compression.stage import Treated, Workbench
from zoo.compression.treat import check_number
from zoo.data import Dataset, normalize


def sample_batches(
    dataset: Dataset, batches: int, batch_size: int, seed: int, device: torch.device
) -> Iterator[Tensor]:
    """At most so many full, normalised batches, float32 [B, C, H, W], of images drawn without replacement.

    A data set smaller than one batch is one.
    """
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))
    size = min(batch_size, len(dataset))
    for rows in order[: len(order) // size * size].split(size)[:batches]:
        yield normalize(dataset.images[rows.to(dataset.images.device)].to(device), dataset.mean, dataset.std)


@torch.no_grad()
def re_estimate_batch_norm(
    model: nn.Module, train: Dataset, *, batches: int = 20, batch_size: int = 250, seed: int = 0
) -> list[str]:
    """Measure the running mean and variance of every batch norm anew, in place; returns the names of these layers.

    They become the plain averages over the batches (arXiv:1502.03167, section 3.1, algorithm 2). Everything
    else of the model computes as in eval mode; its mode and the momenta are restored.
    """
    norms = {name: module for name, module in model.named_modules() if _has_statistics(module)}
    if not norms:
        return []
    modes = [(module, module.training) for module in model.modules()]
    kept = {name: (norm.momentum, norm.num_batches_tracked.clone()) for name, norm in norms.items()}
    device = next(iter(norms.values())).running_mean.device
    call = getattr(model, "forward_with_auxiliary", model)  # early exits have norms too
    try:
        model.eval()
        for norm in norms.values():
            norm.reset_running_stats()
            norm.momentum = None  # PyTorch's word for a cumulative average
            norm.train()
        for images_NCHW in sample_batches(train, batches, batch_size, seed, device):
            call(images_NCHW)
    finally:
        for module, mode in modes:
            module.training = mode
        for name, norm in norms.items():
            norm.momentum, count = kept[name]
            norm.num_batches_tracked.copy_(count)
    return list(norms)


@dataclass(frozen=True)
class Calibrate:
    """Re-estimate batch-norm statistics on training images, without training (arXiv:1502.03167, section 3.1).

    How: `batches` batches of `batch_size` images pass through; the statistics become their averages. Suggested: 20
    batches of 250. Costs: one forward pass of these images. With other stages: after any that changes weights without
    training; training itself does the same.
    A model without batch norm is left as it is, and the receipt says so. Raises CompressionError without images.
    """

    batches: int = 20
    batch_size: int = 250

    def __post_init__(self) -> None:
        check_number("batches", self.batches, 1, 1_000_000, whole=True)
        check_number("batch_size", self.batch_size, 2, 1_000_000, whole=True)

    def apply(self, model: nn.Module, work: Workbench) -> Treated:
        """The copy of a model with statistics of its own."""
        train = work.need_train("re-estimating batch-norm statistics")
        calibrated = copy.deepcopy(model)
        names = re_estimate_batch_norm(
            calibrated, train, batches=self.batches, batch_size=self.batch_size, seed=work.seed
        )
        words = dict.fromkeys(names, f"statistics of up to {self.batches} batches of {self.batch_size}")
        return Treated(calibrated, words, {} if names else {"the model": "has no batch norm with running statistics"})


def _has_statistics(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.running_mean is not None
