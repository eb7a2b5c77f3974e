"""`zoo export`: a trained network into a file of another format, then run on real images beside the network itself.

onnx          zoo.interop.onnx: float32
int8          zoo.interop.qdq: ONNX in whole numbers, calibrated on training images
torch-export  zoo.interop.archive: PyTorch's own archive
c             zoo.interop.plain_c: a folder with a C header and source file in whole numbers, calibrated likewise
hf            zoo.interop.hf: a folder for timm and the Hugging Face hub

Beside the file `<name>.export.json`, or in the folder `export.json`, says what it is and what the comparison found.
"""

import dataclasses
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from zoo import __version__
from zoo.create import create_model
from zoo.data import DATASETS, Dataset, Preprocess, load_dataset
from zoo.data.cache import data_folder
from zoo.errors import ExportError, unknown
from zoo.files import sha256_file, write_atomically
from zoo.interop.agreement import compare
from zoo.interop.archive import export_archive
from zoo.interop.calibration import Choice, quantize
from zoo.interop.exported import Exported
from zoo.interop.hf import WEIGHTS, ModelCard, export_hf, load_hf
from zoo.interop.onnx import export_onnx, load_onnx, need_onnx
from zoo.interop.plain_c import compiled, compiler, export_c
from zoo.interop.qdq import export_int8
from zoo.registry import origin
from zoo.trained import Trained, load_trained
from zoo.weights import card_stem

SUFFIXES = {"onnx": ".onnx", "int8": ".int8.onnx", "torch-export": ".pt2", "c": "", "hf": ""}
FOLDERS = ("c", "hf")
VECTORS = 8  # training images that the C is tested with
IMAGES = 1000  # of the test set, that an export is compared on
TIMM = "timm/"
ALWAYS_AT_HAND = ("digits",)
SIDE = "export.json"
UNSTATED = "not stated"


@dataclass(frozen=True)
class Job:
    """What to export and how.

    model: as zoo.trained.load_trained takes it, or `timm/<name>` without a data set for timm's own weights.
    out: the file, or a folder to put it in; of `c` and `hf` the folder itself. pixels: the normalisation goes into the
    graph. images: of the test set, to compare on; None for all.
    """

    model: str
    format: str
    out: Path
    dataset: str | None = None
    pixels: bool = False
    images: int | None = IMAGES


def run(job: Job, say: Callable[[str], None]) -> Exported:
    """Export, compare, write the side file.

    Raises UnknownNameError for a format, ExportError for what cannot be done, WeightError for what is not there.
    """
    _check(job)
    trained = trained_or_foreign(job.model, job.dataset)
    path = _path(job, trained)
    say(f"exporting {job.model} as {job.format}")
    test = _at_hand(job.dataset or trained.dataset, "test")
    agreement = None
    with tempfile.TemporaryDirectory() as scratch:
        network, choice = _write(job, trained, path, scratch)
        if test is None:
            say(f"the images of {trained.dataset or job.model} are not at hand, so the file was not run on any")
        elif network is None:
            say("no C compiler was found ($CC, or else cc), so the file was not run on any image")
        else:
            some = test if job.images is None else test.subset(range(min(job.images, len(test))))
            agreement = compare(trained.network, network, some, pixels=job.pixels or job.format == "c")
    exported = Exported(path, job.format, _bytes(path), agreement, choice)
    write_atomically(_side_file(path), side_text(exported, metadata(trained, job.pixels)))
    return exported


def _check(job: Job) -> None:
    if job.format not in SUFFIXES:
        raise unknown("format", job.format, SUFFIXES)
    if job.pixels and job.format == "c":
        raise ExportError("--preprocessing cannot go with --format c: the C always takes pixels.")
    if job.pixels and job.format == "hf":
        raise ExportError("--preprocessing cannot go with --format hf: timm prepares images by config.json.")
    if job.images is not None and job.images < 1:
        raise ExportError(f"--images {job.images} was given; it must be at least 1, or all.")


def trained_or_foreign(source: str, dataset: str | None) -> Trained:
    """A trained network; of `timm/<name>` without a data set, timm's own."""
    if not source.startswith(TIMM) or dataset is not None:
        return load_trained(source, dataset)
    network = create_model(source, pretrained=True)
    config = vars(network)["pretrained_cfg"]  # timm's, on every model of its own
    names = config.get("label_names") or map(str, range(config["num_classes"]))
    preprocess = Preprocess(tuple(config["input_size"]), tuple(config["mean"]), tuple(config["std"]))
    return Trained(source, network, "", tuple(names), preprocess)


def metadata(trained: Trained, pixels: bool = False) -> dict[str, str]:
    """What a file says of itself: words by name, lists as JSON."""
    preprocess, card = trained.preprocess, trained.card
    words = {
        "model": card.model if card else trained.name,
        "dataset": trained.dataset or UNSTATED,
        "classes": json.dumps(trained.classes, ensure_ascii=False),
        "image": json.dumps(preprocess.image),
        "mean": json.dumps(preprocess.mean),
        "std": json.dumps(preprocess.std),
        "input": "uint8 pixels" if pixels else "(pixels / 255 - mean) / std",
        "zoo": __version__,
    }
    if card is not None:
        words |= {
            "top1": f"{card.top1:.4f}",
            "correct": f"{card.correct} of {card.total}",
            "licence": card.licence,
            "paper": card.paper,
            "weights_sha256": card.sha256,
        }
    return words


