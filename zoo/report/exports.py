"""The table of one exported file."""

from zoo.interop.exported import Exported
from zoo.report.numbers import exact_text, percent_text
from zoo.report.pages import facts_table
from zoo.report.tables import Table, Value


def export_table(exported: Exported) -> Table:
    """What was written, and what it made of real images beside the network that it came from."""
    facts: dict[str, tuple[Value, str]] = {
        "file": (str(exported.path), str(exported.path)),
        "format": (exported.format, exported.format),
        "file_bytes": (exported.file_bytes, exact_text(exported.file_bytes)),
    }
    if exported.choice is not None:
        facts["calibrated_by"] = (exported.choice.method, exported.choice.method)
    found = exported.agreement
    if found is not None:
        differ, largest = found.largest_difference, found.largest_logit
        facts |= {
            "images_compared": (found.images, exact_text(found.images)),
            "same_class": (found.agreement, percent_text(found.agreement)),
            "largest_difference": (differ, f"{differ:.2g} in logits of up to {largest:.3g}"),
            "correct": (found.correct, f"{exact_text(found.correct)}, {percent_text(found.correct / found.images)}"),
            "exported_correct": (
                found.exported_correct,
                f"{exact_text(found.exported_correct)}, {percent_text(found.exported_correct / found.images)}",
            ),
        }
    return facts_table(facts, name="export", title="Export")
