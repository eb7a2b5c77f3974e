"""Where k-means starts, and how many bits (Deep Compression, arXiv:1510.00149, sections 3.2 and 5, figures 6 and 9).

    python benchmarks/sharing_curves.py [--bits 6] [--seeds 2] [--epochs 1] [--dataset mnist]

LeNet-300-100 is pruned to the densities of the paper's table 2, gradually, in four epochs. From there its weights are
shared with 1 to --bits bits, k-means starting linearly, by density or at random; centroids stay as k-means leaves them,
or are trained for --epochs, on images as they are. The seed draws the random start and the order of the training. Every
file is Huffman coded, read back by a fresh process and scored on all test images. Nothing is chosen. Four minutes on
one core; writes results/sharing_curves.jsonl.
"""

import math
import sys
from collections.abc import Sequence
from typing import Any

from deep_compression import PAPER_300_100
from experiments import FINE_TUNING, SEED, TUNING, Bench, Experiment, Plan, Result, bench, distinct, error_of, matching

from zoo.compression import Huffman, Prune, Share
from zoo.report import Column, Line, Panel, Picture, Table, exact_text, percent_text
from zoo.report.tables import Value

MODEL = "lenet_300_100"
DENSITIES = {name: density for name, (density, _) in PAPER_300_100.items()}
PRUNING_EPOCHS = 4
STARTS = ("linear", "density", "random")
KINDS = ((False, "as k-means leaves them"), (True, "trained"))
UNSHARED = "none"
NEAR = 0.001  # share of test images


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 2 for wrong use."""
    parser = EXPERIMENT.options(__doc__)
    parser.add_argument("--bits", type=int, default=6, help="up to so many")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=1, help="of training the centroids")
    options = parser.parse_args(arguments)
    return EXPERIMENT.run(
        options, lambda: measure(bench(options.dataset, options.files), options.bits, options.seeds, options.epochs)
    )


def measure(images: Bench, most_bits: int, seeds: int, epochs: int) -> list[dict[str, Any]]:
    """A line for the pruned network, and one for each start, width, seed and training."""
    pruning = Prune(densities=DENSITIES, schedule="gradual", epochs=PRUNING_EPOCHS)
    pruned = images.treat(images.start(MODEL, FINE_TUNING), [pruning], FINE_TUNING)
    whole = Plan({"init": UNSHARED, "bits": 32, "trained": False, "seed": SEED}, (Huffman(),))
    lines = [images.measure(pruned, whole, FINE_TUNING)]
    for bits in range(1, most_bits + 1):
        for init in STARTS:
            for trained, _ in KINDS:
                # Without chance and without training all seeds are one.
                for seed in range(seeds if trained or init == "random" else 1):
                    sharing = Share(bits, init=init, epochs=epochs * trained)  # type: ignore[arg-type]
                    plan = Plan({"init": init, "bits": bits, "trained": trained, "seed": seed}, (sharing, Huffman()))
                    lines.append(images.measure(pruned, plan, TUNING, seed))
    return images.scored(lines)


def tables(results: Sequence[Result]) -> list[Table]:
    """A row a width: the error of each start, and the bytes of the file that starts linearly and is trained."""
    cells = [(init, trained) for trained, _ in KINDS for init in STARTS]
    columns = (
        Column("bits", "bits"),
        *(Column(f"{init}_{trained}", f"{init}, trained" if trained else init) for init, trained in cells),
        Column("file_bytes", "file (linear, trained)"),
    )
    values: list[tuple[Value, ...]] = []
    texts: list[tuple[str, ...]] = []
    for bits in _widths(results):
        errors = [error_of(matching(results, bits=bits, init=i, trained=t)) for i, t in cells]
        size = matching(results, bits=bits, init="linear", trained=True)[0]["file_bytes"]
        values.append((bits, *errors, size))
        texts.append((str(bits), *map(percent_text, errors), exact_text(size)))
    return [Table(columns, tuple(values), tuple(texts), name="sharing_curves")]


def finding(results: Sequence[Result]) -> str:
    """How often each start is best and by how much, with the paper's word beside it; how many bits are enough."""
    widths = _widths(results)
    (whole,) = matching(results, init=UNSHARED)
    errors = {b: {i: error_of(matching(results, bits=b, init=i, trained=True)) for i in STARTS} for b in widths}
    wins = {init: sum(errors[b][init] == min(errors[b].values()) for b in widths) for init in STARTS}
    some = [bits for bits in widths if bits >= 3] or widths
    apart = max(max(errors[bits].values()) - min(errors[bits].values()) for bits in some)
    share = error_of([whole])
    deviation = math.sqrt(share * (1 - share) / whole["total"])
    seen = "as" if 2 * wins["linear"] > len(widths) and apart > deviation else "unlike"
    enough = [bits for bits in widths if errors[bits]["linear"] <= share + NEAR]
    last = f"{min(enough)} bits, from a linear start, are" if enough else "no width, from a linear start, is"
    return (
        f"With trained centroids the linear start has the least test error at {wins['linear']} of {len(widths)} "
        f"widths, density at {wins['density']}, random at {wins['random']} (ties count for all), and from {min(some)} "
        f"bits on the three lie within {100 * apart:.2f} points of one another, where one standard deviation of such "
        f"an error is {100 * deviation:.2f}: {seen} in the paper, where linear is best; {last} within "
        f"{100 * NEAR:.1f} points of the pruned network's {percent_text(share)}."
    )


def picture(results: Sequence[Result]) -> Picture:
    """Error over bits, untrained on the left and trained on the right, the pruned network as a level."""
    widths = _widths(results)
    whole = 100 * error_of(matching(results, init=UNSHARED))
    panels = []
    for trained, words in KINDS:
        lines = [
            Line(i, tuple((b, 100 * error_of(matching(results, bits=b, init=i, trained=trained))) for b in widths))
            for i in STARTS
        ]
        lines.append(Line("pruned, not shared", tuple((bits, whole) for bits in widths)))
        panels.append(Panel(tuple(lines), "bits of a weight", f"centroids {words}"))
    return Picture(tuple(panels), "test error (%)", log_y=True)


def _widths(results: Sequence[Result]) -> list[int]:
    return sorted(bits for bits in distinct(results, "bits") if bits < 32)


EXPERIMENT = Experiment("sharing_curves", ("init", "bits", "trained", "seed"), tables, finding, picture)

if __name__ == "__main__":
    sys.exit(main())
