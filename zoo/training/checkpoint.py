"""Checkpoints: the whole state of a run in one safetensors file, never a pickle.

The state is a tree of dicts, lists, numbers, strings and tensors. Tensors become entries of the file under their path
in the tree; everything else is JSON, whose bytes are the entry "state" (a long history would not fit into a header). A
SHA-256 over all of it is in the metadata. The two newest are kept; a damaged newest falls back to the one before, and
says so.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.errors import CheckpointError, FileFormatError, WeightError
from zoo.tensorfile import read_tensors, write_tensors

FORMAT = "zoo-checkpoint-1"
KEPT = 2
_STATE = "state"  # no path of a tensor is called so: they all begin with a slash
_TENSOR = "__tensor__"
_NAME = "checkpoint-{step:09d}.safetensors"


def checkpoint_files(folder: Path) -> list[Path]:
    """Checkpoints of a run folder, newest first."""
    return sorted(folder.glob("checkpoint-*.safetensors"), reverse=True)


def save_checkpoint(folder: Path, step: int, state: Mapping[str, Any]) -> Path:
    """Write the state after `step` steps, then drop all but the two newest files. Refuses non-finite tensors."""
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_flatten(state, "", tensors), allow_nan=False)
    tensors[_STATE] = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
    path = folder / _NAME.format(step=step)
    write_tensors(path, tensors, {"format": FORMAT, "sha256": _digest(tensors)})
    for old in checkpoint_files(folder)[KEPT:]:
        old.unlink(missing_ok=True)
    return path


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The state that `save_checkpoint` wrote. Raises CheckpointError for anything damaged, unfinished or foreign."""
    try:
        tensors, metadata = read_tensors(path)
    except (FileFormatError, WeightError, OSError) as error:
        raise CheckpointError(str(error)) from error
    written = metadata.get("format")
    if written != FORMAT:
        raise CheckpointError(f"{path} is of format {written!r}; this version reads {FORMAT!r}.")
    if _STATE not in tensors or _digest(tensors) != metadata.get("sha256"):
        raise CheckpointError(f"{path} is damaged: its digest differs from its contents.")
    text = tensors.pop(_STATE).numpy().tobytes()
    state: dict[str, Any] = _restore(json.loads(text), tensors)
    return state


def load_newest(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest state of a run folder that can be read, and what was wrong with the files passed over.

    None when there is no checkpoint at all. Raises CheckpointError when there are some and none can be read.
    """
    complaints: list[str] = []
    for path in checkpoint_files(folder):
        try:
            return load_checkpoint(path), complaints
        except CheckpointError as error:
            complaints.append(str(error))
    if complaints:
        raise CheckpointError(f"no checkpoint of {folder} can be read: {' '.join(complaints)} Start the run anew.")
    return None, complaints


def tidy(folder: Path, step: int) -> None:
    """Remove the temporary files that a killed process left, and set aside checkpoints of steps after `step`.

    Those were passed over: under another name they can be looked at, and do not count as one of the two.
    """
    for leftover in folder.glob(".*.part"):
        leftover.unlink(missing_ok=True)
    for path in checkpoint_files(folder):
        if path.name > _NAME.format(step=step):
            path.rename(path.with_suffix(".passed-over"))


def tensors_of(state: Any) -> Iterator[Tensor]:
    """All tensors of a state."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, Mapping | list | tuple):
        for item in state.values() if isinstance(state, Mapping) else state:
            yield from tensors_of(item)


def _flatten(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """JSON of a tree; its tensors are moved to `tensors` under their paths."""
    if isinstance(value, Tensor):
        tensors[path] = value.detach().cpu()
        return {_TENSOR: path}
    if isinstance(value, Mapping):
        return {str(key): _flatten(item, f"{path}/{key}", tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_flatten(item, f"{path}/{index}", tensors) for index, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise CheckpointError(f"the state at {path!r} is a {type(value).__name__}; only plain values and tensors are kept.")


def _restore(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if set(value) == {_TENSOR}:
            return tensors[value[_TENSOR]]
        return {key: _restore(item, tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [_restore(item, tensors) for item in value]
    return value


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()
