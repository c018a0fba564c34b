"""The types of cells: whatever Arrow has becomes one of a few types, or is refused by column and type.

These are strings, bytes, truth values, numbers and decimals, dates, times and durations, lists of those, and
structs of the bytes and the path of a file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

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
        # Libraries may hand over memory that breaks Arrow's rules, such as strings that are no UTF-8.
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
    # pandas writes its index as a column without a name.
    for number, column_name in enumerate(names):
        check_characters(column_name, f"{table_name}: the name of column {number}")
        named.append(column_name if column_name.strip() else _unnamed(number, names))
    repeated = Counter(named) - Counter(set(named))
    if repeated:
        raise TableError(f"{table_name} has more than one column named '{min(repeated)}'; rename one")
    return named


def _unnamed(number: int, names: list[str]) -> str:
    """Return the name that pandas gives a column without one, even if it has read and written it before."""
    name = f"Unnamed: {number}"
    if name not in names:
        return name
    repetition = 1
    while f"{name}.{repetition}" in names:
        repetition += 1
    return f"{name}.{repetition}"


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
    kinds: dict[str, dict[pa.DataType, None]] = {}
    for table in tables.values():
        for column in table.schema:
            column_kinds = kinds.setdefault(column.name, {})
            if not pa.types.is_null(column.type):
                column_kinds[column.type] = None
    as_text = {name for name, column_kinds in kinds.items() if not _fit_together(column_kinds)}

    fitted = []
    for label, table in tables.items():
        for number, name in enumerate(table.column_names):
            if name in as_text:
                texts = _texts(table.column(number), f"{label}: {name}")
                table = table.set_column(number, name, texts)
        fitted.append(table)
    return pa.concat_tables(fitted, promote_options="permissive")


def _fit_together(kinds: Iterable[pa.DataType]) -> bool:
    """Return whether Arrow finds one type for cells of all these; it finds none for no types."""
    try:
        pa.unify_schemas([pa.schema({"x": kind}) for kind in kinds], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return False
    return True


def _texts(cells: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Return cells as strings. Raises `TableError` for lists, files and bytes, which strings are not."""
    kind = cells.type
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
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
    # These are truth values of one byte each, as NumPy has them.
    if kind.extension_name == "arrow.bool8":
        return pc.cast(storage, pa.bool_())
    return plain(storage, name)


def _tensors(cells: pa.ChunkedArray) -> list[np.ndarray | None]:
    """Return tensors of one shape as arrays."""
    shape = cells.type.shape
    dtype = cells.type.value_type.to_pandas_dtype()
    tensors: list[np.ndarray | None] = []
    for chunk in cells.chunks:
        for numbers in chunk.storage.to_pylist():
            tensors.append(None if numbers is None else np.asarray(numbers, dtype).reshape(shape))
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
    # Half of a long chunk may still be too long, as cells differ in length.
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
    # NumPy and pandas have NaN for a missing number, and Arrow takes it for a number.
    if pa.types.is_float16(cells.type):
        cells = pc.cast(cells, pa.float32())
    is_nan = pc.is_nan(cells)
    return pc.if_else(is_nan, None, cells) if pc.any(is_nan).as_py() else cells


def _list(cells: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Return lists with plain items. A matrix counts as the vector of its numbers."""
    kind = cells.type
    if pa.types.is_fixed_size_list(kind):
        # Vectors of one length stay as they are: they have no offsets, and may be large.
        if _is_number(kind.value_type):
            return cells
        cells = pc.cast(cells, pa.large_list(kind.value_type))
    elif pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        lists = list(map(_list_of_views, cells.chunks))
        cells = pa.chunked_array(lists, pa.large_list(kind.value_type))

    if _is_list(kind.value_type) or isinstance(kind.value_type, pa.BaseExtensionType):
        return _vectors(cells, name)
    if not cells.num_chunks:
        entries = plain(pa.chunked_array([], kind.value_type), name)
        return pa.chunked_array([], pa.list_(entries.type))
    return pa.chunked_array([_with_plain_entries(chunk, name) for chunk in cells.chunks])


def _list_of_views(chunk: pa.Array) -> pa.Array:
    """Return views of lists as lists. (Arrow's own cast loses items.)"""
    mask = pc.is_null(chunk) if chunk.null_count else None
    offsets = pa.array(_offsets(chunk), pa.int64())
    return pa.LargeListArray.from_arrays(offsets, chunk.flatten(), mask=mask)


def _with_plain_entries(chunk: pa.Array, name: str) -> pa.Array:
    """Return lists with plain entries. Offsets of 32 bits are the rule, and those of 64 where needed."""
    entries = plain(pa.chunked_array([chunk.flatten()]), name)
    flat = pa.concat_arrays(entries.chunks) if entries.num_chunks else pa.array([], entries.type)
    mask = pc.is_null(chunk) if chunk.null_count else None
    offsets = _offsets(chunk)
    if offsets[-1] < 2**31:
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat, mask=mask)
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), flat, mask=mask)


