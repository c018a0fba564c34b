"""Python's values as the cells of one column: of any kind, and of several kinds."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable, Mapping, Sequence
from typing import TypeGuard, TypeVar

import numpy as np
import pyarrow as pa

from plait.errors import TableError
from plait.table.python_values import SIMPLE, Position, check_characters, simple, text_of

NUMBERS = frozenset({int, float})
INSTANTS = frozenset({datetime.datetime, datetime.date})
DECIMALS = frozenset({decimal.Decimal, int})
MEDIA = frozenset({dict, bytes, str})

K = TypeVar("K")


def table_of(columns: Sequence[pa.ChunkedArray], names: Sequence[str], rows: int) -> pa.Table:
    """Return the table of these columns; one without columns has `rows` rows, too.

    Raises `TableError` for a name that is no text.
    """
    for number, name in enumerate(names):
        check_characters(name, f"the name of column {number}")
    if columns:
        return pa.table(list(columns), names=list(names))
    # Arrow takes the number of rows from columns, or from structs without fields.
    structs = pa.array([{}] * rows, pa.struct([]))
    return pa.Table.from_batches([pa.RecordBatch.from_struct_array(structs)])


def columns_of_rows(rows: Sequence[Sequence[object]], names: Sequence[str]) -> list[pa.ChunkedArray]:
    """Return the columns of rows, each with a cell for every name."""
    by_column = zip(*rows, strict=True) if rows else [()] * len(names)
    columns = []
    for name, cells in zip(names, by_column, strict=True):
        columns.append(column_of(list(cells), name))
    return columns


def columns_of_mappings(rows: Sequence[Mapping[K, object]]) -> dict[K, pa.ChunkedArray]:
    """Return the columns of rows, {name: cell}, by name. A column that a row lacks is null there."""
    names: dict[K, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row))
    columns = {}
    for name in names:
        columns[name] = column_of([row.get(name) for row in rows], str(name))
    return columns


def column_of(values: Sequence[object], name: str) -> pa.ChunkedArray:
    """Return values as a column of one type.

    None, NaN, NaT and pd.NA are null. Scalars of several kinds become strings, as a text file would have
    them: true, 5, 0.5. Raises `TableError` naming the column and the row of a value that is no cell.
    """
    # A second of audio has thousands of numbers, each of which would become an object of Python.
    if _are_waves(values):
        return as_chunks(_waves(values))
    kinds = set(map(type, values))
    if not kinds <= SIMPLE:
        values = [simple(value, Position(name, row)) for row, value in enumerate(values)]
    if float in kinds:
        values = [None if value != value else value for value in values]  # NaN is not equal to itself
    kinds = set(map(type, values)) - {type(None)}
    return as_chunks(_array(values, frozenset(kinds), name))


def _array(values: Sequence[object], kinds: frozenset[type], name: str) -> pa.Array | pa.ChunkedArray:
    """Return simple values as Arrow has them; `kinds` are their types."""
    if not kinds:
        return pa.nulls(len(values))
    if len(kinds) == 1:
        return _OF_KIND[next(iter(kinds))](values, name)
    if kinds <= NUMBERS:
        return _numbers(values)
    if kinds <= DECIMALS:
        return _decimals(values, name)
    if kinds <= INSTANTS:
        return _instants(values, name)
    if kinds <= MEDIA:
        return _media(values, name)
    # Where most cells are lists of words, programs write a single word without its list.
    if kinds == {list, str}:
        return _OF_KIND[list]([[value] if isinstance(value, str) else value for value in values], name)
    # A list has no text that would be read as the same list.
    if kinds & {list, dict, bytes}:
        rows = {kind: list(map(type, values)).index(kind) for kind in kinds}
        shown = ", ".join(
            f"{kind.__name__} (row {rows[kind]})" for kind in sorted(kinds, key=rows.__getitem__)
        )
        raise TableError(f"column '{name}' has values of several kinds: {shown}; give all cells one kind")
    return _strings(list(map(text_of, values)), name)


def _strings(values: Sequence[object], name: str) -> pa.Array | pa.ChunkedArray:
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        for row, value in enumerate(values):
            if isinstance(value, str):
                check_characters(value, Position(name, row))
        raise


def _numbers(values: Sequence[object]) -> pa.Array:
    """Return whole numbers and floats as floats; as strings if one of them is beyond all floats."""
    try:
        # Arrow takes no whole number that a float rounds, so Python rounds it.
        return pa.array([float(value) if isinstance(value, int) else value for value in values], pa.float64())
    except OverflowError:
        return pa.array(map(text_of, values), pa.string())


def _integers(values: Sequence[object], name: str) -> pa.Array:
    """Return whole numbers as int64 or uint64; as strings if some are larger, so that no digit is lost."""
    # Hashes of 64 bits are often unsigned; identifiers of 128 bits are longer than any number of Arrow.
    for kind in (pa.int64(), pa.uint64()):
        try:
            return pa.array(values, kind)
        except (OverflowError, pa.ArrowInvalid):
            continue
    return pa.array(map(text_of, values), pa.string())


def _decimals(values: Sequence[object], name: str) -> pa.Array:
    """Return decimals; as strings if they have more digits than Arrow has. NaN is null.

    Arrow's decimals have no infinity: beside one, all are floats.
    """
    exact: list[decimal.Decimal | None] = []
    for value in values:
        number = decimal.Decimal(value) if isinstance(value, (int, decimal.Decimal)) else None
        exact.append(None if number is None or number.is_nan() else number)
    if any(number is not None and number.is_infinite() for number in exact):
        return pa.array([None if number is None else float(number) for number in exact], pa.float64())
    try:
        return pa.array(exact)
    except (pa.ArrowInvalid, OverflowError):
        return pa.array(map(text_of, exact), pa.string())


def _instants(values: Sequence[object], name: str) -> pa.Array:
    """Return instants in microseconds: in UTC if any of them has a time zone. A date begins at midnight."""
    instants: list[datetime.datetime | None] = []
    for value in values:
        if isinstance(value, datetime.datetime):
            instants.append(value)
        elif isinstance(value, datetime.date):
            instants.append(datetime.datetime(value.year, value.month, value.day))
        else:
            instants.append(None)
    if not any(map(_has_zone, instants)):
        return pa.array(instants, pa.timestamp("us"))
    return pa.array(map(_in_utc, instants), pa.timestamp("us", "UTC"))


def _has_zone(instant: datetime.datetime | None) -> bool:
    return instant is not None and instant.tzinfo is not None


def _in_utc(instant: datetime.datetime | None) -> datetime.datetime | None:
    """Return an instant in UTC. One without a zone counts as UTC, beside others that have one."""
    if instant is None:
        return None
    if instant.tzinfo is None:
        return instant.replace(tzinfo=datetime.UTC)
    return instant.astimezone(datetime.UTC)


def _media(values: Sequence[object], name: str) -> pa.Array:
    """Return media cells: files by their path, by their bytes, or both."""
    contents: list[object] = []
    paths: list[object] = []
    for value in values:
        if isinstance(value, dict):
            contents.append(value["bytes"])
            paths.append(value["path"])
        else:
            contents.append(value if isinstance(value, bytes) else None)
            paths.append(value if isinstance(value, str) else None)
    fields = [pa.array(contents, pa.large_binary()), _strings(paths, name)]
    return pa.StructArray.from_arrays(fields, names=["bytes", "path"], mask=_are_missing(values))


def _lists(values: Sequence[object], name: str) -> pa.Array:
    """Return lists, whose items are read like a column."""
    flat: list[object] = []
    offsets = [0]
    for value in values:
        flat.extend(value if isinstance(value, list) else ())
        offsets.append(len(flat))
    entries = column_of(flat, name)
    joined = pa.concat_arrays(entries.chunks) if entries.num_chunks else pa.nulls(0)
    # Offsets of 32 bits end at two billion numbers, which a column of vectors has.
    wide_offsets = pa.array(offsets, pa.int64())
    return pa.LargeListArray.from_arrays(wide_offsets, joined, mask=_are_missing(values))


def _are_missing(values: Sequence[object]) -> pa.Array:
    """Return True for None."""
    return pa.array([value is None for value in values])


def _are_waves(values: Sequence[object]) -> TypeGuard[Sequence[np.ndarray]]:
    """Return whether all values are arrays of one dimension and one type of numbers."""
    if not values or not isinstance(values[0], np.ndarray):
        return False
    kind = values[0].dtype
    # Not even a masked array: numbers would come back that it masks.
    if kind.kind not in "iuf":
        return False
    return all(type(wave) is np.ndarray and wave.ndim == 1 and wave.dtype == kind for wave in values)


def _waves(values: Sequence[np.ndarray]) -> pa.Array:
    """Return arrays of numbers as lists, without a Python object for each number."""
    ends = np.cumsum(list(map(len, values)))
    offsets = pa.array(np.concatenate([[0], ends]), pa.int64())
    numbers = pa.array(np.concatenate(values))
    return pa.LargeListArray.from_arrays(offsets, numbers)


def as_chunks(array: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    """Return an array as a column. Arrow gives some in chunks: long strings, columns of pandas."""
    return array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])


def _of_type(kind: pa.DataType) -> Callable[[Sequence[object], str], pa.Array | pa.ChunkedArray]:
    return lambda values, name: pa.array(values, kind)


_OF_KIND: dict[type, Callable[[Sequence[object], str], pa.Array | pa.ChunkedArray]] = {
    str: _strings,
    bool: _of_type(pa.bool_()),
    int: _integers,
    float: _of_type(pa.float64()),
    bytes: _of_type(pa.binary()),
    decimal.Decimal: _decimals,
    datetime.date: _of_type(pa.date32()),
    datetime.datetime: _instants,
    datetime.time: _of_type(pa.time64("us")),
    datetime.timedelta: _of_type(pa.duration("us")),
    list: _lists,
    dict: _media,
}
