"""Every error that plait raises on purpose.

    PlaitError
    ├── TableError          a table that cannot be read, or lacks what was asked of it
    ├── BadCellsError       cells that cannot be read, more of them than is allowed
    ├── RecipeError         a recipe, option or component that does not exist or does not fit
    ├── ArtifactError       a folder that is no trained model, or not one of this version
    ├── TrainingError       training that cannot go on (no labelled rows, a loss that is not finite)
    └── Interrupted         the user pressed Ctrl-C; the message says how to go on

`BadCell` is not among them: it marks one cell, is always caught by the column that loads it, and ends up in
`problems.csv`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PlaitError(Exception):
    """The base of all errors that a user can act on. Its text says what was expected, what came, and
    what to do.
    """


class TableError(PlaitError):
    """A table, a column or a file of a table cannot be read or written."""


class BadCellsError(PlaitError):
    """More cells cannot be read than the caller allows."""


class RecipeError(PlaitError):
    """An option or a choice of components does not fit, or does not fit the table."""


class ArtifactError(PlaitError):
    """A folder of a run or an index is damaged, incomplete or of another version."""


class TrainingError(PlaitError):
    """Training cannot begin or go on: labels are missing or of the wrong kind, or a loss is not finite."""


class Interrupted(PlaitError):
    """The user stopped the run. A checkpoint may be left."""


class BadCell(Exception):
    """One cell could not be read. `reason` is shown to the user; `file` names the file, where there is
    one.
    """

    def __init__(self, reason: str, file: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.file = file


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message: the valid name nearest to `name`, or all of them when none is near.

    >>> nearest("lstn", ["cnn", "lstm"])
    "did you mean 'lstm'?"
    """
    known = list(known)
    folded = {k.casefold(): k for k in reversed(known)}
    close = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{folded[close[0]]}'?"
    if not known:
        return "there are none."
    shown = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    return f"there are: {shown}."
