"""The `zoo` command: it parses, calls, and prints what came back.

Results go to stdout, everything else to stderr. Exit status 0, 1 (a check failed) or 2 (wrong use; one line says what
was wrong); Ctrl-C gives 130. Whatever is heavy is imported by the command that needs it.
"""

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo.console import chat, drop_output, write
from zoo.errors import ZooError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoo.report import Table
    from zoo.weights import Card

FAILED = 1
INTERRUPTED = 130  # 128 + SIGINT, as shells count

app = typer.Typer(
    help="Efficient image classifiers: list, cost, rank, train and check them.",
    add_completion=False,  # installing it would write outside the current folder
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _known_format(name: str) -> str:
    """Refuse a wrong format before any work is done for it."""
    from zoo.errors import unknown
    from zoo.report import FORMATS

    if name not in FORMATS:
        raise unknown("format", name, FORMATS)
    return name


def _known_columns(names: str | None) -> str | None:
    """The same for the columns of a ranking."""
    from zoo.report import ranking_table

    ranking_table((), _split(names))
    return names


FormatOption = Annotated[
    str, typer.Option("--format", callback=_known_format, help="text, csv, json, markdown or html")
]
DatasetOption = Annotated[
    str, typer.Option("--dataset", help="mnist, fashion_mnist, cifar10, cifar100, digits, folder:PATH")
]
OptionalDataset = Annotated[str | None, typer.Option("--dataset", help="a data set, as for `zoo data`")]
FamilyOption = Annotated[str | None, typer.Option("--family", help="only models of this family")]


def main(arguments: "Sequence[str] | None" = None) -> int:
    """Run the command line (by default the process's own arguments) and return its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = app(given or ["--help"], prog_name="zoo", standalone_mode=False)
        sys.stdout.flush()
    except ZooError as error:
        return _complain(str(error))
    except BrokenPipeError:
        drop_output()
        return 0
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except OSError as error:
        if error.errno is None:
            raise
        _complain(f"{error.strerror} ({error.filename or 'while reading or writing'}).")
        return FAILED
    except Exception as error:
        told = getattr(error, "format_message", None)  # what all of typer's usage errors have, and nothing else
        if told is None:
            raise
        return _complain(f"{_as_ours(told())} {_where_to_look(given)}")
    return status if isinstance(status, int) else 0


@app.command("list")
def list_command(
    pattern: Annotated[str, typer.Argument(help="shell pattern, such as 'mobilenet*'")] = "*",
    family: FamilyOption = None,
    dataset: OptionalDataset = None,
    pretrained: Annotated[bool, typer.Option("--pretrained", help="only models with stored weights")] = False,
    format: FormatOption = "text",
) -> None:
    """List models and the weights there are."""
    from zoo.create import list_models
    from zoo.registry import architectures
    from zoo.report import models_table
    from zoo.weights import list_cards

    names = list_models(pattern, family=family, dataset=dataset, pretrained=pretrained)
    _print(models_table(names, architectures(), list_cards(dataset=dataset)), format)


@app.command()
def show(
    model: Annotated[str, typer.Argument(metavar="MODEL")],
    dataset: OptionalDataset = None,
    image_size: Annotated[int | None, typer.Option(help="pixels a side; by default as published")] = None,
    layers: Annotated[bool, typer.Option("--layers", help="add the cost of every layer")] = False,
    format: FormatOption = "text",
) -> None:
    """Show one model: facts, cost, layers, weights."""
    from zoo.cost import cached_cost
    from zoo.data import dataset_info
    from zoo.registry import architecture
    from zoo.report import cards_table, cost_table, model_table
    from zoo.weights import list_cards

    arch = architecture(model)
    image, classes = arch.image, arch.num_classes
    if dataset is not None and image_size is not None:
        raise ZooError("--dataset and --image-size both set the image; give one of them.")
    if dataset is not None:
        info = dataset_info(dataset)
        image, classes = info.image, len(info.classes)
    elif image_size is not None:
        image = (image[0], image_size, image_size)
    cost = cached_cost(model, image, classes)
    tables = [model_table(arch, cost, classes)]
    if layers:
        tables.append(cost_table(cost))
    if cards := list_cards(model=model, dataset=dataset):
        tables.append(cards_table(cards))
    _print(tables, format)


@app.command()
def rank(
    models: Annotated[list[str] | None, typer.Argument(help="names or shell patterns; by default all models")] = None,
    dataset: DatasetOption = "cifar10",
    by: Annotated[str, typer.Option(help="columns to sort by, comma between; '-macs' turns one round")] = "macs",
    where: Annotated[str | None, typer.Option(help="condition, such as 'params < 1e6 and top1 > 0.9'")] = None,
    family: FamilyOption = None,
    top: Annotated[int | None, typer.Option(help="only the first so many rows")] = None,
    columns: Annotated[str | None, typer.Option(callback=_known_columns, help="columns to show, comma between")] = None,
    plot: Annotated[Path | None, typer.Option(help="also draw accuracy over MACs, to an .svg or .png")] = None,
    latency: Annotated[bool, typer.Option("--latency", help="time those with stored weights, half a minute")] = False,
    format: FormatOption = "text",
) -> None:
    """Rank models by cost and accuracy."""
    from functools import partial

    from zoo.ranking import rank as ranked
    from zoo.report import pareto_plot, ranking_table

    timed = None
    if latency:
        from zoo.latency_runs import with_latency

        timed = partial(with_latency, dataset=dataset, say=chat)
    rows = ranked(
        _names(models), dataset=dataset, by=_split(by) or (), where=where, family=family, top=top, timed=timed
    )
    table = ranking_table(rows, _split(columns), whole=format in ("csv", "json"))
    if plot is not None:
        pareto_plot(rows, plot)
        chat(f"wrote {plot}")
    _print(table, format)


@app.command()
def latency(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="names, shell patterns, MODEL@TAG, .zpk files, run folders")
    ],
    dataset: DatasetOption = "cifar10",
    batch: Annotated[int, typer.Option(min=1, help="images a call")] = 1,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    engine: Annotated[
        str, typer.Option(help="eager, compiled, onnxruntime, onnxruntime-int8, comma between")
    ] = "eager",
    reference: Annotated[str | None, typer.Option(help="what all are compared with; by default the first")] = None,
    rounds: Annotated[int, typer.Option(help="more make the intervals narrower")] = 30,
    format: FormatOption = "text",
) -> None:
    """Time models side by side."""
    from zoo.latency import Job
    from zoo.latency_runs import run
    from zoo.report import latency_table

    engines = tuple(_split(engine) or ("eager",))
    folder, result = run(Job(tuple(_names(models) or ()), dataset, batch, threads, engines, reference, rounds), chat)
    _print(latency_table(result), format)
    for doubt in result.doubts():
        chat(doubt)
    chat(f"run folder: {folder}")


@app.command()
def compare(
    models: Annotated[list[str], typer.Argument(help="two models or more")],
    dataset: DatasetOption = "cifar10",
    format: FormatOption = "text",
) -> None:
    """Set models side by side, exactly."""
    from zoo.ranking import rank as ranked
    from zoo.report import comparison_table

    _print(comparison_table(ranked(_names(models), dataset=dataset, by=())), format)


@app.command()
def pareto(
    dataset: DatasetOption = "cifar10",
    x: Annotated[str, typer.Option("--x", help="the cost: macs, params or bytes")] = "macs",
    out: Annotated[Path | None, typer.Option(help="draw all models with weights, to an .svg or .png")] = None,
    format: FormatOption = "text",
) -> None:
    """Show the models that no other beats."""
    from zoo.errors import unknown
    from zoo.ranking import FRONTS
    from zoo.ranking import rank as ranked
    from zoo.report import pareto_plot, ranking_table

    if x not in FRONTS:
        raise unknown("axis", x, FRONTS)
    rows = ranked(dataset=dataset, by=(x,))
    if out is not None:
        left_out = pareto_plot(rows, out, x=x)
        chat(f"wrote {out}; {left_out} of {len(rows)} rows have no weights yet and are not drawn")
    front = [row for row in rows if getattr(row, f"pareto_{x}")]
    if not front:
        chat(f"no model has weights for {dataset} yet, so there is no front; `zoo train` makes some")
    _print(ranking_table(front, whole=format in ("csv", "json")), format)


@app.command("eval")
def eval_command(
    model: Annotated[str | None, typer.Argument(help="a model; left out, the card beside --weights names it")] = None,
    dataset: OptionalDataset = None,
    tag: Annotated[str | None, typer.Option(help="tag of the stored weights")] = None,
    weights: Annotated[Path | None, typer.Option(help="a weight file, or a run folder")] = None,
    split: Annotated[str, typer.Option(help="test or train")] = "test",
    confusion: Annotated[bool, typer.Option("--confusion", help="add the confusion matrix")] = False,
    format: FormatOption = "text",
) -> None:
    """Score weights on a data set."""
    from zoo.create import create_model
    from zoo.data import load_dataset
    from zoo.evaluation import evaluate
    from zoo.report import confusion_table, evaluation_table
    from zoo.weights import digest_differences, find_card, load_for_card, load_weights

    file, card = _weight_file(weights)
    if card is not None:
        model, dataset = model or card.model, dataset or card.dataset
    if model is None or dataset is None:
        raise ZooError("it is not known what to score: give MODEL --dataset NAME, or --weights with a card beside it.")
    if file is not None and card is not None and model == card.model:
        network = load_for_card(card, file)
    else:
        network = create_model(model, dataset=dataset, pretrained=file is None, tag=tag)
        if file is not None:
            load_weights(network, file)
    data = load_dataset(dataset, split)
    if file is None:
        card = find_card(model, dataset, tag)
    if card is not None and card.dataset == data.name:
        for line in digest_differences(card, data):
            chat(f"these are not the images that the card of {card.stem} is about: {line}")
    result = evaluate(network, data)
    tables = [evaluation_table(result, model=model, dataset=dataset, split=split)]
    if confusion:
        tables.append(confusion_table(result.confusion, data.classes))
    _print(tables if confusion else tables[0], format)


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="MODEL or MODEL@TAG, a card, a .zpk file or a run folder")],
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="files, folders of them, or - for stdin")],
    dataset: OptionalDataset = None,
    compare: Annotated[str | None, typer.Option(help="more models beside it, comma between")] = None,
    top: Annotated[int, typer.Option(min=1, help="classes a model names")] = 3,
    invert: Annotated[bool, typer.Option("--invert", help="take negatives: dark strokes on light paper")] = False,
    format: FormatOption = "text",
) -> None:
    """Say what images show."""
    from zoo.prediction import BATCH, find_images
    from zoo.prediction import predict as predicted
    from zoo.report import predictions_table
    from zoo.trained import load_trained

    names = [model, *(_split(compare) or ())]
    models = [load_trained(name, dataset) for name in names]
    files = find_images(images)
    found = []
    for prediction in predicted(models, files, top=top, invert=invert):
        found.append(prediction)
        if prediction.fault is not None:
            chat(prediction.fault)
        if len(found) % BATCH == 0:
            chat(f"{len(found):,} of {len(files):,} images")
    if wrong := sum(prediction.upside_down for prediction in found):
        what = "leave out --invert" if invert else "--invert turns them round"
        chat(f"{wrong} of {len(found)} images are dark on light, and {models[0].dataset} is light on dark: {what}")
    _print(predictions_table(found, names, whole=format in ("csv", "json")), format)
    if any(prediction.fault is not None for prediction in found):
        raise typer.Exit(FAILED)


@app.command()
def verify(
    stems: Annotated[
        list[str] | None, typer.Argument(help="weights by stem, such as lenet5.mnist; by default all")
    ] = None,
    accuracy: Annotated[bool, typer.Option("--accuracy", help="score the test set again too")] = False,
    format: FormatOption = "text",
) -> None:
    """Check weights against their cards."""
    from zoo.errors import unknown
    from zoo.report import verification_table
    from zoo.weights import verify_card, weights_folder

    folder = weights_folder()
    known = sorted({path.stem for ending in ("*.json", "*.safetensors", "*.zpk") for path in folder.glob(ending)})
    if not known:
        raise ZooError(f"there are no weights in {folder} to verify; `zoo train` makes some.")
    for stem in stems or ():
        if stem not in known:
            raise unknown("weight file", stem, known, "zoo verify")
    differences: dict[str, list[str]] = {}
    for stem in stems or known:
        chat(f"checking {stem}")
        differences[stem] = verify_card(folder / f"{stem}.json", accuracy=accuracy)
    _print(verification_table(differences), format)
    if any(differences.values()):
        raise typer.Exit(FAILED)


@app.command()
def data(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    refresh: Annotated[bool, typer.Option("--refresh", help="fetch it anew even if it is in the cache")] = False,
    format: FormatOption = "text",
) -> None:
    """Get a data set and describe it."""
    from zoo.data import describe, load_dataset, refresh_dataset
    from zoo.report import datasets_table

    if refresh:
        refresh_dataset(name)
    splits = [load_dataset(name, split) for split in ("train", "test")]
    chat(describe(name))
    _print(datasets_table(splits), format)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def train(context: typer.Context) -> None:
    """Train a model, as `python train.py` does."""
    from zoo.train_cli import main as train_main

    raise typer.Exit(train_main(context.args))


@app.command()
def compress(
    model: Annotated[str, typer.Argument(help="a model with stored weights")],
    dataset: DatasetOption,
    pipeline: Annotated[
        str, typer.Option(help="deep-compression, auto, slim, network-slimming, share or quantize")
    ] = "deep-compression",
    density: Annotated[float, typer.Option(help="share of weights, or of channels, that stays")] = 0.1,
    bits: Annotated[int, typer.Option(help="of a weight")] = 5,
    epochs: Annotated[int, typer.Option(help="of training in all; 0 for none")] = 4,
    max_loss: Annotated[float | None, typer.Option(help="auto: accuracy to lose before training, a share")] = None,
    max_bytes: Annotated[int | None, typer.Option(help="auto: bytes of the weights")] = None,
    tag: Annotated[str | None, typer.Option(help="of the weights that come out; by default the pipeline")] = None,
    from_tag: Annotated[str | None, typer.Option(help="of the weights to begin with")] = None,
    seed: Annotated[int, typer.Option(help="decides all chance")] = 0,
    valid_images: Annotated[int | None, typer.Option(help="training images held out (a tenth)")] = None,
    layers: Annotated[bool, typer.Option("--layers", help="add a table of all tensors")] = False,
    format: FormatOption = "text",
) -> None:
    """Compress stored weights, with receipts."""
    from zoo.compress_runs import Job, run
    from zoo.compression.presets import Wishes
    from zoo.compression.presets import pipeline as stages_of
    from zoo.report import layers_table, receipts_table

    wishes = Wishes(density, bits, epochs, max_loss, max_bytes)
    stages = tuple(stages_of(pipeline, wishes))
    words = ["zoo", "compress", model, "--dataset", dataset, "--pipeline", pipeline]
    for name, value in (
        ("density", density), ("bits", bits), ("epochs", epochs), ("max-loss", max_loss), ("max-bytes", max_bytes),
        ("tag", tag), ("from-tag", from_tag), ("seed", seed), ("valid-images", valid_images),
    ):  # fmt: skip
        words += [f"--{name}", str(value)] if value is not None else []
    command = shlex.join(words)
    chat(command)
    job = Job(model, dataset, stages, tag or pipeline, command, from_tag, seed, valid_images)
    _, _, receipts = run(job, chat)
    tables = [receipts_table(receipts), layers_table(receipts[-1])]
    _print(tables if layers else tables[0], format)
    for receipt in receipts:
        for name, reason in receipt.untreated.items():
            chat(f"{receipt.stage.partition('(')[0]} did not treat {name}: {reason}")


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="MODEL or MODEL@TAG, a card, a .zpk file, a run folder, timm/NAME")],
    out: Annotated[Path, typer.Option("--out", help="the file, or a folder to put it in")],
    dataset: OptionalDataset = None,
    to: Annotated[str, typer.Option("--format", help="onnx, int8, c, torch-export or hf")] = "onnx",
    tag: Annotated[str | None, typer.Option(help="of the stored weights")] = None,
    preprocessing: Annotated[bool, typer.Option("--preprocessing", help="put the normalisation inside")] = False,
    images: Annotated[str, typer.Option(help="test images to compare on, or all")] = "1000",
    report: Annotated[str, typer.Option(callback=_known_format, help="form of what is printed")] = "text",
) -> None:
    """Write a model for other tools, and run it."""
    from zoo.export_runs import Job, run
    from zoo.report import export_table

    if images != "all" and not images.isdecimal():
        raise ZooError(f"--images {images!r} was given; give a number, or all.")
    source = f"{model}@{tag}" if tag else model
    job = Job(source, to, out, dataset, preprocessing, None if images == "all" else int(images))
    _print(export_table(run(job, chat)), report)


@app.command()
def report(
    out: Annotated[Path, typer.Option("--out", help="the folder that index.html goes into")],
    models: Annotated[list[str] | None, typer.Argument(help="names or shell patterns; by default all models")] = None,
    dataset: Annotated[str, typer.Option(help="data sets, comma between")] = "mnist,cifar10",
) -> None:
    """Write one page that shows all models."""
    from zoo.report_runs import Job, checkout, run

    names = _names(models)
    job = Job(out, tuple(_split(dataset) or ()), None if names is None else tuple(names), checkout())
    path = run(job, chat)
    write(f"{path} ({path.stat().st_size:,} bytes)\n")


def _names(models: "Sequence[str] | None") -> list[str] | None:
    """Names with shell patterns spelled out; None for all models."""
    from zoo.errors import unknown
    from zoo.registry import architectures, match

    names: list[str] = []
    for name in models or []:
        found = match(name) if any(sign in name for sign in "*?[") else [name]
        if not found:
            raise unknown("model", name, architectures(), "zoo list")
        names += found
    return names or None


def _split(text: str | None) -> list[str] | None:
    names = [part.strip() for part in (text or "").split(",") if part.strip()]
    return names or None


def _weight_file(given: Path | None) -> "tuple[Path | None, Card | None]":
    """The weight file that `--weights` names, itself or through its run folder, and its card where there is one."""
    from zoo.weights import read_card

    if given is None:
        return None, None
    if given.is_dir():
        files = [path for ending in ("*.safetensors", "*.zpk") for path in sorted(given.glob(ending))]
        files = [path for path in files if path.with_suffix(".json").exists()]
        if len(files) != 1:
            raise ZooError(
                f"{given} holds {len(files)} weight files with a card where one was looked for; name the file."
            )
        given = files[0]
    beside = given.with_suffix(".json")
    return given, read_card(beside) if beside.exists() else None


def _print(tables: "Table | Sequence[Table]", format: str) -> None:
    """Write tables to stdout, within the width of the terminal if it is one."""
    from zoo.report import render

    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal or "COLUMNS" in os.environ else None
    write(render(tables, format, width=width, terminal=terminal))


def _complain(message: str) -> int:
    chat(f"zoo: error: {' '.join(message.split())}")
    return 2


def _as_ours(message: str) -> str:
    """A usage error in this package's voice: no capital, and an end to the sentence."""
    return message[:1].lower() + message[1:] + ("" if message.endswith((".", "?")) else ".")


def _where_to_look(given: "Sequence[str]") -> str:
    known = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    command = f"{given[0]} " if given and given[0] in known else ""
    return f"`zoo {command}--help` says what there is."
