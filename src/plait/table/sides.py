"""Tables for training, validation and test that are given apart, read as one table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from plait.errors import TableError
from plait.table.cells import joined
from plait.table.read import read
from plait.table.table import Table

SIDE = "plait_split"  # the column that says which table a row comes from


@dataclass(frozen=True)
class Sources:
    """What a caller gave as tables (see `read`), and the `root` of their relative paths."""

    train: object
    valid: object = None
    test: object = None
    root: str | Path | None = None

    def sides(self) -> dict[str, object]:
        """Return the sources by side; None where there is none."""
        return {"train": self.train, "valid": self.valid, "test": self.test}


def read_sides(sources: Sources) -> Table:
    """Read the tables and join them. With more than one, the column `SIDE` says where a row comes from.

    Raises `TableError` when they cannot be read, or do not fit each other.
    """
    tables = {}
    for side, source in sources.sides().items():
        if source is not None:
            tables[side] = read(source, sources.root)
    train = tables["train"]
    if len(tables) == 1:
        return train

    data = {}
    for side, table in tables.items():
        if table.root != train.root:
            raise TableError(
                f"the {side} table's paths begin in {table.root}, the training table's in {train.root}; give "
                f"root= for both"
            )
        data[f"the {side} table"] = table.data.append_column(SIDE, pa.array([side] * len(table)))
    notes = tuple(note for table in tables.values() for note in table.notes)
    return Table(joined(data), train.root, train.name, notes)
