"""Several processes on one run, as `torchrun` starts them; everything is a no-op in a single process."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor
from torch import distributed as dist

from zoo.errors import CheckpointError, RecipeError, ZooError
from zoo.evaluation import Evaluation

TIMEOUT = timedelta(seconds=60)


@dataclass(frozen=True)
class Processes:
    """This process among those of the run."""

    rank: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def share(self, batch_size: int) -> slice:
        """The part of a global batch that this process computes. Raises RecipeError when it cannot be shared evenly."""
        if batch_size % self.count:
            raise RecipeError(
                f"a batch of {batch_size} cannot be shared by {self.count} processes; use a multiple of {self.count}."
            )
        part = batch_size // self.count
        return slice(self.rank * part, (self.rank + 1) * part)

    def total(self, values: Tensor) -> Tensor:
        """Sum over all processes, in place."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def equalise(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the main one's values, in place; one message for each dtype."""
        if self.count == 1:
            return
        by_dtype: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            by_dtype.setdefault(tensor.dtype, []).append(tensor.detach())
        for group in by_dtype.values():
            flat = torch.cat([tensor.reshape(-1) for tensor in group])
            dist.broadcast(flat, 0)
            for tensor, values in zip(group, flat.split([tensor.numel() for tensor in group]), strict=True):
                tensor.copy_(values.view(tensor.shape))

    def agree_on(self, what: str, value: int) -> None:
        """Raise CheckpointError, on every process, unless all have the same value."""
        seen = torch.zeros(self.count, dtype=torch.int64)
        seen[self.rank] = value
        if len(set(self.total(seen).tolist())) > 1:
            raise CheckpointError(
                f"the processes differ in {what}: {seen.tolist()}; let all see the same folder, and start again."
            )

    def same_text(self, text: str) -> str:
        """The main process's text, on every process."""
        if self.count == 1:
            return text
        box: list[str] = [text]
        dist.broadcast_object_list(box)
        return box[0]

    def total_evaluation(self, part: Evaluation) -> Evaluation:
        """One evaluation of the whole from the evaluations of all parts."""
        if self.count == 1:
            return part
        sums = torch.tensor([part.correct, part.total, part.loss * part.total], dtype=torch.float64)
        confusion = part.confusion.clone()
        self.total(sums)
        self.total(confusion)
        return Evaluation(int(sums[0]), int(sums[1]), float(sums[2] / sums[1]), confusion)


def choose_device(asked: torch.device | str | None) -> torch.device:
    """The device asked for, else an accelerator where there is one. Raises ZooError for one that is not there."""
    there = torch.cuda.device_count()
    try:
        device = torch.device(asked or ("cuda" if there else "cpu"))
    except RuntimeError:
        raise ZooError(f"no device is called {str(asked)!r}; give cpu, cuda or cuda:0.") from None
    if device.type == "cuda" and (device.index or 0) >= there:
        raise ZooError(f"the device {str(asked)!r} was asked for, and {there} CUDA devices are there; give cpu.")
    return device


@contextmanager
def processes(device: torch.device) -> Iterator[Processes]:
    """Join the processes that torchrun started, if any and if that is not done yet, and leave them at the end."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if dist.is_available() and dist.is_initialized():
        yield Processes(dist.get_rank(), dist.get_world_size())
        return
    if count == 1:
        yield Processes()
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # gloo beside nccl: counts are reduced on the CPU, gradients where they are.
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    rank = dist.get_rank()
    try:
        yield Processes(rank, count)
    except ZooError:
        raise
    except Exception as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"process {rank} of {count} failed: {told}", file=sys.stderr, flush=True)
        raise
    finally:
        dist.destroy_process_group()
