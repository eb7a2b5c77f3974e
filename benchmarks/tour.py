"""The zoo in five steps: load a network, rank it, compress it, export it, run it. Nothing is downloaded.

    python benchmarks/tour.py [--out runs/tour] [--epochs 4]

The network is the LeNet-5 that was trained on MNIST; the images are scikit-learn's digits, which it has never seen.
Each step is a few lines of the library, to be read here, and prints what came of it. The files stay in --out. A quarter
of a minute on one core; needs the extras `coding` and `onnx`.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn
from torchvision.utils import save_image

import zoo
from zoo.compression import Code, Packed, Prune, Share, Stage
from zoo.console import write
from zoo.data import Dataset, split_validation
from zoo.errors import ZooError
from zoo.interop.agreement import compare
from zoo.interop.onnx import export_onnx, load_onnx
from zoo.prediction import predict
from zoo.recipes import get_recipe
from zoo.report import percent_text, size_text
from zoo.report.ranking import ranking_table
from zoo.report.tables import table_text
from zoo.trained import load_trained

MODEL = "lenet5"
SHOWN = 5  # models of the ranking, and digits that are predicted


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 2 for wrong use."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/tour"), help="folder of the files (runs/tour)")
    parser.add_argument("--epochs", type=int, default=4, help="of training while weights are pruned")
    options = parser.parse_args(arguments)
    try:
        tour(options.out, options.epochs)
    except (ZooError, OSError) as error:
        print(f"tour.py: error: {error}", file=sys.stderr)
        return 2
    return 0


def tour(folder: Path, epochs: int) -> None:
    """All five steps."""
    folder.mkdir(parents=True, exist_ok=True)
    test = zoo.load_dataset("digits", "test")
    model = load(test)
    rank()
    packed = shrink(model, test, epochs)
    zoo.save_packed(folder / "lenet5.zpk", packed)
    export(packed.model, folder / "lenet5.onnx", test)
    run(folder / "lenet5.zpk", folder, test)


def load(test: Dataset) -> nn.Module:
    """A network with stored weights, and what it costs."""
    model = zoo.create_model(MODEL, dataset="mnist", pretrained=True)
    cost = zoo.measure(model, (1, 28, 28))
    score = zoo.evaluate(model, test)
    right = f"{percent_text(score.top1)} right of {score.total} digits of another data set"
    say(1, f"{MODEL}: {cost.params:,} parameters, {cost.macs:,} MACs, {right}")
    return model


def rank() -> None:
    """The most accurate of the zoo under a budget."""
    rows = zoo.rank(dataset="mnist", by=["top1"], where="bytes < 600e3", top=SHOWN)
    say(2, f"the {SHOWN} most accurate networks for MNIST in files under 600 kB")
    write(table_text(ranking_table(rows, ("name", "params", "macs", "bytes", "top1"))) + "\n")


def shrink(model: nn.Module, test: Dataset, epochs: int) -> Packed:
    """Prune while it trains on the new images, share values, code; every stage is proved by a file read back."""
    train, valid = split_validation(zoo.load_dataset("digits", "train"), 200, seed=0)
    stages: list[Stage] = [Prune(density=0.1, schedule="gradual", epochs=epochs), Share(bits=4), Code()]
    recipe = replace(get_recipe("mnist-plain"), batch_size=32)
    packed = zoo.compress(model, stages, dataset="digits", train=train, valid=valid, recipe=recipe)
    receipt = packed.receipts[-1]
    score = zoo.evaluate(packed.model, test)
    sizes = f"{size_text(packed.file_bytes)} of {size_text(receipt.dense_bytes)}"
    say(3, f"{sizes}, {receipt.nonzero:,} values left that are not zero, {percent_text(score.top1)} right")
    return packed


def export(model: nn.Module, path: Path, test: Dataset) -> None:
    """Write ONNX, and run it beside the network."""
    export_onnx(model, path, image=(1, 28, 28))
    same = compare(model, load_onnx(path), test)
    say(4, f"{path}: names the same class as PyTorch for {percent_text(same.agreement)} of {same.images} images")


def run(path: Path, folder: Path, test: Dataset) -> None:
    """Image files through the compressed file, as `zoo predict` does it."""
    images = [str(folder / f"digit-{number}.png") for number in range(SHOWN)]
    for image, pixels_CHW in zip(images, test.images, strict=False):
        save_image(pixels_CHW / 255, image)
    say(5, f"{path} on {SHOWN} image files")
    for prediction, label in zip(predict([load_trained(str(path))], images), test.labels.tolist(), strict=False):
        best = prediction.answers[0][0]
        write(f"  {prediction.image}: {best.label}, {percent_text(best.probability)} (it is a {label})\n")


def say(step: int, words: str) -> None:
    """What a step came to."""
    write(f"{step}. {words}\n")


if __name__ == "__main__":
    sys.exit(main())
