"""What a data set is: labelled uint8 images held whole in memory, and the facts of those known by name."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from zoo.errors import DataError

Image = tuple[int, int, int]


@dataclass(frozen=True)
class DatasetInfo:
    """The facts of a data set that need no pixel: image is (C, H, W); mean and std are of pixels scaled to 0..1.

    mirrored: whether a left-right mirror image keeps its class.
    """

    name: str
    image: Image
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mirrored: bool


@dataclass(frozen=True, eq=False)
class Dataset:
    """One split in memory: images uint8 [N, C, H, W] and labels int64 [N], on one device.

    mean, std: per channel, of the training split's pixels scaled to 0..1.
    digest: SHA-256 of the image bytes, then the labels as one byte each; of a subset, the digest it was cut from.
    inexact_rows: rows whose pixels are known to differ from the official files.
    """

    name: str
    split: str
    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    digest: str
    mirrored: bool
    inexact_rows: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise DataError(f"images must be uint8 [N, C, H, W]; {self.images.dtype} {list(self.images.shape)} came.")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise DataError(f"labels must be int64 [N]; {self.labels.dtype} {list(self.labels.shape)} came.")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image(self) -> Image:
        """(C, H, W)."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def subset(self, rows: Tensor | Sequence[int]) -> "Dataset":
        """The data set of these rows, in their order."""
        index = torch.as_tensor(rows, dtype=torch.int64, device=self.images.device)
        inexact = set(self.inexact_rows)
        kept = tuple(i for i, row in enumerate(index.tolist()) if row in inexact) if inexact else ()
        return replace(self, images=self.images[index], labels=self.labels[index], inexact_rows=kept)

    def to(self, device: torch.device | str) -> "Dataset":
        """The same data set with its two tensors on `device`."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))


def first_occurrences(images_NCHW: Tensor) -> Tensor:
    """For each image the first row whose pixels are the same, its own where there is none before: int64 [N]."""
    seen: dict[bytes, int] = {}
    rows = images_NCHW.cpu().contiguous().flatten(1).numpy()
    digests = (hashlib.blake2b(row, digest_size=16).digest() for row in rows)
    return torch.tensor([seen.setdefault(digest, i) for i, digest in enumerate(digests)], dtype=torch.int64)


def stratified_rows(labels_N: Tensor, count: int, seed: int, *, last: Tensor | None = None) -> Tensor:
    """`count` rows drawn without replacement, each class in proportion: ascending int64 [count].

    What the proportion leaves over goes to the classes with the largest remainder, the lower class first.
    last: bool [N]; rows that are drawn only when their class has no other left.
    """
    labels = labels_N.cpu()
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
    if last is not None:
        shuffled = shuffled[last.cpu()[shuffled].to(torch.uint8).argsort(stable=True)]
    counts = torch.bincount(labels)
    quotas = counts * count // len(labels)
    remainders = counts * count % len(labels)
    quotas[remainders.argsort(descending=True, stable=True)[: count - int(quotas.sum())]] += 1
    picked = [shuffled[labels[shuffled] == c][: int(q)] for c, q in enumerate(quotas)]
    return torch.cat(picked).sort().values


def split_validation(train: Dataset, images: int, seed: int) -> tuple[Dataset, Dataset]:
    """Cut `images` images out of a training set: (what is left, the validation set), both in the set's own order.

    Stratified by class and a pure function of the set, `images` and `seed`. An image that occurs more than once stays
    in the training part as long as its class has others to give, so that no image is on both sides.
    Raises DataError when `images` is not between 1 and one less than the set holds.
    """
    if not 1 <= images < len(train):
        raise DataError(
            f"a validation set of {images} images was asked of the {len(train)} of {train.name}; "
            f"it can hold 1 to {len(train) - 1}."
        )
    first = first_occurrences(train.images)
    repeated = torch.bincount(first, minlength=len(first))[first] > 1
    chosen = stratified_rows(train.labels, images, seed, last=repeated)
    left = torch.ones(len(train), dtype=torch.bool)
    left[chosen] = False
    rest = left.nonzero().flatten()
    return train.subset(rest), replace(train.subset(chosen), split="validation")


_DIGITS = tuple("0123456789")
_FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR100 = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm"""

# name -> facts. Mean and std are those of the training split to four places; the tests measure them again.
DATASETS: dict[str, DatasetInfo] = {
    info.name: info
    for info in (
        DatasetInfo("mnist", (1, 28, 28), _DIGITS, (0.1307,), (0.3081,), False),
        DatasetInfo("fashion_mnist", (1, 28, 28), _FASHION, (0.2860,), (0.3530,), True),
        DatasetInfo("cifar10", (3, 32, 32), _CIFAR10, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), True),
        DatasetInfo(
            "cifar100", (3, 32, 32), tuple(_CIFAR100.split()), (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), True
        ),
        DatasetInfo("digits", (1, 28, 28), _DIGITS, (0.3059,), (0.3247,), False),
    )
}


def channel_statistics(images_NCHW: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of uint8 images, pixels scaled to 0..1, exact to rounding.

    Counted through a histogram of the 256 values: no float copy of the images is made.
    """
    values = torch.arange(256, dtype=torch.float64, device=images_NCHW.device) / 255
    means, stds = [], []
    for channel in images_NCHW.unbind(1):
        share = torch.bincount(channel.flatten().int(), minlength=256).double() / channel.numel()
        mean = float(share @ values)
        means.append(mean)
        stds.append(float(share @ (values - mean) ** 2) ** 0.5)
    return tuple(means), tuple(stds)
