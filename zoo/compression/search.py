"""Automatic densities and bits: how much each layer can bear, and how to spend an accuracy or a size on all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log2

import torch
from torch import nn

from zoo.compression.prune import Prune
from zoo.compression.share import Share
from zoo.compression.stage import Treated, Workbench
from zoo.compression.treat import check_number, choose, finished
from zoo.data import Dataset
from zoo.errors import CompressionError
from zoo.evaluation import Evaluation, evaluate

DENSITIES = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05, 0.03)
BITS = (8, 6, 5, 4, 3, 2)
_HALVINGS = 12  # of the interval of prices, on a logarithmic scale


@dataclass(frozen=True)
class Auto:
    """Choose a density and a number of bits for every layer, then prune and share (sensitivity as in arXiv:1506.02626;
    the choice by a common price of accuracy, as in rate-distortion theory).

    How: each layer alone is pruned to each of DENSITIES and shared in each of BITS, and the rise of the validation
    loss is noted. For a price of one unit of loss in bits, each layer takes the setting of least size + price * rise;
    sizes are the entropy bound of mask and codes. The price is halved and doubled in turn until the network as a whole,
    pruned and shared, loses just less than `max_loss`, or its bound just fits `max_bytes`.

    max_loss: share of accuracy that may be lost before any training, such as 0.02; fine-tuning afterwards wins most of
    it back. max_bytes: of all weights. Exactly one is given. images: of the validation set that sensitivities are
    measured on. Costs: layers x (densities + bits) evaluations on `images`, and a dozen on all.
    epochs: of training in all, a quarter of them for the shared values, at a peak rate of `tuning_lr`.
    A budget that cannot be met: the smallest setting is kept, and `untreated` says what it comes to.
    Raises CompressionError for values out of range and without validation images.
    """

    max_loss: float | None = None
    max_bytes: int | None = None
    images: int = 1000
    epochs: int = 0
    tuning_lr: float = 1e-4
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.max_loss is None) == (self.max_bytes is None):
            raise CompressionError("give max_loss (a share such as 0.01) or max_bytes, and not both.")
        if self.max_loss is not None:
            check_number("max_loss", self.max_loss, 0, 1)
        if self.max_bytes is not None:
            check_number("max_bytes", self.max_bytes, 1, 1 << 40, whole=True)
        check_number("images", self.images, 1, 1 << 30, whole=True)
        check_number("epochs", self.epochs, 0, 100_000, whole=True)

    def apply(self, model: nn.Module, work: Workbench) -> Treated:
        """The copy of a model, pruned and shared as was found best."""
        valid = work.need_valid("choosing densities and bits")
        sample = valid.subset(torch.arange(min(self.images, len(valid))))
        sensitivities = measure_sensitivities(model, sample, work, self.skip)
        whole = evaluate(model, valid)
        best, fits = self._search(model, sensitivities, whole, valid, work)
        treated = _treated(model, best, work, self.epochs - self.epochs // 4, self.epochs // 4, self.tuning_lr)
        words = {name: f"density {s.density:g}, {s.bits} bits: {treated.layers[name]}" for name, s in best.items()}
        untreated = dict(treated.untreated)
        if not fits:
            untreated["the budget"] = (
                f"cannot be met: the least is {sum(s.size for s in best.values()) / 8:,.0f} bytes of weights at "
                f"{evaluate(treated.model, valid).top1:.2%}"
            )
        return finished(treated.model, words, untreated)

    def _search(
        self, model: nn.Module, known: "Sensitivities", whole: Evaluation, valid: Dataset, work: Workbench
    ) -> tuple[dict[str, "Setting"], bool]:
        """(the cheapest choice that keeps the promise, whether any does)."""
        low, high = -8.0, 8.0  # log10 of the price of one unit of loss, in shares of the dense size
        fitting: dict[str, Setting] | None = None
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            choice = at_price(known, 10**middle)
            if self.max_bytes is not None:
                fits = sum(setting.size for setting in choice.values()) <= 8 * self.max_bytes
                low, high = (middle, high) if fits else (low, middle)
            else:
                top1 = evaluate(_treated(model, choice, work).model, valid).top1
                fits = whole.top1 - top1 <= (self.max_loss or 0)
                low, high = (low, middle) if fits else (middle, high)
            fitting = choice if fits else fitting
        if fitting is not None:
            return fitting, True
        return at_price(known, 0.0 if self.max_bytes is not None else float("inf")), False


@dataclass(frozen=True)
class Setting:
    """A choice for one layer. size: bound on its bits in the file. rise: of the validation loss, in nats."""

    density: float
    bits: int
    size: float
    rise: float


Sensitivities = Mapping[str, Sequence[Setting]]


def measure_sensitivities(
    model: nn.Module, sample: Dataset, work: Workbench, skip: Sequence[str] = ()
) -> dict[str, list[Setting]]:
    """Every pair of density and bits of every layer, the rises of the two taken to add up."""
    layers, _ = choose(model, 1.0, skip)
    base = evaluate(model, sample).loss
    settings: dict[str, list[Setting]] = {}
    for name in layers:
        weights = model.get_submodule(name).weight.numel()  # type: ignore[operator]
        pruned = {d: _rise(Prune(densities={name: d}), model, sample, work, base) for d in DENSITIES}
        shared = {b: _rise(Share(bits={name: b}), model, sample, work, base) for b in BITS if 2**b < weights}
        settings[name] = [
            Setting(density, bits, weights * bound(density, bits), lost + coarse)
            for density, lost in pruned.items()
            for bits, coarse in shared.items()
        ]
    return {name: found for name, found in settings.items() if found}


def bound(density: float, bits: int) -> float:
    """Bits a weight: the entropy of the mask, and `bits` for each weight that is kept."""
    if density in (0.0, 1.0):
        return density * bits
    return -density * log2(density) - (1 - density) * log2(1 - density) + density * bits


def at_price(settings: Sensitivities, price: float) -> dict[str, Setting]:
    """Of each layer the setting of least size + price * rise; the price is in dense sizes a nat."""
    dense = sum(max(setting.size for setting in each) for each in settings.values())
    if price == float("inf"):
        return {name: min(each, key=lambda s: (s.rise, s.size)) for name, each in settings.items()}
    return {name: min(each, key=lambda s: s.size + price * dense * s.rise) for name, each in settings.items()}


def _rise(stage: Prune | Share, model: nn.Module, sample: Dataset, work: Workbench, base: float) -> float:
    """Of the loss when one layer is treated; what is not worse costs nothing."""
    try:
        treated = stage.apply(model, work).model
    except CompressionError:
        return 0.0  # too few weights for so many bits: they are left as they are
    return max(0.0, evaluate(treated, sample).loss - base)


def _treated(
    model: nn.Module,
    choice: Mapping[str, Setting],
    work: Workbench,
    epochs: int = 0,
    tuning_epochs: int = 0,
    lr: float | None = None,
) -> Treated:
    """Pruned and shared as chosen, with so many epochs of training after each."""
    densities = {name: setting.density for name, setting in choice.items()}
    bits = {name: setting.bits for name, setting in choice.items()}
    pruned = Prune(densities=densities, epochs=epochs).apply(model, work)
    shared = Share(bits=bits, epochs=tuning_epochs, lr=lr).apply(pruned.model, work)
    words = {name: f"{pruned.layers[name]}; {shared.layers.get(name, 'not shared')}" for name in pruned.layers}
    return Treated(shared.model, words, {**pruned.untreated, **shared.untreated})
