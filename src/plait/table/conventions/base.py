"""What a convention is: how one column writes its values.

A cell has no convention, a column has. `1,5` is fifteen tenths in one column and a list in another. A
convention is inferred once, from all training cells of a column. It is stored with the model. Every later
cell of the column is read by it, from whatever file or object it comes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

FITS = 0.95  # the share of a column's cells that a convention must read to be the column's own

# Programs write these for a missing cell.
NULLS = ("", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "none", "#N/A", "<NA>", "NaT", "nil")

# People write these for a missing cell, but only beside numbers, dates and truth values. Beside words, each
# is a value like any other.
MARKS = ("?", ".", "-", "--", "–", "—")


@dataclass(frozen=True)
class Style:
    """What a table's other columns, or the user, say about ambiguous cells. None: nothing is known.

    `decimal` decides `1,234`, and `day_first` decides `05/06/2023`.
    """

    decimal: Literal[".", ","] | None = None
    day_first: bool | None = None


UNKNOWN = Style()


@dataclass(frozen=True)
class Reading:
    """Cells as a convention reads them, in one type. A cell that is missing or bad is null.

    `bad` holds the rows of bad cells, and why each is bad.
    """

    cells: pa.ChunkedArray
    bad: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Recognised:
    """A convention that reads a column, the share of cells that it reads, and how cells look.

    `other` names a second reading that fits as well; empty if there is none. `evidence` is what the column
    says about the table's other columns.
    """

    convention: Convention
    share: float = 1.0
    reason: str = ""
    other: str = ""
    evidence: Style = UNKNOWN


class Convention(BaseModel, ABC):
    """How one column writes its values. Its fields are all that a model stores of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @abstractmethod
    def read(self, cells: pa.ChunkedArray) -> Reading:
        """Read cells of any Arrow type. Never raises for a cell: a cell that does not fit is bad."""

    @classmethod
    @abstractmethod
    def recognise(cls, texts: pa.ChunkedArray, style: Style, least: float = FITS) -> Recognised | None:
        """Return the convention that reads at least this share of strings; None if there is none."""

    @abstractmethod
    def described(self) -> str:
        """Return the convention in a few words, to stand behind "expected"."""


def is_text(kind: pa.DataType) -> bool:
    """Return whether cells of an Arrow type are strings."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def without_marks(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Trim strings, and turn the marks of missing cells into nulls."""
    trimmed = pc.utf8_trim_whitespace(texts)
    is_mark = pc.is_in(trimmed, pa.array([*NULLS, *MARKS]))
    return pc.if_else(is_mark, None, trimmed)


def percent(share: float) -> str:
    """Return a share as a percentage that is rounded down: 100% means all cells."""
    return f"{math.floor(share * 1000) / 10:g}%"


def shown(cell: object) -> str:
    """Return a cell as a message shows it, at most 40 characters of it."""
    text = repr(cell)
    return text if len(text) <= 40 else text[:37] + "..."


def by_distinct(texts: pa.ChunkedArray) -> tuple[pa.Array, pa.Array]:
    """Return the distinct strings, and for each row the number of its own (null where the cell is).

    Columns repeat their cells, so that parsing each distinct one saves most of the work.
    """
    # In one piece first: a dictionary for each of many chunks would have to be unified, which takes ten times
    # as long. Strings of more than 2 GB need wide offsets for that.
    joined = texts.combine_chunks()
    if isinstance(joined, pa.ChunkedArray):
        joined = pc.cast(texts, pa.large_string()).combine_chunks()
    if isinstance(joined, pa.ChunkedArray):  # an empty column has no chunk
        joined = pa.array([], texts.type)
    encoded = joined.dictionary_encode()
    return encoded.dictionary, encoded.indices


def read_by_row(values: pa.Array, row_numbers: pa.Array, cells: pa.ChunkedArray, expected: str) -> Reading:
    """Return the value of each row's string. Rows whose string has none are bad.

    `values` are those of the distinct strings, and `row_numbers` what `by_distinct` returns with them.
    `cells` are the column as it came, and `expected` describes a good cell. Both are for messages.
    """
    bad = described_bad(bad_rows(values, row_numbers), cells, expected)
    return Reading(chunked(values.take(row_numbers)), bad)


def bad_rows(values: pa.Array, row_numbers: pa.Array) -> list[int]:
    """Return the rows that have a string, but no value."""
    has_no_value = pc.is_null(values).take(row_numbers)
    return pc.indices_nonzero(has_no_value).to_pylist()


def described_bad(rows: list[int], cells: pa.ChunkedArray, expected: str) -> dict[int, str]:
    """Return what was expected in each of these rows, and what came."""
    bad = {}
    for row in rows:
        bad[row] = f"expected {expected}, came {shown(cells[row].as_py())}"
    return bad


def share_of_rows(fits: np.ndarray, row_numbers: pa.Array) -> float:
    """Return the share of rows whose string fits. `fits` is (N,) for N distinct strings."""
    return float(fits[row_numbers.to_numpy()].mean())


def as_numpy(values: pa.Array) -> np.ndarray:
    """Return an Arrow array as NumPy has it. Truth values and nulls need a copy, which others do not."""
    return values.to_numpy(zero_copy_only=False)


def chunked(cells: pa.Array) -> pa.ChunkedArray:
    """Return an array as a column of one chunk."""
    return pa.chunked_array([cells])


def all_bad(cells: pa.ChunkedArray, reason: str, kind: pa.DataType) -> Reading:
    """Return a reading in which every cell that is not null is bad."""
    rows = pc.indices_nonzero(cells.is_valid()).to_pylist()
    nulls = chunked(pa.nulls(len(cells), kind))
    return Reading(nulls, dict.fromkeys(rows, reason))


def evenly(cells: pa.ChunkedArray, count: int) -> pa.ChunkedArray:
    """Return up to `count` cells, spread evenly over the column."""
    if len(cells) <= count:
        return cells
    rows = np.arange(count) * len(cells) // count
    return cells.take(pa.array(rows))
