"""The types of cells: whatever Arrow has becomes one of a few types, or is refused by column and type.

These are strings, bytes, truth values, numbers and decimals, dates, times and durations, lists of those, and
structs of the bytes and the path of a file.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from plait.errors import TableError
from plait.table.conventions.plain import as_texts
from plait.table.python_cells import column_of
from plait.table.python_values import check_characters

CHUNK = 1 << 30  # bytes of a chunk of strings; Arrow's offsets of 32 bits reach twice as far


def normalised(table: pa.Table, name: str) -> pa.Table:
    """Return a table with plain types, unique names and null for NaN. `name` is the table in messages.

    Raises `TableError` for a type that plait does not read, and for damaged cells.
    """
    names = _unique_names(table.column_names, name)
    columns = []
    for column_name, cells in zip(names, table.columns, strict=True):
        try:
            cells.validate(full=True)
        except pa.ArrowInvalid as error:
            reason = str(error).splitlines()[0]
            raise TableError(f"{name}: column '{column_name}' is not valid: {reason}") from error
        columns.append(plain(cells, column_name))
    if not columns:
        return table
    return pa.table(columns, names=names)


def _unique_names(names: list[str], table_name: str) -> list[str]:
    """Return names, with one for each column that has none. Raises `TableError` if two are the same."""
    named = []
    for number, column_name in enumerate(names):
        check_characters(column_name, f"{table_name}: the name of column {number}")
        named.append(column_name if column_name.strip() else f"Unnamed: {number}")
    duplicates = {column_name for column_name in named if named.count(column_name) > 1}
    if duplicates:
        raise TableError(f"{table_name} has more than one column named '{min(duplicates)}'; rename one")
    return named


def plain(cells: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Return cells of any Arrow type as one of the plain types. `name` is the column in messages."""
    kind = cells.type
    for is_kind, convert in _CONVERSIONS:
        if is_kind(kind):
            return convert(cells, name)
    raise refusal(name, kind)


def refusal(name: str, kind: object, remedy: str = "") -> TableError:
    """Return the error for a column of a type that plait does not read."""
    remedy = remedy or "convert it to texts, numbers, dates, bytes or lists, or leave the column out"
    return TableError(f"column '{name}': plait reads no cells of type {kind}; {remedy}")


def joined(tables: dict[str, pa.Table]) -> pa.Table:
    """Return tables with the same columns as one. A column of several types becomes strings.

    The keys name the tables in messages. A column that a table lacks is null there.
    """
    kinds: dict[str, list[pa.DataType]] = {}
    for table in tables.values():
        for column in table.schema:
            known = kinds.setdefault(column.name, [])
            if column.type not in known and not pa.types.is_null(column.type):
                known.append(column.type)
    as_text = {name for name, of_column in kinds.items() if not _fit_together(of_column)}
    fitted = []
    for label, table in tables.items():
        for number, name in enumerate(table.column_names):
            if name in as_text:
                table = table.set_column(number, name, _texts(table.column(number), f"{label}: {name}"))
        fitted.append(table)
    return pa.concat_tables(fitted, promote_options="permissive")


