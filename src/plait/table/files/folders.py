"""Folders and globs: class folders, files of one table, and files that are a cell each."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from plait.errors import TableError
from plait.table.table import Table

SPLITS = ("train", "valid", "val", "validation", "dev", "test")

FILES = "image"  # the column of a folder's files

# Text that stands beside media and is no table.
REMARKS = ("readme", "license", "licence", "notice", "citation")


def read_class_folders(path: Path) -> pa.Table:
    """Read a folder of class folders.

    `images/cat/1.jpg` is a row (image: cat/1.jpg, label: cat); `images/train/cat/1.jpg` has the split
    besides. A folder without folders has a row (image) for each file. Raises `TableError` if there are no
    files.
    """
    folders = [folder for folder in _visible(path) if folder.is_dir()]
    if not folders:
        return _flat_folder(path)
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


def _flat_folder(path: Path) -> pa.Table:
    """Return a row for each file of a folder that has no class folders."""
    names = [file.name for file in _visible(path) if file.stem.lower() not in REMARKS]
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
    files = [file for file in _visible(path) if file.is_file() and _ending(file) in endings]
    if not files and any("=" in folder.name for folder in _visible(path) if folder.is_dir()):
        files = [file for file in _files(path) if _ending(file) in endings]
    sides = {file.stem.split(".")[0].split("-")[0].split("_")[0].lower() for file in files} & set(SPLITS)
    if sides and len(files) > 1 and len({file.stem.split("-")[0] for file in files}) > 1:
        shown = ", ".join(file.name for file in files[:5])
        raise TableError(f"folder '{path}' holds several tables: {shown}; name one of them")
    return files


def _ending(file: Path) -> str:
    """Return the ending of a file without that of a compression."""
    from_name = [suffix.lower() for suffix in file.suffixes]
    if len(from_name) > 1 and from_name[-1] in (".gz", ".bz2", ".xz", ".zst", ".zip"):
        return from_name[-2]
    return from_name[-1] if from_name else ""


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
    return [{FILES: str(file.relative_to(base)), "label": folder.name} for file in _files(folder)]
