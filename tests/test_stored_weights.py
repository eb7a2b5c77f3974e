"""The weights of this repository: every card is true of its file, and what is small is scored again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from zoo.weights import Card, list_cards, verify_card, weights_folder

CARDS = list_cards()
SMALL_MACS = 15e6  # scored again in every run: ten seconds on two cores
TREE_BYTES = 40e6

PLAIN_PYTORCH = """
import sys, torch, zoo
from safetensors.torch import load_file
name, dataset, path = sys.argv[1:]
model = zoo.create_model(name, dataset=dataset, pretrained=True)
split = load_file(path)
prepare = zoo.preprocess(dataset)
correct = 0
for start in range(0, len(split["images"]), 500):
    pixels = split["images"][start : start + 500]
    images = torch.cat([prepare(p.permute(1, 2, 0).squeeze(-1).numpy()) for p in pixels])
    with torch.no_grad():
        predicted = model(images).argmax(1)
    correct += int((predicted == split["labels"][start : start + 500]).sum())
print(correct)
"""


def test_there_are_weights_to_check() -> None:
    assert {card.dataset for card in CARDS} >= {"mnist", "cifar10"}


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.stem)
def test_a_card_is_true_of_its_file(card: Card) -> None:
    assert verify_card(weights_folder() / f"{card.stem}.json", accuracy=False) == []
    assert card.licence == "Apache-2.0"
    assert card.command.startswith(("python train.py ", "torchrun "))


@pytest.mark.slow
@pytest.mark.parametrize("card", [card for card in CARDS if card.macs <= SMALL_MACS], ids=lambda card: card.stem)
def test_the_accuracy_of_a_small_model_is_its_card_s(card: Card, data_root: Path) -> None:
    assert verify_card(weights_folder() / f"{card.stem}.json", accuracy=True) == []


@pytest.mark.slow
def test_plain_pytorch_in_a_fresh_process_finds_the_same_number(data_root: Path) -> None:
    card = next(card for card in CARDS if card.stem == "lenet5.mnist")
    done = subprocess.run(
        [sys.executable, "-c", PLAIN_PYTORCH, card.model, card.dataset, str(data_root / "mnist/test.safetensors")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) == card.correct


def test_the_folder_is_small_and_holds_nothing_else() -> None:
    members = {path.name for path in weights_folder().iterdir()}
    assert members == {name for card in CARDS for name in (card.file, f"{card.stem}.json")}
    assert sum(path.stat().st_size for path in weights_folder().iterdir()) < TREE_BYTES


def test_no_card_names_a_place() -> None:
    for card in CARDS:
        text = json.dumps(json.loads((weights_folder() / f"{card.stem}.json").read_text()))
        assert "/root" not in text
        assert "/home" not in text
