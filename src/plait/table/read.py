"""Anything that holds a table, as Arrow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

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
    """Read a table from any source that holds one.

    That is a file (CSV, TSV, JSON Lines, Parquet, Arrow, Feather), a folder of class folders, a pandas or
    polars frame, an Arrow table, a Hugging Face dataset, a list of dicts (rows), or one dict (a row).

    `root` is where relative paths of media begin: by default the file's own folder, or the working
    folder. A column without a name, as indices have in files, gets the one that pandas gives it,
    `Unnamed: 0` with its number. Raises `TableError`.
    """
    if isinstance(source, Table):
        return source if root is None else Table(source.data, Path(root).absolute(), source.name)
    if isinstance(source, (str, Path)):
        path = Path(source)
        base = _base_folder(path)
        data = _read_path(path)
        name = path.name
    else:
        base = Path(".")
        data = _encoded(source)
        name = "the table"
    if root is not None and not Path(root).is_dir():
        raise TableError(f"root '{root}' is no folder")
    data = _with_names(data, name)
    _check_encoding(data, name)
    return Table(_plain(data), Path(root if root is not None else base).absolute(), name)


def _base_folder(path: Path) -> Path:
    """Return the folder that relative paths in this file or folder begin in. Raises `TableError`."""
    try:
        return path if path.is_dir() else path.parent
    except (OSError, ValueError) as error:  # a name too long, a null character: most likely a text
        reason = getattr(error, "strerror", None) or error
        raise TableError(f"no file '{str(path)[:200]}': {reason}") from error


def _with_names(data: pa.Table, table_name: str) -> pa.Table:
    """Name the columns that have no name. Raises `TableError` if two have the same one."""
    names = []
    for number, name in enumerate(data.column_names):
        names.append(name if name.strip() else f"Unnamed: {number}")
    duplicates = {name for name in names if names.count(name) > 1}
    if duplicates:
        raise TableError(f"{table_name} has more than one column named '{min(duplicates)}'; rename one")
    return data.rename_columns(names)


def _read_path(path: Path) -> pa.Table:
    if path.is_dir():
        return _read_folders(path)
    if not path.exists():
        neighbours = [f.name for f in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = nearest(path.name, neighbours) if neighbours else f"{path.parent} is no folder either"
        raise TableError(f"no file '{path}': {hint}")
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
    """Read a folder of class folders.

    `images/cat/1.jpg` is a row (image: cat/1.jpg, label: cat); `images/train/cat/1.jpg` has the split
    besides. Raises `TableError` if there are no class folders, or no files in them.
    """
    folders = sorted(f for f in path.iterdir() if f.is_dir() and not f.name.startswith("."))
    if not folders:
        raise TableError(f"folder '{path}': expected one folder for each class, found none")
    rows: list[dict[str, str]] = []
    has_splits = all(folder.name.lower() in SPLITS for folder in folders)
    for folder in folders:
        if has_splits:
            rows += _split_folder(folder, path)
        else:
            rows += _class_folder(folder, path)
    if not rows:
        raise TableError(f"folder '{path}': its class folders hold no files")
    return pa.Table.from_pylist(rows)


def folder_of_files(path: Path, column: str) -> Table:
    """Return a row for each file in a folder and the folders in it, its path in `column`."""
    files = _files(path)
    if not files:
        raise TableError(f"folder '{path}' holds no files")
    paths = [str(file.relative_to(path)) for file in files]
    return Table(pa.table({column: paths}), path.absolute(), path.name)


def _files(folder: Path) -> list[Path]:
    """Return the files in a folder and the folders in it, without hidden ones."""
    return sorted(f for f in folder.rglob("*") if f.is_file() and not f.name.startswith("."))


def _split_folder(folder: Path, base: Path) -> list[dict[str, str]]:
    """Return the rows of the class folders in the folder of one split."""
    rows = []
    for class_folder in sorted(folder.iterdir()):
        if class_folder.is_dir():
            for row in _class_folder(class_folder, base):
                rows.append({**row, "split": folder.name})
    return rows


def _class_folder(folder: Path, base: Path) -> list[dict[str, str]]:
    """Return a row for each file of a class."""
    return [{"image": str(file.relative_to(base)), "label": folder.name} for file in _files(folder)]


def _encoded(source: object) -> pa.Table:
    """Return the table of an object. Raises `TableError` for half of a surrogate pair."""
    try:
        return _read_object(source)
    except UnicodeEncodeError as error:
        character = str(error.object)[error.start : error.start + 1]
        raise TableError(
            f"a cell holds {character!a}, half of a surrogate pair, which is no character; "
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
        _check_row(source)
        source = [dict(source)]
    if isinstance(source, list) and not source:
        return pa.table({})
    if _is_rows(source):
        return _read_rows(source)
    raise TableError(
        f"expected a path, a pandas or polars frame, an Arrow table, a Hugging Face dataset, a dict or a "
        f"list of dicts, got {type(source).__name__}"
    )


def _is_rows(source: object) -> TypeGuard[Sequence[Mapping[str, object]]]:
    if not isinstance(source, Sequence) or not source:
        return False
    return all(isinstance(row, Mapping) for row in source)


def _check_row(row: Mapping[str, object]) -> None:
    """Raise `TableError` for a dict of columns: a dict is one row."""
    is_list = [isinstance(cell, Sequence) and not isinstance(cell, (str, bytes)) for cell in row.values()]
    if row and all(is_list):
        raise TableError(
            "a dict is one row, {column: cell}; for columns of cells use pyarrow.table(...) or a data frame"
        )


def _read_rows(rows: Sequence[Mapping[str, object]]) -> pa.Table:
    """Return the table of rows, {column: cell}. A column that a row lacks is null there."""
    names: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row))
    columns = {}
    try:
        for name in names:
            columns[name] = pa.array([row.get(name) for row in rows])
        return pa.table(columns)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise TableError(f"the rows do not fit one table: {error}") from error


def _read_datasets(dataset: Any) -> pa.Table:
    """Read a `datasets.Dataset`, recognised by its attributes so that plait need not import the package."""
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
    """Reduce the types of cells: string views and large strings to strings, extensions to their storage."""
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
