"""Delimited text: CSV, TSV and their kin. All cells stay strings; an empty cell is null."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from plait.errors import TableError
from plait.table.files.content import Content, FileTable
from plait.table.files.dialect import Dialect, blanks_to_tabs, infer_dialect
from plait.table.files.encoding import to_utf8
from plait.table.files.header import ROWS, has_header

PIECE = 1 << 22  # bytes that are looked at at once
BLOCK = 4 << 20  # bytes that Arrow parses at once; a row must fit into one block
LONGEST = (1 << 31) - 2  # bytes of the largest block
SHOWN = 5  # rows that a message names

LONG_LINE = 1 << 16  # bytes of the first lines
FRAME = re.compile(rb"^\s*[|+:=-][|+:= -]+$")
LINE_END = re.compile(rb"\r\n|\n|\r")

PRIORS = {".tsv": "\t", ".tab": "\t", ".psv": "|", ".csv": ","}


def read_delimited(content: Content) -> FileTable:
    """Read delimited text of any encoding and dialect. Raises `TableError` naming a row that does not fit."""
    encoded = to_utf8(content.data, content.label)
    data = encoded.data.rstrip(b"\x1a\x00")
    if not data or data.isspace():
        raise TableError(f"'{content.label}' is an empty file")
    data = _without_frame(data)
    dialect = infer_dialect(_head(data), PRIORS.get(content.suffix, ""))
    data, dialect = _plain_quotes(data, dialect)
    body = data[_line_start(data, dialect.preamble + 1) :]
    preamble = data[: len(data) - len(body)]
    if dialect.delimiter == " ":
        body = blanks_to_tabs(body.decode()).encode()
        dialect = replace(dialect, delimiter="\t")

    names, rows_at, header_notes = _names(body, dialect, content.label)
    notes = [*encoded.notes, *header_notes, *_preamble_notes(preamble, content.label)]
    lines_before = dialect.preamble + len(LINE_END.findall(body[:rows_at]))
    place = _Place(content.label, content.suffix[1:].upper() or "CSV", lines_before + 1)
    table, row_notes = _rows(memoryview(body)[rows_at:], names, replace(dialect, columns=len(names)), place)
    if _is_padded(body, dialect):
        table = pa.table(list(map(pc.utf8_trim_whitespace, table.columns)), names=table.column_names)
    return FileTable(_without_trailing_delimiter(table), (*notes, *row_notes))


def _rows(rows: memoryview, names: list[str], dialect: Dialect, place: _Place) -> tuple[pa.Table, list[str]]:
    """Return the table of rows, and notes: by Arrow if all are well written, else one by one."""
    is_well_quoted, spans_lines = _checked_quotes(rows, dialect)
    if is_well_quoted and spans_lines and _are_lines_rows(rows, dialect):
        dialect = replace(dialect, quote="")
    table = _by_arrow(rows, names, dialect) if is_well_quoted else None
    if table is not None:
        return table, []
    return _row_by_row(bytes(rows), names, dialect, place)


def _head(data: bytes) -> str:
    """Return the beginning of UTF-8 text, long enough to infer a dialect from."""
    return data[: 1 << 20].decode("utf-8", "ignore")


def _is_padded(body: bytes, dialect: Dialect) -> bool:
    """Return whether the file has a blank behind each delimiter, which belongs to no cell."""
    header = next(dialect.rows(_head(body)))
    return dialect.spaced or (len(header) > 1 and all(cell.startswith(" ") for cell in header[1:]))


def _without_frame(data: bytes) -> bytes:
    """Leave out the lines that databases and Markdown draw around a table and below its header."""
    lines = data[:LONG_LINE].splitlines()[:3]
    if not any(FRAME.match(line) and b"-" in line for line in lines) or not any(
        b"|" in line for line in lines
    ):
        return data
    data = re.sub(rb"(?m)^[ \t]*[|+:=-][|+:= -]*-[|+:= -]*\r?(?:\n|\Z)", b"", data)
    return re.sub(rb"(?m)^[ \t]*\||\|[ \t]*(?=\r?$)", b"", data)


def _preamble_notes(preamble: bytes, label: str) -> list[str]:
    """Return a note that names the first line above the header, if there is one that says something."""
    lines = [line.strip().decode() for line in preamble.splitlines() if line.strip()]
    lines = [line for line in lines if not line.lower().startswith(("sep=", '"sep='))]
    if not lines:
        return []
    return [f"{label}: what stands above the header was left out: {lines[0][:60]!r}"]


def _plain_quotes(data: bytes, dialect: Dialect) -> tuple[bytes, Dialect]:
    r"""Write `""` for `\"`, unless all backslashes are escapes: `C:\new` keeps its backslash then."""
    quote, delimiter = dialect.quote.encode(), dialect.delimiter.encode()
    if not dialect.escapes or not quote:
        return data, dialect
    if re.search(rb"(?<!\\)(?:\\\\)*\\[^\\\"'\r\n" + re.escape(delimiter) + rb"]", data):
        data = re.sub(rb"\\" + re.escape(quote), quote + quote, data)
        dialect = replace(dialect, escapes=False)
    return data, dialect


def _names(body: bytes, dialect: Dialect, label: str) -> tuple[list[str], int, list[str]]:
    """Return the names of the columns, at which byte the rows begin, and what is worth telling.

    R leaves out the name of the first column, which has the rows' names.
    """
    rows = []
    lines = []
    for line, row in dialect.numbered_rows(_head(body)):
        rows.append([cell.strip() for cell in row])
        lines.append(line)
        if len(rows) > ROWS:
            break
    if not rows:
        raise TableError(f"'{label}' is an empty file")
    header = rows[0]
    columns = max(dialect.columns, len(header))
    if not has_header(rows):
        names = [f"Unnamed: {number}" for number in range(columns)]
        note = f"{label} has no header: the first row looks like data, so columns are called {names[0]}, ..."
        return names, 0, [note]

    at = _line_start(body, lines[1]) if len(lines) > 1 else len(body)
    header[0] = re.sub(r"^#\s*" if dialect.preamble else r"^#\s+", "", header[0]) or header[0]
    if dialect.columns == len(header) + 1 and dialect.delimiter != "\x1f":
        last = [row[-1] for row in rows[1:] if len(row) == dialect.columns]
        header = [*header, ""] if not any(last) else ["", *header]
    return header, at, []


def _line_start(body: bytes, line: int) -> int:
    """Return the byte at which a line begins, counted from 1."""
    at = 0
    for _ in range(line - 1):
        at = LINE_END.search(body, at).end()  # type: ignore[union-attr]
    return at


def _checked_quotes(rows: memoryview, dialect: Dialect) -> tuple[bool, bool]:
    """Return whether each quote that opens a cell is closed at the cell's end, and whether cells span lines.

    Arrow reads such rows right. With one stray quote, it would take many rows for a single cell.
    """
    if dialect.spaced:
        return False, False
    if not dialect.quote or dialect.escapes:
        return True, False
    x = np.frombuffer(rows, dtype=np.uint8)
    is_edge = np.zeros(256, dtype=bool)
    is_edge[[ord(mark) for mark in (dialect.quote, "\n", "\r", dialect.delimiter)]] = True
    is_open, spans_lines = False, False
    for begin in range(0, len(x), PIECE):
        piece = x[begin : begin + PIECE]
        at = np.flatnonzero(piece == ord(dialect.quote)) + begin
        opening, closing = at[int(is_open) :: 2], at[1 - int(is_open) :: 2]
        if not is_edge[x[opening[opening > 0] - 1]].all():
            return False, spans_lines
        if not is_edge[x[closing[closing < len(x) - 1] + 1]].all():
            return False, spans_lines
        if len(at) or is_open:
            line_ends = np.flatnonzero(piece == ord("\n")) + begin
            inside = (np.searchsorted(at, line_ends) + int(is_open)) % 2 == 1
            spans_lines = spans_lines or bool(inside.any())
        is_open ^= len(at) % 2 == 1
    return not is_open, spans_lines


def _are_lines_rows(rows: memoryview, dialect: Dialect) -> bool:
    """Return whether quotes mean nothing: each line is a row, and few cells have a quote at both ends."""
    if dialect.columns < 2:
        return False
    x = np.frombuffer(rows, dtype=np.uint8)
    line_ends = np.flatnonzero(x == ord("\n"))
    delimiters = np.flatnonzero(x == ord(dialect.delimiter))
    counts = np.diff(np.searchsorted(delimiters, line_ends), prepend=0)
    if not (counts == dialect.columns - 1).all():
        return False
    quote, delimiter = re.escape(dialect.quote), re.escape(dialect.delimiter)
    cell = re.compile(rf"(?:^|[{delimiter}\n]){quote}[^{quote}\n]*{quote}(?=[{delimiter}\r\n]|$)".encode())
    in_quotes = 2 * sum(1 for _ in cell.finditer(rows))
    return in_quotes < 0.5 * int((x == ord(dialect.quote)).sum())


def _by_arrow(rows: memoryview, names: list[str], dialect: Dialect) -> pa.Table | None:
    """Return the table that Arrow reads, many rows at once; None if rows differ in length."""
    if not len(rows):
        return pa.table([pa.array([], pa.string()) for _ in names], names=names)
    conversion = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(_numbered(names), pa.string()),
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=True,
        check_utf8=False,
    )
    parsing = pa.csv.ParseOptions(
        delimiter=dialect.delimiter,
        quote_char=dialect.quote or False,
        escape_char="\\" if dialect.escapes else False,
        newlines_in_values=True,
    )
    block = BLOCK
    while True:
        reading = pa.csv.ReadOptions(column_names=_numbered(names), block_size=min(block, LONGEST))
        try:
            table = pa.csv.read_csv(pa.BufferReader(rows), reading, parsing, conversion)
            return table.rename_columns(names)
        except pa.ArrowInvalid as error:
            if "straddling" not in str(error) or block >= LONGEST:
                return None
            block *= 16


def _numbered(names: list[str]) -> list[str]:
    """Return a name of its own for each column, whatever the file calls them."""
    return [str(number) for number in range(len(names))]


@dataclass(frozen=True)
class _Place:
    """What messages call a file and its format, and the line in which its first row begins."""

    label: str
    kind: str
    line: int


def _row_by_row(data: bytes, names: list[str], dialect: Dialect, place: _Place) -> tuple[pa.Table, list[str]]:
    """Read rows of which some are too short or too long, or have stray quotes.

    Short rows end in null cells, and empty surplus cells are left out. A note names such rows. Raises
    `TableError` if a row has more cells than there are columns.
    """
    text, dialect = _fitting(data.decode(), dialect)
    columns: list[list[str | None]] = [[] for _ in names]
    short: list[str] = []
    for number, (line, row) in enumerate(dialect.numbered_rows(text)):
        if len(row) > len(names):
            if any(cell.strip() for cell in row[len(names) :]):
                raise _too_long(number, place, line, row, names, dialect)
            row = row[: len(names)]
        if len(row) < len(names):
            short.append(f"row {number} (line {place.line + line - 1})")
        for column, cells in enumerate(columns):
            cells.append(row[column] or None if column < len(row) else None)

    notes = []
    if short:
        shown = ", ".join(short[:SHOWN]) + (", ..." if len(short) > SHOWN else "")
        rows = "row has" if len(short) == 1 else "rows have"
        notes.append(
            f"{place.label}: {len(short):,} {rows} fewer than {len(names)} cells, so the last count as "
            f"missing: {shown}"
        )
    table = pa.table([pa.chunked_array([pa.array(cells, pa.string())]) for cells in columns], names=names)
    return table, notes


def _fitting(text: str, dialect: Dialect) -> tuple[str, Dialect]:
    """Return the text and the dialect by which most rows have the right length.

    That is the inferred dialect, or one near it: quotes within cells are not doubled, or escaped only in
    rows behind those that the dialect was inferred from, or mean nothing.
    """
    candidates = [(text, dialect)]
    if dialect.quote and dialect.columns > 1 and not dialect.spaced:
        candidates = [(_with_doubled_quotes(text, dialect), dialect), *candidates]
        candidates += [(text, replace(dialect, escapes=True)), (text, replace(dialect, quote=""))]
    scores = []
    for candidate_text, candidate in candidates:
        lengths = [len(row) for row in candidate.rows(candidate_text)]
        right = sum(length == dialect.columns for length in lengths)
        scores.append((right / max(len(lengths), 1), right))
    return candidates[scores.index(max(scores))]


def _with_doubled_quotes(text: str, dialect: Dialect) -> str:
    """Double the quotes within cells: a cell in quotes ends where a delimiter or a line's end follows."""
    one, two, delimiter = dialect.quote, dialect.quote * 2, re.escape(dialect.delimiter)
    before, behind = rf"(?:^|(?<=[\r\n{delimiter}]))", rf"(?=[\r\n{delimiter}]|$)"
    cell = re.compile(f"{before}{one}(.*?){one}{behind}", re.DOTALL)
    return cell.sub(lambda match: one + match[1].replace(two, one).replace(one, two) + one, text)


def _too_long(
    number: int, place: _Place, line: int, row: list[str], names: list[str], dialect: Dialect
) -> TableError:
    shown = dialect.delimiter.join(row)
    shown = shown if len(shown) <= 100 else shown[:97] + "..."
    mark = {"\t": "tab"}.get(dialect.delimiter, f"'{dialect.delimiter}'")
    return TableError(
        f"'{place.label}' cannot be read as {place.kind}: row {number} (line {place.line + line - 1}) has "
        f"{len(row)} cells, expected {len(names)}: {shown!r}. Put cells that hold a {mark} in double quotes"
    )


def _without_trailing_delimiter(table: pa.Table) -> pa.Table:
    """Leave out last columns without a name and without a cell: each line ends in a delimiter."""
    while table.num_columns > 1:
        last = table.num_columns - 1
        if table.column_names[last].strip() or pc.any(table.column(last).is_valid()).as_py():
            break
        table = table.remove_column(last)
    return table
