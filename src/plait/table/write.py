"""A table to a file, in the format that its ending asks for."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet

from plait.console import Screen
from plait.errors import TableError

ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet", ".feather", ".arrow")


def check_ending(path: Path) -> None:
    """Raises `TableError` when the ending of an output file is none of those that plait writes."""
    if path.suffix.lower() not in ENDINGS:
        raise TableError(
            f"cannot tell the format of '{path.name}' by its ending; plait writes {', '.join(ENDINGS)}"
        )


def write(table: pa.Table, path: Path) -> None:
    """Writes the table, making its folder; the file is there as a whole or not at all. In CSV and TSV,
    lists are joined by "|".
    """
    check_ending(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.stem}.part{path.suffix}")
    _write(table, part)
    os.replace(part, path)


def _write(table: pa.Table, path: Path) -> None:
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        options = pa.csv.WriteOptions(delimiter="," if suffix == ".csv" else "\t")
        pa.csv.write_csv(_flat(table), path, options)
    elif suffix == ".jsonl":
        with path.open("w", encoding="utf-8") as file:
            file.writelines(
                json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in table.to_pylist()
            )
    elif suffix == ".parquet":
        pa.parquet.write_table(table, path)
    else:
        pa.feather.write_feather(table, path)


def to_stream(table: pa.Table, stream: IO[bytes]) -> None:
    """The table as CSV."""
    pa.csv.write_csv(_flat(table), stream)


def show(table: pa.Table) -> None:
    """The table in the terminal."""
    rows = [
        [f"{c:.3f}" if isinstance(c, float) else "" if c is None else str(c) for c in row.values()]
        for row in table.to_pylist()
    ]
    Screen(out=True).table("", table.column_names, rows)


def write_vectors(vectors: np.ndarray, path: Path) -> None:
    """A matrix as one column, `embedding`, of lists of its width."""
    flat = pa.array(vectors.reshape(-1), pa.float32())
    write(pa.table({"embedding": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])}), path)


def _flat(table: pa.Table) -> pa.Table:
    def flat(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
        if not (pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type)):
            return column
        return pa.array(
            [None if c is None else "|".join(map(str, c)) for c in column.to_pylist()], pa.string()
        )

    return pa.table([flat(c) for c in table.columns], names=table.column_names)


def with_files(answers: pa.Table, out: Path) -> pa.Table:
    """The same with recordings, which are bytes, as WAV files beside `out` (in `<out>-files/`), and
    their paths from there in their place.
    """
    for place, name in enumerate(answers.column_names):
        contents = answers[name].to_pylist() if pa.types.is_binary(answers[name].type) else []
        if not next((c for c in contents if c is not None), b"").startswith(b"RIFF"):
            continue
        folder = out.parent / f"{out.stem}-files"
        folder.mkdir(parents=True, exist_ok=True)
        paths: list[str | None] = []
        plain = re.sub(r"[^\w-]", "_", name)
        for row, content in enumerate(contents):
            if content is None:
                paths.append(None)
                continue
            file = folder / f"{plain}-{row:05d}.wav"
            file.write_bytes(content)
            paths.append(str(file.relative_to(out.parent)))
        answers = answers.set_column(place, name, pa.array(paths, pa.string()))
    return answers
