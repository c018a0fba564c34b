"""Anything that holds a table, as Arrow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.feather
import pyarrow.json
import pyarrow.parquet

from plait.errors import TableError, nearest
from plait.table.csv import read_csv
from plait.table.table import Table

SPLITS = ("train", "valid", "val", "validation", "dev", "test")


def read(source: object, root: str | Path | None = None) -> Table:
    """A table from a file (CSV, TSV, JSON Lines, Parquet, Arrow, Feather), a folder of class folders, a
    pandas or polars frame, an Arrow table, a Hugging Face dataset, a list of dicts (rows), or one dict
    (a row).

    `root` is where relative paths of media begin: by default the file's own folder, or the working
    folder. A column without a name, as indices have in files, gets the one that pandas gives it:
    `Unnamed: 0`, or the number of its place. Raises `TableError`.
    """
    if isinstance(source, Table):
        return source if root is None else Table(source.data, Path(root).absolute(), source.name)
    if isinstance(source, (str, Path)):
        path = Path(source)
        try:
            base = path if path.is_dir() else path.parent
        except (OSError, ValueError) as error:  # a name too long, a null character: most likely a text
            reason = getattr(error, "strerror", None) or error
            raise TableError(f"no file '{str(path)[:200]}': {reason}") from error
        data = _read_path(path)
        name = path.name
    else:
        base, data, name = Path("."), _encoded(source), "the table"
    if root is not None and not Path(root).is_dir():
        raise TableError(f"root '{root}' is no folder")
    data = data.rename_columns([c if c.strip() else f"Unnamed: {i}" for i, c in enumerate(data.column_names)])
    doubled = {c for c in data.column_names if data.column_names.count(c) > 1}
    if doubled:
        raise TableError(f"{name} has more than one column named '{min(doubled)}'; rename one")
    _check_encoding(data, name)
    return Table(_plain(data), Path(root if root is not None else base).absolute(), name)


def _read_path(path: Path) -> pa.Table:
    if path.is_dir():
        return _read_folders(path)
    if not path.exists():
        here = [f.name for f in path.parent.iterdir()] if path.parent.is_dir() else []
        raise TableError(
            f"no file '{path}': {nearest(path.name, here) if here else f'{path.parent} is no folder either'}"
        )
    readers = {
        ".csv": lambda: read_csv(path),
        ".tsv": lambda: read_csv(path, "\t"),
        ".jsonl": lambda: pa.json.read_json(path),
        ".ndjson": lambda: pa.json.read_json(path),
        ".parquet": lambda: pa.parquet.read_table(path),
        ".pq": lambda: pa.parquet.read_table(path),
        ".feather": lambda: pa.feather.read_table(path),
        ".arrow": lambda: _read_arrow(path),
        ".ipc": lambda: _read_arrow(path),
    }
    suffix = path.suffix.lower()
    if suffix not in readers:
        raise TableError(
            f"cannot tell what '{path.name}' is by its ending; plait reads {', '.join(readers)} and folders "
            f"of class folders"
        )
    if path.stat().st_size == 0:
        raise TableError(f"'{path}' is an empty file")
    try:
        return readers[suffix]()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise TableError(f"'{path}' cannot be read as {suffix[1:].upper()}: {error}") from error


def _read_arrow(path: Path) -> pa.Table:
    try:
        return pa.ipc.open_file(path).read_all()
    except pa.ArrowInvalid:  # the stream format, not the file format
        return pa.ipc.open_stream(path).read_all()


def _read_folders(path: Path) -> pa.Table:
    """`photos/cat/1.jpg` is a row (image: cat/1.jpg, label: cat); `photos/train/cat/1.jpg` has the
    split besides.
    """
    folders = sorted(f for f in path.iterdir() if f.is_dir() and not f.name.startswith("."))
    if not folders:
        raise TableError(f"folder '{path}': expected one folder for each class, found none")
    rows: list[dict[str, str]] = []
    if all(f.name.lower() in SPLITS for f in folders):
        rows = [
            {**row, "split": s.name}
            for s in folders
            for c in sorted(s.iterdir())
            if c.is_dir()
            for row in _folder(c, path)
        ]
    else:
        rows = [row for c in folders for row in _folder(c, path)]
    if not rows:
        raise TableError(f"folder '{path}': its class folders hold no files")
    return pa.Table.from_pylist(rows)


def folder_of_files(path: Path, column: str) -> Table:
    """A row for each file in a folder and the folders in it, its path in `column`."""
    files = sorted(f for f in path.rglob("*") if f.is_file() and not f.name.startswith("."))
    if not files:
        raise TableError(f"folder '{path}' holds no files")
    return Table(pa.table({column: [str(f.relative_to(path)) for f in files]}), path.absolute(), path.name)


def _folder(folder: Path, base: Path) -> list[dict[str, str]]:
    files = sorted(f for f in folder.rglob("*") if f.is_file() and not f.name.startswith("."))
    return [{"image": str(f.relative_to(base)), "label": folder.name} for f in files]


def _encoded(source: object) -> pa.Table:
    """Return the table of an object. Raises `TableError` for half of a surrogate pair."""
    try:
        return _read_object(source)
    except UnicodeEncodeError as error:
        found = str(error.object)[error.start : error.start + 1]
        raise TableError(
            f"a cell holds {found!a}, half of a surrogate pair, which is no character; "
            "repair such cells, as by text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')"
        ) from error


def _check_encoding(data: pa.Table, name: str) -> None:
    """Raise `TableError` for strings that are not UTF-8, which Parquet and Arrow files can hold."""
    for column, cells in zip(data.column_names, data.columns, strict=True):
        try:
            cells.validate(full=True)
        except pa.ArrowInvalid as error:
            reason = str(error).splitlines()[0]
            raise TableError(f"{name}: column '{column}' is not valid: {reason}") from error


def _read_object(source: object) -> pa.Table:
    if isinstance(source, pa.Table):
        return source
    if hasattr(source, "with_format") and hasattr(source, "map"):
        return _read_datasets(source)
    if hasattr(source, "__arrow_c_stream__"):
        return pa.table(source)
    if isinstance(source, Mapping):
        if source and all(
            isinstance(v, Sequence) and not isinstance(v, (str, bytes)) for v in source.values()
        ):
            raise TableError(
                "a dict is one row, {column: cell}; for columns of cells use pyarrow.table(...) or a data "
                "frame"
            )
        source = [dict(source)]
    if isinstance(source, list) and not source:
        return pa.table({})
    if isinstance(source, Sequence) and source and all(isinstance(row, Mapping) for row in source):
        names = list(dict.fromkeys(name for row in source for name in row))
        try:
            return pa.table({name: pa.array([row.get(name) for row in source]) for name in names})
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise TableError(f"the rows do not fit one table: {error}") from error
    raise TableError(
        f"expected a path, a pandas or polars frame, an Arrow table, a Hugging Face dataset, a dict or a "
        f"list of dicts, got {type(source).__name__}"
    )


def _read_datasets(dataset: Any) -> pa.Table:
    """A `datasets.Dataset`, known by what it has so that plait need not import the package."""
    if isinstance(dataset, Mapping) or not hasattr(dataset, "num_rows"):
        raise TableError(
            f"expected one split of a Hugging Face dataset, such as dataset['train'], got "
            f"{type(dataset).__name__}"
        )
    table: pa.Table = dataset.with_format("arrow")[:]
    for i, name in enumerate(table.column_names):
        names = getattr(dataset.features[name], "names", None)
        if names and pa.types.is_integer(table.schema.field(i).type):
            cells = [None if c is None or c < 0 else names[c] for c in table.column(i).to_pylist()]
            table = table.set_column(i, name, pa.array(cells, pa.string()))
    return table


def _plain(table: pa.Table) -> pa.Table:
    """One type for each kind of cell: string views and large strings as strings, extension types as
    their storage.
    """
    columns = []
    for column in table.columns:
        kind = column.type
        if isinstance(kind, pa.BaseExtensionType):
            column = pa.chunked_array([c.storage for c in column.chunks], kind.storage_type)
            kind = kind.storage_type
        if pa.types.is_string_view(kind) or pa.types.is_large_string(kind):
            column = pc.cast(column, pa.string())
        elif pa.types.is_binary_view(kind):
            column = pc.cast(column, pa.large_binary())
        elif pa.types.is_large_list(kind) and pa.types.is_large_string(kind.value_type):
            column = pc.cast(column, pa.list_(pa.string()))
        columns.append(column)
    return pa.table(columns, names=table.column_names) if columns else table
