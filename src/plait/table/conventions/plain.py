"""Words, codes, lists and bytes: cells that are what they are."""

from __future__ import annotations

from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from plait.table.conventions.base import (
    FITS,
    Convention,
    Reading,
    Recognised,
    Style,
    by_distinct,
    is_text,
    without_marks,
)

# Codes that Arrow would read as numbers: 007, postcodes with leading zeros, +49 30 1234, and 57e37 among
# others of its kind, which nobody writes for a number.
CODE = r"^(?:[+-]?0\d+|\+\d[\d ()/\-]{6,}|\d+[eE]\d{2,})$"

# What stands beside codes in one column: digits, with the marks of telephone numbers.
LIKE_CODE = r"^[+\-]?\d[\d ()/\-]*$|^\d+[eE]\d{2,}$"

EXACT = 2**53  # float64 holds every whole number up to this one


class Plain(Convention):
    """A column of words: texts, categories, and paths of media.

    `width` is the number of digits of codes that all have as many. A number is filled with zeros to it: the
    code 00501 comes back as 501 from a program that takes it for a number.
    """

    kind: Literal["plain"] = "plain"
    width: int = 0

    def described(self) -> str:
        """Return what a cell is."""
        return f"a code of {self.width} digits" if self.width else "a text"

    def read(self, cells: pa.ChunkedArray) -> Reading:
        """Return strings, null where there is nothing but spaces: so a CSV file writes a missing cell.

        Lists and bytes, which media may be, stay as they are.
        """
        kind = cells.type
        if is_text(kind):
            return Reading(_without_blanks(cells))
        if pa.types.is_nested(kind) or _is_binary(kind):
            return Reading(cells)
        texts = as_texts(cells)
        if self.width and not pa.types.is_boolean(kind):
            texts = pc.utf8_lpad(texts, self.width, "0")
        return Reading(texts)

    @classmethod
    def recognise(cls, texts: pa.ChunkedArray, style: Style, least: float = FITS) -> Recognised | None:
        """Recognise codes: digits of which some would be lost in a number."""
        filled = without_marks(texts).drop_null()
        distinct, _ = by_distinct(filled)
        is_code = pc.match_substring_regex(distinct, CODE)
        if not pc.any(is_code).as_py():
            return None
        has_digits = pc.match_substring_regex(distinct, LIKE_CODE)
        if not pc.all(has_digits).as_py():
            return None
        code = distinct.filter(is_code)[0].as_py()
        return Recognised(cls(width=_common_width(distinct)), 1.0, f"codes, as in {code}")


def _without_blanks(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Turn strings of nothing but spaces into nulls. A column without any stays as it is."""
    is_blank = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 0)
    return pc.if_else(is_blank, None, texts) if pc.any(is_blank).as_py() else texts


def _common_width(codes: pa.Array) -> int:
    """Return the number of digits, if all codes are digits and have as many; else 0."""
    lengths = pc.unique(pc.utf8_length(codes)).to_pylist()
    are_digits = pc.all(pc.match_substring_regex(codes, r"^\d+$")).as_py()
    return lengths[0] if len(lengths) == 1 and are_digits else 0


def as_texts(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return cells of any plain type as strings. Whole numbers have no fraction: 3.0 is 3.

    A frame turns whole numbers into floats where a cell is missing.
    """
    kind = cells.type
    if pa.types.is_floating(kind):
        x = pc.cast(cells, pa.float64())
        x = pc.if_else(pc.is_nan(x), None, x)
        is_integer = pc.and_(pc.equal(pc.round(x), x), pc.less(pc.abs(x), EXACT))
        integers = pc.cast(pc.if_else(is_integer, x, None), pa.int64())
        return pc.coalesce(pc.cast(integers, pa.string()), pc.cast(x, pa.string()))
    if pa.types.is_null(kind):
        return pa.chunked_array([pa.nulls(len(cells), pa.string())])
    return pc.cast(cells, pa.string())


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))
