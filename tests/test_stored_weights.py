"""The weights of this repository: every card is true of its file, and what is small is scored again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from zoo.weights import Card, list_cards, verify_card, weights_folder

CARDS = list_cards()
SMALL_MACS = 15e6  # scored again in every run, twice: a minute on two cores
SMALL = [card for card in CARDS if card.macs <= SMALL_MACS]
SMALLEST = [min((c for c in SMALL if c.dataset == d), key=lambda c: c.macs) for d in sorted({c.dataset for c in SMALL})]
TREE_BYTES = 40e6

# Of `zoo` it uses create_model and preprocess alone; the images are read by safetensors' own library.
PLAIN_PYTORCH = """
import sys, torch
from safetensors.torch import load_file
from zoo import create_model, preprocess
name, dataset, tag, path = sys.argv[1:]
model = create_model(name, dataset=dataset, pretrained=True, tag=tag or None)
split = load_file(path)
prepare = preprocess(dataset)
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
    assert {card.dataset for card in SMALL} == {card.dataset for card in CARDS}


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.stem)
def test_a_card_is_true_of_its_file(card: Card) -> None:
    assert verify_card(weights_folder() / f"{card.stem}.json", accuracy=False) == []
    assert card.licence == "Apache-2.0"
    assert card.command.startswith(("python train.py ", "torchrun ", "python benchmarks/"))


@pytest.mark.slow
@pytest.mark.parametrize("card", SMALL, ids=lambda card: card.stem)
def test_the_accuracy_of_a_small_model_is_its_card_s(card: Card, data_root: Path) -> None:
    assert verify_card(weights_folder() / f"{card.stem}.json", accuracy=True) == []


@pytest.mark.slow
@pytest.mark.parametrize("card", SMALL, ids=lambda card: card.stem)
def test_plain_pytorch_in_a_fresh_process_finds_the_same_number(card: Card, data_root: Path) -> None:
    images = data_root / card.dataset / "test.safetensors"
    assert int(output_of("-c", PLAIN_PYTORCH, card.model, card.dataset, card.tag, str(images))) == card.correct


@pytest.mark.slow
@pytest.mark.parametrize("card", SMALLEST, ids=lambda card: card.stem)
def test_zoo_eval_in_a_fresh_process_finds_the_same_number(card: Card, data_root: Path) -> None:
    tag = ("--tag", card.tag) if card.tag else ()
    text = output_of("-m", "zoo", "eval", card.model, "--dataset", card.dataset, *tag, "--format", "json")
    found = json.loads(text)
    assert (found["correct"], found["total"], found["top1"]) == (card.correct, card.total, card.top1)


def output_of(*arguments: str) -> str:
    """Standard output of Python in a process of its own."""
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True).stdout


def test_the_folder_is_small_and_holds_nothing_else() -> None:
    members = {path.name for path in weights_folder().iterdir()}
    assert members == {name for card in CARDS for name in (card.file, f"{card.stem}.json")}
    assert sum(path.stat().st_size for path in weights_folder().iterdir()) < TREE_BYTES


def test_no_card_names_a_place() -> None:
    for card in CARDS:
        text = json.dumps(json.loads((weights_folder() / f"{card.stem}.json").read_text()))
        assert "/root" not in text
        assert "/home" not in text
