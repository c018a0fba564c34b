"""Lists that are written as text: of JSON, Python and NumPy, and names of files between semicolons."""

from __future__ import annotations

import re
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from plait.table.conventions.base import (
    FITS,
    NULLS,
    Convention,
    Reading,
    Recognised,
    Style,
    all_bad,
    by_distinct,
    chunked,
    is_text,
    shown,
    without_marks,
)

IN_BRACKETS = r"(?s)^\([^\[\]()]*\)$|^\[.*\]$"

# One entry of a list: quoted as Python or JSON quotes it, or a bare word or number. NumPy leaves out commas.
ENTRY = re.compile(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|([^\s,'"]+)""", re.DOTALL)

FILES = r"^[^;|,]+\.[A-Za-z0-9]{2,4}(?: *[;|,] *[^;|,]+\.[A-Za-z0-9]{2,4})*$"
SEPARATORS = (";", "|", ",")


class Listing(Convention):
    """A column of lists in text form, such as [0.1, 0.2], ['red', 'blue'] or a.png;b.png.

    `of` says what the entries are. `separator` stands between entries without brackets; "" with brackets.
    """

    kind: Literal["list"] = "list"
    of: Literal["numbers", "texts"] = "texts"
    separator: str = ""

    def described(self) -> str:
        """Return an example of a list."""
        if self.separator:
            return f"names between '{self.separator}'"
        return "a list of numbers such as [0.5, 1]" if self.of == "numbers" else "a list such as ['a', 'b']"

    def read(self, cells: pa.ChunkedArray) -> Reading:
        """Return lists of float64, or of strings."""
        kind = cells.type
        entries = pa.float64() if self.of == "numbers" else pa.string()
        if pa.types.is_nested(kind):
            return Reading(cells)
        if not is_text(kind):
            return all_bad(cells, f"expected {self.described()}, came {kind}", pa.list_(entries))
        texts = cells if self.separator else without_marks(cells)
        distinct, row_numbers = by_distinct(texts)
        lists = self._lists(distinct)
        if self.of == "texts" and lists.null_count == len(lists):
            return Reading(cells)  # no lists: single files, or labels such as red|large
        read = lists.take(row_numbers)

        bad = {}
        for row in pc.indices_nonzero(pc.and_(row_numbers.is_valid(), read.is_null())).to_pylist():
            bad[row] = f"expected {self.described()}, came {shown(cells[row].as_py())}"
        return Reading(chunked(read), bad)

    def _lists(self, texts: pa.Array) -> pa.Array:
        """Return the lists that distinct strings write; null for those that write none."""
        if self.of == "numbers":
            fast = _plain_lists_of_numbers(texts)
            if fast is not None:
                return fast
        lists: list[list[float | None] | list[str | None] | None] = []
        for text in texts.to_pylist():
            entries = self._entries(text)
            lists.append(_floats(entries) if entries is not None and self.of == "numbers" else entries)
        return pa.array(lists, pa.list_(pa.float64() if self.of == "numbers" else pa.string()))

    def _entries(self, text: str) -> list[str | None] | None:
        """Return the entries that a string writes; None if it is no list."""
        if self.separator:
            return [entry.strip() or None for entry in text.split(self.separator)]
        if len(text) < 2 or text[0] + text[-1] not in ("[]", "()"):
            return None
        return _entries_in_brackets(text[1:-1])

    @classmethod
    def recognise(cls, texts: pa.ChunkedArray, style: Style, least: float = FITS) -> Recognised | None:
        """Recognise strings of which most are lists in brackets, or names of files between separators."""
        filled = without_marks(texts).drop_null()
        if not len(filled):
            return None
        return cls._in_brackets(filled, least) or cls._of_files(filled, least)

    @classmethod
    def _in_brackets(cls, filled: pa.ChunkedArray, least: float) -> Recognised | None:
        if pc.mean(pc.match_substring_regex(filled, IN_BRACKETS)).as_py() < least:
            return None
        distinct, row_numbers = by_distinct(filled)
        for convention in (cls(of="numbers"), cls(of="texts")):
            is_list = convention._lists(distinct).is_valid().take(row_numbers)
            share = pc.mean(is_list).as_py()
            if share >= least:
                return Recognised(convention, share, f"lists of {convention.of} in text form")
        return None

    @classmethod
    def _of_files(cls, filled: pa.ChunkedArray, least: float) -> Recognised | None:
        """Recognise names of files in several of which a separator stands."""
        if pc.mean(pc.match_substring_regex(filled, FILES)).as_py() < least:
            return None
        for separator in SEPARATORS:
            if pc.any(pc.match_substring(filled, separator)).as_py():
                return Recognised(cls(separator=separator), 1.0, f"names of files between '{separator}'")
        return None


def _entries_in_brackets(text: str) -> list[str | None] | None:
    """Return the entries between brackets; None for a nested list, or for what is no list."""
    entries: list[str | None] = []
    end = 0
    for match in ENTRY.finditer(text):
        if text[end : match.start()].strip(" \t\r\n,"):
            return None
        end = match.end()
        single, double, bare = match.groups()
        if bare is not None:
            if bare[0] in "[({":
                return None
            entries.append(None if bare in NULLS else bare)
        else:
            entries.append(_unescaped(single if single is not None else double))
    return None if text[end:].strip(" \t\r\n,") else entries


def _unescaped(text: str) -> str:
    """Return a quoted string without the backslashes before quotes, backslashes and line breaks."""
    if "\\" not in text:
        return text
    return re.sub(r"\\(.)", lambda match: {"n": "\n", "t": "\t", "r": "\r"}.get(match[1], match[1]), text)


def _floats(entries: list[str | None]) -> list[float | None] | None:
    """Return entries as numbers; None if one is not a number."""
    floats: list[float | None] = []
    for entry in entries:
        try:
            floats.append(None if entry is None else float(entry))
        except ValueError:
            return None
    return floats


def _plain_lists_of_numbers(texts: pa.Array) -> pa.Array | None:
    """Return lists of numbers, parsed all at once; None if one string is not as JSON or NumPy write them."""
    if not pc.all(pc.match_substring_regex(texts, r"^(?:\[[-+\d.eE,\s]+\]|\([-+\d.eE,\s]+\))$")).as_py():
        return None
    inner = pc.utf8_trim(texts, "[]() \t\r\n,")
    split = pc.split_pattern_regex(inner, r"\s*,\s*|\s+")
    try:
        flat = pc.cast(split.flatten(), pa.float64())
    except pa.ArrowInvalid:
        return None
    return pa.ListArray.from_arrays(split.offsets, flat)
