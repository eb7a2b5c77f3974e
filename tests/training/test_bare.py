"""A bare machine: torch, timm and what they need; nothing of fvcore, matplotlib, typer, rich, sklearn, torchvision."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ABSENT = ("fvcore", "matplotlib", "typer", "rich", "sklearn", "torchvision", "onnx", "tensorboard")

# Read by the interpreter as it starts: these packages are not found, as on a machine where they are not installed.
HOOK = f"""
from importlib.machinery import PathFinder

find_spec = PathFinder.find_spec


def find_all_but(name, path=None, target=None):
    return None if name.partition(".")[0] in {ABSENT!r} else find_spec(name, path, target)


PathFinder.find_spec = find_all_but
"""


@pytest.mark.slow
def test_training_needs_torch_and_timm_alone(tmp_path: Path, digits_root: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HOOK)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        "ZOO_DATA": str(digits_root),
        "ZOO_CACHE": str(tmp_path / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    for package in ABSENT:
        probe = subprocess.run([sys.executable, "-c", f"import {package}"], env=environment, capture_output=True)
        assert probe.returncode == 1, package
    command = [sys.executable, str(ROOT / "train.py"), "lenet5", "--dataset", "digits", "--recipe", "smoke"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    left = {path.name for path in (tmp_path / "runs" / "train" / "1-lenet5-digits").iterdir()}
    assert {"lenet5.digits.safetensors", "lenet5.digits.json", "log.jsonl", "run.json"} <= left
    assert not any(name.endswith(".png") for name in left)
    assert [line for line in done.stderr.splitlines() if "no pictures" in line] == [
        "no pictures: plots need matplotlib: `pip install matplotlib` and run this again."
    ]
    assert "Traceback" not in done.stderr
