"""Models by name: sizes from the data set, weights from the zoo folder, and errors that say what to do."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from weight_files import model_of, store

from zoo.create import create_model, list_models
from zoo.errors import FileFormatError, ImageSizeError, UnknownNameError, WeightError
from zoo.files import sha256_file
from zoo.registry import architectures, build
from zoo.weights import load_weights, read_card, save_weights, write_card


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo folder with lenet5 on digits (also tagged `small`) and resnet20 on cifar10."""
    path = tmp_path / "weights"
    path.mkdir()
    monkeypatch.setenv("ZOO_WEIGHTS", str(path))
    store(path, "lenet5", "digits")
    store(path, "lenet5", "digits", "small")
    store(path, "resnet20", "cifar10")
    return path


def test_models_are_listed_in_order_of_registration() -> None:
    assert list_models() == list(architectures())
    assert list_models("lenet*", family="lenet") == [name for name in architectures() if name.startswith("lenet")]
    assert list_models("*", dataset="cifar10") == list_models()


def test_only_models_with_weights() -> None:
    assert list_models(pretrained=True) == ["lenet5", "resnet20"]
    assert list_models(pretrained=True, dataset="cifar10") == ["resnet20"]
    assert list_models("lenet*", pretrained=True, dataset="cifar10") == []


def test_wrong_names_propose_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'cifar10'"):
        list_models(dataset="cifar")
    with pytest.raises(UnknownNameError, match="squeezenet"):
        list_models(family="squeezenets")
    with pytest.raises(UnknownNameError, match="Did you mean 'squeezenet1_1'"):
        create_model("squeezenet11")
    with pytest.raises(UnknownNameError, match="Did you mean 'mnist'"):
        create_model("lenet5", dataset="mnisst")


@pytest.mark.parametrize(
    ("dataset", "image", "classes"),
    [("cifar100", (3, 32, 32), 100), ("mnist", (1, 28, 28), 10), ("digits", (1, 28, 28), 10)],
)
def test_a_data_set_gives_the_sizes(dataset: str, image: tuple[int, int, int], classes: int) -> None:
    model = create_model("mobilenetv1_025", dataset=dataset)
    assert not model.training
    assert model(torch.zeros(2, *image)).shape == (2, classes)


def test_what_is_given_goes_before_what_the_data_set_says() -> None:
    model = create_model("mobilenetv1_025", dataset="cifar10", num_classes=7, in_chans=2, image_size=48)
    assert model(torch.zeros(1, 2, 48, 48)).shape == (1, 7)
    with pytest.raises(ImageSizeError):
        create_model("lenet5", dataset="mnist", image_size=0)


def test_without_a_data_set_the_published_network_is_built() -> None:
    assert sum(p.numel() for p in create_model("lenet5").parameters()) == 61_706


@pytest.mark.parametrize("tag", [None, "small"])
def test_pretrained_weights(tag: str | None, folder: Path) -> None:
    model = create_model("lenet5", dataset="digits", pretrained=True, tag=tag)
    same = model_of(seed=3)
    load_weights(same, folder / ("lenet5.digits.small.safetensors" if tag else "lenet5.digits.safetensors"))
    images = torch.rand(4, 1, 28, 28)
    assert not model.training
    assert torch.equal(model(images), same(images))


def test_pretrained_takes_sizes_only_if_they_are_the_cards() -> None:
    assert create_model("lenet5", dataset="digits", pretrained=True, num_classes=10, in_chans=1, image_size=28)
    for wrong in ({"num_classes": 100}, {"in_chans": 3}, {"image_size": 32}):
        ((name, value),) = wrong.items()
        with pytest.raises(WeightError, match=rf"lenet5\.digits has {name}=\d+; {name}={value} was given: leave out"):
            create_model("lenet5", dataset="digits", pretrained=True, **wrong)


def test_pretrained_errors_say_what_there_is() -> None:
    with pytest.raises(WeightError, match="needs a dataset; there are weights of lenet5 for digits"):
        create_model("lenet5", pretrained=True)
    with pytest.raises(WeightError, match=r"no weights 'lenet5\.mnist'.*lenet5\.digits, lenet5\.digits\.small"):
        create_model("lenet5", dataset="mnist", pretrained=True)
    with pytest.raises(WeightError, match="give pretrained=True"):
        create_model("lenet5", dataset="digits", tag="small")
    with pytest.raises(UnknownNameError, match="lenet5"):
        create_model("lenett5", dataset="digits", pretrained=True)


def test_tampered_weights_are_refused(folder: Path) -> None:
    path = folder / "lenet5.digits.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightError, match="changed or damaged"):
        create_model("lenet5", dataset="digits", pretrained=True)


def test_weights_whose_shapes_do_not_fit_are_refused_by_name(folder: Path) -> None:
    """Card and file agree with each other, and not with the network that the card names."""
    card = folder / "resnet20.cifar10.json"
    save_weights(folder / "resnet20.cifar10.safetensors", model_of("lenet5", "cifar10"))
    file = folder / "resnet20.cifar10.safetensors"
    write_card(card, replace(read_card(card), sha256=sha256_file(file), file_bytes=file.stat().st_size))
    with pytest.raises(WeightError, match=r"resnet20\.cifar10\.safetensors.* (lacks|holds) the tensor '"):
        create_model("resnet20", dataset="cifar10", pretrained=True)
    save_weights(file, build("resnet20", num_classes=7, in_chans=3, image_size=32))
    write_card(card, replace(read_card(card), sha256=sha256_file(file), file_bytes=file.stat().st_size))
    with pytest.raises(WeightError, match=r"resnet20\.cifar10 has 7 classes; the model was built with 10"):
        create_model("resnet20", dataset="cifar10", pretrained=True)


def test_a_card_that_is_another_files_is_refused(folder: Path) -> None:
    small, main = folder / "lenet5.digits.small.json", folder / "lenet5.digits.json"
    save_weights(folder / "lenet5.digits.small.safetensors", model_of("lenet5", "digits", seed=8))
    with pytest.raises(WeightError, match=r"lenet5\.digits\.small\.safetensors.*changed or damaged"):
        create_model("lenet5", dataset="digits", pretrained=True, tag="small")
    small.write_bytes(main.read_bytes())
    with pytest.raises(WeightError, match="all three names agree"):
        create_model("lenet5", dataset="digits", pretrained=True, tag="small")


def test_a_card_without_its_file_and_a_damaged_card_are_named(folder: Path) -> None:
    (folder / "lenet5.digits.safetensors").unlink()
    with pytest.raises(FileFormatError, match=r"lenet5\.digits\.safetensors.*no such file"):
        create_model("lenet5", dataset="digits", pretrained=True)
    (folder / "lenet5.digits.json").write_text("{}")
    with pytest.raises(WeightError, match=r"lenet5\.digits\.json.*lacks field"):
        create_model("lenet5", dataset="digits", pretrained=True)


def test_a_tag_that_does_not_exist_lists_those_that_do() -> None:
    with pytest.raises(WeightError, match=r"no weights 'lenet5\.digits\.big'.*lenet5\.digits, lenet5\.digits\.small"):
        create_model("lenet5", dataset="digits", pretrained=True, tag="big")


def test_models_of_other_libraries() -> None:
    model = create_model("torchvision/squeezenet1_1", dataset="cifar10", image_size=64)
    assert not model.training
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 10)
    with pytest.raises(WeightError, match=r"no weights 'timm-resnet18\.cifar10'"):
        create_model("timm/resnet18", dataset="cifar10", pretrained=True)
    assert sum(p.numel() for p in create_model("torchvision/squeezenet1_1").parameters()) == 1_235_496
