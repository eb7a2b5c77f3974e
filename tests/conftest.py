"""What every test may ask for: data sets large and small, and a cache that is its own."""

import os
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # a worker a core: two threads each would only fight over them
    os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch

from zoo.data import DATASETS, Dataset, load_dataset
from zoo.data.cache import data_folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the person's cache; ZOO_DATA, if set, is left as it is."""
    folder = tmp_path / "zoo-cache"
    monkeypatch.setenv("ZOO_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of packed mnist and cifar10 that ZOO_DATA names; where there is none, the test is skipped."""
    folder = data_folder()
    wanted = [folder / name / f"{split}.safetensors" for name in ("mnist", "cifar10") for split in ("train", "test")]
    if "ZOO_DATA" not in os.environ or not all(path.exists() for path in wanted):
        pytest.skip("ZOO_DATA does not name a folder with mnist and cifar10 in it")
    return folder


@pytest.fixture(scope="session")
def digits_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder in which the digits are packed."""
    root = tmp_path_factory.mktemp("digits-data")
    load_dataset("digits", "train", root=root)
    return root


@pytest.fixture(scope="session")
def digits(digits_root: Path) -> tuple[Dataset, Dataset]:
    """Scikit-learn's handwritten digits: (train, test)."""
    return load_dataset("digits", "train", root=digits_root), load_dataset("digits", "test", root=digits_root)


@pytest.fixture
def tiny() -> Dataset:
    """100 seeded random images of 3 x 32 x 32, ten of each of cifar10's classes in turn."""
    generator = torch.Generator().manual_seed(7)
    info = DATASETS["cifar10"]
    return Dataset(
        name="tiny",
        split="train",
        images=torch.randint(256, (100, 3, 32, 32), dtype=torch.uint8, generator=generator),
        labels=torch.arange(100) % 10,
        classes=info.classes,
        mean=info.mean,
        std=info.std,
        digest="",
        mirrored=True,
    )
