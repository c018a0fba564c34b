"""Anything that holds a table, as Arrow."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.feather
import pyarrow.json
import pyarrow.parquet

from plait.errors import TableError, nearest
from plait.modalities.number import MOST, share_of_numbers

SPLITS = ("train", "valid", "val", "validation", "dev", "test")
NULLS = ["", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "#N/A"]
MARKS = ["?", ".", "-", "--"]  # none too, but only beside numbers or truth values: alone, or beside words, each is a value like any other
TRUTH = {"true": True, "false": False, "True": True, "False": False, "TRUE": True, "FALSE": False}


@dataclass(frozen=True)
class Table:
    """An Arrow table, the folder that its relative paths are resolved against, and what to call it in messages."""

    data: pa.Table
    root: Path
    name: str

    def __len__(self) -> int:
        return int(self.data.num_rows)

    def column(self, name: str) -> pa.ChunkedArray:
        """The column of this name. Raises `TableError` with the nearest name when there is none."""
        if self.data.schema.get_field_index(name) < 0:
            raise TableError(f"{self.name} has no column '{name}': {nearest(name, self.data.column_names)}")
        return self.data.column(name)

    def take(self, rows: Any) -> Table:
        return Table(self.data.take(pa.array(rows, pa.int64())), self.root, self.name)


def only_column(table: Table, column: str | None, what: str) -> str:
    """The column that is named, or the table's only one. Raises `TableError` where there are several."""
    if column is None and len(table.data.column_names) != 1:
        raise TableError(f"{table.name} has {', '.join(table.data.column_names)}: say which one holds the {what} (column=, --column)")
    return column or str(table.data.column_names[0])


def read(source: Any, root: str | Path | None = None) -> Table:
    """A table from a file (CSV, TSV, JSON Lines, Parquet, Arrow, Feather), a folder of class folders, a pandas or
    polars frame, an Arrow table, a Hugging Face dataset, a list of dicts (rows), or one dict (a row).

    `root` is where relative paths of media begin: by default the file's own folder, or the working folder. A column without a name, as
    indices have in files, gets the one that pandas gives it: `Unnamed: 0`, or the number of its place.
    Raises `TableError`.
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
        raise TableError(f"no file '{path}': {nearest(path.name, here) if here else f'{path.parent} is no folder either'}")
    readers = {
        ".csv": lambda: _read_csv(path), ".tsv": lambda: _read_csv(path, "\t"),
        ".jsonl": lambda: pa.json.read_json(path), ".ndjson": lambda: pa.json.read_json(path),
        ".parquet": lambda: pa.parquet.read_table(path), ".pq": lambda: pa.parquet.read_table(path),
        ".feather": lambda: pa.feather.read_table(path), ".arrow": lambda: _read_arrow(path), ".ipc": lambda: _read_arrow(path),
    }  # fmt: skip
    suffix = path.suffix.lower()
    if suffix not in readers:
        raise TableError(f"cannot tell what '{path.name}' is by its ending; plait reads {', '.join(readers)} and folders of class folders")
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


def _read_csv(path: Path, delimiter: str = "") -> pa.Table:
    """Cells come as strings first: Arrow's own inference would read the code 007 as seven. Where no delimiter is given the header says
    which it is; behind semicolons, which spreadsheets write where numbers have decimal commas, such numbers are numbers."""
    data = path.read_bytes()
    try:
        data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TableError(f"'{path}' is not UTF-8 (byte {error.start}); save it as UTF-8 first") from error
    data = data.removeprefix(b"\xef\xbb\xbf")
    delimiter = delimiter or _delimiter(data)
    header = pa.csv.open_csv(io.BytesIO(data), parse_options=pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)).schema.names
    table = pa.csv.read_csv(
        io.BytesIO(data),
        parse_options=pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pa.csv.ConvertOptions(
            column_types=dict.fromkeys(header, pa.string()), null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=True
        ),
    )
    columns = [_with_points(c) for c in table.columns] if delimiter == ";" else table.columns
    return pa.table([_typed(c) for c in columns], names=table.column_names)


def _delimiter(data: bytes) -> str:
    """A comma, unless the header has none outside of quotes, and has semicolons or tabs."""
    header = re.sub(r'"[^"]*"', "", io.BytesIO(data).readline().decode())
    return next((d for d in ",;\t" if d in header), ",")


def _with_points(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Numbers with decimal commas, where all cells are numbers, with decimal points."""
    known = cells.filter(pc.invert(pc.is_in(cells, pa.array([*NULLS, *MARKS, None]))))
    if not len(known) or not pc.all(pc.match_substring_regex(known, r"^\s*-?(0|[1-9]\d*)(,\d+)?([eE][+-]?\d+)?\s*$")).as_py():
        return cells
    return pc.replace_substring(cells, ",", ".")


