"""A table in memory, and where its cells come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from numpy.typing import ArrayLike

from plait.errors import TableError, nearest

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

    `notes` has what the user should know of how it was read: the encoding, lines that were left out.
    """

    data: pa.Table
    root: Path
    name: str
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return int(self.data.num_rows)

    def column(self, name: str) -> pa.ChunkedArray:
        """Return the column of this name. Raises `TableError` with the nearest name if there is none."""
        if self.data.schema.get_field_index(name) < 0:
            raise TableError(f"{self.name} has no column '{name}': {nearest(name, self.data.column_names)}")
        return self.data.column(name)

    def take(self, rows: ArrayLike) -> Table:
        """Return the table of these row numbers, in their order."""
        return Table(self.data.take(pa.array(rows, pa.int64())), self.root, self.name, self.notes)


def only_column(table: Table, column: str | None, what: str) -> str:
    """Return `column`, or the name of the table's only one. Raises `TableError` if it has several."""
    if column is None and len(table.data.column_names) != 1:
        raise TableError(
            f"{table.name} has {', '.join(table.data.column_names)}: say which one holds the {what} "
            f"(column=, --column)"
        )
    return column or str(table.data.column_names[0])
