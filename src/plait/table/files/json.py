"""JSON: lines of objects, arrays of objects, and the other forms in which pandas writes a frame."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import pyarrow as pa
import pyarrow.json

from plait.errors import TableError
from plait.table.files.content import Content, FileTable
from plait.table.files.encoding import to_utf8
from plait.table.files.geojson import OTHER_MAPS, rows_of_map
from plait.table.files.header import unnamed
from plait.table.python_cells import column_of, columns_of_mappings, columns_of_rows, table_of

BLOCK = 4 << 20  # bytes that Arrow parses at once; a line must fit into one block
LONGEST = (1 << 31) - 2  # bytes of the largest block

BETWEEN_LINES = re.compile(rb"\}\s*\n\s*\{")

EXPECTED = "expected an array of objects, or one object a line"


def read_json(content: Content) -> FileTable:
    """Read JSON with the types that it has. Raises `TableError` naming the line or key that does not fit."""
    encoded = to_utf8(content.data, content.label)
    text = encoded.data.rstrip(b"\x1a\x00 \t\r\n")
    if not text:
        raise TableError(f"'{content.label}' is an empty file")
    is_lines = content.suffix in (".jsonl", ".ndjson")
    # Many files of lines are called .json.
    if text.lstrip().startswith(b"{") and (is_lines or BETWEEN_LINES.search(text)):
        table = _lines_by_arrow(text)
        if table is not None:
            return FileTable(table, encoded.notes)

    values = list(_values(text.decode(), content.label))
    if len(values) == 1 and _is_map(values[0]):
        rows, notes = rows_of_map(cast("dict[str, object]", values[0]), content.label)
        return FileTable(_of_rows(rows, content.label), (*encoded.notes, *notes))
    if len(values) == 1 and not is_lines:
        return FileTable(_document(values[0], content.label), encoded.notes)
    return FileTable(_of_rows(values, content.label), encoded.notes)


# --- lines -----------------------------------------------------------------------------------------------


def _lines_by_arrow(text: bytes) -> pa.Table | None:
    """Return the table of lines that Arrow reads, many at once; None if a column has several types.

    Arrow takes strings such as `2023-02-05` for instants, so such columns are read again as strings.
    """
    table = _by_arrow(text, None)
    if table is None or not table.num_rows:
        return None
    # Objects within objects are media, or an error that names the column.
    if any(map(pa.types.is_struct, table.schema.types)):
        return None
    fields = []
    for column in table.schema:
        fields.append(column.with_type(_without_instants(column.type)))
    schema = pa.schema(fields)
    return table if schema.equals(table.schema) else _by_arrow(text, schema)


def _by_arrow(text: bytes, schema: pa.Schema | None) -> pa.Table | None:
    """Return what Arrow makes of lines; None if it cannot read them, or not by this schema."""
    parsing = pa.json.ParseOptions(explicit_schema=schema, newlines_in_values=False)
    block = BLOCK
    while True:
        reading = pa.json.ReadOptions(block_size=min(block, LONGEST))
        try:
            return pa.json.read_json(pa.BufferReader(text), reading, parsing)
        except pa.ArrowException as error:
            # A line that is longer than a block straddles two of them.
            if "straddling" not in str(error) or block >= min(LONGEST, 16 * len(text)):
                return None
            block *= 16


def _without_instants(kind: pa.DataType) -> pa.DataType:
    """Return a type with strings in the place of instants."""
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_time(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_without_instants(kind.value_type))
    return kind


def _values(text: str, label: str) -> Iterator[object]:
    """Return the JSON values of a text, one after the other."""
    decoder = json.JSONDecoder()
    start = _past_blanks(text, 0)
    while start < len(text):
        try:
            value, end = decoder.raw_decode(text, start)
        except (json.JSONDecodeError, RecursionError) as error:
            position = getattr(error, "pos", start)
            line = text.count("\n", 0, position) + 1
            reason = getattr(error, "msg", "nested too deeply")
            shown = text[position : position + 40]
            raise TableError(f"'{label}' cannot be read as JSON: line {line}: {reason}: {shown!r}") from error
        yield value
        start = _past_blanks(text, end)


def _past_blanks(text: str, position: int) -> int:
    """Return where the next value begins. RFC 7464 has a record separator before each."""
    while position < len(text) and text[position] in " \t\r\n,\x1e":
        position += 1
    return position


# --- one document ----------------------------------------------------------------------------------------


def _is_map(value: object) -> bool:
    return isinstance(value, dict) and value.get("type") == "FeatureCollection"


def _document(value: object, label: str) -> pa.Table:
    """Return the table of a whole document, in any of the forms that have one clear reading."""
    if isinstance(value, list):
        first = value[0] if value else None
        return _of_matrix(first, value, label) if isinstance(first, list) else _of_rows(value, label)
    if isinstance(value, dict):
        return _of_object(value, label)
    raise TableError(f"'{label}': {EXPECTED}, came {type(value).__name__}")


def _of_object(value: dict[str, Any], label: str) -> pa.Table:
    """Return the table of an object: one that pandas writes, an object of columns, or one around rows."""
    if value.get("type") in OTHER_MAPS:
        raise TableError(
            f"'{label}' is a map ({value['type']}), not a table; write its features as a FeatureCollection "
            f"of GeoJSON"
        )
    # pandas writes "columns" and "data" with orient="split", and "schema" and "data" with orient="table".
    if isinstance(value.get("data"), list):
        if isinstance(value.get("columns"), list):
            return _with_names(value["data"], list(map(str, value["columns"])), label)
        if isinstance(value.get("schema"), dict):
            return _of_rows(value["data"], label)
    if value and _all_are(list, value.values()):
        return _of_columns(value, label)
    if value and _all_are(dict, value.values()) and not _are_media(value.values()):
        return _of_nested(value, label)
    return _of_wrapped(value, label)


def _of_wrapped(value: Mapping[str, object], label: str) -> pa.Table:
    """Return the table of the one list of objects that an object holds, or of the object as a row."""
    lists = [name for name, cells in value.items() if _is_rows(cells)]
    if len(lists) == 1:
        return _of_rows(cast("list[object]", value[lists[0]]), label)
    if lists:
        raise TableError(f"'{label}' has several tables: {', '.join(lists)}; keep one of them")
    return _of_rows([value], label)


def _all_are(kind: type, values: Iterable[object]) -> bool:
    return all(isinstance(value, kind) for value in values)


def _is_rows(cells: object) -> bool:
    return isinstance(cells, list) and bool(cells) and _all_are(dict, cells)


def _are_media(cells: Iterable[dict[str, object]]) -> bool:
    """Return whether all objects are files: such an object of objects is one row."""
    return all({"path", "bytes"} & set(cell) for cell in cells)


def _of_rows(rows: Sequence[object], label: str) -> pa.Table:
    """Return the table of objects. A column that one of them lacks is null there."""
    mappings: list[Mapping[str, object]] = []
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise TableError(
                f"'{label}': {EXPECTED}; item {number} is {type(row).__name__}: {str(row)[:40]!r}"
            )
        mappings.append(row)
    return _table(columns_of_mappings(mappings), len(mappings))


def _of_columns(value: dict[str, Sequence[object]], label: str) -> pa.Table:
    """Return the table of an object of columns. If there is one list with objects, it has the rows."""
    first = next(iter(value.values()))
    if len(value) == 1 and _is_rows(first):
        return _of_rows(first, label)
    lengths = list(map(len, value.values()))
    if len(set(lengths)) > 1:
        lengths_by_name = list(zip(value, lengths, strict=True))
        shown = ", ".join(f"'{name}' {length}" for name, length in lengths_by_name[:5])
        raise TableError(f"'{label}': columns have different lengths: {shown}")
    columns = {}
    for name, cells in value.items():
        columns[name] = column_of(cells, name)
    return _table(columns, lengths[0])


def _of_nested(value: dict[str, dict[str, object]], label: str) -> pa.Table:
    """Return the table of an object of objects: columns by row, as pandas writes, or rows by name."""
    keys: dict[str, None] = {}
    for cells in value.values():
        keys.update(dict.fromkeys(cells))

    # Numbers count rows, wherever they stand. Names may be of columns, or of rows.
    if keys and all(map(str.isdigit, keys)):
        columns = {}
        for name, cells in value.items():
            columns[name] = column_of(list(map(cells.get, keys)), name)
        return _table(columns, len(keys))
    if all(map(str.isdigit, value)):
        return _of_rows(list(value.values()), label)
    raise TableError(
        f"'{label}': {EXPECTED}, came an object of objects ('{next(iter(value))}', ...) that may be rows or "
        f"columns; write it as an array of objects"
    )


def _of_matrix(first: list[object], rows: Sequence[object], label: str) -> pa.Table:
    """Return the table of an array of arrays: the first has the names, if it has nothing but strings."""
    if _all_are(str, first):
        return _with_names(rows[1:], list(map(str, first)), label)
    return _with_names(rows, unnamed(len(first)), label)


def _with_names(rows: Sequence[object], names: list[str], label: str) -> pa.Table:
    """Return the table of arrays, each of which is a row. Raises `TableError` for one that does not fit."""
    arrays: list[list[object]] = []
    for number, row in enumerate(rows):
        if not isinstance(row, list):
            shown = f"{type(row).__name__}: {str(row)[:40]!r}"
            raise TableError(
                f"'{label}': row {number}: expected an array of {len(names)} cells, came {shown}"
            )
        if len(row) != len(names):
            raise TableError(f"'{label}': row {number} has {len(row)} cells, expected {len(names)}")
        arrays.append(row)
    return table_of(columns_of_rows(arrays, names), names, len(arrays))


def _table(columns: Mapping[str, pa.ChunkedArray], rows: int) -> pa.Table:
    return table_of(list(columns.values()), list(columns), rows)
