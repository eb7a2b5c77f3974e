"""Unstructured pruning: the weights that matter least become zero and stay so."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from zoo.compression.forms import Plain
from zoo.compression.stage import Treated, Workbench
from zoo.compression.treat import (
    Made,
    check_choice,
    check_number,
    choose,
    fine_tune,
    finished,
    layers_of,
    put,
    straight_through,
)
from zoo.errors import CompressionError

Schedule = Literal["one-shot", "iterative", "gradual"]
_UPDATES = 200  # of the masks, in a gradual run: a sort of all weights costs about as much as a step of training


class Mask(Made):
    """weight = dense where mask, else 0. dense: float32, trained. mask: bool, same shape.

    Neither momentum nor weight decay can revive what the mask covers, since they act on `dense`. With `reviving` the
    gradient reaches covered weights too, so that they may grow and be chosen again.
    """

    dense: nn.Parameter
    mask: Tensor

    def __init__(self, weight: Tensor, mask: Tensor) -> None:
        super().__init__()
        self.dense = nn.Parameter(weight.detach().clone())
        self.register_buffer("mask", mask.clone())
        self.reviving = False

    def forward(self) -> Tensor:
        """The weight. Covered entries are +0, whatever the sign of what they cover."""
        weight = torch.where(self.mask, self.dense, 0.0)
        return straight_through(weight, self.dense) if self.reviving else weight

    def form(self) -> Plain:
        return Plain(self().detach().cpu().contiguous())

    def floats(self) -> Tensor:
        return self.dense


@dataclass(frozen=True)
class Prune:
    """Set the weights of smallest magnitude to zero (Han et al., arXiv:1506.02626, section 3).

    How: of each layer's weights the share `density` is kept, those of largest absolute value; scope="global" ranks the
    weights of all layers together. A `Mask` keeps the others at zero through all later stages and training.
    schedule "one-shot": prune, then train for `epochs`. "iterative" (section 3.4): `rounds` times, keep the same share
    of what is left and train for `epochs`. "gradual" (arXiv:1710.01878, equation 1): in one run of `epochs` the density
    falls as a cube, until the share `ramp` of it is over; with dynamic=True pruned weights may come back until then,
    as in dynamic network surgery (arXiv:1608.04493), but to a given density in place of its thresholds.

    density: kept share, above 0 to 1; at least one weight of a layer stays. Suggested: 0.05 to 0.1 for linear layers,
    0.2 to 0.6 for the first convolution. densities: by name of layer, in place of density; others are left out.
    unit: "weight", or "kernel" for whole k x k kernels of convolutions, ranked by their `norm`, "l1" or "l2" (for a
    single weight both are its magnitude). criterion="random" is the yardstick that magnitude is to beat.
    lr: peak rate of training, in place of the recipe's; a tenth of the rate of the first training is usual.
    Costs: one sort of the weights and the training. Nothing runs faster on dense kernels; the file gets smaller.
    With other stages: before `Share` and `Quantize`, which keep the zeros; `ProductQuantize` cannot. A layer already
    sparser than asked keeps its zeros.
    Raises CompressionError for values out of range, UnknownNameError for a layer that does not exist.
    """

    density: float = 0.1
    densities: Mapping[str, float] | None = None
    scope: Literal["layer", "global"] = "layer"
    schedule: Schedule = "one-shot"
    rounds: int = 3
    epochs: int = 0
    dynamic: bool = False
    ramp: float = 0.7
    criterion: Literal["magnitude", "random"] = "magnitude"
    unit: Literal["weight", "kernel"] = "weight"
    norm: Literal["l1", "l2"] = "l1"
    lr: float | None = None
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_choice("scope", self.scope, ("layer", "global"))
        check_choice("schedule", self.schedule, get_args(Schedule))
        check_choice("criterion", self.criterion, ("magnitude", "random"))
        check_choice("unit", self.unit, ("weight", "kernel"))
        check_choice("norm", self.norm, ("l1", "l2"))
        for name, density in {"density": self.density, **(self.densities or {})}.items():
            check_number(name, density, 0, 1)
            if density == 0:
                raise CompressionError(f"{name}=0 was given; above 0 is allowed, for a layer without weights is none.")
        check_number("rounds", self.rounds, 1, 1000, whole=True)
        check_number("epochs", self.epochs, 0, 100_000, whole=True)
        check_number("ramp", self.ramp, 0, 1)
        if self.schedule != "one-shot" and self.epochs == 0:
            raise CompressionError(f"schedule={self.schedule!r} prunes while it trains; give epochs=1 or more.")
        if self.dynamic and self.schedule != "gradual":
            raise CompressionError("dynamic=True lets weights come back during training; give schedule='gradual'.")
        if self.scope == "global" and (self.densities is not None or self.unit == "kernel"):
            raise CompressionError("scope='global' ranks single weights for one density; leave out densities and unit.")

    def apply(self, model: nn.Module, work: Workbench) -> Treated:
        """The pruned copy of a model."""
        given = self.density if self.densities is None else self.densities
        goals, untreated = choose(model, given, self.skip)
        pruned = copy.deepcopy(model)
        masks: dict[str, Mask] = {}
        for name, layer in layers_of(pruned).items():
            if name in goals:
                weight = layer.weight.detach()
                masks[name] = Mask(weight, weight != 0)
                put(layer, masks[name])
        if masks:
            ranking = _Ranking(self, goals, masks, work.seed)
            self._train(pruned, work, ranking)
        words = {name: f"kept {int(m.mask.sum()):,} of {m.mask.numel():,} weights" for name, m in masks.items()}
        return finished(pruned, words, untreated)

    def _train(self, model: nn.Module, work: Workbench, ranking: "_Ranking") -> None:
        """Prune and train as the schedule says."""
        if self.schedule == "gradual":
            ranking.set_reviving(self.dynamic)
            fine_tune(model, work, self.epochs, self.lr, ranking.on_step)
            ranking.set_reviving(False)
            ranking.prune(1.0)  # the average of the weights, kept by fit, is one update of the masks behind
            return
        rounds = self.rounds if self.schedule == "iterative" else 1
        for number in range(1, rounds + 1):
            ranking.prune(number / rounds)
            fine_tune(model, replace(work, seed=work.seed + number - 1), self.epochs, self.lr)


class _Ranking:
    """Decides which weights are kept, now and at each step of a gradual run."""

    def __init__(self, stage: Prune, goals: dict[str, float], masks: dict[str, Mask], seed: int) -> None:
        self.stage = stage
        self.goals = goals
        self.masks = masks
        self.alive = {name: mask.mask.clone() for name, mask in masks.items()}  # what was zero before never comes back
        generator = torch.Generator().manual_seed(seed)
        self.noise = {
            name: torch.rand(mask.dense.shape, generator=generator).to(mask.dense.device)
            for name, mask in masks.items()
            if stage.criterion == "random"
        }

    def prune(self, way: float) -> None:
        """Set the masks for densities that have gone a share `way` of their way, each step by the same factor."""
        self._set({name: goal**way for name, goal in self.goals.items()})

    def on_step(self, model: nn.Module, step: int, steps: int) -> None:
        """Set the masks of a gradual run after a step of training."""
        last = max(1, round(self.stage.ramp * steps))
        done = step + 1
        if done > last or (done % max(1, last // _UPDATES) and done != last):
            return
        left = (1 - done / last) ** 3
        self._set({name: goal + (1 - goal) * left for name, goal in self.goals.items()})

    def set_reviving(self, reviving: bool) -> None:
        for mask in self.masks.values():
            mask.reviving = reviving

    @torch.no_grad()
    def _set(self, densities: dict[str, float]) -> None:
        eligible = {name: self.alive[name] if mask.reviving else mask.mask for name, mask in self.masks.items()}
        scores = {name: torch.where(eligible[name], self._score(name), -1.0) for name in self.masks}
        if self.stage.scope == "global":
            flat = torch.cat([score.flatten() for score in scores.values()])
            parts = largest(flat, next(iter(densities.values()))).split([s.numel() for s in scores.values()])
            chosen = {name: part.view(scores[name].shape) for name, part in zip(scores, parts, strict=True)}
            for name, score in scores.items():
                chosen[name].view(-1)[score.argmax()] = True  # a layer without weights would cut the network in two
        else:
            chosen = {name: self._chosen(score, densities[name]) for name, score in scores.items()}
        for name, mask in self.masks.items():
            mask.mask.copy_(chosen[name] & eligible[name])

    def _score(self, name: str) -> Tensor:
        return self.noise[name] if self.noise else self.masks[name].dense.abs()

    def _chosen(self, scores: Tensor, density: float) -> Tensor:
        if self.stage.unit == "weight" or scores.ndim == 2:
            return largest(scores, density)
        order = 1 if self.stage.norm == "l1" else 2
        norms = torch.linalg.vector_norm(scores.clamp_min(0), order, (2, 3), keepdim=True)
        return largest(norms, density).expand_as(scores)


def largest(scores: Tensor, density: float) -> Tensor:
    """bool, as scores: the round(density * n) largest, at least one."""
    count = max(1, round(density * scores.numel()))
    kept = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    kept[scores.flatten().topk(count, sorted=False).indices] = True
    return kept.view(scores.shape)
