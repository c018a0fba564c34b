"""Delimited text: CSV, TSV and their kin. All cells stay strings; an empty cell is null."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from plait.errors import TableError
from plait.table.files.content import Content, FileTable, arrow_reader
from plait.table.files.dialect import (
    ONE_COLUMN,
    Dialect,
    begin_with_blank,
    blanks_to_tabs,
    infer_dialect,
)
from plait.table.files.encoding import to_utf8
from plait.table.files.header import ROWS, has_header, no_header_note, unnamed

PIECE = 1 << 22  # bytes that are looked at at once
BLOCK = 4 << 20  # bytes that Arrow parses at once; a row must fit into one block
LONGEST = (1 << 31) - 2  # bytes of the largest block
SHOWN = 5  # rows that a message names
EMPTY = ("", "\\N")  # a missing cell; MySQL, PostgreSQL and Hive write the second in every type of column

HEAD = 1 << 20  # bytes that a dialect and a header are inferred from

# What is drawn around the cells of a table: `+----+----+` or `|:---|---:|` is a line of it.
LONG_LINE = 1 << 16  # bytes of the first lines
FRAME = re.compile(rb"^\s*[|+:=-][|+:= -]+$")
FRAME_LINE = re.compile(rb"(?m)^[ \t]*[|+:=-][|+:= -]*-[|+:= -]*\r?(?:\n|\Z)")
FRAME_SIDE = re.compile(rb"(?m)^[ \t]*\||\|[ \t]*(?=\r?$)")

LINE_END = re.compile(rb"\r\n|\n|\r")

PRIORS = {".tsv": "\t", ".tab": "\t", ".psv": "|", ".csv": ","}


def read_delimited(content: Content) -> FileTable:
    """Read delimited text of any encoding and dialect. Raises `TableError` naming a row that does not fit."""
    encoded = to_utf8(content.data, content.label)
    # DOS ends a text with Ctrl-Z, also on a line of its own; programs that crash leave zero bytes.
    text = encoded.data
    if text.rstrip(b"\r\n").endswith((b"\x1a", b"\x00")):
        text = text.rstrip(b"\x1a\x00\r\n")
    if not text or text.isspace():
        raise TableError(f"'{content.label}' is an empty file")

    text = _without_frame(text)
    dialect = infer_dialect(_head(text), PRIORS.get(content.suffix, ""))
    text, dialect = _plain_quotes(text, dialect)
    body = text[_line_start(text, dialect.preamble + 1) :]
    preamble = text[: len(text) - len(body)]
    # Arrow takes one character for a delimiter, not any number of them.
    if dialect.delimiter == " ":
        body = blanks_to_tabs(body.decode()).encode()
        dialect = replace(dialect, delimiter="\t")

    names, rows_at, header_notes = _names(body, dialect, content.label)
    notes = [*encoded.notes, *header_notes, *_preamble_notes(preamble, content.label)]
    lines_before = dialect.preamble + len(LINE_END.findall(body[:rows_at]))
    origin = _Origin(content.label, content.suffix[1:].upper() or "CSV", lines_before + 1)
    row_dialect = replace(dialect, columns=len(names))
    table, row_notes = _rows(memoryview(body)[rows_at:], names, row_dialect, origin)
    if _is_padded(body, dialect):
        trimmed = list(map(pc.utf8_trim_whitespace, table.columns))
        table = pa.table(trimmed, names=table.column_names)
    return FileTable(_without_trailing_delimiter(table), (*notes, *row_notes))


def _rows(
    rows: memoryview, names: list[str], dialect: Dialect, origin: _Origin
) -> tuple[pa.Table, list[str]]:
    """Return the table of rows, and notes: by Arrow if all are well written, else one by one."""
    is_well_quoted, spans_lines = _checked_quotes(rows, dialect)
    # A quote in a text, such as 5" or 'tis, may pair up with another one many rows below.
    if is_well_quoted and spans_lines and _are_lines_rows(rows, dialect):
        dialect = replace(dialect, quote="")
    table = _by_arrow(rows, names, dialect) if is_well_quoted else None
    if table is not None:
        return table, []
    return _row_by_row(bytes(rows), names, dialect, origin)


def _head(text: bytes) -> str:
    """Return the beginning of UTF-8 text, long enough to infer a dialect from."""
    return text[:HEAD].decode("utf-8", "ignore")


def _is_padded(body: bytes, dialect: Dialect) -> bool:
    """Return whether the file has a blank behind each delimiter, which belongs to no cell."""
    header = next(dialect.rows(_head(body)))
    return dialect.spaced or (len(header) > 1 and begin_with_blank(header[1:]))


def _without_frame(text: bytes) -> bytes:
    """Leave out the lines that databases and Markdown draw around a table and below its header."""
    lines = text[:LONG_LINE].splitlines()[:3]
    has_frame = any(FRAME.match(line) and b"-" in line for line in lines)
    if not has_frame or not any(b"|" in line for line in lines):
        return text
    text = FRAME_LINE.sub(b"", text)
    return FRAME_SIDE.sub(b"", text)


def _preamble_notes(preamble: bytes, label: str) -> list[str]:
    """Return a note that names the first line above the header, if there is one that says something."""
    for line in preamble.decode().splitlines():
        remark = line.strip()
        if remark and not remark.lower().startswith(("sep=", '"sep=')):
            return [f"{label}: what stands above the header was left out: {remark[:60]!r}"]
    return []


def _plain_quotes(text: bytes, dialect: Dialect) -> tuple[bytes, Dialect]:
    r"""Write `""` for `\"`, unless all backslashes are escapes: `C:\new` keeps its backslash then."""
    quote, delimiter = dialect.quote.encode(), dialect.delimiter.encode()
    if not dialect.escapes or not quote:
        return text, dialect
    stray_backslash = rb"(?<!\\)(?:\\\\)*\\[^\\\"'\r\n" + re.escape(delimiter) + rb"]"
    if re.search(stray_backslash, text):
        text = re.sub(rb"\\" + re.escape(quote), quote + quote, text)
        dialect = replace(dialect, escapes=False)
    return text, dialect


# --- header ----------------------------------------------------------------------------------------------


def _names(body: bytes, dialect: Dialect, label: str) -> tuple[list[str], int, list[str]]:
    """Return the names of the columns, at which byte the rows begin, and what is worth telling."""
    rows = []
    lines = []
    for line, row in itertools.islice(dialect.numbered_rows(_head(body)), ROWS + 1):
        rows.append([cell.strip() for cell in row])
        lines.append(line)
    if not rows:
        raise TableError(f"'{label}' is an empty file")
    header, below = rows[0], rows[1:]
    if not has_header(rows):
        names = unnamed(max(dialect.columns, len(header)))
        return names, 0, [no_header_note(label, names)]

    rows_at = _line_start(body, lines[1]) if below else len(body)
    header[0] = _without_hash(header[0], dialect)
    if dialect.columns == len(header) + 1 and dialect.delimiter != ONE_COLUMN:
        header = _with_missing_name(header, below, dialect.columns)
    return header, rows_at, []


def _without_hash(name: str, dialect: Dialect) -> str:
    """Return the first name without the hash of a comment: `# id`, or `#id` below other comments."""
    mark = r"^#\s*" if dialect.preamble else r"^#\s+"
    return re.sub(mark, "", name) or name


def _with_missing_name(header: list[str], below: list[list[str]], columns: int) -> list[str]:
    """Add an empty name to a header that lacks one.

    R leaves out the name of the first column, which has the rows' names. A delimiter at the end of each row
    makes a last column without cells.
    """
    for row in below:
        if len(row) == columns and row[-1]:
            return ["", *header]
    return [*header, ""]


def _line_start(body: bytes, line: int) -> int:
    """Return the byte at which a line begins, counted from 1."""
    position = 0
    for _ in range(line - 1):
        position = LINE_END.search(body, position).end()  # type: ignore[union-attr]
    return position


# --- many rows at once -----------------------------------------------------------------------------------


def _checked_quotes(rows: memoryview, dialect: Dialect) -> tuple[bool, bool]:
    """Return whether each quote that opens a cell is closed at the cell's end, and whether cells span lines.

    Arrow reads such rows right. With one stray quote, it would take many rows for a single cell.
    """
    if dialect.spaced:
        return False, False
    if not dialect.quote or dialect.escapes:
        return True, False
    text = np.frombuffer(rows, dtype=np.uint8)
    is_open, spans_lines = False, False
    for begin in range(0, len(text), PIECE):
        piece = text[begin : begin + PIECE]
        quotes = np.flatnonzero(piece == ord(dialect.quote)) + begin
        if not _are_at_edges(quotes, is_open, text, dialect):
            return False, spans_lines

        # A line ends within a cell if the number of quotes before it is odd.
        if len(quotes) or is_open:
            line_ends = np.flatnonzero(piece == ord("\n")) + begin
            quotes_before = np.searchsorted(quotes, line_ends) + int(is_open)
            spans_lines = spans_lines or bool((quotes_before % 2 == 1).any())
        is_open ^= len(quotes) % 2 == 1
    return not is_open, spans_lines


def _are_at_edges(quotes: np.ndarray, is_open: bool, text: np.ndarray, dialect: Dialect) -> bool:
    """Return whether quotes at these positions open and close cells in turn, and stand at their edges.

    With `is_open`, the first one closes. A doubled quote closes a cell and opens it again.
    """
    is_edge = np.zeros(256, dtype=bool)
    for mark in (dialect.quote, "\n", "\r", dialect.delimiter):
        is_edge[ord(mark)] = True
    opening, closing = quotes[int(is_open) :: 2], quotes[1 - int(is_open) :: 2]
    before = opening[opening > 0] - 1
    behind = closing[closing < len(text) - 1] + 1
    return bool(is_edge[text[before]].all() and is_edge[text[behind]].all())


def _are_lines_rows(rows: memoryview, dialect: Dialect) -> bool:
    """Return whether quotes mean nothing: each line is a row, and few cells have a quote at both ends."""
    if dialect.columns < 2:
        return False
    text = np.frombuffer(rows, dtype=np.uint8)
    line_ends = np.flatnonzero(text == ord("\n"))
    delimiters = np.flatnonzero(text == ord(dialect.delimiter))
    delimiters_before = np.searchsorted(delimiters, line_ends)
    counts = np.diff(delimiters_before, prepend=0)
    if not (counts == dialect.columns - 1).all():
        return False

    quote, delimiter = re.escape(dialect.quote), re.escape(dialect.delimiter)
    before, behind = rf"(?:^|[{delimiter}\n])", rf"(?=[{delimiter}\r\n]|$)"
    cell = re.compile(f"{before}{quote}[^{quote}\n]*{quote}{behind}".encode())
    around_cells = 2 * sum(1 for _ in cell.finditer(rows))
    return around_cells < 0.5 * int((text == ord(dialect.quote)).sum())


def _by_arrow(rows: memoryview, names: list[str], dialect: Dialect) -> pa.Table | None:
    """Return the table that Arrow reads, many rows at once; None if rows differ in length."""
    # Two columns may have one name in a file, but not in Arrow's options.
    numbers = list(map(str, range(len(names))))
    if not len(rows):
        return pa.table(dict.fromkeys(numbers, pa.array([], pa.string()))).rename_columns(names)
    conversion = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(numbers, pa.string()),
        null_values=list(EMPTY),
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
        reading = pa.csv.ReadOptions(column_names=numbers, block_size=min(block, LONGEST))
        try:
            table = pa.csv.read_csv(arrow_reader(rows), reading, parsing, conversion)
            return table.rename_columns(names)
        except pa.ArrowInvalid as error:
            # A row that is longer than a block straddles two of them.
            if "straddling" not in str(error) or block >= LONGEST:
                return None
            block *= 16


# --- row by row ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Origin:
    """What messages call a file and its format, and the line in which its first row begins."""

    label: str
    kind: str
    line: int

    def position(self, row: int, line: int) -> str:
        """Return a row's number, and its line in the file. `line` counts from 1 where the rows begin."""
        return f"row {row} (line {self.line + line - 1})"


