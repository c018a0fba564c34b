"""Cells that cannot be read: list them, count them, and stop if there are too many."""

from __future__ import annotations

import csv
import io
import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from plait.console import escaped
from plait.disk.whole import write_text
from plait.errors import BadCellsError, count
from plait.table.write import harmless

# A larger share of bad cells in a column is a mistake of ours or the user's, most likely a wrong folder.
LIMIT = 0.05
SHOWN = 5  # problems that an error names

CAME = ", came "  # stands in a reason between what was expected and what the cell holds
KINDS = 8  # kinds of problems that a summary lists
WIDTH = 60  # characters of a reason in it

SIDES = {"train": "training", "valid": "validation", "test": "test"}  # of a split, in words


def check(problems: list[Problem], filled: dict[str, int], root: Path, strict: bool = False) -> None:
    """Raise `BadCellsError` if a column has more bad cells than `LIMIT`, or any at all with `strict`.

    `filled` counts the cells of each column that are not null.
    """
    for column, counted in refused(problems, filled, strict).items():
        of_column = [problem for problem in problems if problem.column == column]
        lines = [f"  {problem.where()}: {problem.described()}" for problem in of_column[:SHOWN]]
        shown = "\n".join([*lines, hint(column, of_column, root)])
        raise BadCellsError(f"column '{column}': {counted}.\n{shown}")


def refused(problems: list[Problem], filled: dict[str, int], strict: bool = False) -> dict[str, str]:
    """Return the columns that have more bad cells than `check` takes, and how many each has."""
    counts = Counter(problem.column for problem in problems)
    columns = {}
    for column, bad in counts.items():
        if column not in filled or (not strict and bad <= LIMIT * filled[column]):
            continue
        reason = "none may be, under strict" if strict else f"more than {LIMIT:.0%}"
        columns[column] = f"{bad:,} of {count(filled[column], 'cell')} cannot be read: {reason}"
    return columns


def hint(column: str, problems: list[Problem], root: Path) -> str:
    """Say what to do about the bad cells of a column if they are a mistake of the user."""
    if any(problem.file for problem in problems):
        return (
            f"Paths are resolved against {root}; give another folder with root= or --root. If '{column}' "
            f"holds something else, name it, as in --column {column}=text."
        )
    return (
        f"Is '{column}' something else? --column {column}=text reads it as text, and "
        f"--set columns.{column}.format=... states the format of dates."
    )


def tell(problems: list[Problem], warn: Callable[[str], None]) -> None:
    """Warn of the cells that could not be read, with their number and the reasons, if there are any."""
    if problems:
        cells = count(len(problems), "cell")
        warn(f"{cells} could not be read, treated as missing:\n{summary(problems)}")


def summary(problems: list[Problem]) -> str:
    """Return a line for each column and reason, the most frequent first; nothing without problems.

    Of cells that are none of what was expected, the line shows what came first.
    """
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], str] = {}
    for problem in problems:
        reason, came, cell = problem.reason.partition(CAME)
        kind = (problem.column, shorten(reason) if not came else reason)
        counts[kind] += 1
        examples.setdefault(kind, f"{came}{cell}")

    lines = []
    for (column, reason), number in counts.most_common(KINDS):
        lines.append(f"  {column}: {number:,} x {reason}{examples[column, reason]}")
    if len(counts) > KINDS:
        lines.append(f"  and {count(len(counts) - KINDS, 'other kind')}")
    return "\n".join(lines)


def shorten(reason: str) -> str:
    """Return the start of a reason, up to what differs from cell to cell."""
    kind = reason.split(": ")[0]
    return kind if len(kind) <= WIDTH else f"{kind[: WIDTH - 3]}..."


def column(problems: list[Problem], rows: int) -> pa.Array:
    """Return the problems of each row, as a column of an answer; null where there are none."""
    texts: list[str | None] = [None] * rows
    for problem in problems:
        text = f"{problem.column}: {problem.described()}"
        earlier = texts[problem.row]
        texts[problem.row] = f"{earlier}; {text}" if earlier else text
    return pa.array(texts, pa.string())


