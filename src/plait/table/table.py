"""A table in memory, and where its cells come from."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
class Part:
    """One of several tables that were joined: its side of the split, its name, folder and number of rows."""

    side: str
    name: str
    root: Path
    rows: int


@dataclass(frozen=True)
class Table:
    """An Arrow table, the folder that its relative paths are resolved against, and its name in messages.

    `notes` has what the user should know of how it was read: the encoding, lines that were left out.
    `bad` has, by column, the rows of cells that do not fit the column's convention, and why. They are null in
    `data`. `parts` are the tables that it was joined from, in the order of their rows; none if it is one.
    `lacks` has, by column, an array (rows,) of bool: it is True for rows of tables without this column.
    """

    data: pa.Table
    root: Path
    name: str
    notes: tuple[str, ...] = ()
    bad: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    lacks: Mapping[str, np.ndarray] = field(default_factory=dict)

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
        # Reasons go with their cells, which have new row numbers now.
        for column, reasons in self.bad.items():
            moved = {}
            for new_row, row in enumerate(row_numbers.tolist()):
                if row in reasons:
                    moved[new_row] = reasons[row]
            bad[column] = moved
        rows_taken = self.data.take(pa.array(row_numbers))
        lacks = {column: is_lacking[row_numbers] for column, is_lacking in self.lacks.items()}
        return Table(rows_taken, self.root, self.name, self.notes, bad, lacks=lacks)

    def slice(self, first: int, count: int) -> Table:
        """Return up to `count` rows from row `first` on, as a table of no parts."""
        end = min(first + count, len(self))
        bad = {}
        for column, reasons in self.bad.items():
            bad[column] = {row - first: reason for row, reason in reasons.items() if first <= row < end}
        lacks = {column: is_lacking[first:end] for column, is_lacking in self.lacks.items()}
        return replace(self, data=self.data.slice(first, end - first), bad=bad, parts=(), lacks=lacks)

    def has(self, column: str) -> np.ndarray:
        """Return which rows are of tables that have a column, (rows,) of bool; it may be empty in them."""
        if column not in self.data.column_names:
            return np.zeros(len(self), dtype=bool)
        return ~self.lacks.get(column, np.zeros(len(self), dtype=bool))

    def sides(self) -> np.ndarray:
        """Return each row's side of the split, (rows,) of strings, by the part that it is in."""
        names = [part.side for part in self.parts]
        return np.repeat(names, [part.rows for part in self.parts])

    def located(self, problems: Iterable[Problem]) -> list[Problem]:
        """Return problems with the rows of the tables that this one was joined from."""
        located = list(problems)
        if self.parts:
            for number, problem in enumerate(located):
                name, row = self.place(problem.row)
                located[number] = replace(problem, table=name, row=row)
        return located

    def title(self) -> str:
        """Return the name of the table, or of its parts with their numbers of rows."""
        if not self.parts:
            return self.name
        return " and ".join(f"{part.name} ({part.rows:,} rows)" for part in self.parts)

    def place(self, row: int) -> tuple[str, int]:
        """Return the name of the table that a row comes from, and its number there."""
        for part in self.parts:
            if row < part.rows:
                return part.name, row
            row -= part.rows
        return self.name, row

    def with_full_paths(self, columns: Iterable[str]) -> Table:
        """Make paths in some columns absolute where a part has another folder than the table."""
        if all(part.root == self.root for part in self.parts):
            return self
        data = self.data
        for name in columns:
            number = data.schema.get_field_index(name)
            if number >= 0:
                data = data.set_column(number, name, self._full_paths(data.column(number)))
        return replace(self, data=data)

    def _full_paths(self, cells: pa.ChunkedArray) -> pa.ChunkedArray:
        # Only parts from another folder are copied.
        pieces: list[pa.Array] = []
        first = 0
        for part in self.parts:
            rows = cells.slice(first, part.rows)
            pieces += rows.chunks if part.root == self.root else [_full_paths(rows, part.root)]
            first += part.rows
        return pa.chunked_array(pieces, cells.type)

    def problems(self, column: str) -> list[Problem]:
        """Return the cells of a column that do not fit its convention."""
        return [Problem(row, column, "", reason) for row, reason in self.bad.get(column, {}).items()]


def _full_paths(cells: pa.ChunkedArray, root: Path) -> pa.Array:
    """Return cells with absolute paths: strings, or lists or dicts of them. Other cells stay."""

    # Content in text form, and addresses of the web, are no paths.
    def full(cell: object) -> object:
        if isinstance(cell, str) and not cell.startswith("data:") and "://" not in cell:
            return os.path.join(root, cell)
        if isinstance(cell, list):
            return [full(entry) for entry in cell]
        if isinstance(cell, dict) and cell.get("path") and not cell.get("bytes"):
            return {**cell, "path": full(cell["path"])}
        return cell

    return pa.array([full(cell) for cell in cells.to_pylist()], cells.type)


def stacked(tables: Sequence[Table]) -> Table:
    """Return the rows of several tables as one, which is called and resolves paths as the first.

    Its rows lack the columns that their tables lack. Raises `pyarrow.ArrowInvalid` for columns of two types.
    """
    bad: dict[str, dict[int, str]] = {}
    first = 0
    for table in tables:
        for column, reasons in table.bad.items():
            moved = {row + first: reason for row, reason in reasons.items()}
            bad.setdefault(column, {}).update(moved)
        first += len(table)
    data = pa.concat_tables([table.data for table in tables], promote_options="default")
    lacks = {}
    for column in data.column_names:
        lacks[column] = np.concatenate([~table.has(column) for table in tables])
    return Table(data, tables[0].root, tables[0].name, bad=bad, lacks=lacks)


def only_column(table: Table, column: str | None, what: str) -> str:
    """Return `column`, or the name of the table's only one. Raises `TableError` if it has several."""
    if column is None and len(table.data.column_names) != 1:
        raise TableError(
            f"{table.name} has {', '.join(table.data.column_names)}: say which one holds the {what} "
            f"(column=, --column)"
        )
    return column or str(table.data.column_names[0])