def _row_by_row(
    rows: bytes, names: list[str], dialect: Dialect, origin: _Origin
) -> tuple[pa.Table, list[str]]:
    """Read rows of which some are too short or too long, or have stray quotes.

    Short rows end in null cells, and empty surplus cells are left out. A note names such rows. Raises
    `TableError` if a row has more cells than there are columns.
    """
    text, dialect = _fitting(rows.decode(), dialect)
    width = len(names)
    # Rows may also be too long by empty cells: spreadsheets write delimiters for columns that were deleted.
    columns: list[list[str | None]] = [[] for _ in names]
    short: list[str] = []
    for number, (line, row) in enumerate(dialect.numbered_rows(text)):
        if len(row) != width:
            position = origin.position(number, line)
            if any(map(str.strip, row[width:])):
                raise _too_long(position, origin, row, width, dialect)
            if len(row) < width:
                short.append(position)
            row = row[:width] + [""] * (width - len(row))
        for cells, cell in zip(columns, row, strict=True):
            cells.append(None if cell in EMPTY else cell)

    notes = [_short_note(short, origin, width)] if short else []
    arrays = [pa.array(cells, pa.string()) for cells in columns]
    return pa.table(arrays, names=names), notes


def _short_note(short: list[str], origin: _Origin, width: int) -> str:
    """Return a note that names the first rows with fewer cells than there are columns."""
    shown = ", ".join(short[:SHOWN])
    if len(short) > SHOWN:
        shown += ", ..."
    rows_have = "row has" if len(short) == 1 else "rows have"
    return (
        f"{origin.label}: {len(short):,} {rows_have} fewer than {width} cells, so the last count as "
        f"missing: {shown}"
    )


