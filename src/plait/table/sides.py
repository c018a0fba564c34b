"""Tables for training, validation and test that are given apart, read as one table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from plait.table.cells import joined
from plait.table.read import IN_MEMORY, read
from plait.table.table import Part, Table


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
    """Read the tables and join them. Each is a part of the joined table, with its own name, folder and rows.

    A column that has numbers in one table and words in another comes as strings: training decides later what
    it is. Raises `TableError` when a table cannot be read.
    """
    tables = {}
    for side, source in sources.sides().items():
        if source is not None:
            tables[side] = read(source, sources.root)
    train = tables["train"]
    if len(tables) == 1:
        return train

    sides = []
    notes: list[str] = []
    tables_by_title = {}
    for side, table in tables.items():
        title = f"the {side} table"
        name = title if table.name == IN_MEMORY else table.name
        sides.append(Part(side, name, table.root, len(table)))
        notes += table.notes
        tables_by_title[title] = table.data
    rows = joined(tables_by_title)
    return Table(rows, train.root, train.name, tuple(notes), parts=tuple(sides))
