"""Cards and weight files: what is stored comes back, what does not fit is refused, and verify sees every difference."""

import json
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from weight_files import FIXTURES, card_of, model_of, probe, shuffled, store

from zoo.cards import SeedResult, dataset_label
from zoo.compression.container import pack
from zoo.cost import count_macs
from zoo.create import create_model
from zoo.data import DATASETS, Dataset
from zoo.errors import FileFormatError, UnknownNameError, WeightError
from zoo.evaluation import evaluate
from zoo.files import sha256_file
from zoo.registry import build
from zoo.tensorfile import read_tensors, write_tensors
from zoo.weights import (
    PACKED,
    Card,
    build_for_card,
    find_card,
    list_cards,
    load_for_card,
    load_weights,
    read_card,
    save_weights,
    verify_card,
    weights_folder,
    write_card,
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty zoo folder that ZOO_WEIGHTS names."""
    path = tmp_path / "weights"
    path.mkdir()
    monkeypatch.setenv("ZOO_WEIGHTS", str(path))
    return path


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


# weights ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lenet5", "squeezenet1_1", "mobilenetv1_025", "resnet20"])
def test_weights_come_back_in_half_precision_and_the_rest_exactly(name: str, tmp_path: Path) -> None:
    model, path = model_of(name, seed=1), tmp_path / "w.safetensors"
    save_weights(path, model)
    fresh = model_of(name, seed=2)
    load_weights(fresh, path)
    for key, tensor in model.state_dict().items():
        if key.endswith("num_batches_tracked"):
            continue
        loaded = fresh.state_dict()[key]
        assert loaded.dtype == torch.float32
        assert torch.equal(loaded, tensor.half().float() if tensor.ndim >= 2 else tensor), key


def test_what_is_stored_and_what_is_left_out(tmp_path: Path) -> None:
    model = build("googlenet")
    save_weights(tmp_path / "w.safetensors", model)
    tensors, metadata = read_tensors(tmp_path / "w.safetensors")
    assert metadata == {"format": "zoo-weights-1"}
    assert any(name.startswith("auxiliary.") for name in model.state_dict())
    assert not any(name.startswith("auxiliary.") or name.endswith("num_batches_tracked") for name in tensors)
    assert {tensor.dtype for tensor in tensors.values() if tensor.ndim >= 2} == {torch.float16}
    assert {tensor.dtype for tensor in tensors.values() if tensor.ndim < 2} == {torch.float32}
    before = state(shuffled(model, 4))
    load_weights(model, tmp_path / "w.safetensors")
    after = model.state_dict()
    assert all(torch.equal(before[n], after[n]) == n.startswith("auxiliary.") for n in after if after[n].ndim >= 2)


@pytest.mark.parametrize("value", [65_520.0, -1e30])
def test_half_precision_overflow_is_refused_by_name(value: float, tmp_path: Path) -> None:
    model = model_of()
    model.state_dict()["3.weight"][0, 0, 0, 0] = value
    with pytest.raises(WeightError, match=r"'3\.weight' holds .*more than half precision can"):
        save_weights(tmp_path / "w.safetensors", model)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["3.weight", "3.bias"])
def test_weights_that_are_not_finite_are_refused(name: str, value: float, tmp_path: Path) -> None:
    model = model_of()
    model.state_dict()[name].view(-1)[0] = value
    with pytest.raises(WeightError, match=f"'{name}' is not finite"):
        save_weights(tmp_path / "w.safetensors", model)


def damaged(path: Path, change: Callable[[dict[str, Tensor], dict[str, str]], None]) -> None:
    tensors, metadata = read_tensors(path)
    change(tensors, metadata)
    write_tensors(path, tensors, metadata)


def set_format(text: str | None) -> Callable[[dict[str, Tensor], dict[str, str]], None]:
    def change(_tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        metadata.clear()
        if text is not None:
            metadata["format"] = text

    return change


DAMAGES: dict[str, tuple[Callable[[dict[str, Tensor], dict[str, str]], Any], str]] = {
    "tensor missing": (lambda t, _m: t.pop("3.bias"), "lacks the tensor '3.bias'"),
    "tensor surplus": (lambda t, _m: t.update(extra=torch.ones(1)), "holds the tensor 'extra'"),
    "auxiliary": (lambda t, _m: t.update({"auxiliary.x": torch.ones(1)}), "holds the tensor 'auxiliary.x'"),
    "renamed": (lambda t, _m: t.update({"module.0.bias": t.pop("0.bias")}), "lacks the tensor '0.bias'"),
    "other rank": (lambda t, _m: t.update({"3.weight": t["3.weight"].flatten(1)}), "'3.weight' as [16, 150]"),
    "full precision": (lambda t, _m: t.update({"3.weight": t["3.weight"].float()}), "torch.float32, but needs"),
    "bias in half": (lambda t, _m: t.update({"0.bias": t["0.bias"].half()}), "torch.float16, but needs"),
    "bfloat16": (lambda t, _m: t.update({"3.weight": t["3.weight"].bfloat16()}), "torch.bfloat16, but needs"),
    "future version": (set_format("zoo-weights-2"), "'zoo-weights-2', newer than 'zoo-weights-1'"),
    "other format": (set_format("pt"), "'pt' instead of 'zoo-weights-1'"),
    "no format": (set_format(None), "None instead of 'zoo-weights-1'"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_does_not_fit_leaves_the_model_as_it_was(damage: str, tmp_path: Path) -> None:
    path, (change, phrase) = tmp_path / "lenet5.digits.safetensors", DAMAGES[damage]
    save_weights(path, model_of())
    damaged(path, change)
    model = model_of(seed=5)
    before = state(model)
    with pytest.raises(WeightError) as caught:
        load_weights(model, path)
    assert phrase in str(caught.value)
    assert same(before, model.state_dict())


def test_the_last_tensor_not_finite_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "lenet5.digits.safetensors"
    save_weights(path, model_of())
    data = bytearray(path.read_bytes())
    data[-2:] = b"\x00\x7e"  # a NaN in half precision
    path.write_bytes(data)
    model = model_of(seed=5)
    before = state(model)
    with pytest.raises(WeightError, match="not finite"):
        load_weights(model, path)
    assert same(before, model.state_dict())


def test_truncated_tampered_and_linked_files(tmp_path: Path) -> None:
    path = tmp_path / "lenet5.digits.safetensors"
    save_weights(path, model_of())
    digest, data, model = sha256_file(path), path.read_bytes(), model_of(seed=5)
    load_weights(model, path, sha256=digest)
    path.write_bytes(data[:-1])
    with pytest.raises(FileFormatError, match="payload has"):
        load_weights(model, path)
    with pytest.raises(WeightError, match="changed or damaged"):
        load_weights(model, path, sha256=digest)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(WeightError, match="changed or damaged"):
        load_weights(model, path, sha256=digest)
    link = tmp_path / "link.safetensors"
    link.symlink_to(path)
    with pytest.raises(FileFormatError, match="it is a symbolic link"):
        load_weights(model, link)


@pytest.mark.parametrize(
    ("name", "sizes", "phrase"),
    [
        (
            "squeezenet1_1",
            (100, 3, 32),
            "squeezenet1_1.cifar10 has 10 classes; the model was built with 100: leave out",
        ),
        ("lenet5", (11, 3, 32), "lenet5.cifar10 has 10 classes; the model was built with 11"),
        (
            "mobilenetv1_025",
            (10, 1, 32),
            "mobilenetv1_025.cifar10 takes images of 3 channels; the model was built for 1",
        ),
        ("resnet20", (7, 1, 32), "takes images of 3 channels"),
        ("lenet5", (10, 3, 40), "lenet5.cifar10 is for another image: its '7.weight' is [120, 400]"),
        ("lenet_300_100", (10, 1, 32), "lenet_300_100.cifar10 is for another image"),
    ],
)
def test_wrong_classes_channels_and_images_are_told_in_those_words(
    name: str, sizes: tuple[int, int, int], phrase: str, tmp_path: Path
) -> None:
    path = tmp_path / f"{name}.cifar10.safetensors"
    save_weights(path, model_of(name, "cifar10"))
    classes, channels, size = sizes
    with pytest.raises(WeightError) as caught:
        load_weights(build(name, num_classes=classes, in_chans=channels, image_size=size), path)
    assert phrase in str(caught.value)


def test_the_fixture_of_format_1_loads_for_ever() -> None:
    path = FIXTURES / "weights-v1.safetensors"
    card = read_card(FIXTURES / "weights-v1.json")
    assert card.format == "zoo-weights-1"
    assert card.file == path.name
    model = build_for_card(card)
    load_weights(model, path, sha256=card.sha256)
    with torch.no_grad():
        logits = model(probe())
    torch.testing.assert_close(logits, torch.tensor(json.loads((FIXTURES / "weights-v1.logits.json").read_text())))
    assert verify_card(FIXTURES / "weights-v1.json", accuracy=False) == []


# cards --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def card_text(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("card")
    return store(folder).read_bytes()


def test_a_card_comes_back_and_its_file_is_stable(tmp_path: Path) -> None:
    path = store(tmp_path)
    card = read_card(path)
    assert card == card_of("lenet5", "digits", tmp_path / "lenet5.digits.safetensors")
    data = path.read_bytes()
    write_card(path, card)
    assert path.read_bytes() == data
    fields = json.loads(data)
    assert list(fields) == sorted(fields)
    assert {"command", "correct", "total", "seed", "params", "macs", "sha256"} <= fields.keys()
    assert fields["top1"] == 0.9
    assert fields["seeds"] == {
        "n": 2,
        "mean": pytest.approx(0.92),
        "std": pytest.approx(0.02 * 2**0.5),
        "runs": [{"seed": 1, "correct": 90, "total": 100}, {"seed": 2, "correct": 94, "total": 100}],
    }


def test_figures_over_the_seeds(tmp_path: Path) -> None:
    card = read_card(store(tmp_path))
    assert (card.accuracies, card.top1) == ((0.9, 0.94), 0.9)
    alone = replace(card, seeds=card.seeds[:1])
    assert (alone.top1_mean, alone.top1_std) == (0.9, None)
    write_card(tmp_path / "x.json", alone)
    assert read_card(tmp_path / "x.json") == alone


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown model": ({"model": "lenet6"}, "no model is called 'lenet6'"),
    "model of code": ({"model": "os.system"}, "no model is called"),
    "model by path": ({"model": "timm/../x"}, "no model is called"),
    "model by address": ({"model": "timm/hf-hub:a/b"}, "no model is called"),
    "model of another library": ({"model": "keras/x"}, "no model is called"),
    "file up": ({"file": "../lenet5.digits.safetensors"}, "a bare file name"),
    "file absolute": ({"file": "/etc/passwd"}, "a bare file name"),
    "file of windows": ({"file": "a\\b.safetensors"}, "a bare file name"),
    "file hidden": ({"file": ".x.safetensors"}, "a bare file name"),
    "file of code": ({"file": "x.pkl"}, "is not .safetensors"),
    "data set by path": ({"dataset": "folder:/home"}, "without its path"),
    "data set up": ({"dataset": "../x"}, "without its path"),
    "tag with a dot": ({"tag": "a.b"}, "letters, digits"),
    "future format": ({"format": "zoo-weights-2"}, "'zoo-weights-2', and this version of zoo reads zoo-weights-1"),
    "digest short": ({"sha256": "0" * 63}, "64 hexadecimal"),
    "digest upper": ({"sha256": "A" * 64}, "64 hexadecimal"),
    "bytes negative": ({"file_bytes": -1}, "whole number"),
    "bytes true": ({"file_bytes": True}, "whole number"),
    "params float": ({"params": 1.0}, "whole number"),
    "macs text": ({"macs": "1"}, "whole number"),
    "classes number": ({"classes": 10}, "a list of names"),
    "classes few": ({"classes": ["a"]}, "names 1 classes of 10"),
    "classes twice": ({"classes": ["a"] * 10}, "a class twice"),
    "image flat": ({"image": [28, 28]}, "[channels, height, width]"),
    "image zero": ({"image": [1, 0, 28]}, "[channels, height, width]"),
    "mean of three": ({"mean": [0.1, 0.2, 0.3]}, "1 channels"),
    "std zero": ({"std": [0.0]}, "above 0"),
    "correct over total": ({"correct": 101}, "101 of 100"),
    "total zero": ({"total": 0}, "whole number from 1"),
    "top1 rounded up": ({"top1": 0.91}, "is not 90 / 100"),
    "top1 as per cent": ({"top1": 90}, "is not 90 / 100"),
    "loss null": ({"loss": None}, "a number from 0"),
    "seeds list": ({"seeds": []}, "n, mean, std and runs"),
    "runs empty": ({"seeds": {"n": 0, "mean": 0, "std": None, "runs": []}}, "its runs are []"),
    "run with more": ({"seeds": {"n": 1, "mean": 0.9, "std": None, "runs": [{"seed": 1}]}}, "its runs are"),
    "own run missing": ({"seed": 3}, "lack its own result, seed 3"),
    "recipe text": ({"recipe": "quick"}, "recipe's name"),
    "recipe nameless": ({"recipe": {"lr": 1}}, "recipe's name"),
    "versions nested": ({"versions": {"torch": {}}}, "texts by name"),
    "data digest missing": ({"data_digest": {"test": "1" * 64}}, "for train and for test"),
    "day of another form": ({"created": "31.01.2026"}, "YYYY-MM-DD"),
    "day impossible": ({"created": "2026-02-30"}, "YYYY-MM-DD"),
    "licence empty": ({"licence": ""}, "a licence"),
    "unknown field": ({"homepage": "x"}, "unknown field 'homepage'"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_card_is_refused_in_one_sentence(name: str, card_text: bytes, tmp_path: Path) -> None:
    changes, phrase = BAD[name]
    path = tmp_path / "lenet5.digits.json"
    path.write_text(json.dumps(json.loads(card_text) | changes))
    with pytest.raises(WeightError) as caught:
        read_card(path)
    text = str(caught.value)
    assert phrase in text
    assert text.startswith(str(path))
    assert "\n" not in text


@pytest.mark.parametrize(
    ("key", "value"), [("mean", 0.93), ("mean", float(0)), ("std", None), ("std", 0.5), ("n", 3), ("n", True)]
)
def test_figures_of_the_seeds_must_be_those_of_the_runs(key: str, value: Any, card_text: bytes, tmp_path: Path) -> None:
    data = json.loads(card_text)
    data["seeds"][key] = value
    path = tmp_path / "x.json"
    path.write_text(json.dumps(data))
    with pytest.raises(WeightError, match="n, mean or std"):
        read_card(path)


def test_every_field_is_needed(card_text: bytes, tmp_path: Path) -> None:
    whole, path = json.loads(card_text), tmp_path / "x.json"
    for name in whole:
        path.write_text(json.dumps({key: value for key, value in whole.items() if key != name}))
        with pytest.raises(WeightError, match=f"lacks field '{name}'"):
            read_card(path)


def test_a_card_is_a_small_regular_file_of_strict_json(card_text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for data, phrase in (
        (b"", "broken"),
        (b"[]", "not a JSON object"),
        (card_text.replace(b'"note": ""', b'"note": "", "note": ""'), "twice"),
        (card_text.replace(b"0.25", b"NaN"), "NaN"),
        (card_text.replace(b"0.25", b"1e999"), "too large"),
        (b'{"recipe": ' + b"[" * 200_000, "nested"),
        (card_text + b" " * (1 << 20), "more than the 1048576"),
    ):
        path.write_bytes(data)
        with pytest.raises(WeightError, match=phrase):
            read_card(path)
    path.unlink()
    with pytest.raises(WeightError, match="no such file"):
        read_card(path)
    (tmp_path / "real.json").write_bytes(card_text)
    path.symlink_to(tmp_path / "real.json")
    with pytest.raises(WeightError, match="it is a symbolic link"):
        read_card(path)


def test_damaged_cards_raise_nothing_but_our_error(card_text: bytes, tmp_path: Path) -> None:
    chance, path, passed = random.Random(7), tmp_path / "x.json", 0
    lengths = [bytearray(card_text[:length]) for length in range(0, len(card_text) - 2, 3)]
    flips = [bytearray(card_text) for _ in range(3000)]
    for data in flips:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    for data in lengths + flips:
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        with suppress(WeightError):
            passed += isinstance(read_card(path), Card)
    assert 0 < passed < len(flips)


@pytest.mark.parametrize(
    "changes",
    [{"loss": float("nan")}, {"correct": 200}, {"model": "nobody"}, {"seeds": (SeedResult(2, 1, 2),)}, {"epochs": 1.5}],
    ids=str,
)
def test_a_card_that_could_not_be_read_is_not_written(changes: dict[str, Any], tmp_path: Path) -> None:
    card = read_card(store(tmp_path))
    with pytest.raises(WeightError, match="is not written"):
        write_card(tmp_path / "x.json", replace(card, **changes))
    assert not (tmp_path / "x.json").exists()


def test_a_card_of_another_library_and_of_a_folder(tmp_path: Path) -> None:
    card = replace(read_card(store(tmp_path)), model="timm/resnet18.a1_in1k", dataset="folder:my flowers", tag="long")
    write_card(tmp_path / "x.json", card)
    assert read_card(tmp_path / "x.json").stem == "timm-resnet18-a1_in1k.folder-my-flowers.long"


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("cifar10", "cifar10"),
        ("folder:/a/b/flowers?size=64", "folder:flowers"),
        ("folder:/a/b/flowers/", "folder:flowers"),
    ],
)
def test_label_of_a_data_set_has_no_path(name: str, label: str) -> None:
    assert dataset_label(name) == label


# the zoo folder -----------------------------------------------------------------------------------------------------


def test_cards_are_listed_and_found(folder: Path) -> None:
    for name, dataset, tag in (
        ("lenet5", "mnist", ""),
        ("lenet5", "mnist", "tiny"),
        ("lenet5", "digits", ""),
        ("resnet20", "cifar10", ""),
    ):
        store(folder, name, dataset, tag)
    assert [card.stem for card in list_cards()] == [
        "lenet5.digits",
        "lenet5.mnist",
        "lenet5.mnist.tiny",
        "resnet20.cifar10",
    ]
    assert [card.stem for card in list_cards(model="lenet5", dataset="mnist")] == ["lenet5.mnist", "lenet5.mnist.tiny"]
    assert [card.stem for card in list_cards(dataset="cifar10")] == ["resnet20.cifar10"]
    assert find_card("lenet5", "mnist").tag == ""
    assert find_card("lenet5", "mnist", "tiny").tag == "tiny"
    with pytest.raises(WeightError) as caught:
        find_card("lenet5", "cifar10")
    assert "For the model lenet5: lenet5.digits, lenet5.mnist, lenet5.mnist.tiny." in str(caught.value)
    assert "For the data set cifar10: resnet20.cifar10." in str(caught.value)
    with pytest.raises(UnknownNameError, match="Did you mean 'lenet5'"):
        find_card("lenet55", "mnist")


def test_without_a_tag_the_only_tagged_weights_are_taken(folder: Path) -> None:
    store(folder, "lenet5", "mnist", "small")
    assert find_card("lenet5", "mnist").tag == "small"
    with pytest.raises(WeightError, match=r"no weights 'lenet5\.mnist'"):
        find_card("lenet5", "mnist", "")
    store(folder, "lenet5", "mnist", "large")
    with pytest.raises(WeightError, match="have tags: 'large', 'small'; give one of them, such as tag='large'"):
        find_card("lenet5", "mnist")
    store(folder, "lenet5", "mnist", "cpu")
    assert find_card("lenet5", "mnist").tag == "cpu"
    assert find_card("lenet5", "mnist", "large").tag == "large"
    store(folder, "lenet5", "mnist")
    assert find_card("lenet5", "mnist").tag == ""


def test_a_card_under_another_name_is_refused(folder: Path) -> None:
    path = store(folder)
    path.rename(folder / "lenet5.mnist.json")
    with pytest.raises(WeightError, match="all three names agree"):
        list_cards()
    with pytest.raises(WeightError, match="all three names agree"):
        find_card("lenet5", "mnist")


@pytest.mark.parametrize("kind", ["link", "folder", "dead link"])
def test_links_and_special_files_in_the_zoo_folder_are_refused(kind: str, folder: Path, tmp_path: Path) -> None:
    path = store(folder)
    moved = path.rename(tmp_path / "elsewhere.json")
    if kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(moved if kind == "link" else tmp_path / "nowhere")
    for look in (list_cards, lambda: find_card("lenet5", "digits")):
        with pytest.raises(WeightError, match=r"it is a symbolic link|not a regular file"):
            look()


def test_where_the_zoo_folder_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import zoo.weights

    monkeypatch.delenv("ZOO_WEIGHTS", raising=False)
    package = tmp_path / "site" / "zoo"
    package.mkdir(parents=True)
    monkeypatch.setattr(zoo.weights, "__file__", str(package / "weights.py"))
    assert weights_folder() == tmp_path / "site" / "weights"
    assert list_cards() == []
    (package / "_weights").mkdir()
    assert weights_folder() == package / "_weights"
    monkeypatch.setenv("ZOO_WEIGHTS", str(tmp_path / "nothing"))
    with pytest.raises(WeightError, match="not a folder"):
        list_cards()


# packed ---------------------------------------------------------------------------------------------------------------


def small_network() -> nn.Module:
    """A LeNet-5 for digits that has lost half of its first 120 neurons."""
    model = model_of()
    with torch.no_grad():
        for module in (model[7], model[9]):
            module.weight.copy_(torch.where(module.weight > 0.1, 0.125, 0.0))
    wide, narrow = model[7], nn.Linear(model[7].in_features, 60)
    after = nn.Linear(60, 84)
    with torch.no_grad():
        narrow.weight.copy_(wide.weight[:60])
        narrow.bias.copy_(wide.bias[:60])
        after.weight.copy_(model[9].weight[:, :60])
        after.bias.copy_(model[9].bias)
    model[7], model[9] = narrow, after
    return model


def store_packed(folder: Path, model: nn.Module, tag: str = "packed", **changes: Any) -> Path:
    """A packed LeNet-5 for digits and its card in a zoo folder: the card's path."""
    image = DATASETS["digits"].image
    weights = folder / f"lenet5.digits.{tag}.zpk"
    weights.write_bytes(pack(model, name="lenet5", num_classes=10, image=image, dataset="digits", coders=("huffman",)))
    params = sum(parameter.numel() for parameter in model.parameters())
    costs = {"format": PACKED, "tag": tag, "params": params, "macs": count_macs(model, image)}
    write_card(weights.with_suffix(".json"), card_of("lenet5", "digits", weights, **(costs | changes)))
    return weights.with_suffix(".json")


def test_a_packed_network_is_created_and_verified(folder: Path) -> None:
    model = small_network()
    path = store_packed(folder, model)
    assert verify_card(path, accuracy=False) == []
    created = create_model("lenet5", dataset="digits", pretrained=True)
    assert same(state(model), state(created))
    assert same(state(model), state(load_for_card(read_card(path), path.with_suffix(".zpk"))))


@pytest.mark.parametrize("name", ["params", "macs", "file_bytes"])
def test_verify_counts_on_the_packed_network(name: str, folder: Path) -> None:
    path = store_packed(folder, small_network())
    card = read_card(path)
    write_card(path, moved_by_one(card, name))
    assert verify_card(path, accuracy=False) == [
        f"{name}: the card says {getattr(card, name) + 1}, found {getattr(card, name)}"
    ]


def test_verify_sees_a_packed_file_that_is_not_the_cards(folder: Path) -> None:
    path = store_packed(folder, small_network(), classes=tuple("abcdefghijk"), num_classes=11)
    assert "holds num_classes 10; its card says 11" in "; ".join(verify_card(path, accuracy=False))
    weights = path.with_suffix(".zpk")
    weights.write_bytes(weights.read_bytes()[:-1])
    assert any("digest" in line for line in verify_card(path, accuracy=False))
    with pytest.raises(WeightError, match=r"is not \.zpk"):
        write_card(path, replace(read_card(path), file="lenet5.digits.packed.safetensors"))


def test_a_model_of_the_same_shape_is_filled_from_a_packed_file(folder: Path) -> None:
    whole, model = model_of(seed=4), model_of(seed=5)
    load_weights(model, store_packed(folder, whole).with_suffix(".zpk"))
    assert same(state(whole), state(model))
    smaller = store_packed(folder, small_network(), "small").with_suffix(".zpk")
    with pytest.raises(WeightError, match=r"whose '7\.bias' is \[60\], the model's \[120\]"):
        load_weights(model, smaller)
    assert same(state(whole), state(model))


# verify -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def scored(folder: Path, digits: tuple[Dataset, Dataset], digits_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A card whose every figure is right, beside its weights."""
    monkeypatch.setenv("ZOO_DATA", str(digits_root))
    train, test = digits
    path = store(folder)
    card, model = read_card(path), model_of()
    load_weights(model, folder / card.file)
    found = evaluate(model, test)
    right = replace(
        card,
        macs=count_macs(model, test.image),
        correct=found.correct,
        total=found.total,
        loss=found.loss,
        seeds=(SeedResult(1, found.correct, found.total),),
        data_digest={"train": train.digest, "test": test.digest},
    )
    write_card(path, right)
    return path


def test_verify_is_green_where_all_is_right(scored: Path) -> None:
    assert verify_card(scored, accuracy=True) == []


def moved_by_one(card: Card, name: str) -> Card:
    changed = replace(card, **{name: getattr(card, name) + 1})
    return replace(changed, seeds=(SeedResult(changed.seed, changed.correct, changed.total),))


@pytest.mark.parametrize("name", ["file_bytes", "params", "macs", "correct", "total"])
def test_verify_sees_a_figure_that_is_off_by_one(name: str, scored: Path) -> None:
    card = read_card(scored)
    write_card(scored, moved_by_one(card, name))
    value = getattr(card, name)
    assert verify_card(scored, accuracy=True) == [f"{name}: the card says {value + 1}, found {value}"]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"mean": (0.5,)}, "mean"),
        ({"std": (0.5,)}, "std"),
        ({"classes": tuple("9876543210")}, "classes"),
        ({"loss": 0.001}, "loss"),
        ({"data_digest": {"train": "0" * 64, "test": "1" * 64}}, "test digest"),
    ],
)
def test_verify_sees_other_data(changes: dict[str, Any], what: str, scored: Path) -> None:
    write_card(scored, replace(read_card(scored), **changes))
    (line,) = verify_card(scored, accuracy=True)
    assert line.startswith(f"{what}: the card says ")


