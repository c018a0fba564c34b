"""Give columns of strings the type that their convention reads. For now: the plan will do so instead."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from plait.table.conventions.base import NULLS, UNKNOWN, Convention, evenly, is_text, without_marks
from plait.table.conventions.infer import NEARLY, SAMPLE
from plait.table.conventions.number import Number
from plait.table.conventions.plain import Plain
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
    convention = _convention(without_marks(cells).drop_null())
    if convention is None or (isinstance(convention, Number) and convention.unit):
        return cells
    reading = convention.read(cells)
    return without_marks(cells) if reading.bad else reading.cells


def _convention(filled: pa.ChunkedArray) -> Convention | None:
    """Return the convention of truth values or of numbers, unless the numbers are codes."""
    sampled = evenly(filled, SAMPLE)
    for convention in (Truth, Number):
        if not convention.recognise(sampled, UNKNOWN, NEARLY):
            continue
        recognised = convention.recognise(filled, UNKNOWN)
        if recognised:
            return None if Plain.recognise(filled, UNKNOWN) else recognised.convention
    return None
