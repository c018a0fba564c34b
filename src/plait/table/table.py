"""A table in memory, and where its cells come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike

from plait.errors import TableError, nearest
from plait.table.problems import Problem

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Source:
    """Where a column's cells come from.

    That is its name, the folder that relative paths are resolved against, and the store of prepared media
    (a `cells.Store`). With `part` the cells are read out of those of another column, as the sound of a
    video is; one that has no sound is then no problem.
    """

    column: str
    root: Path
    progress: Progress = lambda n: None
    store: Any = None
    part: bool = False


@dataclass(frozen=True)
class Table:
    """An Arrow table, the folder that its relative paths are resolved against, and its name in messages.

    `bad` has, by column, the rows of cells that do not fit the column's convention, and why. They are null in
    `data`.
    """

    data: pa.Table
    root: Path
    name: str
    bad: Mapping[str, Mapping[int, str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.data.num_rows)

    def column(self, name: str) -> pa.ChunkedArray:
        """Return the column of this name. Raises `TableError` with the nearest name if there is none."""
        if self.data.schema.get_field_index(name) < 0:
            raise TableError(f"{self.name} has no column '{name}': {nearest(name, self.data.column_names)}")
        return self.data.column(name)

    def take(self, rows: ArrayLike) -> Table:
        """Return the table of these row numbers, in their order."""
        row_numbers = np.asarray(rows, dtype=np.int64)
        bad = {}
        for column, reasons in self.bad.items():
            moved = {place: reasons[row] for place, row in enumerate(row_numbers.tolist()) if row in reasons}
            bad[column] = moved
        return Table(self.data.take(pa.array(row_numbers)), self.root, self.name, bad)

    def problems(self, column: str) -> list[Problem]:
        """Return the cells of a column that do not fit its convention."""
        return [Problem(row, column, "", reason) for row, reason in self.bad.get(column, {}).items()]


def only_column(table: Table, column: str | None, what: str) -> str:
    """Return `column`, or the name of the table's only one. Raises `TableError` if it has several."""
    if column is None and len(table.data.column_names) != 1:
        raise TableError(
            f"{table.name} has {', '.join(table.data.column_names)}: say which one holds the {what} "
            f"(column=, --column)"
        )
    return column or str(table.data.column_names[0])
