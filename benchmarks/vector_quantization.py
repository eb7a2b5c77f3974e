"""Scalar, product and residual quantisation of the large linear layer of a LeNet (Gong et al., arXiv:1412.6115).

    python benchmarks/vector_quantization.py [--model lenet_300_100] [--dataset mnist]

The layer with most weights (88 % of LeNet-300-100's, 93 % of LeNet-5 Caffe's) of the zoo's own network is replaced by
the signs of its weights, by k-means of single weights, by product and by residual quantisation, over a grid of widths,
entries and levels; nothing is trained, as in the paper. Of each method the smallest record that loses at most a point
of accuracy on the images held out is taken. The ratio is 4 bytes a weight over the bytes of the layer's record in a
Huffman coded file, codebooks included; files are read back by a fresh process and scored on all test images. A minute
on one core for LeNet-300-100, three for LeNet-5 Caffe; writes results/vector_quantization.jsonl.
"""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from experiments import FINE_TUNING, Bench, Experiment, Plan, Result, bench, distinct, error_of, matching

from zoo.compression import Huffman, ProductQuantize, Quantize, ResidualQuantize, Share, Stage
from zoo.compression.treat import layers_of
from zoo.errors import unknown
from zoo.report import Column, Line, Panel, Picture, Table, percent_text
from zoo.report.tables import MISSING, Value

LAYERS = {"lenet_300_100": "1", "lenet5_caffe": "5"}
WIDTHS = (2, 4, 8, 16)
ALLOWED = 0.01  # share of the images held out that the layer may cost
PAPER = ("a CNN on ImageNet", "product (paper)", MISSING, "16 to 24x", MISSING, "about 1.00 points")
WHOLE = "none"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 2 for wrong use."""
    parser = EXPERIMENT.options(__doc__)
    parser.add_argument("--model", default="lenet_300_100", help=" or ".join(LAYERS))
    options = parser.parse_args(arguments)
    return EXPERIMENT.run(options, lambda: measure(bench(options.dataset, options.files), options.model))


def measure(images: Bench, model: str) -> list[dict[str, Any]]:
    """A line for the network as it is, and one for each method and setting."""
    if model not in LAYERS:
        raise unknown("model of this experiment", model, LAYERS)
    network = images.start(model, FINE_TUNING)
    layer = LAYERS[model]
    weight = layers_of(network)[layer].weight
    whole = Plan({"model": model, "method": WHOLE, "setting": ""}, (Huffman(),))
    plans = [whole]
    for method, setting, stage in settings(layer, weight.shape[1]):
        plans.append(Plan({"model": model, "method": method, "setting": setting}, (stage, Huffman())))
    lines = [images.measure(network, plan, FINE_TUNING) for plan in plans]
    sizes = [
        {"layer_bytes": line["weights"][f"{layer}.weight"], "layer_dense_bytes": 4 * weight.numel()} for line in lines
    ]
    return images.scored([line | size for line, size in zip(lines, sizes, strict=True)])


def settings(layer: str, columns: int) -> Iterator[tuple[str, str, Stage]]:
    """Method, setting in words, stage."""
    yield "sign", "1 bit", Quantize({layer: 1})
    for bits in range(1, 6):
        yield "k-means", f"{bits} bits", Share({layer: bits})
    for width in WIDTHS:
        for bits in range(2, 6):
            yield "product", f"width {width}, {2**bits} entries", ProductQuantize(width, {layer: bits})
    for width, bits, levels in [
        *((width, bits, levels) for width in WIDTHS[1:] for bits in (2, 3, 4) for levels in (2, 3)),
        *((columns, bits, levels) for bits in (2, 3) for levels in (4, 8)),
    ]:
        words = f"width {width}, {levels} x {2**bits} entries"
        yield "residual", words, ResidualQuantize(width, {layer: bits}, levels)


def tables(results: Sequence[Result]) -> list[Table]:
    """A row a network and method, and the paper's figure."""
    columns = (
        Column("network", "network", right=False),
        Column("method", "method", right=False),
        Column("setting", "setting", right=False),
        Column("ratio", "fp32 / layer's bytes"),
        Column("error", "error"),
        Column("loss", "loss"),
    )
    values: list[tuple[Value, ...]] = []
    texts: list[tuple[str, ...]] = []
    for model in distinct(results, "model"):
        before = error_of(matching(results, model=model, method=WHOLE))
        for method in _methods(results):
            best = chosen(results, model, method)
            if best is None:
                values.append((model, method, None, None, None, None))
                texts.append((model, method, "none within a point", *[MISSING] * 3))
                continue
            error = error_of([best])
            values.append((model, method, best["setting"], _ratio(best), error, error - before))
            loss = f"{100 * (error - before):.2f} points"
            texts.append((model, method, best["setting"], f"{_ratio(best):.1f}x", percent_text(error), loss))
    values.append((PAPER[0], PAPER[1], None, None, None, None))
    texts.append(PAPER)
    return [Table(columns, tuple(values), tuple(texts), name="vector_quantization")]


def finding(results: Sequence[Result]) -> str:
    """Which method shrinks the layer most at a loss of a point."""
    words = []
    for model in distinct(results, "model"):
        found = {m: best for m in _methods(results) if (best := chosen(results, model, m)) is not None}
        if not found:
            words.append(f"no method keeps {model} within a point")
            continue
        order = sorted(found, key=lambda method: -_ratio(found[method]))
        ratios = ", ".join(f"{method} {_ratio(found[method]):.1f}x" for method in order)
        agrees = "as in" if order[0] == "product" else "unlike in"
        words.append(f"the layer of {model} shrinks by {ratios}, so {order[0]} is best, {agrees} the paper")
    return f"At a loss of at most a point on images held out, {'; '.join(words)} (16 to 24x there, on larger layers)."


def picture(results: Sequence[Result]) -> Picture:
    """Test error over the ratio, every setting a mark; a panel a network."""
    panels = []
    for model in distinct(results, "model"):
        here = matching(results, model=model)
        lines = [
            Line(m, tuple((_ratio(line), 100 * error_of([line])) for line in matching(here, method=m)), joined=False)
            for m in _methods(results)
        ]
        whole = 100 * error_of(matching(here, method=WHOLE))
        span = [ratio for line in lines for ratio, _ in line.points]
        lines.append(Line("as it was", ((min(span), whole), (max(span), whole))))
        panels.append(Panel(tuple(lines), "fp32 bytes of the layer over its bytes in the file", model, log_x=True))
    return Picture(tuple(panels), "test error (%)", log_y=True)


def chosen(results: Sequence[Result], model: str, method: str) -> Result | None:
    """The smallest record that loses at most a point on the images held out; None where there is none."""
    (whole,) = matching(results, model=model, method=WHOLE)
    floor = whole["held_out_correct"] - ALLOWED * whole["held_out"]
    near = [line for line in matching(results, model=model, method=method) if line["held_out_correct"] >= floor]
    return min(near, key=lambda line: line["layer_bytes"], default=None)


def _methods(results: Sequence[Result]) -> list[str]:
    return [method for method in distinct(results, "method") if method != WHOLE]


def _ratio(line: Result) -> float:
    return float(line["layer_dense_bytes"] / line["layer_bytes"])


EXPERIMENT = Experiment("vector_quantization", ("model", "method", "setting"), tables, finding, picture)

if __name__ == "__main__":
    sys.exit(main())