def _typed(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Strings as whole numbers, numbers or truth values where all of them are, but for those that say that there is none; codes such as 007
    stay strings. Where a few are no numbers all stay strings too, for the modality to name these."""
    given = pc.if_else(pc.is_in(cells, pa.array(NULLS)), None, cells)
    if pc.all(pc.is_in(given, pa.array([*MARKS, None]))).as_py():
        return given
    given = pc.if_else(pc.is_in(given, pa.array(MARKS)), None, given)
    known = given.drop_null()
    if pc.all(pc.is_in(known, pa.array(list(TRUTH)))).as_py():
        return pc.is_in(given, pa.array([k for k, v in TRUTH.items() if v])).combine_chunks() if not given.null_count else _truth(given)
    if pc.any(pc.match_substring_regex(known, r"^[+-]?0[0-9]|^\+")).as_py():
        return cells
    for kind in (pa.int64(), pa.float64()):
        try:
            return pc.cast(pc.utf8_trim_whitespace(given), kind)
        except pa.ArrowInvalid:
            continue
    return given if share_of_numbers(known) >= MOST else cells


def _truth(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array([None if c is None else TRUTH[c] for c in cells.to_pylist()], pa.bool_())])


def _read_folders(path: Path) -> pa.Table:
    """`photos/cat/1.jpg` is a row (image: cat/1.jpg, label: cat); `photos/train/cat/1.jpg` has the split besides."""
    folders = sorted(f for f in path.iterdir() if f.is_dir() and not f.name.startswith("."))
    if not folders:
        raise TableError(f"folder '{path}': expected one folder for each class, found none")
    rows: list[dict[str, str]] = []
    if all(f.name.lower() in SPLITS for f in folders):
        rows = [{**row, "split": s.name} for s in folders for c in sorted(s.iterdir()) if c.is_dir() for row in _folder(c, path)]
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


def _encoded(source: Any) -> pa.Table:
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


def _read_object(source: Any) -> pa.Table:
    if isinstance(source, pa.Table):
        return source
    if hasattr(source, "with_format") and hasattr(source, "map"):
        return _read_datasets(source)
    if hasattr(source, "__arrow_c_stream__"):
        return pa.table(source)
    if isinstance(source, Mapping):
        if source and all(isinstance(v, Sequence) and not isinstance(v, (str, bytes)) for v in source.values()):
            raise TableError("a dict is one row, {column: cell}; for columns of cells use pyarrow.table(...) or a data frame")
        source = [dict(source)]
    if isinstance(source, Sequence) and source and all(isinstance(row, Mapping) for row in source):
        names = list(dict.fromkeys(name for row in source for name in row))
        try:
            return pa.table({name: pa.array([row.get(name) for row in source]) for name in names})
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise TableError(f"the rows do not fit one table: {error}") from error
    raise TableError(
        f"expected a path, a pandas or polars frame, an Arrow table, a Hugging Face dataset, a dict or a list of dicts, got {type(source).__name__}"
    )


def _read_datasets(dataset: Any) -> pa.Table:
    """A `datasets.Dataset`, known by what it has so that plait need not import the package."""
    if isinstance(dataset, Mapping) or not hasattr(dataset, "num_rows"):
        raise TableError(f"expected one split of a Hugging Face dataset, such as dataset['train'], got {type(dataset).__name__}")
    table: pa.Table = dataset.with_format("arrow")[:]
    for i, name in enumerate(table.column_names):
        names = getattr(dataset.features[name], "names", None)
        if names and pa.types.is_integer(table.schema.field(i).type):
            cells = [None if c is None or c < 0 else names[c] for c in table.column(i).to_pylist()]
            table = table.set_column(i, name, pa.array(cells, pa.string()))
    return table


def _plain(table: pa.Table) -> pa.Table:
    """One type for each kind of cell: string views and large strings as strings, extension types as their storage."""
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
