"""Whether the first row of a table has the names of the columns, or is data already."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from plait.table.files.dialect import DATE, LONGEST_NUMBER, NUMBER, looks_typed

FILE = re.compile(
    r"^\S.*\.(png|jpe?g|gif|bmp|webp|tiff?|avif|heic|wav|mp3|flac|ogg|opus|m4a|mp4|mkv|mov|webm|avi)$|^\w+://",
    re.I,
)
ROWS = 200  # rows that are looked at
FRACTION = re.compile(r"^[-+]?\d+[.,]\d+$")
PLAIN_NUMBER = re.compile(r"\d+([.,]\d+)?")

FIRST_YEAR = 1900  # two numbers that grow are names if they are years
YEAR_STEPS = (1, 5, 10)  # a census comes every five or ten years


def has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Return whether the first of these rows has names. It has not if all its cells look like data.

    A number looks like data above numbers, unless the first row counts up, as years do in a wide table.
    A word looks like data if it comes again below.
    """
    if not rows:
        return True
    first = rows[0]
    body = [row for row in rows[1 : ROWS + 1] if len(row) == len(first)]
    kinds = list(map(_kind, first))
    if set(kinds) <= {"", "word"}:
        return not _all_repeat(first, body, kinds)

    if _is_range(first) or _only_first_counts_up(first, body):
        return True
    if _has_other_kind_than_column(kinds, body):
        return True

    # No two columns should have one name, but two cells of a row are often the same.
    if len(set(first)) < len(first) or _words_repeat(first, body, kinds):
        return False
    return not _is_surely_data(first, kinds)


def unnamed(count: int) -> list[str]:
    """Return the names that pandas gives columns without one."""
    return [f"Unnamed: {number}" for number in range(count)]


def no_header_note(label: str, names: Sequence[str]) -> str:
    """Return what the user should know of a table without a header, whose columns got `names`."""
    return f"{label} has no header: the first row looks like data, so columns are called {names[0]}, ..."


# --- kinds of cells --------------------------------------------------------------------------------------


def _kind(cell: str) -> str:
    """Return what a cell is: "number", "date", "file", "long", "word", or "" if it is empty."""
    cell = cell.strip()
    if not cell:
        return ""
    if len(cell) > LONGEST_NUMBER:
        return "file" if len(cell) < 1000 and FILE.match(cell) else "long"
    if DATE.match(cell):
        return "date"
    if NUMBER.match(cell):
        return "number"
    if FILE.match(cell):
        return "file"
    return "word"


def _has_other_kind_than_column(kinds: Sequence[str], body: Sequence[Sequence[str]]) -> bool:
    """Return whether a cell of the first row cannot be data, for the cells below it are of another kind."""
    for number, kind in enumerate(kinds):
        column = _column(body, number)
        if kind in ("number", "date", "file") and not _mostly(kind, column):
            return True
        if kind in ("", "word") and _is_typed(column):
            return True
    return False


def _mostly(kind: str, column: Sequence[str]) -> bool:
    """Return whether most filled cells of a column are of a kind; so are none."""
    kinds = list(map(_kind, column))
    filled_count = len(kinds) - kinds.count("")
    return kinds.count(kind) >= 0.5 * filled_count


def _is_typed(column: Sequence[str]) -> bool:
    """Return whether all filled cells are numbers or dates."""
    filled = list(filter(str.strip, column))
    return bool(filled) and all(map(looks_typed, filled))


def _is_surely_data(first: Sequence[str], kinds: Sequence[str]) -> bool:
    """Return whether half the cells are no words, and one is no name for a column, such as 0.5 or a date."""
    word_count = kinds.count("word") + kinds.count("")
    if word_count > len(kinds) / 2:
        return False
    return not {"date", "file", "long"}.isdisjoint(kinds) or any(map(FRACTION.match, first))


# --- cells that come again -------------------------------------------------------------------------------


def _all_repeat(first: Sequence[str], body: Sequence[Sequence[str]], kinds: Sequence[str]) -> bool:
    """Return whether each word of the first row comes again in its column; a lone sentence need not."""
    if len(first) == 1 and _is_sentence(first[0]):
        return True
    # In a table of two rows, a word may come again by chance.
    if len(body) < 3 or "" in kinds:
        return False
    return _repeat(range(len(first)), first, body)


def _words_repeat(first: Sequence[str], body: Sequence[Sequence[str]], kinds: Sequence[str]) -> bool:
    """Return whether all words of the first row come again in their columns; so do none."""
    words = [number for number, kind in enumerate(kinds) if kind == "word"]
    return _repeat(words, first, body)


def _repeat(numbers: Sequence[int], first: Sequence[str], body: Sequence[Sequence[str]]) -> bool:
    """Return whether the first row's cells in the columns of these numbers come again there."""
    return all(first[number] in _column(body, number) for number in numbers)


def _column(body: Sequence[Sequence[str]], number: int) -> list[str]:
    return [row[number] for row in body]


def _is_sentence(cell: str) -> bool:
    return len(cell.split()) > 5 or cell.endswith((".", "!", "?"))


# --- rows that count -------------------------------------------------------------------------------------


def _is_range(row: Sequence[str]) -> bool:
    """Return whether a row has the numbers by which pandas calls columns without names."""
    return len(row) > 2 and list(row) == list(map(str, range(len(row))))


def _only_first_counts_up(first: Sequence[str], body: Sequence[Sequence[str]]) -> bool:
    """Return whether the first row counts up and the next does not: 1990, 1991, 1992 above sums."""
    if not _counts_up(first):
        return False
    return not body or not _counts_up(body[0])


def _counts_up(row: Sequence[str]) -> bool:
    """Return whether the numbers of a row grow evenly, or all grow and have a word before them."""
    cells = list(filter(None, map(str.strip, row)))
    numbers = _plain_numbers(cells)
    # One or two columns before the years have names, such as country and code.
    if len(numbers) < max(2, len(cells) - 2):
        return False
    if len(numbers) == 2:
        return _are_two_names(*numbers)

    steps = [later - earlier for earlier, later in itertools.pairwise(numbers)]
    tolerance = 1e-6 * abs(max(steps)) + 1e-9
    return min(steps) > 0 and max(steps) - min(steps) < tolerance


def _plain_numbers(cells: Sequence[str]) -> list[float]:
    """Return the cells that are digits with at most one mark, as numbers."""
    numbers = []
    for cell in cells:
        if PLAIN_NUMBER.fullmatch(cell):
            numbers.append(float(cell.replace(",", ".")))
    return numbers


def _are_two_names(first: float, second: float) -> bool:
    """Return whether two numbers count columns, or are years. Any two cells of data may grow."""
    if first == 0 and second == 1:
        return True
    return first > FIRST_YEAR and second - first in YEAR_STEPS
