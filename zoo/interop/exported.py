"""What an export came to."""

from dataclasses import dataclass
from pathlib import Path

from zoo.interop.agreement import Agreement
from zoo.interop.calibration import Choice


@dataclass(frozen=True)
class Exported:
    """What was written. agreement: None where no images were at hand. choice: how whole numbers were calibrated."""

    path: Path
    format: str
    file_bytes: int
    agreement: Agreement | None
    choice: Choice | None = None
