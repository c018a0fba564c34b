"""Folders and globs: class folders, files of one table, and files that are a cell each."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from plait.errors import TableError, count
from plait.table.files.content import COMPRESSIONS, FileTable
from plait.table.table import Table

SPLITS = ("train", "valid", "val", "validation", "dev", "test")

FILES = "image"  # the column of a folder's files
FOLDER_COLUMNS = (FILES, "label", "split")  # the last two where it has class folders, and sides of a split
SHOWN = 3  # files that a note names

# Text that stands beside media and is no table.
REMARKS = ("readme", "license", "licence", "notice", "citation")


def read_class_folders(path: Path) -> FileTable:
    """Read a folder of class folders.

    `images/cat/1.jpg` is a row (image: cat/1.jpg, label: cat); `images/train/cat/1.jpg` has the split
    besides. A folder without folders has a row (image) for each file. A note names files that lie beside
    class folders, and have no class. Raises `TableError` if there are no files.
    """
    folders = list(filter(Path.is_dir, _visible(path)))
    if not folders:
        return FileTable(_flat_folder(path))
    rows: list[dict[str, str]] = []
    # A class may be called `test`. Folders are the sides of a split only if all of them have such names.
    has_splits = all(folder.name.lower() in SPLITS for folder in folders)
    read_rows = _split_folder if has_splits else _class_folder
    for folder in folders:
        rows += read_rows(folder, path)
    if not rows:
        raise TableError(f"folder '{path}': its class folders hold no files")
    beside = _names_of_files(path)
    notes = []
    if beside:
        shown = ", ".join(beside[:SHOWN]) + (", ..." if len(beside) > SHOWN else "")
        notes.append(
            f"folder '{path}': {count(len(beside), 'file lies', 'files lie')} beside the class folders, "
            f"and {'is' if len(beside) == 1 else 'are'} left out: {shown}"
        )
    return FileTable(pa.Table.from_pylist(rows), tuple(notes))


def _names_of_files(path: Path) -> list[str]:
    """Return the names of the files in a folder, without those that only say something about it."""
    files = filter(Path.is_file, _visible(path))
    return [file.name for file in files if file.stem.lower() not in REMARKS]


def _flat_folder(path: Path) -> pa.Table:
    """Return a row for each file of a folder that has no class folders."""
    names = _names_of_files(path)
    if not names:
        raise TableError(f"folder '{path}': expected files, or one folder for each class, found none")
    return pa.table({FILES: names})


def folder_of_files(path: Path, column: str) -> Table:
    """Return a row for each file in a folder and the folders in it, its path in `column`."""
    files = _files(path)
    if not files:
        raise TableError(f"folder '{path}' holds no files")
    paths = [str(file.relative_to(path)) for file in files]
    return Table(pa.table({column: paths}), path.absolute(), path.name)


def table_files(path: Path, endings: frozenset[str]) -> list[Path]:
    """Return the files with these endings that make up the table of a folder; none if it holds other files.

    Spark and Hive write folders of parts, `year=2023/part-0.parquet`. Raises `TableError` if the files
    are tables of their own, such as train.csv and test.csv.
    """
    entries = _visible(path)
    files = _with_ending(filter(Path.is_file, entries), endings)
    if not files and _has_partitions(entries):
        files = _with_ending(_files(path), endings)
    if _are_splits(files):
        shown = ", ".join(file.name for file in files[:5])
        raise TableError(f"folder '{path}' holds several tables: {shown}; name one of them")
    return files


def _with_ending(files: Iterable[Path], endings: frozenset[str]) -> list[Path]:
    return [file for file in files if _ending(file) in endings]


def _ending(file: Path) -> str:
    """Return the ending of a file without that of a compression."""
    suffixes = file.suffixes
    if len(suffixes) > 1 and suffixes[-1].lower() in COMPRESSIONS:
        suffixes = suffixes[:-1]
    return suffixes[-1].lower() if suffixes else ""


def _has_partitions(entries: Iterable[Path]) -> bool:
    """Return whether one of these is a folder such as `year=2023`."""
    return any("=" in entry.name and entry.is_dir() for entry in entries)


def _are_splits(files: Iterable[Path]) -> bool:
    """Return whether files are tables for training and test. `train-00` and `train-01` are parts of one."""
    # Hugging Face and Spark cut a table into pieces with numbers; other programs write train_labels.csv.
    tables = set()
    words = set()
    for file in files:
        table = file.stem.split("-")[0]
        tables.add(table)
        words.add(re.split(r"[._]", table)[0].lower())
    return len(tables) > 1 and not words.isdisjoint(SPLITS)


def partition(file: Path, base: Path) -> dict[str, str]:
    """Return what the folders between say of a file's rows: `year=2023` is a cell of the column `year`."""
    cells = {}
    for folder in file.relative_to(base).parts[:-1]:
        name, sign, value = folder.partition("=")
        if sign:
            cells[name] = value
    return cells


def _visible(folder: Path) -> list[Path]:
    """Return what a folder holds, in order, without hidden files and marks such as `_SUCCESS`."""
    return sorted(file for file in folder.iterdir() if not file.name.startswith((".", "_")))


def _files(folder: Path) -> list[Path]:
    """Return the files in a folder and the folders in it, without hidden ones."""
    files = filter(Path.is_file, folder.rglob("*"))
    return sorted(file for file in files if not file.name.startswith("."))


def _split_folder(folder: Path, base: Path) -> list[dict[str, str]]:
    """Return the rows of the class folders in the folder of one split."""
    rows = []
    for class_folder in filter(Path.is_dir, sorted(folder.iterdir())):
        for row in _class_folder(class_folder, base):
            rows.append({**row, "split": folder.name})
    return rows


def _class_folder(folder: Path, base: Path) -> list[dict[str, str]]:
    """Return a row for each file of a class."""
    rows = []
    for file in _files(folder):
        rows.append({FILES: str(file.relative_to(base)), "label": folder.name})
    return rows
