"""Pipelines: every receipt is what a counter finds in the file, and the file gives back what was scored."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from zoo.compression import (
    Auto,
    Code,
    FoldBatchNorm,
    Huffman,
    Packed,
    Prune,
    PruneChannels,
    Quantize,
    Share,
    compress,
    load_packed,
    save_packed,
    write_receipts,
)
from zoo.compression.container import ledger
from zoo.compression.presets import PIPELINES, Wishes, compact, pipeline
from zoo.compression.search import BITS, DENSITIES, Setting, at_price, bound
from zoo.compression.treat import layers_of
from zoo.data import Dataset
from zoo.errors import CompressionError, UnknownNameError
from zoo.evaluation import evaluate
from zoo.recipes import Recipe, get_recipe
from zoo.registry import build
from zoo.training import fit

RECIPE = replace(get_recipe("mnist-plain"), epochs=2, batch_size=32, ema_decay=0.9)


@pytest.fixture(scope="module")
def trained(digits: tuple[Dataset, Dataset]) -> nn.Module:
    torch.manual_seed(0)
    model = build("lenet5", num_classes=10, in_chans=1, image_size=28)
    fit(model, digits[0], None, RECIPE, device="cpu")
    return model


@pytest.fixture(scope="module")
def packed(trained: nn.Module, digits: tuple[Dataset, Dataset]) -> Packed:
    """Deep Compression of a small network, with a training after the pruning."""
    stages = [Prune(0.3, epochs=1), Share(4), Huffman()]
    return compress(trained, stages, dataset="digits", train=digits[0], valid=digits[1], recipe=RECIPE, device="cpu")


def test_a_pipeline_gets_smaller_stage_by_stage(packed: Packed, trained: nn.Module) -> None:
    sizes = [receipt.file_bytes for receipt in packed.receipts]
    dense = 4 * sum(p.numel() for p in trained.parameters())
    assert dense == packed.receipts[0].dense_bytes
    assert dense > sizes[0] > sizes[1] > sizes[2] == packed.file_bytes
    assert dense / packed.file_bytes > 12


def test_receipts_are_what_is_found_in_the_file(
    packed: Packed, digits: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    save_packed(tmp_path / "small.zpk", packed)
    model, info = load_packed(tmp_path / "small.zpk")
    last = packed.receipts[-1]
    assert (info.model, info.dataset) == ("lenet5", "digits")
    assert last.file_bytes == (tmp_path / "small.zpk").stat().st_size
    assert last.nonzero == sum(int(p.count_nonzero()) for p in model.parameters())
    assert last.params == sum(p.numel() for p in model.parameters())
    assert last.correct_after == evaluate(model, digits[1]).correct
    assert last.total == len(digits[1])
    state = model.state_dict()
    for layer, entry in zip(last.layers, ledger(packed.data), strict=True):
        assert (layer.name, layer.file_bytes) == (entry.name, entry.file_bytes)
        assert layer.nonzero == int(state[layer.name].count_nonzero())
        assert layer.bits_a_value == 8 * entry.file_bytes / state[layer.name].numel()
    assert last.bits_after == 8 * sum(layer.file_bytes for layer in last.layers)
    assert sum(layer.file_bytes for layer in last.layers) < last.file_bytes
    pruned = {f"{name}.weight": round(0.3 * layer.weight.numel()) for name, layer in layers_of(model).items()}
    assert {layer.name: layer.nonzero for layer in last.layers if layer.name in pruned} == pruned


def test_receipts_follow_on_one_another(packed: Packed) -> None:
    for before, after in zip(packed.receipts, packed.receipts[1:], strict=False):
        assert after.bits_before == before.bits_after
        assert after.correct_before == before.correct_after


def test_receipts_are_kept_as_json(packed: Packed, tmp_path: Path) -> None:
    write_receipts(tmp_path / "receipts.json", packed.receipts)
    kept = json.loads((tmp_path / "receipts.json").read_text())["receipts"]
    assert [receipt["file_bytes"] for receipt in kept] == [receipt.file_bytes for receipt in packed.receipts]
    assert kept[0]["layers"][0]["note"].startswith("kept ")


def test_the_model_given_is_untouched_and_nothing_is_scored_without_images(trained: nn.Module) -> None:
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    receipts = compress(trained, [Share(3), Code()]).receipts
    assert all(torch.equal(tensor, before[name]) for name, tensor in trained.state_dict().items())
    assert {(r.correct_before, r.correct_after, r.total, r.top1_after) for r in receipts} == {(None, None, None, None)}


def test_methods_compose_down_to_a_smaller_network(digits: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    model = build("mobilenetv1_025", num_classes=10, in_chans=1, image_size=28)
    stages = [PruneChannels(0.25), FoldBatchNorm(), Prune(0.5), Quantize(4), Code()]
    packed = compress(model, stages, dataset="digits", valid=digits[1].subset(torch.arange(20)))
    save_packed(tmp_path / "small.zpk", packed)
    again, _ = load_packed(tmp_path / "small.zpk")
    images_NCHW = torch.rand(3, 1, 28, 28)
    assert torch.equal(again(images_NCHW), packed.model(images_NCHW))
    assert packed.receipts[-1].params < sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", sorted(PIPELINES.keys() - {"network-slimming"}))
def test_every_named_pipeline_runs_without_training(
    name: str, trained: nn.Module, digits: tuple[Dataset, Dataset]
) -> None:
    stages = pipeline(name, Wishes(density=0.5, bits=4, epochs=0, max_loss=0.3))
    packed = compress(trained, stages, train=digits[0], valid=digits[1].subset(torch.arange(100)))
    assert packed.file_bytes < sum(p.numel() for p in trained.parameters())  # a quarter of the dense size


def test_slimming_is_for_networks_with_batch_norm(trained: nn.Module, digits: tuple[Dataset, Dataset]) -> None:
    with pytest.raises(CompressionError, match="nothing to treat: 0: importance='bn' cannot judge its channels"):
        compress(trained, pipeline("network-slimming", Wishes(epochs=0)))
    train, valid = digits[0].subset(torch.arange(512)), digits[1].subset(torch.arange(100))
    model = build("mobilenetv1_025", num_classes=10, in_chans=1, image_size=28)
    stages = pipeline("network-slimming", Wishes(density=0.6, epochs=2))
    packed = compress(model, stages, train=train, valid=valid, recipe=RECIPE, device="cpu")
    assert [receipt.stage.partition("(")[0] for receipt in packed.receipts] == ["Train", "PruneChannels", "Code"]
    assert packed.receipts[-1].params < 0.8 * packed.receipts[0].params


def test_training_of_a_named_pipeline_is_shared_out() -> None:
    prune, share, _ = pipeline("deep-compression", Wishes(epochs=8))
    assert (prune.epochs, prune.schedule, share.epochs) == (6, "gradual", 2)  # type: ignore[attr-defined]


class TestAuto:
    def test_an_accuracy_is_kept_and_the_sensitive_layer_keeps_more(
        self, trained: nn.Module, digits: tuple[Dataset, Dataset]
    ) -> None:
        valid = digits[1]
        packed = compress(trained, [Auto(max_loss=0.02, images=200), Code()], valid=valid)
        last = packed.receipts[-1]
        assert last.top1_after is not None
        assert evaluate(trained, valid).top1 - last.top1_after <= 0.02
        assert packed.receipts[0].dense_bytes / packed.file_bytes > 8
        density = {layer.name: layer.density for layer in last.layers}
        assert density["0.weight"] > density["7.weight"], "the first convolution bears less than the linear layers"

    def test_a_size_is_kept(self, trained: nn.Module, digits: tuple[Dataset, Dataset]) -> None:
        packed = compress(trained, [Auto(max_bytes=12_000, images=100), Code()], valid=digits[1])
        weights = sum(r.file_bytes for r in packed.receipts[-1].layers if r.name.endswith("weight"))
        assert 7_000 < weights < 12_500
        assert packed.receipts[0].untreated == {}

    def test_a_budget_that_cannot_be_met_is_said(self, trained: nn.Module, digits: tuple[Dataset, Dataset]) -> None:
        packed = compress(trained, [Auto(max_bytes=10, images=50)], valid=digits[1].subset(torch.arange(50)))
        assert packed.receipts[0].untreated["the budget"].startswith("cannot be met: the least is ")

    def test_the_price_decides(self) -> None:
        settings = {"a": [Setting(1.0, 8, 800.0, 0.0), Setting(0.1, 2, 60.0, 0.5)]}
        assert at_price(settings, 0.0)["a"].bits == 2
        assert at_price(settings, 100.0)["a"].bits == 8
        assert at_price(settings, float("inf"))["a"].bits == 8

    def test_the_bound_is_the_entropy_of_mask_and_codes(self) -> None:
        assert bound(1.0, 5) == 5
        assert bound(0.5, 4) == 1 + 2
        assert bound(0.0, 4) == 0
        assert DENSITIES[0] == 1.0
        assert BITS[0] == 8


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Auto(), "give max_loss .* or max_bytes, and not both"),
        (lambda: Auto(max_loss=0.1, max_bytes=5), "and not both"),
        (lambda: Auto(max_loss=2.0), r"max_loss=2.0 was given"),
        (lambda: Auto(max_bytes=0), r"max_bytes=0 was given"),
        (lambda: Code(()), "no coder was given"),
        (lambda: compress(build("lenet5"), []), "no stage was given"),
        (lambda: compress(build("lenet5"), [Auto(max_loss=0.1)]), "choosing densities and bits needs images held out"),
        (lambda: compress(build("lenet5"), [Prune(0.1, epochs=1)]), "fine-tuning needs"),
        (lambda: pipeline("slim", Wishes(epochs=-1)), "epochs=-1 was given"),
        (lambda: pipeline("slim", Wishes(density=0.0)), "ratio=1.0 was given"),
    ],
)
def test_wrong_wishes_are_refused_in_a_sentence(make: "object", said: str) -> None:
    with pytest.raises(CompressionError, match=said):
        make()  # type: ignore[operator]


def test_wrong_names_are_met_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"no coder is called 'hufman'\. Did you mean 'huffman'"):
        Code(("hufman",))
    with pytest.raises(UnknownNameError, match="Did you mean 'deep-compression'"):
        pipeline("deep-compresion", Wishes())
    with pytest.raises(UnknownNameError, match="was not built by its name"):
        compress(nn.Linear(2, 2), [Share()])


def test_a_recipe_is_needed_to_train(trained: nn.Module, digits: tuple[Dataset, Dataset]) -> None:
    with pytest.raises(CompressionError, match="fine-tuning needs a recipe"):
        compress(trained, [Prune(0.1, epochs=1)], train=digits[0])
    assert isinstance(RECIPE, Recipe)


def test_large_networks_are_kept_by_the_size_of_their_layers() -> None:
    network = build("vgg11_bn", num_classes=10, in_chans=1, image_size=28)
    prune, share, *_ = compact(network)
    assert isinstance(prune, Prune)
    assert isinstance(share, Share)
    assert set((prune.densities or {}).items()) == {(f"features.{n}", 0.25) for n in (15, 18, 22, 25)}
    assert [share.bits[name] for name in ("features.0", "features.4", "features.25")] == [8, 4, 3]  # type: ignore[index]
    prune, share, *_ = compact(network, digits=True)
    assert isinstance(prune, Prune)
    assert isinstance(share, Share)
    assert "features.0" not in (kept := prune.densities or {})
    assert (kept["features.4"], kept["features.25"]) == (0.35, 0.15)
    assert set(share.bits.values()) == {8, 3}  # type: ignore[union-attr]


def test_small_and_slimmable_networks_keep_all_weights() -> None:
    small = build("lenet5", num_classes=10, in_chans=1, image_size=28)
    share, *_ = compact(small, digits=True)
    assert isinstance(share, Share)
    slimmable = build("slimmable_mobilenetv1", num_classes=10, in_chans=1, image_size=28)
    share, code = compact(slimmable, digits=True)
    assert isinstance(share, Share)
    assert isinstance(code, Code)
    assert set(share.bits.values()) == {8, 6, 5}  # type: ignore[union-attr]
