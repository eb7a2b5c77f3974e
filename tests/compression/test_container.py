"""Packed files: what is packed comes back bit for bit, in few bytes, and a counter finds what the ledger says."""

from pathlib import Path

import numpy as np
import pytest
import torch
from packed_files import KINDS, Held, small_lenet, small_nin, taken_apart, treated
from torch import Tensor, nn
from torch.nn.utils import parametrize

from zoo.compression.coding import CODERS, huffman, relative
from zoo.compression.container import ledger, load_packed, pack, unpack
from zoo.compression.forms import Plain, Shared, forms_of, materialise, values
from zoo.compression.packing import CODES, Reader, write_record
from zoo.compression.structure import stored_state
from zoo.errors import CompressionError, FileFormatError, WeightError
from zoo.files import sha256_file
from zoo.registry import build, match, origin

QUICK = ("fixed", "huffman", "relative")


def bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.int32)


def packed(model: nn.Module, name: str, coders: tuple[str, ...] = QUICK, dataset: str = "") -> bytes:
    made = origin(model)
    return pack(model, name=name, num_classes=made.num_classes, image=made.image, dataset=dataset, coders=coders)


def check_round_trip(model: nn.Module, name: str, coders: tuple[str, ...] = QUICK) -> bytes:
    """Pack, unpack, compare every bit of state and logits, and the ledger with both; the file."""
    image = origin(model).image
    images_NCHW = torch.randn(2, *image, generator=torch.Generator().manual_seed(5))
    torch.manual_seed(11)
    data = packed(model, name, coders)
    again, info = unpack(data)
    assert (info.model, info.image, info.dataset) == (name, image, "")
    assert origin(again) == origin(model)
    assert not again.training
    stored = stored_state(again)
    wanted = {key: values(form) for key, form in forms_of(model).items() if key in stored}
    assert wanted.keys() == stored.keys()
    assert [key for key in stored if not torch.equal(bits(wanted[key] + 0.0), bits(stored[key]))] == []
    with torch.no_grad():
        assert torch.equal(model(images_NCHW), again(images_NCHW))
    entries = {entry.name: entry for entry in ledger(data)}
    header = 12 + int.from_bytes(data[8:12], "little")
    assert header + sum(entry.file_bytes for entry in entries.values()) == len(data)
    assert {key: entry.nonzero for key, entry in entries.items()} == {
        k: int(t.count_nonzero()) for k, t in stored.items()
    }
    assert {key: entry.shape for key, entry in entries.items()} == {key: tuple(t.shape) for key, t in stored.items()}
    return data


@pytest.mark.parametrize("kind", KINDS)
def test_every_form_comes_back_bit_for_bit(kind: str) -> None:
    model = treated(build("lenet5", num_classes=10, in_chans=1, image_size=16), (kind,))
    data = check_round_trip(model, "lenet5")
    forms = {entry.form for entry in ledger(data) if entry.name.endswith("weight")}
    assert kind in forms


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "image"),
    [("mobilenetv1_025", (3, 32, 32)), ("squeezenet1_1", (3, 32, 32)), ("resnet20", (3, 32, 32))],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_form_of_other_networks(name: str, image: tuple[int, int, int], kind: str) -> None:
    check_round_trip(treated(build(name, num_classes=10, in_chans=image[0], image_size=image[1]), (kind,)), name)


@pytest.mark.slow
@pytest.mark.parametrize("name", match())
def test_every_registered_network(name: str) -> None:
    model = build(name, num_classes=4, in_chans=1, image_size=28)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.half())
    again, _ = unpack(packed(model, name, ("fixed",)))
    wanted = forms_of(model)  # of a binary layer its signs, which is all that it reads of its weight
    assert all(torch.equal(values(wanted[key]), tensor) for key, tensor in stored_state(again).items())
    with torch.no_grad():
        images_NCHW = torch.rand(2, 1, 28, 28)
        assert torch.equal(model(images_NCHW), again(images_NCHW))


@pytest.mark.parametrize("coder", CODERS)
def test_every_coder(coder: str) -> None:
    data = check_round_trip(treated(small_lenet(), KINDS), "lenet5", (coder,))
    assert {entry.coder for entry in ledger(data)} == {coder, ""}


