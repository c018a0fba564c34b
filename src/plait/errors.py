"""Every error that plait raises on purpose.

    PlaitError
    ├── TableError          a table that cannot be read or written, or lacks a column
    ├── BadCellsError       more cells that cannot be read than are allowed
    ├── RecipeError         a recipe, option or component that does not exist or does not fit
    ├── ArtifactError       a folder that is no trained model, damaged, or not of this version
    ├── OutputError         a file or a folder that cannot be written
    ├── TrainingError       training that cannot go on (no labelled rows, a loss that is not finite)
    └── Interrupted         Ctrl-C, SIGTERM or SIGHUP; the message says how to go on

`BadCell` is not among them. It marks one cell. The column that loads the cell always catches it, and lists it
in `problems.csv`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MAX_SHOWN = 20  # names in a message


class PlaitError(Exception):
    """The base of all errors that a user can act on.

    The message says what was expected, what came, and what to do.
    """


class TableError(PlaitError):
    """A table, a column or a file of a table cannot be read or written."""


class BadCellsError(PlaitError):
    """More cells cannot be read than are allowed."""


class RecipeError(PlaitError):
    """A recipe, an option or a component does not exist, or does not fit the table."""


class ArtifactError(PlaitError):
    """A folder of a run or an index is damaged, incomplete or of another version."""


class OutputError(PlaitError):
    """A file or a folder cannot be written: the disk is full or read-only, or something is in the way."""


class TrainingError(PlaitError):
    """Training cannot begin or go on: labels are missing or of the wrong kind, or a loss is not finite."""


class Interrupted(PlaitError):
    """The user or the system stopped the run. The message says what is saved and how to go on.

    `number` is that of the signal: 2 for Ctrl-C, 15 for SIGTERM.
    """

    def __init__(self, message: str, number: int = 2) -> None:
        super().__init__(message)
        self.number = number


class RenamedWarning(FutureWarning):
    """A recipe uses the old name of an option. The command line shows it as its other warnings."""


class BadCell(Exception):
    """One cell cannot be read. `reason` is shown to the user. `file` is the path, or "" if there is none."""

    def __init__(self, reason: str, file: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.file = file


def count(number: int, noun: str, plural: str = "") -> str:
    """Return a number and its noun. `plural` is the noun with an s if left out.

    >>> count(1, "row"), count(2000, "row"), count(0, "row has", "rows have")
    ('1 row', '2,000 rows', '0 rows have')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def nearest(name: str, valid_names: Iterable[str]) -> str:
    """Return the end of an error message: the valid name nearest to `name`, or all if none is near.

    >>> nearest("lstn", ["cnn", "lstm"])
    "did you mean 'lstm'?"
    """
    names = list(valid_names)

    # of names that differ only in case, the first one counts
    name_by_folded = {valid.casefold(): valid for valid in reversed(names)}
    close = difflib.get_close_matches(name.casefold(), name_by_folded, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{name_by_folded[close[0]]}'?"
    if not names:
        return "there are none."
    shown = ", ".join(names[:MAX_SHOWN])
    if len(names) > MAX_SHOWN:
        shown += ", ..."
    return f"there are: {shown}."
