"""An installed wheel has what it needs: every stored weight loads from it, offline, in an empty folder."""

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Prints the package's folder, then one line a card: its stem and the digest of its model's logits.
LOGITS = """
import hashlib, sys
def refuse(event, _arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        raise RuntimeError(f"reached for the network: {event}")
sys.addaudithook(refuse)
import torch, zoo
from zoo.weights import list_cards
torch.set_num_threads(1)
print(zoo.__path__[0])
for card in list_cards():
    model = zoo.create_model(card.model, dataset=card.dataset, pretrained=True, tag=card.tag or None)
    images = torch.linspace(-2, 2, card.image[0] * card.image[1] * card.image[2]).reshape(1, *card.image)
    with torch.no_grad():
        print(card.stem, hashlib.sha256(model(images).numpy().tobytes()).hexdigest())
"""


def logits_from(package: Path, folder: Path) -> list[str]:
    """What LOGITS prints when run in `folder` with the package found in `package`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ZOO_")}
    environment |= {"PYTHONPATH": str(package), "ZOO_CACHE": str(folder / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LOGITS], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


@pytest.mark.slow
def test_every_weight_loads_from_a_wheel_in_an_empty_folder(tmp_path: Path) -> None:
    here, built, installed, empty = (tmp_path / name for name in ("here", "built", "installed", "empty"))
    for folder in (here, empty):
        folder.mkdir()
    # Where the build's backend is not installed, pip gets it, as `pip install .` does.
    backend = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", *backend, "-w", str(built), str(ROOT)]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = built.glob("zoo-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)

    package, *digests = logits_from(installed, empty)
    assert Path(package) == installed / "zoo"
    assert list(empty.iterdir()) == [], "loading writes nothing"
    source, *expected = logits_from(ROOT, here)
    assert Path(source) == ROOT / "zoo"
    assert digests == expected
    assert {line.split()[0] for line in digests} == {path.stem for path in (ROOT / "weights").glob("*.json")}
