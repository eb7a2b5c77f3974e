"""Uniform against non-uniform quantisation of an MNIST perceptron, by bits and by bytes of a file.

    python benchmarks/quantized_mlp.py [--bits 8] [--epochs 1] [--dataset mnist]

LeNet-300-100, the zoo's own weights, with 1 to --bits bits a weight. Uniform: an even grid of least squared error, for
a layer or for each output, symmetric or with a zero point. Non-uniform: k-means, starting linearly or by density. The
variant with the fewest errors on the images held out is taken at each width, as it is and after --epochs of training
through the rounding, or of the centroids, on images as they are. It is stored twice, in as many bits as its codes have
("fixed") and Huffman coded; biases stay in fp32. Files are read back by a fresh process and scored on all test images.
About two minutes on one core; writes results/quantized_mlp.jsonl.
"""

import sys
from collections.abc import Sequence
from itertools import product
from typing import Any

from experiments import FINE_TUNING, TUNING, Bench, Experiment, Plan, Result, bench, distinct, error_of, matching

from zoo.compression import Code, Huffman, Quantize, Share, Stage
from zoo.report import Column, Line, Panel, Picture, Table, exact_text, percent_text, size_text
from zoo.report.tables import Value

MODEL = "lenet_300_100"
METHODS = ("uniform", "k-means")
CODERS: dict[str, Stage] = {"fixed": Code(("fixed",)), "huffman": Huffman()}
NEAR = 0.002  # share of test images that a small file may lose and still be worth its name
WHOLE = "none"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 2 for wrong use."""
    parser = EXPERIMENT.options(__doc__)
    parser.add_argument("--bits", type=int, default=8, help="up to so many")
    parser.add_argument("--epochs", type=int, default=1, help="of training after the rounding")
    options = parser.parse_args(arguments)
    return EXPERIMENT.run(options, lambda: measure(bench(options.dataset, options.files), options.bits, options.epochs))


def measure(images: Bench, most_bits: int, epochs: int) -> list[dict[str, Any]]:
    """A line for the network as it is, and four for each method and width: trained or not, in either coding."""
    model = images.start(MODEL, FINE_TUNING)
    fields = {"method": WHOLE, "bits": 32, "variant": "", "trained": False, "coder": "fixed"}
    lines = [images.measure(model, Plan(fields, (CODERS["fixed"],)), TUNING)]
    for method, bits in product(METHODS, range(1, most_bits + 1)):
        tried = {variant: images.treat(model, [stage], TUNING) for variant, stage in variants(method, bits).items()}
        wrong = {variant: images.held_out_wrong(treated) for variant, treated in tried.items()}
        best = min(wrong, key=lambda variant: wrong[variant])
        trained = images.treat(model, [variants(method, bits, epochs)[best]], TUNING)
        for treated, coder in product((tried[best], trained), CODERS):
            fields = {
                "method": method,
                "bits": bits,
                "variant": best,
                "trained": treated is trained,
                "coder": coder,
            }
            lines.append(images.measure(treated, Plan(fields, (CODERS[coder],)), TUNING))
    return images.scored(lines)


def variants(method: str, bits: int, epochs: int = 0) -> dict[str, Stage]:
    """What is tried of a method at one width."""
    if method == "k-means":
        return {init: Share(bits, init=init, epochs=epochs) for init in ("linear", "density")}
    return {
        f"{'output' if per_channel else 'layer'}, {'symmetric' if symmetric else 'zero point'}": Quantize(
            bits, per_channel=per_channel, symmetric=symmetric, range="mse", epochs=epochs
        )
        for per_channel, symmetric in product((False, True), (True, False))
    }


def tables(results: Sequence[Result]) -> list[Table]:
    """A row a width: test errors of both methods without and with training, and bytes of the trained files."""
    cells = list(product((False, True), METHODS))
    sizes = list(product(METHODS, CODERS))
    columns = (
        Column("bits", "bits"),
        *(Column(f"{m}_{t}", f"{m}, trained" if t else m) for t, m in cells),
        *(Column(f"{m}_{c}_bytes", f"{m}, {c}: file") for m, c in sizes),
    )
    values: list[tuple[Value, ...]] = []
    texts: list[tuple[str, ...]] = []
    for bits in _widths(results):
        here = matching(results, bits=bits)
        errors = [error_of(matching(here, method=m, trained=t, coder="huffman")) for t, m in cells]
        files = [matching(here, method=m, trained=True, coder=c)[0]["file_bytes"] for m, c in sizes]
        values.append((bits, *errors, *files))
        texts.append((str(bits), *map(percent_text, errors), *map(exact_text, files)))
    notes = {"uniform_fixed_bytes": "a file counts a code with a zero point from that point, which may take a bit more"}
    return [Table(columns, tuple(values), tuple(texts), name="quantized_mlp", notes=notes)]


def finding(results: Sequence[Result]) -> str:
    """Which method has fewer errors at equal bits, and which has the smaller file at nearly no loss."""
    whole = error_of(matching(results, method=WHOLE))
    widths = _widths(results)
    words = []
    for trained in (False, True):
        wins = sum(
            error_of(matching(results, method="k-means", bits=bits, trained=trained, coder="huffman"))
            < error_of(matching(results, method="uniform", bits=bits, trained=trained, coder="huffman"))
            for bits in widths
        )
        words.append(f"{wins} {'with' if trained else 'without'} training")
    near = f"{100 * NEAR:.1f} points of the network's {percent_text(whole)}"
    smallest = []
    for coder in CODERS:
        found = {m: line for m in METHODS if (line := _smallest(results, m, coder, whole)) is not None}
        order = sorted(found, key=lambda method: int(found[method]["file_bytes"]))
        sizes = (f"{m} {size_text(found[m]['file_bytes'])} ({found[m]['bits']} bits)" for m in order)
        smallest.append(f"{coder} {' before '.join(sizes) or 'none'}")
    return (
        f"At equal bits k-means has fewer test errors than a uniform grid at {' and at '.join(words)} of {len(widths)} "
        f"widths; the smallest trained files within {near} are, smallest first: {'; '.join(smallest)}."
    )


def picture(results: Sequence[Result]) -> Picture:
    """Error over bits, and over bytes of the trained files."""
    widths = _widths(results)
    by_bits = [
        Line(
            f"{m}, trained" if t else m,
            tuple((b, 100 * error_of(matching(results, method=m, bits=b, trained=t, coder="huffman"))) for b in widths),
        )
        for t, m in product((False, True), METHODS)
    ]
    by_bytes = [
        Line(
            f"{m}, trained, {c}",
            tuple(
                (line["file_bytes"] / 1000, 100 * error_of([line]))
                for line in matching(results, method=m, trained=True, coder=c)
            ),
        )
        for m, c in product(METHODS, CODERS)
    ]
    panels = Panel(tuple(by_bits), "bits of a weight"), Panel(tuple(by_bytes), "kB of the file", log_x=True)
    return Picture(panels, "test error (%)", log_y=True)


def _widths(results: Sequence[Result]) -> list[int]:
    return sorted(bits for bits in distinct(results, "bits") if bits < 32)


def _smallest(results: Sequence[Result], method: str, coder: str, whole: float) -> Result | None:
    """The smallest trained file that loses next to nothing; None where there is none."""
    lines = matching(results, method=method, coder=coder, trained=True)
    near = [line for line in lines if error_of([line]) <= whole + NEAR + 1e-9]
    return min(near, key=lambda line: int(line["file_bytes"]), default=None)


EXPERIMENT = Experiment("quantized_mlp", ("method", "bits", "trained", "coder"), tables, finding, picture)

if __name__ == "__main__":
    sys.exit(main())
