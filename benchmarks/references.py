"""Figures published elsewhere that ours are set beside, and which of ours lie above the best that can be downloaded.

Single view, top-1 on the test set as published; many are the best epoch on it, which reads 0.04 to 0.5 points high. A
cost that its source does not give is None. Our own models are counted by `zoo.measure`, these are not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from zoo.ranking import Row
from zoo.report import Column, Reference, Table, count_text, percent_text

PYTORCHCV = "github.com/osmr/imgclsmob (MIT)"
CHENYAOFO = "github.com/chenyaofo/pytorch-cifar-models (BSD-3-Clause)"
HUYVNPHAN = "github.com/huyvnphan/PyTorch_CIFAR10 (MIT)"

# name, data set, top-1, params, MACs, openly licensed weights, source
REFERENCES = (
    # CIFAR-10, best published at a budget
    Reference("BSConv MobileNetV3-S 0.35", "cifar10", 0.8904, 313_000, 3_000_000, False, "arXiv:2003.13549"),
    Reference("BSConv MobileNetV3-L 0.35", "cifar10", 0.9245, 436_000, 9_800_000, False, "arXiv:2003.13549"),
    Reference("BSConv WRN28-1-S", "cifar10", 0.9022, 35_463, 5_800_000, False, "arXiv:2003.13549"),
    Reference("BSConv WRN40-1-U", "cifar10", 0.9207, 80_000, 13_500_000, False, "arXiv:2003.13549"),
    Reference("CondenseNetV2-110", "cifar10", 0.9535, 480_000, 41_000_000, False, "arXiv:2104.04382"),
    Reference("tiniest", "cifar10", 0.946, 97_530, 43_900_000, False, "best of 5, mean 94.4 %"),
    Reference("SeparableResNet4-3", "cifar10", 0.9649, 450_000, 101_000_000, False, "1920 epochs"),
    # CIFAR-10, best with openly licensed weights at a budget
    Reference("open, 2.1 M MACs", "cifar10", 0.748, None, 2_100_000, True, "best checkpoint found below 5 M MACs"),
    Reference("MLPerf Tiny ResNet-8", "cifar10", 0.85, 78_186, 12_500_000, True, "arXiv:2106.07597 (Apache-2.0)"),
    Reference("ShuffleNetV2 0.5", "cifar10", 0.9013, 350_000, 10_900_000, True, CHENYAOFO),
    Reference("ResNet-20 (pytorchcv)", "cifar10", 0.9403, 272_474, 41_300_000, True, PYTORCHCV),
    Reference("SE-ResNet-56", "cifar10", 0.9587, 862_889, 127_000_000, True, PYTORCHCV),
    Reference("SE-ResNet-164-BN", "cifar10", 0.9661, 1_900_000, 257_000_000, True, PYTORCHCV),
    # CIFAR-10, by family
    Reference("ResNet-20", "cifar10", 0.9260, 270_000, 40_810_000, True, CHENYAOFO),
    Reference("VGG-16-bn", "cifar10", 0.9416, 15_250_000, 313_000_000, True, CHENYAOFO),
    Reference("MobileNetV1", "cifar10", 0.9357, 3_200_000, 179_000_000, False, "stride-1 heavy form"),
    Reference("MobileNetV2", "cifar10", 0.9379, 2_240_000, 88_000_000, True, CHENYAOFO),
    Reference("MobileNetV2 0.5", "cifar10", 0.9288, 700_000, 28_000_000, True, CHENYAOFO),
    Reference("NiN", "cifar10", 0.9257, 970_000, 223_000_000, True, PYTORCHCV),
    Reference("GoogLeNet", "cifar10", 0.9285, 5_491_000, None, True, HUYVNPHAN),
    Reference("Inception-v3", "cifar10", 0.9374, 21_640_000, None, True, HUYVNPHAN),
    Reference("SqueezeNet", "cifar10", 0.847, 120_000, 16_000_000, False, "no public weights found"),
    # MNIST
    Reference("697 parameters", "mnist", 0.99, 697, None, False, "best of many runs"),
    Reference("7,070 parameters", "mnist", 0.994, 7_070, None, False, "published without weights"),
    Reference("8,932 parameters", "mnist", 0.995, 8_932, None, False, "picked on the test set"),
    Reference("0.27 M with cutout", "mnist", 0.9975, 270_000, None, False, "published without weights"),
    Reference("LeNet-5 (1998)", "mnist", 0.9905, 61_706, 416_520, False, "LeCun et al. 1998"),
    Reference("LeNet-300-100 (2015)", "mnist", 0.9836, 266_610, 266_200, False, "arXiv:1510.00149"),
    Reference("LeNet-5 Caffe (2015)", "mnist", 0.992, 431_080, 2_293_000, False, "arXiv:1510.00149"),
)

# The most that a model of each class may cost: what it is set beside is the best open checkpoint of the same class.
BUDGETS = {
    "macs": (5_000_000, 15_000_000, 50_000_000, 150_000_000, 300_000_000),
    "params": (50_000, 100_000, 300_000, 1_000_000),
}
UNITS = {"macs": "MACs", "params": "parameters"}
NONE_YET = "None yet."


@dataclass(frozen=True)
class Lead:
    """A model of ours above the best openly licensed checkpoint of the same budget."""

    row: Row
    cost: str
    budget: int
    beaten: Reference

    @property
    def points(self) -> float:
        """By how much, in per cent of the test images."""
        return 100 * ((self.row.top1 or 0) - self.beaten.top1)


def leads(rows: Sequence[Row], references: Sequence[Reference] = REFERENCES) -> list[Lead]:
    """Each row's lead at the smallest budget it keeps to, of each cost; rows of one data set.

    A budget at which no open checkpoint is known has nothing to lead.
    """
    found = []
    for cost, budgets in BUDGETS.items():
        for row in rows:
            own = getattr(row, cost)
            budget = next((b for b in budgets if own is not None and own <= b), None)
            best = best_open(row.dataset, cost, budget, references) if budget else None
            if budget and best and row.top1 is not None and row.top1 > best.top1:
                found.append(Lead(row, cost, budget, best))
    return found


def best_open(dataset: str, cost: str, budget: int, references: Sequence[Reference] = REFERENCES) -> Reference | None:
    """The most accurate openly licensed checkpoint that keeps to a budget."""
    within = [
        reference
        for reference in references
        if reference.dataset == dataset
        and reference.open_weights
        and (own := getattr(reference, cost)) is not None
        and own <= budget
    ]
    return max(within, key=lambda reference: reference.top1, default=None)


def leads_table(found: Sequence[Lead]) -> Table:
    """One line a lead."""
    titles = ("model", "top-1", "at most", "its own", "best open checkpoint", "top-1 of that", "points above")
    rows = []
    for lead in found:
        own, unit = getattr(lead.row, lead.cost), UNITS[lead.cost]
        theirs = f"{lead.beaten.name}, {count_text(getattr(lead.beaten, lead.cost))}"
        rows.append(
            (
                lead.row.label,
                percent_text(lead.row.top1 or 0),
                f"{count_text(lead.budget)} {unit}",
                count_text(own),
                theirs,
                percent_text(lead.beaten.top1),
                f"{lead.points:.2f}",
            )
        )
    right = {"top-1", "its own", "top-1 of that", "points above"}
    columns = tuple(Column(title, title, right=title in right) for title in titles)
    return Table(columns, values=tuple(rows), texts=tuple(rows), name="leads")
