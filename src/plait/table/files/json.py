"""JSON: lines of objects, arrays of objects, and the other forms in which pandas writes a frame."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import pyarrow as pa
import pyarrow.json

from plait.errors import TableError
from plait.table.files.content import Content, FileTable
from plait.table.files.encoding import to_utf8
from plait.table.python_cells import column_of

BLOCK = 4 << 20  # bytes that Arrow parses at once; a line must fit into one block
LONGEST = (1 << 31) - 2

EXPECTED = "expected an array of objects, or one object a line"


def read_json(content: Content) -> FileTable:
    """Read JSON with the types that it has. Raises `TableError` naming the line or key that does not fit."""
    text = to_utf8(content.data, content.label)
    data = text.data.rstrip(b"\x1a\x00 \t\r\n")
    if not data:
        raise TableError(f"'{content.label}' is an empty file")
    is_lines = content.suffix in (".jsonl", ".ndjson")
    if data.lstrip().startswith(b"{") and (is_lines or re.search(rb"\}\s*\n\s*\{", data)):
        table = _lines_by_arrow(data)
        if table is not None:
            return FileTable(table, text.notes)
    values = list(_values(data.decode(), content.label))
    if len(values) == 1 and not is_lines:
        return FileTable(_document(values[0], content.label), text.notes)
    return FileTable(_of_rows(values, content.label), text.notes)


# --- lines -----------------------------------------------------------------------------------------------


def _lines_by_arrow(data: bytes) -> pa.Table | None:
    """Return the table of lines that Arrow reads, many at once; None if a column has several types.

    Arrow takes strings such as `2023-02-05` for instants, so such columns are read again as strings.
    """
    table = _by_arrow(data, None)
    if table is None or not table.num_rows:
        return None
    if any(pa.types.is_struct(kind) for kind in table.schema.types):
        return None
    schema = pa.schema(
        {name: _without_instants(table.schema.field(name).type) for name in table.column_names}
    )
    return table if schema.equals(table.schema) else _by_arrow(data, schema)


def _by_arrow(data: bytes, schema: pa.Schema | None) -> pa.Table | None:
    parsing = pa.json.ParseOptions(explicit_schema=schema, newlines_in_values=False)
    block = BLOCK
    while True:
        reading = pa.json.ReadOptions(block_size=min(block, LONGEST))
        try:
            return pa.json.read_json(pa.BufferReader(data), reading, parsing)
        except pa.ArrowException as error:
            if "straddling" not in str(error) or block >= min(LONGEST, 16 * len(data)):
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
    at = _past_blanks(text, 0)
    while at < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except (json.JSONDecodeError, RecursionError) as error:
            position = getattr(error, "pos", at)
            line = text.count("\n", 0, position) + 1
            reason = getattr(error, "msg", "nested too deeply")
            shown = text[position : position + 40]
            raise TableError(f"'{label}' cannot be read as JSON: line {line}: {reason}: {shown!r}") from error
        yield value
        at = _past_blanks(text, at)


def _past_blanks(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n,\x1e":
        at += 1
    return at


# --- one document ----------------------------------------------------------------------------------------


def _document(value: object, label: str) -> pa.Table:
    """Return the table of a whole document, in any of the forms that have one clear reading."""
    if isinstance(value, list):
        if value and all(isinstance(row, list) for row in value):
            return _of_matrix(value, label)
        return _of_rows(value, label)
    if not isinstance(value, dict):
        raise TableError(f"'{label}': {EXPECTED}, came {type(value).__name__}")
    if value.get("type") in ("FeatureCollection", "Feature", "Topology"):
        raise TableError(
            f"'{label}' is a map ({value['type']}), not a table; write the properties of its features to a "
            f"CSV file"
        )
    if isinstance(value.get("columns"), list) and isinstance(value.get("data"), list):
        return _of_matrix([value["columns"], *value["data"]], label)
    if isinstance(value.get("schema"), dict) and isinstance(value.get("data"), list):
        return _of_rows(value["data"], label)
    if value and all(isinstance(cells, list) for cells in value.values()):
        return _of_columns(value, label)
    if value and all(isinstance(cells, dict) for cells in value.values()) and not _are_media(value):
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


def _is_rows(cells: object) -> bool:
    return isinstance(cells, list) and bool(cells) and all(isinstance(row, dict) for row in cells)


def _are_media(value: Mapping[str, dict[str, object]]) -> bool:
    return all({"path", "bytes"} & set(cell) for cell in value.values())


def _of_rows(rows: Sequence[object], label: str) -> pa.Table:
    """Return the table of objects. A column that one of them lacks is null there."""
    names: dict[str, None] = {}
    read: list[Mapping[str, object]] = []
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise TableError(
                f"'{label}': {EXPECTED}; item {number} is {type(row).__name__}: {str(row)[:40]!r}"
            )
        names.update(dict.fromkeys(row))
        read.append(row)
    columns = [column_of([row.get(name) for row in read], name) for name in names]
    return pa.table(columns, names=list(names)) if columns else pa.table({})


def _of_columns(value: dict[str, Sequence[object]], label: str) -> pa.Table:
    """Return the table of an object of columns. If there is one list with objects, it has the rows."""
    only = next(iter(value.values()))
    if len(value) == 1 and _is_rows(only):
        return _of_rows(only, label)
    lengths = {name: len(cells) for name, cells in value.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"'{name}' {length}" for name, length in list(lengths.items())[:5])
        raise TableError(f"'{label}': columns have different lengths: {shown}")
    return pa.table([column_of(cells, name) for name, cells in value.items()], names=list(value))


def _of_nested(value: dict[str, dict[str, object]], label: str) -> pa.Table:
    """Return the table of an object of objects: columns by row, as pandas writes, or rows by name."""
    inner = list(dict.fromkeys(key for cells in value.values() for key in cells))
    if inner and all(key.isdigit() for key in inner):
        columns = [column_of([cells.get(key) for key in inner], name) for name, cells in value.items()]
        return pa.table(columns, names=list(value))
    if all(key.isdigit() for key in value):
        return _of_rows(list(value.values()), label)
    raise TableError(
        f"'{label}': {EXPECTED}, came an object of objects ('{next(iter(value))}', ...) that may be rows or "
        f"columns; write it as an array of objects"
    )


def _of_matrix(rows: Sequence[Sequence[object]], label: str) -> pa.Table:
    """Return the table of an array of arrays: the first has the names, if it has nothing but strings."""
    names, body = rows[0], rows[1:]
    if not all(isinstance(name, str) for name in names):
        names, body = [f"Unnamed: {number}" for number in range(len(names))], rows
    for number, row in enumerate(body):
        if len(row) != len(names):
            raise TableError(f"'{label}': row {number} has {len(row)} cells, expected {len(names)}")
    cells = list(zip(*body, strict=True)) if body else [()] * len(names)
    columns = [column_of(list(column), str(name)) for column, name in zip(cells, names, strict=True)]
    return pa.table(columns, names=[str(name) for name in names])