@pytest.mark.parametrize("coder", CODERS)
def test_positions_codes_and_floats_add_up_to_the_file(coder: str) -> None:
    """What is left of a record is its codec and the numbers of its form."""
    entries = ledger(packed(treated(small_lenet(), KINDS), "lenet5", (coder,)))
    for entry in entries:
        head = entry.file_bytes - entry.index_bytes - entry.code_bytes - entry.float_bytes
        numbers = {"plain": 0, "sparse": 0, "shared": 1, "scaled": 3, "signs": 1, "vectors": 3}[entry.form]
        assert head == 1 + numbers, "every number of so small a network is of one byte"
        if entry.form == "sparse":
            assert entry.code_bytes == 0 < entry.index_bytes
        else:
            assert (entry.index_bytes > 0) == (entry.coder == "relative")


def test_behind_the_positions_are_the_codes() -> None:
    symbols = np.random.default_rng(0).integers(-200, 8, 5000).clip(0)
    data = relative.encode(symbols, 8)
    _, stored = relative.gaps(symbols, data[0])
    behind = data[relative.index_bytes(data) :]
    assert huffman.decode(behind, len(stored), 8).tolist() == stored.tolist()


def test_the_coders_of_the_format_are_those_that_there_are() -> None:
    assert set(CODERS) <= set(CODES)
    assert CODES[:5] == ("fixed", "huffman", "relative", "range", "context")


def test_a_network_with_fewer_channels_and_folded_norms() -> None:
    for model, name, folded in ((small_lenet(), "lenet5", False), (small_nin(), "nin", True)):
        data = check_round_trip(treated(model, ("shared", "sparse")), name)
        _, info = unpack(data)
        assert info.description["folded"] is folded
        header, _ = taken_apart(data)
        assert ("folded" in header["structure"]) is folded


def test_header_is_small() -> None:
    model = build("lenet5_caffe", num_classes=10, in_chans=1, image_size=28)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.copy_(torch.where(torch.rand_like(tensor) < 0.02, tensor.sign() / 8, 0.0))
    entries = ledger(data := packed(model, "lenet5_caffe", QUICK, "mnist"))
    assert len(data) - sum(e.index_bytes + e.code_bytes + e.float_bytes for e in entries) < 180


@pytest.mark.slow
def test_what_is_not_stored_is_left_out() -> None:
    model = materialise(treated(build("googlenet", num_classes=2, in_chans=1, image_size=96), ("signs",)))
    assert any(name.startswith("auxiliary.") for name in model.state_dict())
    data = packed(model, "googlenet", ("fixed",))
    names = {entry.name for entry in ledger(data)}
    assert not [name for name in names if name.startswith("auxiliary.") or name.endswith("num_batches_tracked")]
    again, _ = unpack(data)
    assert all(not tensor.is_meta for tensor in again.state_dict().values())
    assert any(name.startswith("auxiliary.") for name in again.state_dict())
    assert not any(bool(t) for n, t in again.state_dict().items() if n.endswith("num_batches_tracked"))


# one record ---------------------------------------------------------------------------------------------------------


def record_of(tensor: Tensor, coders: tuple[str, ...] = QUICK) -> tuple[bytes, str]:
    """Record of a plain tensor and the form that was chosen for it, once it has been read back."""
    data = write_record(Plain(tensor), coders)
    reader = Reader(data)
    form, record = reader.record(tuple(tensor.shape))
    assert torch.equal(values(form) + 0.0, tensor)
    assert reader.left == 0
    assert record.file_bytes == len(data)
    return data, record.form


def test_a_bias_takes_what_it_must() -> None:
    half, full = torch.arange(8) / 3, torch.arange(1, 9) / 3
    assert len(record_of(half.half().float())[0]) == 1 + 2 * 8
    assert len(record_of(full)[0]) == 1 + 4 * 8
    assert len(record_of(torch.zeros(500))[0]) <= 4
    assert len(record_of(torch.full((500,), 0.25))[0]) <= 5
    assert record_of(torch.tensor([0.0, 1.0] * 50))[1] == "shared"
    assert len(record_of(torch.tensor([0.0, 1.0] * 50))[0]) <= 1 + 1 + 4 + 1 + 13
    assert record_of(torch.tensor(1.5))[1] == "plain"


def test_pruned_values_that_all_differ_are_stored_without_their_zeros() -> None:
    chance = torch.Generator().manual_seed(1)
    tensor = torch.where(torch.rand(64, 64, generator=chance) < 0.1, torch.randn(64, 64, generator=chance), 0.0)
    data, form = record_of(tensor)
    assert form == "sparse"
    assert len(data) < 4 * int(tensor.count_nonzero()) + 64 * 64 // 8 + 16