def write(problems: list[Problem], path: Path) -> None:
    """Write `problems.csv`: row (from 0), column, file, reason, and the table if there are several."""
    header = ["row", "column", "file", "reason"]
    has_tables = any(problem.table for problem in problems)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*header, "table"] if has_tables else header)
    for problem in problems:
        texts = [problem.column, problem.file, problem.reason]
        if has_tables:
            texts.append(problem.table)
        shown = map(harmless, map(escaped, texts))
        writer.writerow([problem.row, *shown])
    write_text(path, text.getvalue())


def health(notes: dict[str, dict[str, list[int]]], digests: dict[str, list[set[bytes]]]) -> list[str]:
    """Warn of cells that can be read and tell nothing: silence, black videos, the same file in every row.

    `notes` has the rows of each remark, and `digests` the digests of each row's files, by column.
    """
    warnings = []
    for column, rows_by_note in notes.items():
        for note, rows in rows_by_note.items():
            shown = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
            cells = count(len(rows), "cell is", "cells are")
            numbers = f"row {shown}" if len(rows) == 1 else f"rows {shown}"
            warnings.append(f"column '{column}': {cells} {note} ({numbers})")
    for column, row_digests in digests.items():
        if sum(map(bool, row_digests)) > 1 and len(set().union(*row_digests)) == 1:
            warnings.append(f"column '{column}': every cell has the same content, so it can tell nothing")
    return warnings


def unseen(column: str, cells: pa.ChunkedArray, filled: int) -> str:
    """Say how many of a column's `filled` cells, namely `cells`, have a value that no vector stands for."""
    count = f"{len(cells):,} of {filled:,} cells" if filled > 1 else "the cell"
    has = "have values" if len(cells) > 1 else "has a value"
    text = f"column '{column}': {count} {has} that the model does not know, such as {cells[0].as_py()!r}"
    if filled > 1 and len(cells) > filled / 2:
        text += ". These are most cells: are they written as in training?"
    return text


def leaks(digests: dict[str, list[set[bytes]]], sides: dict[str, list[int]]) -> list[str]:
    """Warn of each media column that has the same file on two sides of the split.

    `digests` has the digests of each row's files by column, and `sides` the row numbers by side.
    """
    warnings = []
    for column, row_digests in digests.items():
        by_side = {}
        for name, rows in sides.items():
            by_side[name] = set().union(*[row_digests[row] for row in rows])
        for first, second in itertools.combinations(by_side, 2):
            shared = by_side[first] & by_side[second]
            if not shared:
                continue
            first_row = _first_with(shared, row_digests, sides[first])
            second_row = _first_with(shared, row_digests, sides[second])
            files = count(len(shared), "file is", "files are")
            side = SIDES[second]
            warnings.append(
                f"column '{column}': {files} in both the {SIDES[first]} and the {side} rows "
                f"(rows {first_row} and {second_row}, for example), so scores on {side} rows "
                f"will be too good. Keep such rows together with split.group."
            )
    return warnings


def _first_with(digests: set[bytes], row_digests: list[set[bytes]], rows: list[int]) -> int:
    """Return the first of these rows that has a file with one of these digests."""
    return next(row for row in rows if row_digests[row] & digests)


@dataclass(frozen=True)
class Problem:
    """A cell that could not be read. `row` counts from 0 in the user's table, named if there are several."""

    row: int
    column: str
    file: str
    reason: str
    table: str = ""

    def where(self) -> str:
        """Return the row, and the table if there are several."""
        return f"{self.table} row {self.row}" if self.table else f"row {self.row}"

    def described(self) -> str:
        """Return the reason, and the file if there is one."""
        return f"{self.reason} ({self.file})" if self.file else self.reason
