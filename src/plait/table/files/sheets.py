"""Workbooks: XLSX, XLS, XLSB and ODS. A cell has the type that the sheet gives it."""

from __future__ import annotations

import io
import math
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
FEWEST_SUMMED = 2  # rows above a row of totals

# What a row of totals is called in the languages of most spreadsheets.
TOTAL = re.compile(
    r"(grand |sub)?(totals?|totale|totaal|sum|summe|gesamt|insgesamt|somme|suma|soma|summa|razem|celkem|"
    r"toplam|итого|всего|合计|总计|合計|総計|합계)\b",
    re.IGNORECASE,
)

Range = tuple[tuple[int, int], tuple[int, int]]  # (row, column) at the top left and the bottom right


def read_sheet(content: Content) -> FileTable:
    """Read one sheet of a workbook: the one named behind `#`, or the only one that is not empty.

    A merged cell counts as all the cells that it covers. Rows above the header, such as a title, are left
    out, and so is a last row of totals. Raises `TableError`.
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
    if _is_total(rows):
        notes.append(f"{content.label}: the last row sums those above, and was left out")
        rows = rows[:-1]

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
    heights = {name: len(_rows(workbook.get_sheet_by_name(name))) for name in names}
    filled = [name for name in names if heights[name]]
    if len(filled) > 1:
        longest = max(filled, key=lambda name: heights[name])
        raise TableError(
            f"'{content.label}' has {len(filled)} sheets: {', '.join(filled)}; name one, as in "
            f"'{content.label}#{longest}'"
        )
    if not filled:
        raise TableError(f"'{content.label}': all sheets are empty")
    return filled[0]


def _rows(sheet: python_calamine.CalamineSheet) -> list[list[object]]:
    """Return the rows of a sheet that have a cell. Columns without any cell at the edges are left out."""
    rows = [list(map(_cell, row)) for row in sheet.to_python(skip_empty_area=False)]
    ranges = sheet.merged_cell_ranges or ()
    _fill_merged(rows, ranges)
    _join_names(rows, ranges)
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


def _join_names(rows: list[list[object]], ranges: Iterable[Range]) -> None:
    """Join two rows of names into one, in place, where merged cells say whose columns they are.

    2023 above two columns, sold and left, and 2024 above two more of these names, become `2023 sold`,
    `2023 left`, `2024 sold` and `2024 left`. Names that differ by themselves stay as they are.
    """
    for top in sorted({top for (top, first), (bottom, last) in ranges if top == bottom and first < last}):
        if top + 1 >= min(len(rows), HIGHEST_HEADER):
            return
        groups, names = _texts(rows[top]), rows[top + 1]
        filled = _filled(names)
        if len(set(_texts(filled))) == len(filled) or not all(isinstance(name, str) for name in filled):
            continue
        joined = []
        for group, name in zip(groups, _texts(names), strict=True):
            joined.append(name if group == name else f"{group} {name}".strip())
        named = list(filter(None, joined))
        if len(set(named)) == len(named):
            rows[top] = [None] * len(names)
            rows[top + 1] = [name or None for name in joined]
            _name_index(rows, top + 1, groups)
            return


def _name_index(rows: list[list[object]], top: int, groups: Sequence[str]) -> None:
    """Move names of columns without a group one row up, in place: pandas writes an index's names so."""
    names = rows[top + 1] if top + 1 < len(rows) else []
    named = [number for number, name in enumerate(names) if name is not None]
    if not named or any(groups[number] or not isinstance(names[number], str) for number in named):
        return
    for number in named:
        rows[top][number] = names[number]
    rows[top + 1] = [None] * len(names)


def _is_total(rows: Sequence[Sequence[object]]) -> bool:
    """Return whether the last row is called a total, and all its numbers are the sums of their columns."""
    if len(rows) < FEWEST_SUMMED + 2:  # with a header
        return False
    last = rows[-1]
    words = [cell for cell in last if isinstance(cell, str)]
    if len(words) != 1 or not TOTAL.match(words[0].strip()):
        return False
    has_sum = False
    for number, cell in enumerate(last):
        if cell is None or isinstance(cell, str):
            continue
        if not _is_number(cell):
            return False
        above = [float(row[number]) for row in rows[:-1] if _is_number(row[number])]  # type: ignore[arg-type]
        if not math.isclose(float(cell), math.fsum(above), rel_tol=1e-6):  # type: ignore[arg-type]
            return False
        has_sum = True
    return has_sum


def _is_number(cell: object) -> bool:
    return isinstance(cell, (int, float)) and not isinstance(cell, bool)


def _cell(cell: object) -> object:
    """Return a cell: None if it is empty, and a whole number as int, for sheets have only floats."""
    if cell == "":
        return None
    return int(cell) if isinstance(cell, float) and cell.is_integer() else cell


def _first_row(rows: Sequence[Sequence[object]]) -> int:
    """Return the number of the header: the first row that fills nearly as many cells as the fullest rows."""
    counts = []
    repeats = []
    for row in rows[:HIGHEST_HEADER]:
        texts = _texts(_filled(row))
        counts.append(len(set(texts)))
        repeats.append(len(set(texts)) < len(texts))
    highest = max(counts)
    if highest < 2:
        return 0
    for number, count in enumerate(counts):
        # Merged names of groups of columns repeat above the columns' own names.
        if repeats[number] and max(counts[number + 1 : number + 2], default=0) > count:
            continue
        if count >= 0.75 * highest or count >= highest - 1:
            return number
    return 0


def _filled(row: Sequence[object]) -> list[object]:
    """Return the cells that are not empty."""
    return [cell for cell in row if cell is not None]


def _texts(row: Sequence[object]) -> list[str]:
    """Return cells as texts, "" for an empty one."""
    return ["" if cell is None else str(cell) for cell in row]
