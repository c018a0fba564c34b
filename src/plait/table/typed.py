"""Give columns of strings the type that their convention reads. For now: the plan will do so instead."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from plait.table.conventions.base import NULLS, is_text, without_marks
from plait.table.conventions.infer import infer_convention
from plait.table.conventions.number import Number
from plait.table.conventions.truth import Truth


def typed(table: pa.Table) -> pa.Table:
    """Return a table with numbers and truth values where all strings of a column are such."""
    for number, name in enumerate(table.column_names):
        cells = table.column(number)
        if is_text(cells.type):
            table = table.set_column(number, name, _typed(cells))
    return table


def _typed(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return cells as their convention reads them. With bad ones all stay strings, for a modality to list."""
    if pc.all(pc.is_in(cells.drop_null(), pa.array(NULLS))).as_py():
        return pa.chunked_array([pa.nulls(len(cells), pa.string())])
    convention = infer_convention(cells).convention
    if not isinstance(convention, (Number, Truth)):
        return cells
    if isinstance(convention, Number) and convention.unit:
        return cells
    reading = convention.read(cells)
    return without_marks(cells) if reading.bad else reading.cells
