"""Infer the convention of a column from its cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from plait.table.conventions.base import (
    NULLS,
    UNKNOWN,
    Convention,
    Recognised,
    Style,
    evenly,
    is_text,
    without_marks,
)
from plait.table.conventions.clock import Clock
from plait.table.conventions.content import Content
from plait.table.conventions.date import Date
from plait.table.conventions.listing import Listing
from plait.table.conventions.number import Number
from plait.table.conventions.plain import Plain
from plait.table.conventions.truth import Truth

# As it is stored with a model.
AnyConvention: TypeAlias = Annotated[
    Truth | Number | Date | Clock | Listing | Content | Plain, Field(discriminator="kind")
]

# In this order: 20230205 is rather a date than a number.
OF_TEXTS = (Truth, Listing, Content, Date, Clock, Number)

# 20230205, 202302051328, 20230205132859
COMPACT_DATE = r"^(18|19|20|21)\d{2}[01]\d[0-3]\d([0-2]\d[0-5]\d([0-5]\d)?)?$"

SAMPLE = 500  # cells that a convention is tried on before all cells are
NEARLY = 0.85  # the share of the sample from which all cells are tried


def infer_convention(cells: pa.ChunkedArray, style: Style = UNKNOWN) -> Recognised:
    """Return the convention that most of a column's cells have; that of words if no other fits."""
    if not is_text(cells.type):
        return Recognised(_of_type(cells.type))
    filled = without_marks(cells).drop_null()
    if not len(filled):
        # Nothing but NA is no word: such a column has no cells.
        trimmed = pc.utf8_trim_whitespace(cells.drop_null())
        is_empty = pc.all(pc.is_in(trimmed, pa.array(NULLS))).as_py()
        return Recognised(Number() if is_empty else Plain())
    return _of_texts(filled, style)


def _of_texts(filled: pa.ChunkedArray, style: Style) -> Recognised:
    """Return the convention of strings. A sample decides first: most conventions fail on it."""
    sampled = evenly(filled, SAMPLE)
    for convention in _candidates(sampled):
        if not convention.recognise(sampled, style, NEARLY):
            continue
        recognised = convention.recognise(filled, style)
        if recognised is None:
            continue
        # One postcode with a zero in front makes all of them codes.
        codes = Plain.recognise(filled, style) if convention is Number else None
        return codes or recognised
    codes = Plain.recognise(sampled, style) and Plain.recognise(filled, style)
    return codes or Recognised(Plain())


def _candidates(sampled: pa.ChunkedArray) -> tuple[type[Convention], ...]:
    """Return the conventions that strings may have. Plain numbers of 8, 12 or 14 digits may be dates."""
    try:
        pc.cast(sampled, pa.float64())
    except pa.ArrowInvalid:
        return OF_TEXTS
    has_eight = pc.match_substring_regex(sampled, COMPACT_DATE)
    return (Date, Number) if pc.all(has_eight).as_py() else (Number,)


def _of_type(kind: pa.DataType) -> Convention:
    """Return the convention of cells that are no strings."""
    for is_kind, convention in _BY_TYPE:
        if is_kind(kind):
            return convention()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _of_entries(kind.value_type)
    return Plain()


def _of_entries(kind: pa.DataType) -> Convention:
    """Return the convention of lists with entries of a type; lists of files may come as they are only."""
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return Listing(of="numbers")
    return Listing(of="texts") if is_text(kind) else Plain()


_BY_TYPE: tuple[tuple[Callable[[pa.DataType], bool], type[Convention]], ...] = (
    (pa.types.is_boolean, Truth),
    (pa.types.is_integer, Number),
    (pa.types.is_floating, Number),
    (pa.types.is_decimal, Number),
    (pa.types.is_timestamp, Date),
    (pa.types.is_date, Date),
    (pa.types.is_time, Clock),
    (pa.types.is_duration, Clock),
)
