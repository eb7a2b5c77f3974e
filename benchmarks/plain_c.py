"""Networks as plain C: every logit against the Python that it was made from, and bytes against what was counted.

    python benchmarks/plain_c.py [MODEL ...] [--out benchmarks/results/plain_c.jsonl]

Each network is quantised by zoo.interop.calibration's default, written as C, compiled with warnings as errors, and run
on all test images; the first SANITIZED of them also with the address and undefined behaviour sanitizers. Bytes of the
code are those of the object file's sections, so without the C library's start-up. Writes one JSON line a network, and
keeps the lines of those not named. Needs stored weights and a C compiler; ten minutes of one core, most for SqueezeNet.
"""

import argparse
import platform
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from experiments import Experiment, append
from torch import Tensor, nn

from zoo.cost import measure
from zoo.data import Dataset, load_dataset
from zoo.evaluation import score
from zoo.interop.calibration import Calibration, quantize
from zoo.interop.plain_c import CProject, compiled, export_c, reference
from zoo.interop.plain_c.project import FLAGS, compiler
from zoo.report import Column, Table, exact_text, percent_text
from zoo.report.tables import Value
from zoo.runs import versions
from zoo.trained import load_trained

NETWORKS = {"lenet5": "mnist", "squeezenet1_1": "cifar10", "mobilenetv1_025": "cifar10", "resnet20": "cifar10"}
SANITIZED = 200
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
BATCH, AT_ONCE = 100, 1000
#           what `size` calls a section of the object file -> what it is
SECTIONS = {".text": "code", ".rodata": "constants", ".data.rel.ro": "constants", ".data": "ram", ".bss": "ram"}


