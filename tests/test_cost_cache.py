"""zoo.cost.cached_cost: counted once, counted again when anything it rests on has changed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from zoo import files, registry
from zoo.cost import Cost, cache, cached_cost, measure
from zoo.errors import ImageSizeError, UnknownNameError

ASKED = ("lenet5", (1, 32, 32), 10)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by one entry each time something is really counted."""
    times: list[str] = []

    def count(model: torch.nn.Module, image: tuple[int, int, int]) -> Cost:
        times.append(type(model).__name__)
        return measure(model, image)

    monkeypatch.setattr(cache, "measure", count)
    return times


def stored(folder: Path) -> Path:
    (path,) = (folder / "costs").iterdir()
    return path


def test_the_second_time_comes_from_the_file(counted: list[str], own_cache: Path) -> None:
    first = cached_cost(*ASKED)
    assert cached_cost(*ASKED) == first == measure(registry.build("lenet5"), (1, 32, 32))
    assert len(counted) == 1
    assert stored(own_cache).name == "lenet5.1x32x32.10.json"


def test_name_image_and_classes_are_told_apart(counted: list[str]) -> None:
    figures = {cached_cost("lenet5", (c, s, s), k).macs for c in (1, 3) for s in (28, 40) for k in (10, 11)}
    assert len(counted) == 8
    assert len(figures) == 8


@pytest.mark.parametrize("part", ["torch", "fvcore", "sources"])
def test_other_versions_and_sources_are_counted_again(
    part: str, counted: list[str], monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    cached_cost(*ASKED)
    with monkeypatch.context() as changed:
        genuine = cache._key(*ASKED)
        changed.setattr(cache, "_key", lambda *_: genuine | {part: "other"})
        cached_cost(*ASKED)
        assert len(counted) == 2
        assert json.loads(stored(own_cache).read_text())["key"][part] == "other"
    cached_cost(*ASKED)
    assert len(counted) == 3


def test_every_source_a_figure_rests_on_is_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    genuine = files.sha256_file
    monkeypatch.setattr(files, "sha256_file", lambda path: read.append(Path(path)) or genuine(path))
    before = cache._digest()
    package = Path(cache.__file__).parent
    families = package.parent / "models"  # one may be built of another's
    expected = {
        "layers.py",
        "registry.py",
        *(path.name for where in (package, families) for path in where.glob("*.py")),
    }
    assert {path.name for path in read} == expected
    for edited in expected:
        fake = {edited: "0" * 64}
        monkeypatch.setattr(files, "sha256_file", lambda path, fake=fake: fake.get(Path(path).name) or genuine(path))
        assert cache._digest() != before, edited


def test_damaged_files_are_ignored_and_rewritten(counted: list[str], own_cache: Path) -> None:
    expected = cached_cost(*ASKED)
    path = stored(own_cache)
    whole = path.read_bytes()
    damaged = [whole[: len(whole) * n // 8] for n in range(8)]
    damaged += [whole.replace(b"416520", b"416521"), b"[]", b"{}", b"null", b"\xff\xfe", b"[" * 5000, whole + b"x"]
    for position, data in enumerate(damaged, start=2):
        path.write_bytes(data)
        assert cached_cost(*ASKED) == expected
        assert len(counted) == position, data[:40]
        assert path.read_bytes() == whole


def test_a_folder_that_cannot_be_written_costs_time_only(
    counted: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a-file").write_text("")
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "a-file" / "below"))
    assert cached_cost(*ASKED) == cached_cost(*ASKED)
    assert len(counted) == 2


def test_chance_is_neither_used_nor_disturbed(own_cache: Path) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = cached_cost("mobilenetv1_025", (3, 32, 32), 10)
    assert torch.equal(torch.get_rng_state(), before)
    stored(own_cache).unlink()
    torch.manual_seed(2)
    assert cached_cost("mobilenetv1_025", (3, 32, 32), 10) == first


def test_wrong_questions() -> None:
    with pytest.raises(UnknownNameError, match="lenet5"):
        cached_cost("lenet_5", (1, 32, 32), 10)
    with pytest.raises(ImageSizeError, match="square"):
        cached_cost("lenet5", (1, 32, 28), 10)
    with pytest.raises(ImageSizeError, match="too small"):
        cached_cost("lenet5_caffe", (1, 1, 1), 10)


@pytest.mark.slow
def test_processes_that_ask_at_once_all_get_the_figure(own_cache: Path) -> None:
    program = "from zoo.cost import cached_cost; print(cached_cost('lenet5', (1, 32, 32), 10).macs)"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", program]
    root = Path(cache.__file__).parents[2]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=root) for _ in range(2)
    ]
    assert [process.communicate()[0].strip() for process in running] == ["416520"] * 2
    assert [path.name for path in (own_cache / "costs").iterdir()] == ["lenet5.1x32x32.10.json"]