def test_floats_of_like_size_are_coded_byte_by_byte() -> None:
    chance = torch.Generator().manual_seed(1)
    tensor = torch.randn(2000, generator=chance)
    assert len(record_of(tensor)[0]) < 0.92 * tensor.nbytes
    assert len(record_of(tensor, ("context",))[0]) == 1 + tensor.nbytes


@pytest.mark.parametrize("value", [65504.0, 65520.0, 1e30, 2.0**-24, 2.0**-25, -0.0, 1.0 + 2**-12])
def test_half_precision_only_where_it_is_exact(value: float) -> None:
    data = record_of(torch.tensor([value, 1.0, 3.0]))[0]
    exact = bool(torch.tensor(value).half().float() == torch.tensor(value))
    assert len(data) == 1 + 3 * (2 if exact else 4)


def test_unused_and_equal_entries_of_a_codebook_are_not_stored() -> None:
    codes = torch.tensor([[0, 3, 3, 5] * 4])
    form = Shared(codes, torch.tensor([0.5, 9.0, 9.0, 0.0, 9.0, 0.5, 9.0]))
    found, record = Reader(write_record(form, QUICK)).record((1, 16))
    assert record.alphabet == 2
    assert isinstance(found, Shared)
    assert found.codebook.tolist() == [0.0, 0.5]
    assert torch.equal(values(found), values(form))


# what cannot be packed ----------------------------------------------------------------------------------------------


def test_what_cannot_be_packed_is_said() -> None:
    model = small_lenet()
    with pytest.raises(CompressionError, match="as a lenet_300_100: its '1' is a Tanh"):
        pack(model, name="lenet_300_100", num_classes=4, image=(1, 16, 16))
    with pytest.raises(CompressionError, match="cannot be packed as a lenet5"):
        pack(model, name="lenet5", num_classes=4, image=(1, 32, 32))
    model[9].weight.data[0, 0] = float("nan")
    with pytest.raises(CompressionError, match=r"'9\.weight' is not float32, or not finite"):
        packed(model, "lenet5")
    model = small_lenet()
    model[0] = nn.Conv2d(1, 7, 5, padding=2)
    with pytest.raises(CompressionError, match=r"'0' are \[1, 7, 1\], not within \[1, 6, 1\]"):
        packed(model, "lenet5")
    wrong = small_lenet()
    parametrize.register_parametrization(wrong[11], "weight", Held(Plain(torch.zeros(2, 3))), unsafe=True)
    with pytest.raises(CompressionError, match=r"its '11\.weight' is \(2, 3\), but \(4, 3\) is needed"):
        packed(wrong, "lenet5")


def test_a_network_of_one_value_is_no_network() -> None:
    model = build("vgg11", num_classes=10, in_chans=3, image_size=32)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.zero_()
    with pytest.raises(CompressionError, match="is every weight the same"):
        packed(model, "vgg11")


# files --------------------------------------------------------------------------------------------------------------


def test_save_and_load(tmp_path: Path) -> None:
    model, path = treated(small_lenet(), ("shared",)), tmp_path / "a" / "x.zpk"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packed(model, "lenet5", dataset="digits"))
    again, info = load_packed(path, sha256=sha256_file(path))
    assert info.dataset == "digits"
    plain = dict(materialise(model).named_parameters())
    assert all(torch.equal(plain[name], parameter) for name, parameter in again.named_parameters())
    assert all(parameter.requires_grad for parameter in again.parameters())
    with pytest.raises(WeightError, match=r"digest .* was expected"):
        load_packed(path, sha256="0" * 64)
    link = tmp_path / "link.zpk"
    link.symlink_to(path)
    with pytest.raises(FileFormatError, match="it is a symbolic link"):
        load_packed(link)
    with pytest.raises(FileFormatError, match="no such file"):
        load_packed(tmp_path / "none.zpk")


def test_the_same_model_gives_the_same_bytes() -> None:
    model = treated(small_lenet(), KINDS)
    assert packed(model, "lenet5") == packed(model, "lenet5")
    again, _ = unpack(packed(model, "lenet5"))
    assert len(packed(again, "lenet5")) < 2 * len(packed(model, "lenet5"))