def main() -> None:
    """Measure each network and write one JSON line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"some of {', '.join(NETWORKS)}; without, all")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "plain_c.jsonl")
    arguments = parser.parse_args()
    for name in arguments.models or NETWORKS:
        dataset = NETWORKS[name]
        trained = load_trained(name, dataset)
        assert trained.card is not None
        train, test = (load_dataset(dataset, split) for split in ("train", "test"))
        result = {"model": name, **of_network(trained.network, train, test), "correct": trained.card.correct}
        append(arguments.out, [result], EXPERIMENT.key)
        print(finding([result]))


def of_network(
    model: nn.Module,
    train: Dataset,
    test: Dataset,
    *,
    calibration: Calibration | None = None,
    sanitized: int = SANITIZED,
) -> dict[str, Any]:
    """All figures of one network but those of its float32 form."""
    network, choice = quantize(model, train, calibration)
    cost = measure(model, train.image)
    norms = {"mean": train.mean, "std": train.std}
    batches = test.images.split(BATCH)
    expected_NK = torch.cat([reference(network, pixels_NCHW=batch, **norms) for batch in batches])
    with tempfile.TemporaryDirectory() as folder:
        project = export_c(
            network, folder, name="network", title="", classes=train.classes, pixels_NCHW=test.images[:1], **norms
        )
        found_NK, few_NK = run(project, test.images), run(project, test.images[:sanitized], *SANITIZERS)
        sections = section_bytes(project)
        stack = stack_bytes(project)
    return {
        "dataset": test.name,
        "images": len(test),
        "logits": expected_NK.numel(),
        "wrong_logits": int((found_NK != expected_NK).sum()),
        "sanitized_images": len(few_NK),
        "sanitized_wrong_logits": int((few_NK != expected_NK[:sanitized]).sum()),
        "int8_correct": score(found_NK.float(), test.labels).correct,
        "calibrated_by": choice.method,
        "code_bytes": sections["code"],
        "table_bytes": sections["constants"] - project.weight_bytes,
        "weight_bytes": project.weight_bytes,
        "predicted_weight_bytes": cost.flash_bytes,
        "ram_bytes": sections["ram"],
        "predicted_ram_bytes": cost.peak_activation_bytes_int8,
        "stack_bytes": stack,
        "flags": " ".join(FLAGS),
        "compiler": compiler_version(),
        "machine": platform.machine(),
        "versions": versions(),
    }


def run(project: CProject, pixels_NCHW: Tensor, *flags: str) -> Tensor:
    """The codes of all logits by the compiled program."""
    with tempfile.TemporaryDirectory() as folder:
        program = compiled(project, folder, *flags)
        return torch.cat([program.codes(batch) for batch in pixels_NCHW.split(AT_ONCE)])


def section_bytes(project: CProject) -> Counter[str]:
    """Bytes of the object file by what they are: a value of SECTIONS."""
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.o"
        compile_object(project, path)
        listing = subprocess.run(["size", "-A", path], capture_output=True, text=True, check=True).stdout
    for line in listing.splitlines():
        name, *numbers = line.split() or [""]
        kind = next((kind for start, kind in SECTIONS.items() if name == start or name.startswith(f"{start}.")), None)
        if kind and numbers:
            found[kind] += int(numbers[0])
    return found


def stack_bytes(project: CProject) -> int:
    """Stack frames of all functions together: no chain of calls can need more, since none is recursive."""
    with tempfile.TemporaryDirectory() as folder:
        compile_object(project, Path(folder) / "network.o", "-fstack-usage")
        (usage,) = Path(folder).glob("*.su")
        return sum(int(line.split("\t")[1]) for line in usage.read_text().splitlines())


def compile_object(project: CProject, path: Path, *flags: str) -> None:
    """Compile the source file alone."""
    source = project.folder / f"{project.name}.c"
    subprocess.run([str(compiler()), *FLAGS, *flags, "-c", "-o", path, source], check=True)


def compiler_version() -> str:
    """The first line of what it says of itself."""
    done = subprocess.run([str(compiler()), "--version"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[0]


def plain_c_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """A row a network."""
    columns = (
        Column("model", "network", right=False),
        Column("wrong_logits", "logits that differ from the Python reference"),
        Column("sanitized_images", "images under sanitizers"),
        Column("code_bytes", "code, bytes"),
        Column("table_bytes", "tables, bytes"),
        Column("weight_bytes", "weights, bytes"),
        Column("predicted_weight_bytes", "predicted"),
        Column("ram_bytes", "RAM, bytes"),
        Column("predicted_ram_bytes", "predicted"),
        Column("stack_bytes", "stack, at most"),
        Column("int8_top1", "top-1 int8 in C"),
        Column("top1", "top-1 float32"),
    )
    values: list[tuple[Value, ...]] = []
    texts: list[tuple[str, ...]] = []
    for result in results:
        shares = (result["int8_correct"] / result["images"], result["correct"] / result["images"])
        counts = [result[column.name] for column in columns[2:-2]]
        name = f"{result['model']}, {result['dataset']}"
        values.append((name, result["wrong_logits"], *counts, *shares))
        wrong = f"{result['wrong_logits']} of {exact_text(result['logits'])}"
        texts.append((name, wrong, *map(exact_text, counts), *map(percent_text, shares)))
    return Table(columns, tuple(values), tuple(texts), name="plain_c", title="Plain C")


def finding(results: Sequence[Mapping[str, Any]]) -> str:
    """What the numbers say, in a sentence."""
    logits, wrong = (sum(result[name] for result in results) for name in ("logits", "wrong_logits"))
    exact = sum(result["weight_bytes"] == result["predicted_weight_bytes"] for result in results)
    apart = max(abs(result["ram_bytes"] / result["predicted_ram_bytes"] - 1) for result in results)
    lost = max((result["correct"] - result["int8_correct"]) / result["images"] for result in results)
    return (
        f"Of {exact_text(logits)} logits {wrong} differ from the reference; the weights' bytes are those predicted for "
        f"{exact} of {len(results)}, RAM is within {percent_text(apart)} of what was predicted, and the most accuracy "
        f"lost by int8 is {100 * lost:.2f} points."
    )


EXPERIMENT = Experiment("plain_c", ("model",), lambda results: [plain_c_table(results)], finding)

if __name__ == "__main__":
    main()
