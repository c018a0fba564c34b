"""Python's objects that hold a table: frames, data sets, arrays with named columns, rows as dicts."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeGuard, cast

import numpy as np
import pyarrow as pa

from plait.errors import TableError
from plait.table.python_cells import as_chunks, column_of, columns_of_mappings, table_of

if TYPE_CHECKING:
    import datasets
    import pandas
    import polars

EXPECTED = (
    "expected a path, a pandas or polars frame, an Arrow table, a Hugging Face dataset, a dict or a "
    "list of dicts"
)


def read_object(source: object) -> pa.Table:
    """Return the table that an object holds, with the types that it has. Raises `TableError`."""
    table = _of_library(source)
    if table is not None:
        return table
    if hasattr(source, "__arrow_c_stream__"):
        return pa.table(source)
    if hasattr(source, "__arrow_c_array__"):
        return pa.Table.from_batches([pa.record_batch(source)])
    if isinstance(source, Mapping):
        _check_row(source)
        return _read_rows([source])
    if isinstance(source, (Iterator, Sequence)) and not isinstance(source, (str, bytes)):
        return _read_rows(list(source))
    if hasattr(source, "to_arrow"):
        return read_object(source.to_arrow())
    raise TableError(f"{EXPECTED}, got {type(source).__name__}")


def _of_library(source: object) -> pa.Table | None:
    """Return the table of an object of a library that plait knows; None for other objects."""
    if isinstance(source, pa.Table):
        return source
    if isinstance(source, np.ndarray):
        return _read_structured(source)
    if _is_pandas(source, "Series"):
        return _read_rows([source])
    if _is_pandas(source, "DataFrame"):
        return _read_pandas(cast("pandas.DataFrame", source))
    if _is_polars(source):
        return _read_polars(source)
    return _read_dataset(source) if _is_dataset(source) else None


# --- rows ------------------------------------------------------------------------------------------------


def _check_row(row: Mapping[object, object]) -> None:
    """Raise `TableError` for a dict of columns: a dict is one row."""
    if row and all(map(_is_column, row.values())):
        raise TableError(
            "a dict is one row, {column: cell}; for columns of cells use pyarrow.table(...) or a data frame, "
            "and for one row of lists a list of one dict"
        )


def _is_column(cell: object) -> bool:
    # An array of more dimensions is an image.
    is_array = isinstance(cell, np.ndarray) and cell.ndim == 1
    is_sequence = is_array or isinstance(cell, Sequence) or _is_pandas(cell, "Series")
    return is_sequence and not isinstance(cell, (str, bytes, bytearray, memoryview))


def _read_rows(rows: Sequence[object]) -> pa.Table:
    """Return the table of rows, {column: cell}. A column that a row lacks is null there."""
    mappings: list[Mapping[object, object]] = []
    for number, row in enumerate(rows):
        if _is_pandas(row, "Series"):
            row = row.to_dict()  # type: ignore[attr-defined]
        if not isinstance(row, Mapping):
            raise TableError(
                f"{EXPECTED}, got {type(rows).__name__} whose item {number} is {type(row).__name__}"
            )
        mappings.append(row)
    columns = columns_of_mappings(mappings)
    return table_of(list(columns.values()), list(map(str, columns)), len(mappings))


def _read_structured(array: np.ndarray) -> pa.Table:
    """Return the table of an array of NumPy with named fields."""
    if array.dtype.names is None:
        raise TableError(
            f"an array of shape {array.shape} has no names of columns; use pandas.DataFrame(array, "
            f"columns=...)"
        )
    rows = np.atleast_1d(array)  # one row may be without a dimension
    columns = []
    for name in array.dtype.names:
        columns.append(column_of(list(rows[name]), name))
    return table_of(columns, array.dtype.names, len(rows))


# --- pandas ----------------------------------------------------------------------------------------------


def _is_pandas(source: object, kind: str) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(source, getattr(pandas, kind))


def _read_pandas(frame: pandas.DataFrame) -> pa.Table:
    """Return the table of a frame of pandas. An index is a column only if it has a name."""
    names = []
    columns = []
    for level, level_name in enumerate(frame.index.names):
        if level_name is not None:
            names.append(str(level_name))
            cells = frame.index.get_level_values(level).to_series()
            columns.append(_series(cells, names[-1]))

    # By number, for two columns of a frame may have one name: the message about that comes later.
    for number, name in enumerate(frame.columns):
        names.append(str(name))
        columns.append(_series(frame.iloc[:, number], names[-1]))
    return table_of(columns, names, len(frame))


def _series(series: pandas.Series, name: str) -> pa.ChunkedArray:
    """Return a column of pandas by what its type is, not how it is stored."""
    kind = type(series.dtype).__name__
    if kind == "SparseDtype":
        return _series(series.sparse.to_dense(), name)
    if kind == "PeriodDtype":
        return _series(series.dt.to_timestamp(), name)
    if kind == "CategoricalDtype":
        return _categories(series.cat, name)
    is_complex = getattr(series.dtype, "kind", "O") == "c"
    if kind == "IntervalDtype" or is_complex or series.dtype == object:
        return column_of(series.tolist(), name)
    try:
        return as_chunks(pa.array(series, from_pandas=True))
    except (pa.ArrowException, UnicodeEncodeError):
        return column_of(series.tolist(), name)


def _categories(categories: pandas.api.typing.CategoricalAccessor, name: str) -> pa.ChunkedArray:
    """Return each row's category. A range of numbers, as cut from a column, is a category by its name."""
    kinds = categories.categories
    if type(kinds.dtype).__name__ == "IntervalDtype":
        kinds = kinds.astype(str)
    values = column_of(kinds.tolist(), name).combine_chunks()
    codes = categories.codes.to_numpy()
    if not len(values):
        return pa.chunked_array([pa.nulls(len(codes))])
    is_missing = codes < 0
    indices = pa.array(np.maximum(codes, 0), mask=is_missing)
    return pa.chunked_array([values.take(indices)])


