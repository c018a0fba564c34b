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


def has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Return whether the first of these rows has names. It has not if all its cells look like data.

    A number looks like data above numbers, unless the first row counts up, as years do in a wide table.
    A word looks like data if it comes again below.
    """
    if not rows:
        return True
    first, body = rows[0], [row for row in rows[1 : ROWS + 1] if len(row) == len(rows[0])]
    kinds = [_kind(cell) for cell in first]
    typed = [kind for kind in kinds if kind not in ("", "word")]
    if not typed or not any(cell.strip() for cell in first):
        return not _all_repeat(first, body, kinds)
    if _is_range(first) or (_counts_up(first) and not (body and _counts_up(body[0]))):
        return True
    for number, kind in enumerate(kinds):
        column = [row[number] for row in body]
        if kind in ("number", "date", "file") and not _mostly(kind, column):
            return True
        if kind in ("", "word") and _is_typed(column):
            return True
    if len(set(first)) < len(first):
        return False
    words = [(number, cell) for number, cell in enumerate(first) if kinds[number] in ("word",)]
    if all(any(row[number] == cell for row in body) for number, cell in words):
        return False
    is_sure = any(
        FRACTION.match(cell) or kind in ("date", "file", "long")
        for cell, kind in zip(first, kinds, strict=True)
    )
    return not (is_sure and len(typed) * 2 >= len(first))


def _kind(cell: str) -> str:
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


def _mostly(kind: str, column: Sequence[str]) -> bool:
    """Return whether most filled cells of a column are of a kind; so are none."""
    filled = [cell for cell in column if cell.strip()]
    return sum(_kind(cell) == kind for cell in filled) >= 0.5 * len(filled)


def _is_typed(column: Sequence[str]) -> bool:
    """Return whether all filled cells are numbers or dates."""
    filled = [cell for cell in column if cell.strip()]
    return bool(filled) and all(map(looks_typed, filled))


def _all_repeat(first: Sequence[str], body: Sequence[Sequence[str]], kinds: Sequence[str]) -> bool:
    """Return whether each word of the first row comes again in its column; a lone sentence need not."""
    if len(first) == 1 and (len(first[0].split()) > 5 or first[0].endswith((".", "!", "?"))):
        return True
    if len(body) < 3 or "" in kinds:
        return False
    return all(any(row[number] == cell for row in body) for number, cell in enumerate(first))


def _is_range(row: Sequence[str]) -> bool:
    """Return whether a row has the numbers by which pandas calls columns without names."""
    return len(row) > 2 and list(row) == [str(number) for number in range(len(row))]


def _counts_up(row: Sequence[str]) -> bool:
    """Return whether the numbers of a row grow evenly, or all grow and have a word before them."""
    cells = [cell.strip() for cell in row if cell.strip()]
    numbers = []
    for cell in cells:
        if re.fullmatch(r"\d+([.,]\d+)?", cell):
            numbers.append(float(cell.replace(",", ".")))
    if len(numbers) < max(2, len(cells) - 2):
        return False
    steps = [later - earlier for earlier, later in itertools.pairwise(numbers)]
    if len(numbers) == 2:
        return numbers == [0, 1] or (numbers[0] > 1900 and steps[0] in (1, 5, 10))
    return all(step > 0 for step in steps) and max(steps) - min(steps) < 1e-6 * abs(max(steps)) + 1e-9
