"""NaN is never stored: it stops the run, on every process, with what to try; the last checkpoint is finite."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from scenarios import RECIPE, constant_evaluation, network, train, world
from torch import Tensor, nn

from zoo.errors import DivergedError
from zoo.recipes import override
from zoo.training import CrossEntropy, Objective, fit, loop
from zoo.training.checkpoint import checkpoint_files, load_checkpoint, tensors_of


class Poison(Objective):
    """Cross-entropy whose loss is replaced at one step."""

    def __init__(self, step: int, value: float) -> None:
        super().__init__()
        self.step, self.value, self.calls = step, value, 0
        self.inner = CrossEntropy()

    def forward(self, model: nn.Module, images_NCHW: Tensor, targets: Tensor) -> Tensor:
        loss: Tensor = self.inner(model, images_NCHW, targets)
        self.calls += 1
        return loss * self.value if self.calls == self.step + 1 else loss


def finite(folder: Path) -> int:
    """How many checkpoints there are; all their tensors are finite."""
    files = checkpoint_files(folder)
    assert all(bool(torch.isfinite(t).all()) for path in files for t in tensors_of(load_checkpoint(path)))
    return len(files)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_stops_before_the_step(tmp_path: Path, value: float) -> None:
    train_set, valid = world()
    model = network()
    seen: list[int] = []
    with pytest.raises(DivergedError, match=r"at step 7, at a learning rate of 0\.0\d+;.*--set lr=0\.017") as caught:
        fit(
            model,
            train_set,
            valid,
            RECIPE,
            objective=Poison(7, value),
            device="cpu",
            out_dir=tmp_path,
            checkpoint_seconds=0,
            on_step=lambda _model, step, _steps: seen.append(step),
        )
    assert seen == list(range(7))
    assert "\n" not in str(caught.value)
    assert all(bool(torch.isfinite(t).all()) for t in model.state_dict().values())
    assert finite(tmp_path) == 2
    assert checkpoint_files(tmp_path)[0].name[11:20] == "000000007"


def test_weights_that_overflow_are_refused_when_saved(tmp_path: Path) -> None:
    """The loss is finite and the weights are not: on_step stands for an overflow in the step."""

    def overflow(model: nn.Module, step: int, _steps: int) -> None:
        if step == 4:
            with torch.no_grad():
                model.get_parameter("5.bias")[0] = float("inf")

    with pytest.raises(DivergedError, match=r"no longer finite after step 5.*checkpoint before is intact"):
        train(tmp_path, on_step=overflow, checkpoint_seconds=0)
    assert finite(tmp_path) == 2
    assert checkpoint_files(tmp_path)[0].name[11:20] == "000000004"


def test_an_average_that_overflows_is_refused_too(tmp_path: Path) -> None:
    """Weights that recovered leave a poisoned average behind."""
    kept: dict[str, Tensor] = {}

    def overflow(model: nn.Module, step: int, _steps: int) -> None:
        bias = model.get_parameter("5.bias")
        with torch.no_grad():
            if step == 4:
                kept["bias"] = bias.clone()
                bias[0] = float("nan")
            if step == 5:
                bias.copy_(kept["bias"])

    with pytest.raises(DivergedError):
        train(tmp_path, on_step=overflow, checkpoint_seconds=60.0)
    assert finite(tmp_path) == 0


def test_a_validation_loss_that_is_not_finite_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Early averages of batch statistics can be wild; the log stays valid JSON."""
    monkeypatch.setattr(loop, "evaluate", lambda *_a, **_n: constant_evaluation())
    _, run = train(tmp_path)
    assert [entry["valid_loss"] for entry in run.history] == [None] * 3
    assert [entry["valid_top1"] for entry in run.history] == [0.5] * 3
    assert not re.search("NaN|Infinity", (tmp_path / "log.jsonl").read_text())


def test_a_rate_that_is_far_too_high_diverges_with_advice(tmp_path: Path) -> None:
    train_set, _ = world()
    recipe = override(RECIPE, ["lr=1e18", "clip_norm=0", "warmup=0", "epochs=30"])
    with pytest.raises(DivergedError, match="Try --set lr="):
        fit(network(norm=False), train_set, None, recipe, device="cpu", out_dir=tmp_path, checkpoint_seconds=0)
    finite(tmp_path)


@pytest.mark.parametrize("rank", [0, 1])
def test_one_process_of_two_stops_both_with_the_same_words(nursery: Any, tmp_path: Path, rank: int) -> None:
    births = nursery.run("poisoned", tmp_path, count=2, rank=rank, folder=str(tmp_path / "run"), checkpoint_seconds=0)
    assert births.statuses == [1, 1]
    words = [re.findall(r"DivergedError: (.*)", births.output(r)) for r in (0, 1)]
    assert len(words[0]) == 1  # once, not once more as the failure of a process
    assert words[0] == words[1]
    assert "the loss is nan at step 4" in words[0][0]
    assert finite(tmp_path / "run") == 2
