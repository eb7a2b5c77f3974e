"""Accuracy, counted in images: how many of how many."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from zoo.data import Dataset, normalize
from zoo.errors import DataError


@dataclass(frozen=True)
class Evaluation:
    """What a model makes of a data set.

    loss: mean cross-entropy in nats. confusion: int64 [K, K], row = true class, column = predicted class.
    """

    correct: int
    total: int
    loss: float
    confusion: Tensor

    @property
    def top1(self) -> float:
        """Share of images whose highest logit is their class, 0 to 1."""
        return self.correct / self.total


def evaluate(
    model: nn.Module,
    dataset: Dataset,
    *,
    batch_size: int = 500,
    device: torch.device | str | None = None,
    precision: str = "fp32",
) -> Evaluation:
    """Score `model` on every image once: eval mode, single view, no augmentation. The model's mode is restored.

    device: where to run; by default where the model is. precision: "fp32", or "bf16" for autocast.
    Raises DataError when the data set is empty or has more classes than the model has logits.
    """
    if len(dataset) == 0:
        raise DataError(f"{dataset.name} has no images to score; give a split that has some.")
    where = torch.device(device) if device is not None else _device_of(model)
    logits_NK, labels_N = predict_logits(model, dataset, batch_size, where, precision), dataset.labels.cpu()
    if logits_NK.shape[1] != dataset.num_classes:
        raise DataError(
            f"the model has {logits_NK.shape[1]} classes and {dataset.name} has {dataset.num_classes}; "
            "build the model for this data set, or train it on one with its classes."
        )
    return score(logits_NK, labels_N)


def predict_logits(
    model: nn.Module, dataset: Dataset, batch_size: int, device: torch.device, precision: str = "fp32"
) -> Tensor:
    """Logits, float32 [N, K] on the CPU, of all images in order."""
    modes = [(module, module.training) for module in model.modules()]
    model.to(device).eval()
    parts = []
    try:
        with torch.inference_mode():
            for start in range(0, len(dataset), batch_size):
                pixels_NCHW = dataset.images[start : start + batch_size].to(device, non_blocking=True)
                images_NCHW = normalize(pixels_NCHW, dataset.mean, dataset.std)
                with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                    logits_NK = model(images_NCHW.contiguous(memory_format=torch.channels_last))
                parts.append(logits_NK.float().cpu())
    finally:
        for module, mode in modes:
            module.training = mode
    return torch.cat(parts)


def score(logits_NK: Tensor, labels_N: Tensor) -> Evaluation:
    """Count what logits get right."""
    classes = logits_NK.shape[1]
    predicted_N = logits_NK.argmax(1)
    pairs_N = labels_N * classes + predicted_N
    return Evaluation(
        correct=int((predicted_N == labels_N).sum()),
        total=len(labels_N),
        loss=float(cross_entropy(logits_NK.double(), labels_N)),
        confusion=torch.bincount(pairs_N, minlength=classes**2).reshape(classes, classes),
    )


def agreement(logits_NK: Tensor, others_NK: Tensor) -> float:
    """Share of the images for which two sets of logits name the same class, right or wrong."""
    return float((logits_NK.argmax(1) == others_NK.argmax(1)).double().mean())


def joined(parts: Sequence[Evaluation]) -> Evaluation:
    """One evaluation from those of disjoint parts of a data set, of which there must be one at least."""
    total = sum(part.total for part in parts)
    return Evaluation(
        correct=sum(part.correct for part in parts),
        total=total,
        loss=sum(part.loss * part.total for part in parts) / total,
        confusion=torch.stack([part.confusion for part in parts]).sum(0),
    )


def _device_of(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))
