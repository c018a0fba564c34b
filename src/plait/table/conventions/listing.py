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
    as_numpy,
    by_distinct,
    is_text,
    read_by_row,
    share_of_rows,
    without_marks,
)

IN_BRACKETS = r"(?s)^\([^\[\]()]*\)$|^\[.*\]$"

# How arrays show themselves in lists and in frames: array([1., 2.], dtype=float32), tensor([1., 2.]).
OF_ARRAY = r"(?s)^(?:(?:np|numpy|torch)\.)?(?:array|tensor)\((\[.*\])(?:,\s*[a-z_]+=.*)?\)$"
OF_SCALAR = r"\bnp\.[a-z]+[0-9]*_?\(([^()]*)\)"  # as in [np.float64(0.5), np.float64(1.0)]

# NumPy and torch print the ends of a long vector only: [0.1 0.2 ... 0.8 0.9].
ELIDED = r"^\[\s*[-+\d][^\[\]]*[\s,]\.\.\.[\s,][^\[\]]*\d\.?\s*\]$"

# One entry of a list: quoted as Python or JSON quotes it, or a bare word or number. NumPy leaves out commas.
ENTRY = re.compile(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|([^\s,'"]+)""", re.DOTALL)

BETWEEN_ENTRIES = " \t\r\n,"
ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}  # of letters; other characters stand for themselves

# Lists of numbers as JSON and NumPy write them. Arrow parses them all at once.
PLAIN_NUMBERS = r"^(?:\[[-+\d.eE,\s]+\]|\([-+\d.eE,\s]+\))$"

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
        texts = cells if self.separator else _without_array(without_marks(cells))
        distinct, row_numbers = by_distinct(texts)
        lists = self._lists(distinct)
        # No lists: single files, or labels such as red|large.
        if self.of == "texts" and lists.null_count == len(lists):
            return Reading(cells)
        return read_by_row(lists, row_numbers, cells, self.described())

    def _lists(self, texts: pa.Array) -> pa.Array:
        """Return the lists that distinct strings write; null for those that write none."""
        if self.of == "texts":
            return pa.array(map(self._entries, texts.to_pylist()), pa.list_(pa.string()))
        lists = _plain_lists_of_numbers(texts)
        if lists is not None:
            return lists
        lists_of_floats = []
        for text in texts.to_pylist():
            entries = self._entries(text)
            lists_of_floats.append(None if entries is None else _floats(entries))
        return pa.array(lists_of_floats, pa.list_(pa.float64()))

    def _entries(self, text: str) -> list[str | None] | None:
        """Return the entries that a string writes; None if it is no list."""
        if self.separator:
            names = map(str.strip, text.split(self.separator))
            return [name or None for name in names]
        if len(text) < 2 or text[0] + text[-1] not in ("[]", "()"):
            return None
        return _entries_in_brackets(text[1:-1])

    @classmethod
    def recognise(cls, texts: pa.ChunkedArray, style: Style, least: float = FITS) -> Recognised | None:
        """Recognise strings of which most are lists in brackets, or names of files between separators."""
        filled = _without_array(without_marks(texts).drop_null())
        if not len(filled):
            return None
        return cls._in_brackets(filled, least) or cls._of_files(filled, least)

    @classmethod
    def _in_brackets(cls, filled: pa.ChunkedArray, least: float) -> Recognised | None:
        if pc.mean(pc.match_substring_regex(filled, IN_BRACKETS)).as_py() < least:
            return None
        # Nobody can tell what was between: every cell is bad, which is better than to learn it as words.
        if pc.mean(pc.match_substring_regex(filled, ELIDED)).as_py() >= least:
            return Recognised(cls(of="numbers"), 1.0, "lists of numbers without their middle")
        distinct, row_numbers = by_distinct(filled)
        for convention in (cls(of="numbers"), cls(of="texts")):
            is_list = as_numpy(convention._lists(distinct).is_valid())
            share = share_of_rows(is_list, row_numbers)
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


def _without_array(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return strings without what NumPy and torch write around numbers, and around lists of them."""
    lists = pc.replace_substring_regex(texts, OF_ARRAY, r"\1")
    return pc.replace_substring_regex(lists, OF_SCALAR, r"\1")


def _entries_in_brackets(text: str) -> list[str | None] | None:
    """Return the entries between brackets; None for a nested list, or for what is no list."""
    entries: list[str | None] = []
    end = 0
    for match in ENTRY.finditer(text):
        if text[end : match.start()].strip(BETWEEN_ENTRIES):
            return None
        end = match.end()
        single, double, bare = match.groups()
        if bare is None:
            quoted = double if single is None else single
            entries.append(_unescaped(quoted))
        elif bare[0] in "[({":
            return None
        else:
            entries.append(None if bare in NULLS else bare)
    return None if text[end:].strip(BETWEEN_ENTRIES) else entries


def _unescaped(text: str) -> str:
    """Return a quoted string without the backslashes before quotes, backslashes and line breaks."""
    if "\\" not in text:
        return text
    return re.sub(r"\\(.)", lambda match: ESCAPES.get(match[1], match[1]), text)


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
    is_plain = pc.match_substring_regex(texts, PLAIN_NUMBERS)
    if not pc.all(is_plain).as_py():
        return None
    inner = pc.utf8_trim(texts, "[]() \t\r\n,")
    split = pc.split_pattern_regex(inner, r"\s*,\s*|\s+")
    try:
        flat = pc.cast(split.flatten(), pa.float64())
    except pa.ArrowInvalid:
        return None
    return pa.ListArray.from_arrays(split.offsets, flat)
