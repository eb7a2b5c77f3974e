"""Everything a user can get wrong, as one tree of exceptions.

Each message says what came, what was allowed and the next step. The command line prints it as one line and exits
with status 2. Any other exception that reaches the user is a bug in this library and keeps its traceback.
"""

import difflib
from collections.abc import Iterable


class ZooError(Exception):
    """Base of all errors that a user can cause and mend."""


class UnknownNameError(ZooError):
    """A model, data set, recipe, column or field that does not exist."""


class ImageSizeError(ZooError):
    """An image size, or number of channels, that a network cannot take."""


class DataError(ZooError):
    """A data set that cannot be had, or whose files are damaged."""


class FileFormatError(ZooError):
    """A file whose bytes are not what its format asks for."""


class WeightError(ZooError):
    """Weights that do not exist, or that do not fit their card or their architecture."""


class CheckpointError(ZooError):
    """A run folder that cannot be resumed as asked."""


class RecipeError(ZooError):
    """A recipe, or an override of one, that cannot be trained."""


class DivergedError(ZooError):
    """Training whose loss or weights are no longer finite."""


class ExportError(ZooError):
    """A network that a format cannot express, or that an exported file does not compute."""


class MissingPackageError(ZooError):
    """An optional package that is not installed."""


def unknown(kind: str, name: str, known: Iterable[str], command: str | None = None) -> UnknownNameError:
    """Build the error for `name`, which is none of `known`.

    kind: what the name was meant to be, with its article left out ("model", "data set").
    command: a command that prints all the names; without one the message lists them itself.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
    guess = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    every = f" `{command}` prints them all." if command else f" Known: {', '.join(names) or 'none'}."
    return UnknownNameError(f"no {kind} is called {name!r}.{guess}{every}")


class CompressionError(ZooError):
    """A method of compression is configured wrongly, cannot treat what it was given, or cannot keep its promise."""
