"""Anything that holds a table, as Arrow."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlparse

import pyarrow as pa

from plait.errors import TableError, nearest
from plait.table.cells import joined, normalised
from plait.table.files.content import Content, FileTable, decompressed, open_content
from plait.table.files.folders import FILES as FILES
from plait.table.files.folders import FOLDER_COLUMNS as FOLDER_COLUMNS
from plait.table.files.folders import SPLITS as SPLITS
from plait.table.files.folders import folder_of_files as folder_of_files
from plait.table.files.folders import partition, read_class_folders, table_files
from plait.table.files.formats import ENDINGS, read_content
from plait.table.objects import read_object
from plait.table.table import Table

STANDARD_INPUT = "-"
IN_MEMORY = "the table"  # the name of one that comes from no file


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
        table = _read_address(os.fspath(source))
    else:
        table = Table(normalised(read_object(source), IN_MEMORY), Path().absolute(), IN_MEMORY)
    return table if root is None else replace(table, root=Path(root).absolute())


def _read_address(address: str | bytes) -> Table:
    """Read what a path, a glob, an address of a file or `-` names."""
    if isinstance(address, bytes):
        address = os.fsdecode(address)
    if address == STANDARD_INPUT:
        content = Content("", "standard input", held=sys.stdin.buffer.read())
        return _table(read_content(decompressed(content)), Path(), "standard input")

    # A file may be called `a[1].csv`, or have a # in its name: what exists comes first.
    path, sheet = _path(address)
    try:
        if path.is_dir():
            return _read_folder(path)
        if not path.exists() and re.search(r"[*?\[]", address):
            files = sorted(map(Path, glob.glob(address, recursive=True)))
            return _read_files(files, address)
        path, sheet = _with_sheet(path, sheet)
        if path.is_dir() or not path.exists():
            raise _missing(path)
        return _table(read_content(open_content(path, sheet)), path.parent, path.name)
    except (OSError, ValueError) as error:  # a name too long, a null character: most likely a text
        reason = getattr(error, "strerror", None) or error
        raise TableError(f"no file '{address[:200]}': {reason}") from error


def _table(read_table: FileTable, base: Path, name: str) -> Table:
    return Table(normalised(read_table.data, name), base.absolute(), name, read_table.notes)


def _path(address: str) -> tuple[Path, str]:
    """Return the path that a text names, and the sheet behind `#`. Raises `TableError` for a web address."""
    # A letter and a colon begin a path of Windows; a scheme has two letters at least.
    if not re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", address):
        return Path(address), ""
    url = urlparse(address)
    if url.scheme.lower() == "file" and url.netloc in ("", "localhost"):
        return Path(unquote(url.path)), unquote(url.fragment)
    raise TableError(f"'{address[:200]}' is a URL: plait fetches nothing from the network; download it first")


def _with_sheet(path: Path, sheet: str) -> tuple[Path, str]:
    """Take `#Sheet2` off a path, unless a file is called so."""
    name, sign, behind_sign = path.name.partition("#")
    if sign and not path.exists() and path.with_name(name or "#").exists():
        return path.with_name(name), behind_sign
    return path, sheet


def _missing(path: Path) -> TableError:
    """Return the error for a path that does not exist. It names the file that is called most like it."""
    neighbours = os.listdir(path.parent) if path.parent.is_dir() else []
    hint = nearest(path.name, neighbours) if neighbours else f"{path.parent} is no folder either"
    return TableError(f"no file '{path}': {hint}")


def _read_folder(path: Path) -> Table:
    """Read a folder: files of one table, else class folders, else files that are a cell each."""
    # Texts beside images are often captions, and .dat may be anything.
    files = table_files(path, frozenset(ENDINGS) - {".txt", ".dat", ".data"})
    if files:
        return _read_files(files, str(path), path)
    return _table(read_class_folders(path), path, path.name)


def _read_files(files: list[Path], address: str, base: Path | None = None) -> Table:
    """Read files that have the same columns as one table. Raises `TableError` naming one that has others.

    `base` is the folder that they are in; folders below it may be columns, such as `year=2023`.
    """
    files = list(filter(Path.is_file, files))
    if not files:
        raise TableError(f"no file fits '{address}'")
    tables: dict[str, pa.Table] = {}
    notes: list[str] = []
    # A column that only some of the files have is most likely a mistake: cells would be missing.
    columns: list[str] = []
    for file in files:
        read_table = read_content(open_content(file))
        table = normalised(read_table.data, str(file))
        if base is not None:
            table = _with_partition(table, partition(file, base))
        columns = columns or sorted(table.column_names)
        if sorted(table.column_names) != columns:
            differing = ", ".join(sorted(set(table.column_names) ^ set(columns)))
            raise TableError(
                f"'{file}' has other columns than '{files[0]}': {differing}; name one of the files"
            )
        tables[str(file)] = table
        notes += read_table.notes

    if base is None:
        base = Path(os.path.commonpath([file.parent.absolute() for file in files]))
    return Table(joined(tables), base.absolute(), Path(address).name, tuple(notes))


def _with_partition(table: pa.Table, cells: Mapping[str, str]) -> pa.Table:
    """Append columns, each with one cell for all rows."""
    for name, cell in cells.items():
        table = table.append_column(name, pa.array([cell] * len(table), pa.string()))
    return table
