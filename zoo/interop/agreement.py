"""What an exported network makes of real images, beside the network that it was made from."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zoo.data import Dataset, normalize
from zoo.errors import DataError
from zoo.evaluation import agreement, predict_logits, score

BATCH = 100


@dataclass(frozen=True)
class Agreement:
    """Two networks on the same images.

    agreement: share of the images for which they name the same class, right or wrong. largest_difference: of any two
    logits; largest_logit: the largest magnitude of the original's, to hold it against.
    correct, exported_correct: images that the original and the exported one get right.
    """

    images: int
    agreement: float
    largest_difference: float
    largest_logit: float
    correct: int
    exported_correct: int


def compare(
    original: nn.Module, exported: Callable[[Tensor], Tensor], data: Dataset, *, pixels: bool = False
) -> Agreement:
    """Run both on every image of a data set.

    exported: float [N, C, H, W], normalised, or with `pixels` uint8, -> logits [N, K].
    Raises DataError for a data set without images, or one whose classes are not the network's.
    """
    if len(data) == 0:
        raise DataError(f"{data.name} has no images to compare on; give a split that has some.")
    logits_NK = predict_logits(original, data, BATCH, torch.device("cpu"))
    if logits_NK.shape[1] != data.num_classes:
        raise DataError(
            f"the network has {logits_NK.shape[1]} classes and {data.name} has {data.num_classes}; "
            "compare on the data set that it was trained on."
        )
    parts = []
    for pixels_NCHW in data.images.split(BATCH):
        images_NCHW = pixels_NCHW if pixels else normalize(pixels_NCHW, data.mean, data.std)
        # In the memory format that the original is evaluated in, which decides how PyTorch adds up.
        parts.append(exported(images_NCHW.contiguous(memory_format=torch.channels_last)))
    exported_NK = torch.cat(parts).detach()
    return Agreement(
        images=len(data),
        agreement=agreement(logits_NK, exported_NK),
        largest_difference=float((logits_NK - exported_NK).abs().max()),
        largest_logit=float(logits_NK.abs().max()),
        correct=score(logits_NK, data.labels).correct,
        exported_correct=score(exported_NK, data.labels).correct,
    )
