"""What to do about cells that cannot be read: name them, count them, and stop when they are too many."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from plait.errors import BadCellsError

# a larger share of bad cells in a column is a mistake of ours or the user's, most likely a wrong folder
LIMIT = 0.05


def check(problems: list[Problem], given: dict[str, int], root: Path, strict: bool = False) -> None:
    """Raises `BadCellsError` when a column has more bad cells than the limit, or any at all under `strict`.

    `given` counts the cells of each column that were not null.
    """
    for column, count in Counter(p.column for p in problems if p.column in given).items():
        if not strict and count <= LIMIT * given[column]:
            continue
        shown = [p for p in problems if p.column == column][:5]
        lines = [f"  row {p.row}: {p.reason}{f' ({p.file})' if p.file else ''}" for p in shown]
        why = (
            "none may be, under strict"
            if strict
            else f"more than {LIMIT:.0%}; most likely the wrong folder or the wrong modality"
        )
        raise BadCellsError(
            f"column '{column}': {count:,} of {given[column]:,} cells cannot be read: {why}.\n"
            + "\n".join(lines)
            + f"\nPaths are resolved against {root}; give another folder with root= or --root."
        )


def tell(problems: list[Problem], warn: Callable[[str], None]) -> None:
    """Says how many cells could not be read, and why, if there are any."""
    if problems:
        warn(f"{len(problems):,} cells could not be read and count as missing:\n{summary(problems)}")


def summary(problems: list[Problem]) -> str:
    """One line for each column and reason, the most frequent first; empty when there are no problems."""
    counted = Counter((p.column, p.reason.split(":")[0][:60]) for p in problems)
    lines = [f"  {column}: {count:,} x {reason}" for (column, reason), count in counted.most_common(8)]
    more = f"\n  and {len(counted) - 8} other kinds" if len(counted) > 8 else ""
    return "\n".join(lines) + more


def column(problems: list[Problem], rows: int) -> pa.Array:
    """What is wrong in each row, as a column of an answer; null where nothing is."""
    text: list[str | None] = [None] * rows
    for p in problems:
        said = f"{p.column}: {p.reason}{f' ({p.file})' if p.file else ''}"
        text[p.row] = f"{text[p.row]}; {said}" if text[p.row] else said
    return pa.array(text, pa.string())


def write(problems: list[Problem], path: Path) -> None:
    """`problems.csv`: row (from 0), column, file, reason."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "column", "file", "reason"])
        writer.writerows([p.row, p.column, p.file, p.reason] for p in problems)


def health(notes: dict[str, dict[str, list[int]]], digests: dict[str, list[set[bytes]]]) -> list[str]:
    """Warnings of what can be read and is still not as it should be: silence, black clips, the same
    file in every row.
    """
    warnings = []
    for column, said in notes.items():
        for note, rows in said.items():
            shown = ", ".join(str(r) for r in rows[:5]) + (", ..." if len(rows) > 5 else "")
            warnings.append(
                f"column '{column}': {len(rows):,} {'cell is' if len(rows) == 1 else 'cells are'} {note} "
                f"(row {shown})"
            )
    for column, digest in digests.items():
        if sum(map(bool, digest)) > 1 and len(set().union(*digest)) == 1:
            warnings.append(f"column '{column}': every cell has the same content, so it can tell nothing")
    return warnings


def leaks(digests: dict[str, list[set[bytes]]], sides: dict[str, list[int]]) -> list[str]:
    """A warning for each media column of which the same content lies on two sides of the split."""
    warnings = []
    for column, digest in digests.items():
        of = {side: set().union(*(digest[row] for row in rows)) for side, rows in sides.items()}
        names = list(of)
        for i, one in enumerate(names):
            for other in names[i + 1 :]:
                if both := of[one] & of[other]:
                    rows = [next(r for r in sides[side] if digest[r] & both) for side in (one, other)]
                    warnings.append(
                        f"column '{column}': {len(both):,} files lie in both {one} and {other} (rows "
                        f"{rows[0]} and {rows[1]}, for one); "
                        f"scores on {other} will flatter. Keep such rows together with split.group."
                    )
    return warnings


@dataclass(frozen=True)
class Problem:
    """A cell that could not be read: `row` counts from 0 in the table that was given."""

    row: int
    column: str
    file: str
    reason: str
