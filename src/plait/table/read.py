"""Anything that holds a table, as Arrow."""

from __future__ import annotations

import glob
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlparse

import pyarrow as pa

from plait.errors import TableError, nearest
from plait.table.cells import joined, normalised
from plait.table.files.content import Content, FileTable, decompressed, open_content
from plait.table.files.folders import FILES as FILES
from plait.table.files.folders import SPLITS as SPLITS
from plait.table.files.folders import folder_of_files as folder_of_files
from plait.table.files.folders import partition, read_class_folders, table_files
from plait.table.files.formats import ENDINGS, read_content
from plait.table.objects import read_object
from plait.table.table import Table

STANDARD_INPUT = "-"


def read(source: object, root: str | Path | None = None) -> Table:
    """Read a table from any source that holds one.

    That is a file (delimited text, JSON, Parquet, Arrow, Feather, ORC, a workbook; compressed or not), `-`
    for standard input, a folder or a glob of such files, a folder of class folders or of media, a pandas or
    polars frame, an Arrow table, a NumPy array with named columns, a Hugging Face dataset, rows as dicts
    (a list, or any iterator), or one dict (a row). `book.xlsx#Sheet2` names a sheet.

    `root` is where relative paths of media begin: by default the file's own folder, or the working
    folder. A column without a name, as indices have in files, gets the one that pandas gives it,
    `Unnamed: 0` with its number. `Table.notes` has what the user should know of how a file was read.
    Raises `TableError`.
    """
    if isinstance(source, Table):
        return source if root is None else replace(source, root=Path(root).absolute())
    if root is not None and not Path(root).is_dir():
        raise TableError(f"root '{root}' is no folder")
    if isinstance(source, (str, os.PathLike)):
        table = _read_place(os.fspath(source))
    else:
        table = Table(normalised(read_object(source), "the table"), Path().absolute(), "the table")
    return table if root is None else replace(table, root=Path(root).absolute())


def _read_place(place: str | bytes) -> Table:
    """Read what a path, a glob, an address or `-` names."""
    if isinstance(place, bytes):
        place = os.fsdecode(place)
    if place == STANDARD_INPUT:
        content = Content("", "standard input", held=sys.stdin.buffer.read())
        return _table(read_content(decompressed(content)), Path(), "standard input")

    path, part = _path(place)
    try:
        if path.is_dir():
            return _read_folder(path)
        if not path.exists() and re.search(r"[*?\[]", place):
            return _read_files(sorted(map(Path, glob.glob(place, recursive=True))), place)
        path, part = _with_sheet(path, part)
        if path.is_dir() or not path.exists():
            raise _missing(path)
        return _table(read_content(open_content(path, part)), path.parent, path.name)
    except (OSError, ValueError) as error:  # a name too long, a null character: most likely a text
        reason = getattr(error, "strerror", None) or error
        raise TableError(f"no file '{place[:200]}': {reason}") from error


def _table(read_table: FileTable, base: Path, name: str) -> Table:
    return Table(normalised(read_table.data, name), base.absolute(), name, read_table.notes)


def _path(place: str) -> tuple[Path, str]:
    """Return the path that a text names, and the sheet behind `#`. Raises `TableError` for a web address."""
    if not re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", place):
        return Path(place), ""
    address = urlparse(place)
    if address.scheme.lower() == "file" and address.netloc in ("", "localhost"):
        return Path(unquote(address.path)), unquote(address.fragment)
    raise TableError(f"'{place[:200]}' is a URL: plait fetches nothing from the network; download it first")


def _with_sheet(path: Path, part: str) -> tuple[Path, str]:
    """Take `#Sheet2` off a path, unless a file is called so."""
    name, sign, sheet = path.name.partition("#")
    if sign and not path.exists() and path.with_name(name or "#").exists():
        return path.with_name(name), sheet
    return path, part


def _missing(path: Path) -> TableError:
    neighbours = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = nearest(path.name, neighbours) if neighbours else f"{path.parent} is no folder either"
    return TableError(f"no file '{path}': {hint}")


def _read_folder(path: Path) -> Table:
    """Read a folder: files of one table, else class folders, else files that are a cell each."""
    files = table_files(path, frozenset(ENDINGS) - {".txt", ".dat", ".data"})
    if files:
        return _read_files(files, str(path), path)
    return _table(FileTable(read_class_folders(path)), path, path.name)


def _read_files(files: list[Path], place: str, base: Path | None = None) -> Table:
    """Read files that have the same columns as one table. Raises `TableError` naming one that has others."""
    files = [file for file in files if file.is_file()]
    if not files:
        raise TableError(f"no file fits '{place}'")
    tables: dict[str, pa.Table] = {}
    notes: list[str] = []
    first: list[str] = []
    for file in files:
        content = read_content(open_content(file))
        table = normalised(content.data, str(file))
        for name, cell in (partition(file, base) if base else {}).items():
            table = table.append_column(name, pa.array([cell] * len(table), pa.string()))
        first = first or sorted(table.column_names)
        if sorted(table.column_names) != first:
            other = ", ".join(sorted(set(table.column_names) ^ set(first)))
            raise TableError(f"'{file}' has other columns than '{files[0]}': {other}; name one of the files")
        tables[str(file)] = table
        notes += content.notes
    common = Path(os.path.commonpath([file.parent.absolute() for file in files]))
    return Table(joined(tables), (base or common).absolute(), Path(place).name, tuple(notes))
