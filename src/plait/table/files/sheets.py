"""Workbooks: XLSX, XLS, XLSB and ODS. A cell has the type that the sheet gives it."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from plait.errors import TableError, nearest
from plait.table.files.content import Content, FileTable
from plait.table.files.header import has_header
from plait.table.python_cells import column_of

if TYPE_CHECKING:
    import python_calamine

SHEETS = (".xlsx", ".xlsm", ".xls", ".xlsb", ".ods")


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
        title = " ".join(dict.fromkeys(str(cell) for cell in rows[0] if cell is not None))
        notes.append(f"{content.label}: what stands above the header was left out: {title[:60]!r}")
    rows = rows[first:]
    texts = [["" if cell is None else str(cell) for cell in row] for row in rows[:200]]
    if has_header(texts):
        names = [_name(cell) for cell in rows[0]]
        rows = rows[1:]
    else:
        names = [f"Unnamed: {number}" for number in range(len(rows[0]))]
        notes.append(
            f"{content.label} has no header: the first row looks like data, so columns are called "
            f"{names[0]}, ..."
        )
    cells = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    columns = [column_of(list(column), name) for column, name in zip(cells, names, strict=True)]
    return FileTable(pa.table(columns, names=names), tuple(notes))


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
        # a workbook opens whose sheets are damaged: they are unpacked only here
        return name, _rows(workbook.get_sheet_by_name(name))
    except python_calamine.CalamineError as error:
        raise TableError(f"'{content.label}' cannot be read as a workbook: {error}") from error


def _sheet_name(workbook: python_calamine.CalamineWorkbook, content: Content) -> str:
    """Return the name of the sheet to read. Raises `TableError` if it is not clear which."""
    names = list(workbook.sheet_names)
    if content.part:
        if content.part not in names:
            raise TableError(
                f"'{content.label}' has no sheet '{content.part}': {nearest(content.part, names)}"
            )
        return content.part
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
    for (top, left), (bottom, right) in sheet.merged_cell_ranges or ():
        for row in range(top, min(bottom + 1, len(rows))):
            for number in range(left, min(right + 1, len(rows[row]))):
                rows[row][number] = rows[top][left]
    rows = [row for row in rows if any(cell is not None for cell in row)]
    if not rows:
        return []
    filled = [number for number in range(len(rows[0])) if any(row[number] is not None for row in rows)]
    return [row[filled[0] : filled[-1] + 1] for row in rows]


def _cell(cell: object) -> object:
    """Return a cell: None if it is empty, and a whole number as int, for sheets have only floats."""
    if cell == "":
        return None
    return int(cell) if isinstance(cell, float) and cell.is_integer() else cell


def _first_row(rows: Sequence[Sequence[object]]) -> int:
    """Return the number of the header: the first row that fills nearly as many cells as the fullest rows."""
    counts = [len({str(cell) for cell in row if cell is not None}) for row in rows[:50]]
    most = max(counts)
    if most < 2:
        return 0
    for number, count in enumerate(counts):
        if count >= 0.75 * most or count >= most - 1:
            return number
    return 0


def _name(cell: object) -> str:
    """Return the name of a column, in one line."""
    return "" if cell is None else re.sub(r"\s+", " ", str(cell)).strip()
