"""What a command writes: results to stdout, everything else to stderr; a reader that left early is no error."""

import os
import sys


def write(text: str) -> None:
    """Write results to stdout. OSError passes on, but for that of a closed pipe."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        drop_output()
        if not isinstance(error, BrokenPipeError):
            error.filename = "standard output"
            raise


def drop_output() -> None:
    """Send what is still to be flushed nowhere, so that the interpreter's exit does not complain of a closed pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def chat(text: str) -> None:
    """Write a line to stderr, at once."""
    print(text, file=sys.stderr, flush=True)
