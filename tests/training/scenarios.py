"""What the tests of the trainer train, and how they hurt it. Imported by the tests and by the nursery's children."""

import contextlib
import hashlib
import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo import train_cli
from zoo.data import Augment, Dataset
from zoo.errors import CheckpointError
from zoo.evaluation import Evaluation
from zoo.recipes import Recipe, override
from zoo.training import fit, loop
from zoo.training.batches import Batches
from zoo.training.checkpoint import checkpoint_files, load_checkpoint
from zoo.training.distributed import processes
from zoo.training.loop import Run
from zoo.training.optimizer import WeightAverage
from zoo.training.state import Learner

RECIPE = Recipe(
    "test",
    epochs=3,
    batch_size=8,
    lr=0.05,
    label_smoothing=0.1,
    ema_decay=0.9,
    clip_norm=5.0,
    augment=Augment(crop_padding=1, flip="alternating", cutout=2, mixup=0.2),
)
STEPS_AN_EPOCH = 6
STEPS = 18


def network(seed: int = 3, *, norm: bool = True) -> nn.Module:
    """Convolution, batch norm, dropout, linear: float [N, 3, 8, 8] -> [N, 4]."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4) if norm else nn.Identity(),
            nn.ReLU(),
            nn.Dropout(0.3 if norm else 0.0),
            nn.Flatten(),
            nn.Linear(4 * 36, 4),
        )


def images(count: int, seed: int = 5, *, mirrored: bool = True) -> Dataset:
    """Seeded random images of 3 x 8 x 8 in four classes, whose labels can be learnt: the brightest quarter."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(128, (count, 3, 8, 8), dtype=torch.uint8, generator=generator)
    labels = torch.arange(count) % 4
    for row, label in enumerate(labels.tolist()):
        top, left = divmod(label, 2)
        pixels[row, :, 4 * top : 4 * top + 4, 4 * left : 4 * left + 4] += 100
    return Dataset(
        name="squares",
        split="train",
        images=pixels,
        labels=labels,
        classes=("a", "b", "c", "d"),
        mean=(0.4, 0.4, 0.4),
        std=(0.2, 0.2, 0.2),
        digest=f"{count}/{seed}",
        mirrored=mirrored,
    )


def world() -> tuple[Dataset, Dataset]:
    """Training images (a few more than fill the batches of an epoch) and validation images."""
    return images(8 * STEPS_AN_EPOCH + 3), images(21, seed=6)


def stir(_model: nn.Module, step: int, _steps: int) -> None:
    """Disturb the global generator, as code of somebody else would."""
    torch.manual_seed(step)
    torch.rand(step + 1)


def plain(tree: dict[str, Any]) -> dict[str, Any]:
    """A state without its times."""
    history = [
        {k: v for k, v in entry.items() if k not in ("seconds", "images_per_second")} for entry in tree["history"]
    ]
    return {**{k: v for k, v in tree.items() if k != "seconds"}, "history": history}


def same(one: Any, other: Any) -> bool:
    """Whether two states are equal, tensors bit for bit and of the same dtype and shape."""
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return (
            isinstance(one, Tensor)
            and isinstance(other, Tensor)
            and (one.dtype, one.shape) == (other.dtype, other.shape)
            and one.contiguous().view(-1).view(torch.uint8).equal(other.contiguous().view(-1).view(torch.uint8))
        )
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return type(one) is type(other) and bool(one == other)


def newest(folder: Path) -> dict[str, Any]:
    """The newest checkpoint of a folder, without its times."""
    return plain(load_checkpoint(checkpoint_files(folder)[0]))