def test_verify_sees_files_that_are_changed_missing_or_not_cards(scored: Path) -> None:
    weights = scored.with_suffix(".safetensors")
    other = model_of(seed=9)
    shutil.copy(weights, weights.with_suffix(".old"))
    save_weights(weights, other)
    (line,) = verify_card(scored, accuracy=True)
    assert "changed or damaged" in line
    weights.unlink()
    (line,) = verify_card(scored, accuracy=False)
    assert "no such file" in line
    scored.write_text("{}")
    (line,) = verify_card(scored, accuracy=False)
    assert "lacks field" in line


def test_verify_of_a_folder_needs_its_images(scored: Path, digits: tuple[Dataset, Dataset]) -> None:
    path = scored.with_name("own.json")
    write_card(path, replace(read_card(scored), dataset="folder:digits"))
    (line,) = verify_card(path, accuracy=True)
    assert "no path is taken from a card" in line
    assert verify_card(path, accuracy=True, dataset=digits[1]) == []


def test_verify_says_when_the_data_cannot_be_had(scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged_root = tmp_path / "data"
    (damaged_root / "digits").mkdir(parents=True)
    (damaged_root / "digits" / "test.safetensors").write_bytes(b"half a file")
    monkeypatch.setenv("ZOO_DATA", str(damaged_root))
    (line,) = verify_card(scored, accuracy=True)
    assert line.startswith("accuracy: not measured: ")


def test_verify_says_when_the_data_set_is_unknown(scored: Path) -> None:
    write_card(scored, replace(read_card(scored), dataset="digit"))
    (line,) = verify_card(scored, accuracy=False)
    assert "Did you mean 'digits'" in line


def test_weights_of_another_librarys_model(folder: Path) -> None:
    path = store(folder)
    card = replace(read_card(path), model="torchvision/squeezenet1_1", image=(1, 64, 64))
    model = build_for_card(card)
    save_weights(folder / "own.safetensors", shuffled(model, 2))
    again = build_for_card(card)
    load_weights(again, folder / "own.safetensors")
    assert all(
        torch.equal(a, b.half().float())
        for a, b in zip(again.parameters(), model.parameters(), strict=True)
        if a.ndim >= 2
    )
