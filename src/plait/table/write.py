"""Write a table to a file, in the format that its ending names."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet

from plait.console import Screen
from plait.disk.whole import check_file, make_folder, write_bytes, writing
from plait.errors import TableError
from plait.table.values import is_list, is_text

GAP = 2  # blanks between columns on screen
ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet", ".feather", ".arrow")

# Spreadsheets run a text that begins like this as a formula, unless it is a number. An apostrophe stops them.
FORMULA = r"^[=+\-@\t\r]"
NUMBER = r"^[+\-]?[\d.,]*\d[\d.,]*([eE][+\-]?\d+)?%?$"


def check_output(path: Path) -> None:
    """Look before the work whether a table can be written to this file.

    Raises `TableError` if plait does not write files of its ending, and `OutputError` if nothing can be
    written there.
    """
    if path.suffix.lower() not in ENDINGS:
        raise TableError(
            f"cannot tell the format of '{path.name}' by its ending; plait writes {', '.join(ENDINGS)}"
        )
    check_file(path)


def write(table: pa.Table, path: Path) -> None:
    """Write the table, and make its folder. The file appears as a whole or not at all.

    In CSV and TSV, lists are joined by "|", and texts that spreadsheets would run begin with an apostrophe.
    Raises `TableError` for an unknown ending, `OutputError` when the disk does not take the file.
    """
    check_output(path)
    make_folder(path.parent)
    with writing(path) as file:
        _write(table, file, path.suffix.lower())


def _write(table: pa.Table, file: IO[bytes], suffix: str) -> None:
    if suffix in (".csv", ".tsv"):
        options = pa.csv.WriteOptions(delimiter="," if suffix == ".csv" else "\t")
        pa.csv.write_csv(_flat(table), file, options)
    elif suffix == ".jsonl":
        for row in table.to_pylist():
            line = json.dumps(row, ensure_ascii=False, default=_as_json) + "\n"
            file.write(line.encode("utf-8", "backslashreplace"))
    elif suffix == ".parquet":
        pa.parquet.write_table(table, file)
    else:
        pa.feather.write_feather(table, file)


def _as_json(cell: object) -> str:
    """Return a cell that JSON has no type for: bytes as base64, anything else as its text."""
    return base64.b64encode(cell).decode() if isinstance(cell, bytes) else str(cell)


def to_stream(table: pa.Table, stream: IO[bytes]) -> None:
    """Write the table as CSV, as `write` does."""
    pa.csv.write_csv(_flat(table), stream)


def show(table: pa.Table, title: str = "") -> None:
    """Print the table in the terminal: side by side if its rows fit the width, else row by row."""
    screen = Screen(out=True)
    columns = list(map(_shown_column, table.columns))
    widths = []
    for name, texts in zip(table.column_names, columns, strict=True):
        widths.append(max(map(len, [name, *texts])) + GAP)
    rows = list(zip(*columns, strict=True))
    if sum(widths) <= screen.width:
        screen.table(title, table.column_names, rows)
        return

    screen.say(title, "bold")
    first_name, *names = table.column_names
    name_width = max(map(len, names), default=0)
    for row in rows:
        lines = [f"{first_name} {row[0]}"]
        for name, text in zip(names, row[1:], strict=True):
            lines.append(f"  {name:<{name_width}}  {text}")
        screen.say("\n".join(lines))


def _shown_column(column: pa.ChunkedArray) -> list[str]:
    """Return a column's cells as they are printed: missing ones blank, whole numbers without a point."""
    cells = column.to_pylist()
    is_whole = all(cell.is_integer() for cell in cells if isinstance(cell, float))
    texts = []
    for cell in cells:
        if cell is None:
            texts.append("")
        elif isinstance(cell, float):
            texts.append(f"{cell:.0f}" if is_whole else f"{cell:.3f}")
        else:
            texts.append(str(cell))
    return texts


def write_vectors(vectors: np.ndarray, path: Path) -> None:
    """Write vectors (rows, D) as a table of one column, `embedding`, of lists of D numbers."""
    flat = pa.array(vectors.reshape(-1), pa.float32())
    write(pa.table({"embedding": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])}), path)


def _flat(table: pa.Table) -> pa.Table:
    """Return a table that CSV can hold, and that spreadsheets only show."""
    names = pc.fill_null(_harmless(pa.array(table.column_names, pa.string())), "").to_pylist()
    return pa.table(list(map(_flat_column, table.columns)), names=names)


def _flat_column(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    """Return lists joined by "|", bytes as base64, and of a file its path."""
    kind = column.type
    if is_text(column):
        return _harmless(column)
    to_text: Callable[[Any], str | None]
    if is_list(column):
        to_text = _joined
    elif pa.types.is_struct(kind):
        to_text = _path
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        to_text = _as_json
    else:
        return column
    texts = [None if cell is None else to_text(cell) for cell in column.to_pylist()]
    return _harmless(pa.array(texts, pa.string()))


def _joined(entries: Sequence[object]) -> str:
    """Return the entries of a list between bars; an empty text for a missing one."""
    return "|".join("" if entry is None else _as_json(entry) for entry in entries)


def _path(cell: dict[str, str | None]) -> str | None:
    return cell.get("path")


def harmless(text: str) -> str:
    """Put an apostrophe before a text that a spreadsheet would run as a formula."""
    return f"'{text}" if re.match(FORMULA, text) and not re.match(NUMBER, text) else text


def _harmless(texts: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Do what `harmless` does to all texts of a column."""
    begins_like_formula = pc.match_substring_regex(texts, FORMULA)
    is_number = pc.match_substring_regex(texts, NUMBER)
    with_apostrophe = pc.binary_join_element_wise("'", texts, "")
    return pc.if_else(pc.and_not(begins_like_formula, is_number), with_apostrophe, texts)


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
