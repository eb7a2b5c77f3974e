"""ONNX: one contract for every registered network, and for what compression makes of one."""

import sys
from pathlib import Path

import onnx
import pytest
import torch
from exported_networks import images, network_of, relative_error
from torch import Tensor, nn

from zoo.compression import Prune, PruneChannels, Quantize, compress
from zoo.data import normalize
from zoo.errors import ExportError, FileFormatError, ImageSizeError, MissingPackageError
from zoo.interop.onnx import OPSET, export_onnx, load_onnx
from zoo.registry import architecture, architectures

LARGEST_ERROR = 1e-4  # of the largest logit
SMALL = (3, 32, 32)
QUICK = {"lenet_300_100", "lenet5", "lenet5_caffe", "alexnet", "vgg11", "vgg11_bn", "nin", "squeezenet1_1"}
NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in architectures()]


def error(model: nn.Module, path: Path, image: tuple[int, int, int]) -> float:
    """The larger error, at batches of 1 and 7, of what a file gives beside what its network gives."""
    exported, seven = load_onnx(path), images(7, image)
    with torch.no_grad():
        wanted = model(seven)
    assert wanted.abs().max() > 0
    return max(relative_error(exported(seven), wanted), relative_error(exported(seven[:1]), wanted[:1]))


@pytest.mark.parametrize("name", NAMES)
def test_a_small_form_computes_the_same(name: str, tmp_path: Path) -> None:
    model = network_of(name)
    export_onnx(model, tmp_path / "x.onnx", image=SMALL)
    assert error(model, tmp_path / "x.onnx", SMALL) < LARGEST_ERROR


@pytest.mark.slow
@pytest.mark.parametrize("name", architectures())
def test_a_native_form_computes_the_same(name: str, tmp_path: Path) -> None:
    arch = architecture(name)
    channels, size, _ = arch.image
    model = network_of(name, size, in_chans=channels, num_classes=arch.num_classes)
    export_onnx(model, tmp_path / "x.onnx", image=arch.image)
    assert error(model, tmp_path / "x.onnx", arch.image) < LARGEST_ERROR


@pytest.mark.slow
@pytest.mark.parametrize("stage", [Prune(density=0.3, rounds=1), Quantize(bits=4)], ids=["pruned", "4 bits"])
def test_weights_of_compressed_form_are_written_as_what_they_stand_for(stage: object, tmp_path: Path) -> None:
    packed = compress(network_of("squeezenet1_1"), [stage])
    export_onnx(packed.model, tmp_path / "x.onnx", image=SMALL)
    assert error(packed.model, tmp_path / "x.onnx", SMALL) < LARGEST_ERROR


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet20", "mobilenetv1_025", "vgg11_bn"])
def test_a_network_with_fewer_channels_computes_the_same(name: str, tmp_path: Path) -> None:
    whole = network_of(name)
    small = compress(whole, [PruneChannels(ratio=0.5)]).model
    export_onnx(small, tmp_path / "small.onnx", image=SMALL)
    assert error(small, tmp_path / "small.onnx", SMALL) < LARGEST_ERROR
    export_onnx(whole, tmp_path / "whole.onnx", image=SMALL)
    assert (tmp_path / "small.onnx").stat().st_size < 0.7 * (tmp_path / "whole.onnx").stat().st_size


def test_the_file_is_checked_plain_and_says_what_it_is(tmp_path: Path) -> None:
    model = network_of("vgg11_bn")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    export_onnx(model, tmp_path / "a.onnx", image=SMALL, metadata={"top1": "0.9", "classes": '["é"]'})
    proto = onnx.load(tmp_path / "a.onnx")
    kinds = [node.op_type for node in proto.graph.node]
    assert "BatchNormalization" not in kinds, "folded"
    assert [opset.version for opset in proto.opset_import if not opset.domain] == [OPSET]
    sizes = [
        [dim.dim_param or dim.dim_value for dim in end.type.tensor_type.shape.dim]
        for end in (*proto.graph.input, *proto.graph.output)
    ]
    assert sizes == [["batch", 3, 32, 32], ["batch", 10]]
    assert load_onnx(tmp_path / "a.onnx").metadata == {"top1": "0.9", "classes": '["é"]'}
    data = (tmp_path / "a.onnx").read_bytes()
    assert str(Path(__file__).parents[2]).encode() not in data, "no path of the machine it was made on"
    assert str(sys.prefix).encode() not in data
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items()), "the model stays"
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def test_the_same_network_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        torch.rand(3)
        export_onnx(network_of("lenet5"), tmp_path / name, image=SMALL, metadata={"b": "2", "a": "1"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_normalisation_can_be_inside(tmp_path: Path) -> None:
    model = network_of("lenet5")
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    pixels = torch.randint(256, (5, *SMALL), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    export_onnx(model, tmp_path / "x.onnx", image=SMALL, mean=mean, std=std)
    exported = load_onnx(tmp_path / "x.onnx")
    assert exported.pixels
    with torch.no_grad():
        wanted = model(normalize(pixels, mean, std))
    assert relative_error(exported(pixels), wanted) < LARGEST_ERROR


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_a_package_that_is_missing_is_named_with_its_extra(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError, match=rf"needs {package}: `pip install 'zoo\[onnx\]'`"):
        export_onnx(network_of("lenet5"), tmp_path / "x.onnx", image=SMALL)
    assert not (tmp_path / "x.onnx").exists()


class Bessel(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x)


class Fickle(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) if x.sum() > 0 else -x.flatten(1)


def test_an_operator_that_onnx_lacks_is_told_with_its_layer(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), Bessel()), nn.Flatten()).eval()
    with pytest.raises(ExportError, match=r"operator bessel_j0 of the layer 1\.1 \(Bessel\)"):
        export_onnx(model, tmp_path / "x.onnx", image=(3, 8, 8))
    assert not (tmp_path / "x.onnx").exists()


def test_a_network_that_decides_by_values_is_refused_quietly(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ExportError, match="Fickle cannot be written down as a list of operators"):
        export_onnx(Fickle(), tmp_path / "x.onnx", image=(3, 8, 8))
    assert capfd.readouterr() == ("", "")


def test_an_image_that_does_not_pass_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageSizeError, match=r"\(1, 32, 32\)"):
        export_onnx(network_of("lenet5"), tmp_path / "x.onnx", image=(1, 32, 32))


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"no network")
    with pytest.raises(FileFormatError, match="nothing that onnxruntime can run"):
        load_onnx(tmp_path / "x.onnx")