def _fitting(text: str, dialect: Dialect) -> tuple[str, Dialect]:
    """Return the text and the dialect by which most rows have the right length.

    That is the inferred dialect, or one near it: quotes within cells are not doubled, or escaped only in
    rows behind those that the dialect was inferred from, or mean nothing.
    """
    candidates = [(text, dialect)]
    if dialect.quote and dialect.columns > 1 and not dialect.spaced:
        candidates = [(_with_doubled_quotes(text, dialect), dialect), *candidates]
        candidates.append((text, replace(dialect, escapes=True)))
        candidates.append((text, replace(dialect, quote="")))

    scores = []
    for candidate_text, candidate in candidates:
        lengths = list(map(len, candidate.rows(candidate_text)))
        fitting = lengths.count(dialect.columns)
        scores.append((fitting / max(len(lengths), 1), fitting))
    return candidates[scores.index(max(scores))]


def _with_doubled_quotes(text: str, dialect: Dialect) -> str:
    """Double the quotes within cells: a cell in quotes ends where a delimiter or a line's end follows."""
    quote, doubled, delimiter = dialect.quote, dialect.quote * 2, re.escape(dialect.delimiter)
    before, behind = rf"(?:^|(?<=[\r\n{delimiter}]))", rf"(?=[\r\n{delimiter}]|$)"
    cell = re.compile(f"{before}{quote}(.*?){quote}{behind}", re.DOTALL)

    def with_doubled(match: re.Match[str]) -> str:
        """Return a cell in quotes, in which quotes are doubled, as some of them may be already."""
        plain = match[1].replace(doubled, quote)
        return quote + plain.replace(quote, doubled) + quote

    return cell.sub(with_doubled, text)


def _too_long(position: str, origin: _Origin, row: list[str], width: int, dialect: Dialect) -> TableError:
    shown = dialect.delimiter.join(row)
    shown = shown if len(shown) <= 100 else shown[:97] + "..."
    mark = "tab" if dialect.delimiter == "\t" else f"'{dialect.delimiter}'"
    return TableError(
        f"'{origin.label}' cannot be read as {origin.kind}: {position} has {len(row)} cells, expected "
        f"{width}: {shown!r}. Put cells that hold a {mark} in double quotes"
    )


def _without_trailing_delimiter(table: pa.Table) -> pa.Table:
    """Leave out last columns without a name and without a cell: each line ends in a delimiter."""
    while table.num_columns > 1:
        last = table.num_columns - 1
        has_cells = table.column(last).null_count < len(table)
        if table.column_names[last].strip() or has_cells:
            break
        table = table.remove_column(last)
    return table
