"""Tables for training, validation and test that are given apart, read as one table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from plait.errors import TableError
from plait.table.conventions.plain import as_texts
from plait.table.read import read
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

    parts = []
    for side, table in tables.items():
        parts.append(Part(side, table.name, table.root, len(table)))
    data = _joined([table.data for table in tables.values()])
    return Table(data, train.root, train.name, parts=tuple(parts))


def _joined(tables: list[pa.Table]) -> pa.Table:
    """Return the rows of all tables. A column that a table lacks is missing in its rows."""
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        pass

    kinds: dict[str, set[pa.DataType]] = {}
    for table in tables:
        for field in table.schema:
            kinds.setdefault(field.name, set()).add(field.type)
    alike = []
    for table in tables:
        for number, name in enumerate(table.column_names):
            column = table.column(number)
            if len(kinds[name]) > 1 and not pa.types.is_nested(column.type):
                table = table.set_column(number, name, as_texts(column))
        alike.append(table)
    try:
        return pa.concat_tables(alike, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise TableError(f"the tables given apart have columns of different types: {error}") from error
