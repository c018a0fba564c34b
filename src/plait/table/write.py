"""A table to a file, in the format that its ending asks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet

from plait.errors import TableError

ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet", ".feather", ".arrow")


def check_ending(path: Path) -> None:
    """Raises `TableError` when the ending of an output file is none of those that plait writes."""
    if path.suffix.lower() not in ENDINGS:
        raise TableError(f"cannot tell the format of '{path.name}' by its ending; plait writes {', '.join(ENDINGS)}")


def write(table: pa.Table, path: Path) -> None:
    """Writes the table, making its folder. In CSV and TSV, lists are joined by "|"."""
    check_ending(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        options = pa.csv.WriteOptions(delimiter="," if suffix == ".csv" else "\t")
        pa.csv.write_csv(_flat(table), path, options)
    elif suffix == ".jsonl":
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in table.to_pylist())
    elif suffix == ".parquet":
        pa.parquet.write_table(table, path)
    else:
        pa.feather.write_feather(table, path)


def _flat(table: pa.Table) -> pa.Table:
    def flat(column: pa.ChunkedArray) -> Any:
        if not pa.types.is_list(column.type):
            return column
        return pa.array([None if c is None else "|".join(map(str, c)) for c in column.to_pylist()], pa.string())

    return pa.table([flat(c) for c in table.columns], names=table.column_names)
