"""Workbooks: XLSX, XLS, XLSB and ODS. A cell has the type that the sheet gives it."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from plait.errors import TableError, nearest
from plait.table.files.content import Content, FileTable
from plait.table.files.header import has_header, no_header_note, unnamed
from plait.table.python_cells import columns_of_rows

if TYPE_CHECKING:
    import python_calamine

SHEETS = (".xlsx", ".xlsm", ".xls", ".xlsb", ".ods")

HEAD = 200  # rows that tell whether there is a header
HIGHEST_HEADER = 50  # rows among which the header is

Range = tuple[tuple[int, int], tuple[int, int]]  # (row, column) at the top left and the bottom right


def read_sheet(content: Content) -> FileTable:
    """Read one sheet of a workbook: the one named behind `#`, or the only one that is not empty.

    A merged cell counts as all the cells that it covers. Rows above the header, such as a title, are left
    out. Raises `TableError`.
    """
    name, rows = _sheet(content)
    if not rows:
        raise TableError(f"'{content.label}': sheet '{name}' is empty")

    first = _first_row(rows)
    notes = []
    if first:
        # A merged title is in all the cells that it covers.
        title = " ".join(dict.fromkeys(_texts(_filled(rows[0]))))
        notes.append(f"{content.label}: what stands above the header was left out: {title[:60]!r}")
    rows = rows[first:]

    texts = list(map(_texts, rows[:HEAD]))
    if has_header(texts):
        names = [re.sub(r"\s+", " ", text).strip() for text in texts[0]]
        rows = rows[1:]
    else:
        names = unnamed(len(rows[0]))
        notes.append(no_header_note(content.label, names))
    return FileTable(pa.table(columns_of_rows(rows, names), names=names), tuple(notes))


def _sheet(content: Content) -> tuple[str, list[list[object]]]:
    """Return the name and the rows of the sheet to read. Raises `TableError` for a damaged workbook."""
    try:
        import python_calamine
    except ImportError as error:
        raise TableError(
            f"reading '{content.label}' needs python-calamine: pip install 'plait[excel]'"
        ) from error
    try:
        workbook = python_calamine.load_workbook(io.BytesIO(content.data))
        name = _sheet_name(workbook, content)
        # A workbook opens whose sheets are damaged: they are unpacked only here.
        return name, _rows(workbook.get_sheet_by_name(name))
    except python_calamine.CalamineError as error:
        raise TableError(f"'{content.label}' cannot be read as a workbook: {error}") from error


def _sheet_name(workbook: python_calamine.CalamineWorkbook, content: Content) -> str:
    """Return the name of the sheet to read. Raises `TableError` if it is not clear which."""
    names = list(workbook.sheet_names)
    if content.sheet:
        if content.sheet not in names:
            raise TableError(
                f"'{content.label}' has no sheet '{content.sheet}': {nearest(content.sheet, names)}"
            )
        return content.sheet
    filled = [name for name in names if _rows(workbook.get_sheet_by_name(name))]
    if len(filled) > 1:
        raise TableError(
            f"'{content.label}' has {len(filled)} sheets: {', '.join(filled)}; name one, as in "
            f"'{content.label}#{filled[0]}'"
        )
    if not filled:
        raise TableError(f"'{content.label}': all sheets are empty")
    return filled[0]


def _rows(sheet: python_calamine.CalamineSheet) -> list[list[object]]:
    """Return the rows of a sheet that have a cell. Columns without any cell at the edges are left out."""
    rows = [list(map(_cell, row)) for row in sheet.to_python(skip_empty_area=False)]
    _fill_merged(rows, sheet.merged_cell_ranges or ())
    rows = list(filter(_filled, rows))
    if not rows:
        return []

    # Many tables begin in column B. A column without cells in between may have a name.
    filled_columns = []
    for number, column in enumerate(zip(*rows, strict=True)):
        if _filled(column):
            filled_columns.append(number)
    first, end = filled_columns[0], filled_columns[-1] + 1
    return [row[first:end] for row in rows]


def _fill_merged(rows: list[list[object]], ranges: Iterable[Range]) -> None:
    """Write the cell at the top left of each merged range into all cells that it covers."""
    for (top, first), (bottom, last) in ranges:
        for row in rows[top : bottom + 1]:
            for number in range(first, min(last + 1, len(row))):
                row[number] = rows[top][first]


def _cell(cell: object) -> object:
    """Return a cell: None if it is empty, and a whole number as int, for sheets have only floats."""
    if cell == "":
        return None
    return int(cell) if isinstance(cell, float) and cell.is_integer() else cell


def _first_row(rows: Sequence[Sequence[object]]) -> int:
    """Return the number of the header: the first row that fills nearly as many cells as the fullest rows."""
    counts = []
    for row in rows[:HIGHEST_HEADER]:
        counts.append(len(set(_texts(_filled(row)))))
    highest = max(counts)
    if highest < 2:
        return 0
    for number, count in enumerate(counts):
        if count >= 0.75 * highest or count >= highest - 1:
            return number
    return 0


def _filled(row: Sequence[object]) -> list[object]:
    """Return the cells that are not empty."""
    return [cell for cell in row if cell is not None]


def _texts(row: Sequence[object]) -> list[str]:
    """Return cells as texts, "" for an empty one."""
    return ["" if cell is None else str(cell) for cell in row]
