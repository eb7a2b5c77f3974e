"""Folders that timm loads: its own models, ours, and what neither can be."""

import json
from pathlib import Path

import pytest
import timm
import torch
from exported_networks import images, network_of

from zoo.compression import PruneChannels, compress
from zoo.data import Preprocess
from zoo.errors import ExportError
from zoo.interop import register_with_timm
from zoo.interop.hf import CONFIG, README, ModelCard, export_hf, load_hf

CLASSES = tuple("abcdefg")
IMAGE = (3, 32, 32)
PREPROCESS = Preprocess(IMAGE, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
CARD = ModelCard("A title", "Apache-2.0", "cifar10", 0.9164, {"top-1": "91.64 %", "note": "made here"})


@pytest.mark.parametrize("name", ["squeezenet1_1", pytest.param("googlenet", marks=pytest.mark.slow)])
def test_ours_come_back_to_the_bit(name: str, tmp_path: Path) -> None:
    model = network_of(name, num_classes=len(CLASSES))
    export_hf(model, name, tmp_path, classes=CLASSES, preprocess=PREPROCESS, card=CARD)
    register_with_timm()
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    batch = images(3, IMAGE)
    with torch.no_grad():
        assert torch.equal(loaded(batch), model(batch))
    prepared = timm.data.resolve_model_data_config(loaded)
    assert prepared["input_size"] == IMAGE
    assert tuple(prepared["mean"]) == PREPROCESS.mean
    assert tuple(prepared["std"]) == PREPROCESS.std
    assert loaded.pretrained_cfg["label_names"] == list(CLASSES)
    assert not torch.equal(timm.create_model(f"local-dir:{tmp_path}").eval()(batch), model(batch)), "weights on request"


def test_those_of_timm_load_with_timm_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model("mobilenetv3_small_050", num_classes=len(CLASSES)).eval()
    export_hf(model, "timm/mobilenetv3_small_050", tmp_path, classes=CLASSES, preprocess=PREPROCESS, card=CARD)
    assert json.loads((tmp_path / CONFIG).read_text())["architecture"] == "mobilenetv3_small_050"
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    batch = images(2, IMAGE)
    with torch.no_grad():
        assert torch.equal(loaded(batch), model(batch))
    assert "register_with_timm" not in (tmp_path / README).read_text()


def test_the_page_has_the_header_of_the_hub_and_the_card_s_numbers(tmp_path: Path) -> None:
    model = network_of("lenet5", num_classes=len(CLASSES))
    export_hf(model, "lenet5", tmp_path, classes=CLASSES, preprocess=PREPROCESS, card=CARD)
    text = (tmp_path / README).read_text()
    header, _, rest = text.removeprefix("---\n").partition("\n---\n")
    assert {"license: apache-2.0", "library_name: timm", "- cifar10"} <= set(header.splitlines())
    assert "value: 91.64" in header
    assert "| top-1 | 91.64 % |" in rest
    assert "zoo.interop.register_with_timm()" in rest


def test_a_network_that_its_name_does_not_build_is_refused(tmp_path: Path) -> None:
    small = compress(network_of("squeezenet1_1", num_classes=7), [PruneChannels(ratio=0.5)]).model
    with pytest.raises(ExportError, match="timm would build zoo_squeezenet1_1 whole, and this network differs"):
        export_hf(small, "squeezenet1_1", tmp_path, classes=CLASSES, preprocess=PREPROCESS, card=CARD)
    with pytest.raises(ExportError, match="none of timm's architectures nor of ours"):
        export_hf(small, "torchvision/vgg11", tmp_path, classes=CLASSES, preprocess=PREPROCESS, card=CARD)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_timm_cannot_load_is_told(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="timm does not load"):
        load_hf(tmp_path)
