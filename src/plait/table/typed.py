"""Read a table by the conventions of its columns: every later step sees numbers, dates, words, lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from plait.table.conventions.base import Convention
from plait.table.table import Table


def read_cells(table: Table, conventions: Mapping[str, Convention]) -> Table:
    """Return the table with each column's cells as its convention reads them.

    Cells that do not fit are null, and are in the table's `bad`. Columns without a convention stay.
    """
    columns = table.data
    bad = dict(table.bad)
    for name, convention in conventions.items():
        number = columns.schema.get_field_index(name)
        # A later table may lack columns that training had.
        if number < 0:
            continue
        reading = convention.read(columns.column(number))
        columns = columns.set_column(number, name, reading.cells)
        if reading.bad:
            bad[name] = reading.bad
    return replace(table, data=columns, bad=bad)
