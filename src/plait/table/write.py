"""Write a table to a file, in the format that its ending names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet

from plait.console import Screen
from plait.disk.whole import check_file, make_folder, write_bytes, writing
from plait.errors import TableError

ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet", ".feather", ".arrow")


def check_ending(path: Path) -> None:
    """Look before the work whether a table can be written to this file.

    Raises `TableError` if plait does not write files of its ending, and `OutputError` if nothing can be
    written.
    """
    if path.suffix.lower() not in ENDINGS:
        raise TableError(
            f"cannot tell the format of '{path.name}' by its ending; plait writes {', '.join(ENDINGS)}"
        )
    check_file(path)


def write(table: pa.Table, path: Path) -> None:
    """Write the table, and make its folder. The file appears as a whole or not at all.

    In CSV and TSV, lists are joined by "|". Raises `TableError` for an unknown ending.
    """
    check_ending(path)
    make_folder(path.parent)
    with writing(path) as file:
        _write(table, file, path.suffix.lower())


def _write(table: pa.Table, file: IO[bytes], suffix: str) -> None:
    if suffix in (".csv", ".tsv"):
        options = pa.csv.WriteOptions(delimiter="," if suffix == ".csv" else "\t")
        pa.csv.write_csv(_flat(table), file, options)
    elif suffix == ".jsonl":
        for row in table.to_pylist():
            line = json.dumps(row, ensure_ascii=False, default=str) + "\n"
            file.write(line.encode("utf-8", "backslashreplace"))
    elif suffix == ".parquet":
        pa.parquet.write_table(table, file)
    else:
        pa.feather.write_feather(table, file)


def to_stream(table: pa.Table, stream: IO[bytes]) -> None:
    """Write the table as CSV. Lists are joined by "|"."""
    pa.csv.write_csv(_flat(table), stream)


def show(table: pa.Table) -> None:
    """Print the table in the terminal."""
    rows = []
    for row in table.to_pylist():
        rows.append([_shown(cell) for cell in row.values()])
    Screen(out=True).table("", table.column_names, rows)


def _shown(cell: object) -> str:
    """Return a cell as it is printed. A missing one is blank."""
    if cell is None:
        return ""
    return f"{cell:.3f}" if isinstance(cell, float) else str(cell)


def write_vectors(vectors: np.ndarray, path: Path) -> None:
    """Write vectors (rows, D) as a table of one column, `embedding`, of lists of D numbers."""
    flat = pa.array(vectors.reshape(-1), pa.float32())
    write(pa.table({"embedding": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])}), path)


def _flat(table: pa.Table) -> pa.Table:
    """Join the lists in each column by "|": CSV has no lists."""
    return pa.table([_flat_column(column) for column in table.columns], names=table.column_names)


def _flat_column(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    if not (pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type)):
        return column
    texts = [None if cell is None else "|".join(map(str, cell)) for cell in column.to_pylist()]
    return pa.array(texts, pa.string())


def with_files(answers: pa.Table, out: Path) -> pa.Table:
    """Write recordings, which are bytes, as WAV files beside `out`, and return the table with their paths.

    The files lie in `<out>-files/`. Paths are relative to the folder of `out`.
    """
    for number, name in enumerate(answers.column_names):
        contents = answers[name].to_pylist() if pa.types.is_binary(answers[name].type) else []
        first = next((content for content in contents if content is not None), b"")
        if first.startswith(b"RIFF"):
            paths = _write_recordings(contents, name, out)
            answers = answers.set_column(number, name, pa.array(paths, pa.string()))
    return answers


def _write_recordings(contents: list[bytes | None], column: str, out: Path) -> list[str | None]:
    """Write one file for each row that has a recording, and return the paths; None for other rows."""
    folder = out.parent / f"{out.stem}-files"
    make_folder(folder)
    stem = re.sub(r"[^\w-]", "_", column)
    paths: list[str | None] = []
    for row, content in enumerate(contents):
        if content is None:
            paths.append(None)
            continue
        file = folder / f"{stem}-{row:05d}.wav"
        write_bytes(file, content, flush=False)
        paths.append(str(file.relative_to(out.parent)))
    return paths