# --- polars ----------------------------------------------------------------------------------------------


def _is_polars(source: object) -> TypeGuard[polars.DataFrame | polars.LazyFrame | polars.Series]:
    polars = sys.modules.get("polars")
    return polars is not None and isinstance(source, (polars.DataFrame, polars.LazyFrame, polars.Series))


def _read_polars(frame: polars.DataFrame | polars.LazyFrame | polars.Series) -> pa.Table:
    """Return the table of a frame of polars. Its columns of Python's objects are read one by one."""
    import polars

    if not isinstance(frame, polars.DataFrame):
        remedy = "call .collect() on it" if isinstance(frame, polars.LazyFrame) else "call .to_frame() on it"
        raise TableError(f"expected a frame of polars, got {type(frame).__name__}; {remedy}")
    columns = []
    for series in frame.get_columns():
        if series.dtype == polars.Object:
            columns.append(column_of(series.to_list(), series.name))
        else:
            columns.append(_polars_series(series))
    return table_of(columns, frame.columns, len(frame))


def _polars_series(series: polars.Series) -> pa.ChunkedArray:
    """Return a column of polars, which has a few types that Arrow lacks."""
    # The name goes along to Arrow, and polars panics if there is a NUL in it.
    try:
        return as_chunks(series.alias("").to_arrow())
    except pa.ArrowException:
        return column_of(series.to_list(), series.name)


# --- Hugging Face ----------------------------------------------------------------------------------------


def _is_dataset(source: object) -> TypeGuard[datasets.Dataset]:
    """Return whether an object is of the package `datasets`, which need not be installed."""
    return hasattr(source, "with_format") and hasattr(source, "map")


def _read_dataset(dataset: datasets.Dataset) -> pa.Table:
    """Return the table of a dataset, with the names of its classes for their numbers."""
    if isinstance(dataset, Mapping):
        raise TableError(
            f"expected one split of a Hugging Face dataset, such as dataset['train'], got "
            f"{type(dataset).__name__}"
        )
    if not hasattr(dataset, "num_rows"):
        raise TableError(
            f"expected a Hugging Face dataset in memory or on disk, got {type(dataset).__name__}, which may "
            f"not end; use datasets.Dataset.from_list(list(dataset.take(1000)))"
        )
    table: pa.Table = dataset.with_format("arrow")[:]
    for number, name in enumerate(table.column_names):
        class_names = _class_names(dataset.features[name])
        if class_names:
            cells = table.column(number).to_pylist()
            labels = [_labels(cell, class_names) for cell in cells]
            table = table.set_column(number, name, column_of(labels, name))
    return table


def _class_names(feature: object) -> Sequence[str] | None:
    """Return the names of classes, if a column has their numbers, or lists of them."""
    if not hasattr(feature, "names") and hasattr(feature, "feature"):
        feature = feature.feature
    names: Sequence[str] | None = getattr(feature, "names", None)
    return names


def _labels(cell: object, names: Sequence[str]) -> object:
    """Return the names of the classes of a cell, which is a number or a list of them; -1 is missing."""
    if isinstance(cell, list):
        return [_labels(number, names) for number in cell]
    if not isinstance(cell, int):
        return cell
    return None if cell < 0 else names[cell]