def _offsets(lists: pa.Array) -> np.ndarray:
    """Return where each list begins and the last one ends, (lists + 1,), if null ones are empty."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0)
    ends = np.cumsum(lengths.to_numpy(zero_copy_only=False))
    return np.concatenate([[0], ends])


def _vectors(cells: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Return matrices of one shape as vectors, and those of bytes as images.

    Raises `TableError` for others.
    """
    dtype = _number_type(cells.type)
    matrices: list[np.ndarray | None] = []
    shapes = set()
    for cell in cells.to_pylist():
        if cell is None:
            matrices.append(None)
            continue
        matrix = _matrix(cell, dtype, cells.type, name)
        matrices.append(matrix)
        shapes.add(matrix.shape)

    dimensions = set(map(len, shapes))
    if dtype == np.uint8 and dimensions <= {2, 3}:
        return plain(column_of(matrices, name), name)
    if len(shapes) > 1 or not dimensions <= {2}:
        raise refusal(name, cells.type, "give one vector a cell, all of one length, or images as uint8")
    vectors = [None if matrix is None else matrix.reshape(-1).tolist() for matrix in matrices]
    return plain(column_of(vectors, name), name)


def _matrix(cell: Sequence[object], dtype: type, kind: pa.DataType, name: str) -> np.ndarray:
    """Return nested lists as an array. Raises `TableError` naming the column if its rows differ in length."""
    try:
        return np.array(cell, dtype=dtype)
    except (ValueError, TypeError):
        remedy = "make the rows of each matrix equally long, and of numbers"
        raise refusal(name, kind, remedy) from None


def _number_type(kind: pa.DataType) -> type:
    """Return NumPy's type of the numbers in nested lists."""
    while _is_list(kind):
        kind = kind.value_type
    if isinstance(kind, pa.BaseExtensionType):
        return _number_type(kind.storage_type)
    return np.uint8 if pa.types.is_uint8(kind) else np.float64


def _media(cells: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Return structs of the bytes and the path of a file. Raises `TableError` for other structs."""
    fields = {field.name for field in cells.type}
    if {"array", "sampling_rate"} <= fields:
        return plain(column_of(cells.to_pylist(), name), name)
    if not fields & {"bytes", "path"}:
        shown = ", ".join(sorted(fields)[:5])
        remedy = f"make each a column of its own, such as '{name}.{min(fields, default='')}'"
        raise refusal(name, f"struct with {shown}", remedy)
    chunks = [_media_chunk(chunk, fields, name) for chunk in cells.chunks]
    return pa.chunked_array(chunks, pa.struct({"bytes": pa.large_binary(), "path": pa.string()}))


def _media_chunk(chunk: pa.StructArray, fields: set[str], name: str) -> pa.StructArray:
    """Return structs of bytes and path, null where both are. A field that `fields` lacks is null."""
    # Hugging Face stores one or both: bytes of files that it has copied, and paths of others.
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


def _is_plain(kind: pa.DataType) -> bool:
    return any(is_kind(kind) for is_kind in _PLAIN)


def _is_wide_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_other_binary(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind) or pa.types.is_fixed_size_binary(kind)
    )


def _is_interval(kind: pa.DataType) -> bool:
    return bool(pa.types.is_interval(kind))


_PLAIN: tuple[Callable[[pa.DataType], bool], ...] = (
    pa.types.is_string,
    pa.types.is_binary,
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_decimal,
    pa.types.is_date,
    pa.types.is_timestamp,
    pa.types.is_time,
    pa.types.is_duration,
    pa.types.is_null,
)

# What is done with cells of each type, the first that fits: an extension type is stored as another one.
_CONVERSIONS: tuple[
    tuple[Callable[[pa.DataType], bool], Callable[[pa.ChunkedArray, str], pa.ChunkedArray]], ...
] = (
    (lambda kind: isinstance(kind, pa.BaseExtensionType), _storage),
    (_is_plain, _as_is),
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