def _fit_together(kinds: list[pa.DataType]) -> bool:
    """Return whether Arrow finds one type for cells of all these."""
    try:
        pa.unify_schemas([pa.schema({"x": kind}) for kind in kinds], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return False
    return True


def _texts(cells: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    if (
        pa.types.is_nested(cells.type)
        or pa.types.is_binary(cells.type)
        or pa.types.is_large_binary(cells.type)
    ):
        raise TableError(
            f"{name} holds {cells.type}, where another table has another type; give both one type"
        )
    return as_texts(cells)


# --- conversions -----------------------------------------------------------------------------------------


def _as_is(cells: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    return cells


def _storage(cells: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Return what an extension type is stored as; a UUID as text, an image of pixels as PNG."""
    kind = cells.type
    if kind.extension_name == "arrow.uuid":
        return column_of(cells.to_pylist(), name)
    if kind.extension_name == "arrow.fixed_shape_tensor" and len(kind.shape) > 1:
        return plain(column_of(_tensors(cells), name), name)
    if kind.extension_name == "pandas.interval":
        raise refusal(name, "interval", "convert it to text by .astype(str), or to its middle by .mid")
    storage = pa.chunked_array([chunk.storage for chunk in cells.chunks], kind.storage_type)
    if kind.extension_name == "arrow.bool8":
        return pc.cast(storage, pa.bool_())
    return plain(storage, name)


def _tensors(cells: pa.ChunkedArray) -> list[np.ndarray | None]:
    """Return tensors of one shape as arrays."""
    tensors: list[np.ndarray | None] = []
    for chunk in cells.chunks:
        for cell in chunk.storage.to_pylist():
            flat = None if cell is None else np.asarray(cell, cells.type.value_type.to_pandas_dtype())
            tensors.append(None if flat is None else flat.reshape(cells.type.shape))
    return tensors


def _decoded(cells: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    return plain(pc.cast(cells, cells.type.value_type), name)


def _run_ends_decoded(cells: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    chunks = [pc.run_end_decode(chunk) for chunk in cells.chunks]
    return plain(pa.chunked_array(chunks, cells.type.value_type), name)


def _strings(cells: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    return pa.chunked_array(_narrow(cells, pa.string()), pa.string())


def _bytes(cells: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    return pa.chunked_array(_narrow(cells, pa.binary()), pa.binary())


def _narrow(cells: pa.ChunkedArray, kind: pa.DataType) -> list[pa.Array]:
    """Return strings or bytes with offsets of 32 bits, in as many chunks as that needs."""
    chunks = []
    waiting = list(reversed(cells.chunks))
    while waiting:
        chunk = waiting.pop()
        if chunk.nbytes <= CHUNK or len(chunk) == 1:
            chunks.append(pc.cast(chunk, kind))
            continue
        middle = len(chunk) // 2
        waiting += [chunk.slice(middle), chunk.slice(0, middle)]
    return chunks


def _without_nan(cells: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Return floats with null for NaN; those of 16 bits, which few functions take, as 32."""
    if pa.types.is_float16(cells.type):
        cells = pc.cast(cells, pa.float32())
    is_nan = pc.is_nan(cells)
    return pc.if_else(is_nan, None, cells) if pc.any(is_nan).as_py() else cells


def _list(cells: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Return lists with plain items. A matrix counts as the vector of its numbers."""
    kind = cells.type
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        cells = pa.chunked_array(
            [_list_of_views(chunk) for chunk in cells.chunks], pa.large_list(kind.value_type)
        )
    elif pa.types.is_fixed_size_list(kind) and _is_number(kind.value_type):
        return cells
    elif pa.types.is_fixed_size_list(kind):
        cells = pc.cast(cells, pa.large_list(kind.value_type))
    if _is_list(kind.value_type) or isinstance(kind.value_type, pa.BaseExtensionType):
        return _vectors(cells, name)
    chunks = [_with_plain_items(chunk, name) for chunk in cells.chunks]
    if not chunks:
        items = plain(pa.chunked_array([], kind.value_type), name).type
        return pa.chunked_array([], pa.list_(items))
    return pa.chunked_array(chunks)


def _list_of_views(chunk: pa.Array) -> pa.Array:
    """Return views of lists as lists. (Arrow's own cast loses items.)"""
    lengths = pc.fill_null(pc.list_value_length(chunk), 0).to_numpy(zero_copy_only=False)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int64())
    mask = pc.is_null(chunk) if chunk.null_count else None
    return pa.LargeListArray.from_arrays(offsets, chunk.flatten(), mask=mask)


def _with_plain_items(chunk: pa.Array, name: str) -> pa.Array:
    items = plain(pa.chunked_array([chunk.flatten()]), name)
    flat = pa.concat_arrays(items.chunks) if items.num_chunks else pa.array([], items.type)
    lengths = pc.fill_null(pc.list_value_length(chunk), 0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    mask = pc.is_null(chunk) if chunk.null_count else None
    if offsets[-1] < 2**31:
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat, mask=mask)
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), flat, mask=mask)


def _vectors(cells: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Return matrices of one shape as vectors, and those of bytes as images.

    Raises `TableError` for others.
    """
    arrays: list[np.ndarray | None] = []
    shapes = set()
    for cell in cells.to_pylist():
        if cell is None:
            arrays.append(None)
            continue
        try:
            x: np.ndarray = np.array(cell, dtype=_number_type(cells.type))
        except (ValueError, TypeError):
            raise refusal(
                name, cells.type, "make the rows of each matrix equally long, and of numbers"
            ) from None
        arrays.append(x)
        shapes.add(x.shape)
    if all(len(shape) in (2, 3) for shape in shapes) and _number_type(cells.type) == np.uint8:
        return plain(column_of(arrays, name), name)
    if len(shapes) > 1 or any(len(shape) != 2 for shape in shapes):
        raise refusal(name, cells.type, "give one vector a cell, all of one length, or images as uint8")
    flat = [None if x is None else x.reshape(-1).tolist() for x in arrays]
    return plain(column_of(flat, name), name)


def _number_type(kind: pa.DataType) -> type:
    """Return NumPy's type of the numbers in nested lists."""
    while _is_list(kind):
        kind = kind.value_type
    if isinstance(kind, pa.BaseExtensionType):
        return _number_type(kind.storage_type)
    return np.uint8 if pa.types.is_uint8(kind) else np.float64


def _media(cells: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Return structs of the bytes and the path of a file. Raises `TableError` for other structs."""
    kind = cells.type
    fields = {kind.field(number).name for number in range(kind.num_fields)}
    if {"array", "sampling_rate"} <= fields:
        return plain(column_of(cells.to_pylist(), name), name)
    if not fields & {"bytes", "path"}:
        shown = ", ".join(sorted(fields)[:5])
        raise refusal(
            name,
            f"struct with {shown}",
            f"make each a column of its own, such as '{name}.{min(fields, default='')}'",
        )
    chunks = [_media_chunk(chunk, fields, name) for chunk in cells.chunks]
    return pa.chunked_array(chunks, pa.struct({"bytes": pa.large_binary(), "path": pa.string()}))


def _media_chunk(chunk: pa.StructArray, fields: set[str], name: str) -> pa.StructArray:
    columns = []
    for field, kind in (("bytes", pa.large_binary()), ("path", pa.string())):
        column = pc.struct_field(chunk, field) if field in fields else pa.nulls(len(chunk), kind)
        try:
            columns.append(pc.cast(column, kind))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise refusal(name, f"struct with {field}: {column.type}", "give bytes and a path") from None
    missing = pc.and_(pc.is_null(columns[0]), pc.is_null(columns[1]))
    return pa.StructArray.from_arrays(columns, names=["bytes", "path"], mask=missing)


def _by_value(cells: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Return the cells of a union one by one; those of several kinds become strings."""
    return plain(column_of(cells.to_pylist(), name), name)


def _refused(cells: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    raise refusal(name, cells.type)


def _refused_map(cells: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    raise refusal(name, cells.type, "make each key a column of its own")


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind)) and not pa.types.is_float16(kind)


def _is_as_is(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_date(kind)
        or pa.types.is_timestamp(kind)
        or pa.types.is_time(kind)
        or pa.types.is_duration(kind)
        or pa.types.is_null(kind)
    )


def _is_wide_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_other_binary(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind) or pa.types.is_fixed_size_binary(kind)
    )


def _is_interval(kind: pa.DataType) -> bool:
    return bool(pa.types.is_interval(kind))


_CONVERSIONS: tuple[
    tuple[Callable[[pa.DataType], bool], Callable[[pa.ChunkedArray, str], pa.ChunkedArray]], ...
] = (
    (lambda kind: isinstance(kind, pa.BaseExtensionType), _storage),
    (_is_as_is, _as_is),
    (pa.types.is_floating, _without_nan),
    (_is_wide_string, _strings),
    (_is_other_binary, _bytes),
    (pa.types.is_dictionary, _decoded),
    (pa.types.is_run_end_encoded, _run_ends_decoded),
    (pa.types.is_map, _refused_map),
    (_is_list, _list),
    (pa.types.is_struct, _media),
    (pa.types.is_union, _by_value),
    (_is_interval, _refused),
)