def fingerprint(model: nn.Module) -> str:
    """SHA-256 of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def train(
    folder: str | Path,
    *,
    settings: tuple[str, ...] | list[str] = (),
    stop_at: int | None = None,
    stop_rank: int = 0,
    resume: bool = False,
    checkpoint_seconds: float = 60.0,
    norm: bool = True,
    on_step: Callable[[nn.Module, int, int], None] = stir,
) -> tuple[nn.Module, Run]:
    """One sitting of the standard run. stop_at: SIGTERM comes so that it is the last step done."""
    train, valid = world()
    model = network(norm=norm)

    def step_done(model: nn.Module, step: int, steps: int) -> None:
        on_step(model, step, steps)
        if stop_at is not None and step == stop_at - 2 and int(os.environ.get("RANK", "0")) == stop_rank:
            os.kill(os.getpid(), signal.SIGTERM)

    run = fit(
        model,
        train,
        valid,
        override(RECIPE, list(settings)),
        seed=11,
        device="cpu",
        out_dir=folder,
        resume=resume,
        checkpoint_seconds=checkpoint_seconds,
        max_minutes=0 if stop_at == 1 else None,
        on_step=step_done,
        spoken=True,
    )
    return model, run


def trained(**arguments: Any) -> dict[str, Any]:
    """`train` for the nursery."""
    model, run = train(**arguments)
    return {"fingerprint": fingerprint(model), "step": run.step, "stopped": run.stopped, "history": run.history}


def killed(point: str, call: int, **arguments: Any) -> dict[str, Any]:
    """`train` with a SIGKILL at a named point; `steps` counts, a byte each, the steps that were done."""
    counter = os.open("steps", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    write = os.write
    arm(point, call)
    return trained(**arguments, on_step=lambda _model, _step, _steps: write(counter, b"."))


def hurt(rank: int, where: str, how: str, **arguments: Any) -> dict[str, Any]:
    """`train` in which one rank raises an exception, or is killed, at its second visit of a place."""
    if int(os.environ["RANK"]) == rank:
        owner, name = {"save": (loop, "save"), **PLACES}[where]
        on_call(owner, name, 2, before=die if how == "kill" else fail)
    return trained(**arguments)


def poisoned(rank: int, **arguments: Any) -> dict[str, Any]:
    """`train` in which the loss of one rank becomes NaN at its fifth step."""
    if int(os.environ["RANK"]) == rank:
        forward = Learner.forward
        calls = iter(range(1, 1000))

        def poison(learner: Learner, images_NCHW: Tensor, targets: Tensor) -> Tensor:
            loss = forward(learner, images_NCHW, targets)
            return loss * float("nan") if next(calls) == 5 else loss

        Learner.forward = poison  # type: ignore[method-assign]
    return trained(**arguments)


def command(arguments: list[str], point: str | None = None, call: int = 1) -> int:
    """`python train.py` in this process."""
    if point is not None:
        arm(point, call)
    return train_cli.main(arguments)


def lenet(folder: str, data: str, epochs: int) -> dict[str, Any]:
    """LeNet-5 on MNIST with a global batch of 128; the accuracy is that of the test set."""
    from zoo.create import create_model
    from zoo.data import load_dataset

    train, test = (load_dataset("mnist", split, root=data) for split in ("train", "test"))
    torch.manual_seed(0)
    model = create_model("lenet5", dataset="mnist")
    losses: list[float] = []
    agree = loop._agree

    def listen(*arguments: Any) -> tuple[float, str | None]:
        answer = agree(*arguments)
        losses.append(answer[0])
        return answer

    loop._agree = listen
    run = fit(model, train, test, Recipe("test", epochs=epochs, lr=0.03), device="cpu", out_dir=folder)
    assert run.evaluation is not None
    return {"losses": losses, "correct": run.evaluation.correct, "total": run.evaluation.total}


def group() -> dict[str, Any]:
    """What the processes of a group tell each other."""
    with processes(torch.device("cpu")) as team:
        total = float(team.total(torch.tensor([team.rank + 1.0])))
        tensors = [torch.full((2,), team.rank + 1.0), torch.full((1, 1), 10 * (team.rank + 1))]
        team.equalise(tensors)
        confusion = torch.tensor([[1, 1], [0, 0]]) if team.rank == 0 else torch.tensor([[1, 1], [2, 1]])
        part = Evaluation(1, 2, 0.5, confusion) if team.rank == 0 else Evaluation(2, 5, 1.2, confusion)
        whole = team.total_evaluation(part)
        try:
            team.agree_on("the weather", team.rank)
        except CheckpointError as error:
            disagreement = str(error)
        return {
            "total": total,
            "text": team.same_text(f"from {team.rank}"),
            "equal": [tensor.tolist() for tensor in tensors],
            "evaluation": [whole.correct, whole.total, whole.loss, whole.confusion.tolist()],
            "disagreement": disagreement,
        }


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail() -> None:
    raise RuntimeError("broken on purpose")


def on_call(
    owner: Any,
    name: str,
    call: int,
    *,
    before: Callable[[], None] | None = None,
    after: Callable[[], None] | None = None,
) -> None:
    """Make the n-th call of owner.name do something first, or last."""
    function = getattr(owner, name)
    calls = iter(range(1, 1_000_000))

    def instead(*arguments: Any, **named: Any) -> Any:
        now = next(calls) == call
        if now and before:
            before()
        answer = function(*arguments, **named)
        if now and after:
            after()
        return answer

    setattr(owner, name, instead)


PLACES: dict[str, tuple[Any, str]] = {
    "batch making": (Batches, "__call__"),
    "forward": (Learner, "forward"),
    "backward": (Tensor, "backward"),
    "optimizer step": (torch.optim.SGD, "step"),
    "average": (WeightAverage, "update"),
    "evaluation": (loop, "evaluate"),
    "log": (loop, "write_log"),
    "temporary file": (tempfile, "mkstemp"),
    "fsync": (os, "fsync"),
    "rename": (os, "replace"),
    "dropping the old": (Path, "unlink"),
    "weights": (train_cli.runs, "save_weights"),
    "card": (train_cli.runs, "write_card"),
    "pictures": (train_cli.runs, "_pictures"),
}


def arm(point: str, call: int) -> None:
    """Place a SIGKILL: "before X" or "after X" of PLACES, or "in a write", which is done by half."""
    if point == "in a write":
        write = os.write

        def half(descriptor: int, data: memoryview) -> int:
            write(descriptor, data[: len(data) // 2])
            return 0

        calls = iter(range(1, 1_000_000))

        def instead(descriptor: int, data: memoryview) -> int:
            if next(calls) < call:
                return write(descriptor, data)
            half(descriptor, data)
            die()
            return 0

        os.write = instead  # type: ignore[assignment]
        return
    when, _, place = point.partition(" ")
    owner, name = PLACES[place]
    on_call(owner, name, call, before=die if when == "before" else None, after=die if when == "after" else None)


def constant_evaluation() -> Evaluation:
    return Evaluation(1, 2, float("inf"), torch.tensor([[1, 1], [0, 0]]))


@contextlib.contextmanager
def one_thread() -> Any:
    """Torch with a single thread, so that this process and the nursery's children add up in the same order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