def side_text(exported: Exported, words: dict[str, str]) -> str:
    """The side file's JSON."""
    known = {
        "file": exported.path.name,
        "format": exported.format,
        "file_bytes": exported.file_bytes,
        "metadata": words,
        "comparison": dataclasses.asdict(exported.agreement) if exported.agreement else None,
        "calibration": dataclasses.asdict(exported.choice) if exported.choice else None,
    }
    if exported.path.is_file():
        known["sha256"] = sha256_file(exported.path)
    return json.dumps(known, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def page(trained: Trained) -> ModelCard:
    """What the model's page says, from its card."""
    from zoo.report import count_text, image_text, percent_text

    card = trained.card
    if card is None:
        return ModelCard(
            trained.name, UNSTATED, trained.dataset, None, {"images": image_text(trained.preprocess.image)}
        )
    facts = {
        "model": card.model,
        "data set": card.dataset,
        "images": image_text(card.image),
        "classes": str(card.num_classes),
        "top-1": f"{percent_text(card.top1)} ({card.correct:,} of {card.total:,} test images)",
        "parameters": count_text(card.params),
        "MACs": count_text(card.macs),
        "paper": card.paper,
        "trained by": f"`{card.command}`",
        "weights": f"SHA-256 {card.sha256}",
        "note": card.note,
    }
    known = {name: text.replace("|", "\\|") for name, text in facts.items() if text}
    return ModelCard(f"{card.model}, {card.dataset}", card.licence, card.dataset, card.top1, known)


def _write(
    job: Job, trained: Trained, path: Path, scratch: str
) -> tuple[Callable[[Tensor], Tensor] | None, Choice | None]:
    """The exported network, read back from the file where that can be, and how it was calibrated.

    scratch: a folder for what is compiled. The network is None where C cannot be compiled.
    """
    if job.format == "c":
        return _write_c(job, trained, path, scratch)
    image, words = trained.preprocess.image, metadata(trained, job.pixels)
    mean, std = (trained.preprocess.mean, trained.preprocess.std) if job.pixels else (None, None)
    if job.format == "hf":
        name = trained.card.model if trained.card else built_as(trained)
        classes, preprocess = trained.classes, trained.preprocess
        export_hf(trained.network, name, path, classes=classes, preprocess=preprocess, card=page(trained))
        return load_hf(path), None
    if job.format == "torch-export":
        return export_archive(trained.network, path, image=image, mean=mean, std=std, metadata=words), None
    need_onnx()
    choice = None
    if job.format == "int8":
        network, choice = quantize(trained.network, _training_images(job, trained))
        export_int8(network, path, mean=mean, std=std, metadata=words | {"calibration": choice.method})
    else:
        export_onnx(trained.network, path, image=image, mean=mean, std=std, metadata=words)
    return load_onnx(path), choice


def _write_c(
    job: Job, trained: Trained, path: Path, scratch: str
) -> tuple[Callable[[Tensor], Tensor] | None, Choice | None]:
    train, stem = _training_images(job, trained), _stem(job, trained)
    network, choice = quantize(trained.network, train)
    project = export_c(
        network,
        path,
        name=stem,
        title=stem,
        classes=trained.classes,
        mean=train.mean,
        std=train.std,
        pixels_NCHW=train.images[:VECTORS],
    )
    return compiled(project, scratch) if compiler() else None, choice


def built_as(trained: Trained) -> str:
    """The name that a network without a card was built by."""
    return trained.name if trained.name.startswith(TIMM) else origin(trained.network).name


def _training_images(job: Job, trained: Trained) -> Dataset:
    """To calibrate on. Raises ExportError where there are none."""
    name = job.dataset or trained.dataset
    images = _at_hand(name, "train")
    if images is None:
        raise ExportError(
            f"int8 is calibrated on training images, and those of {name or job.model} are not at hand; "
            + (f"`zoo data {name}` gets them." if name in DATASETS else "give --dataset folder:PATH.")
        )
    return images


def _at_hand(name: str, split: str) -> Dataset | None:
    """One split of a data set that is there already: exporting a model is no reason to fetch one."""
    if name in DATASETS and name not in ALWAYS_AT_HAND and not (data_folder() / name / f"{split}.safetensors").exists():
        return None
    if name not in DATASETS and not (
        name.startswith("folder:") and "/" in name
    ):  # a card names a folder without a path
        return None
    return load_dataset(name, split)


def _path(job: Job, trained: Trained) -> Path:
    """Of the file, or of the folder where that is what is written."""
    if job.format in FOLDERS or not job.out.is_dir():
        return job.out
    return job.out / f"{_stem(job, trained)}{SUFFIXES[job.format]}"


def _stem(job: Job, trained: Trained) -> str:
    return trained.card.stem if trained.card else card_stem(Path(job.model).stem, trained.dataset)


def _side_file(path: Path) -> Path:
    return path / SIDE if path.is_dir() else path.with_name(f"{path.name}.{SIDE}")


def _bytes(path: Path) -> int:
    """Of a file; of the weights of a folder, or of its sources."""
    if not path.is_dir():
        return path.stat().st_size
    files = [path / WEIGHTS] if (path / WEIGHTS).exists() else path.glob("*.[ch]")
    return sum(file.stat().st_size for file in files)
