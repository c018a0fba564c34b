"""CSV files: the delimiter, the marks for missing cells, numbers and truth values."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.feather
import pyarrow.json
import pyarrow.parquet

from plait.errors import TableError
from plait.table.values import MOST, share_of_numbers

NULLS = ["", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "#N/A"]


MARKS = [
    "?",
    ".",
    "-",
    "--",
]  # none too, but only beside numbers or truth values: alone, or beside words, each is a value like any other


TRUTH = {"true": True, "false": False, "True": True, "False": False, "TRUE": True, "FALSE": False}


def read_csv(path: Path, delimiter: str = "") -> pa.Table:
    """Cells come as strings first: Arrow's own inference would read the code 007 as seven. Where no
    delimiter is given the header says which it is; behind semicolons, which spreadsheets write where
    numbers have decimal commas, such numbers are numbers.
    """
    data = path.read_bytes()
    try:
        data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TableError(f"'{path}' is not UTF-8 (byte {error.start}); save it as UTF-8 first") from error
    data = data.removeprefix(b"\xef\xbb\xbf")
    delimiter = delimiter or _delimiter(data)
    header = pa.csv.open_csv(
        io.BytesIO(data), parse_options=pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    ).schema.names
    table = pa.csv.read_csv(
        io.BytesIO(data),
        parse_options=pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pa.csv.ConvertOptions(
            column_types=dict.fromkeys(header, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=True,
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
    if (
        not len(known)
        or not pc.all(
            pc.match_substring_regex(known, r"^\s*-?(0|[1-9]\d*)(,\d+)?([eE][+-]?\d+)?\s*$")
        ).as_py()
    ):
        return cells
    return pc.replace_substring(cells, ",", ".")


def _typed(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Strings as whole numbers, numbers or truth values where all of them are, but for those that say
    that there is none; codes such as 007 stay strings. Where a few are no numbers all stay strings too,
    for the modality to name these.
    """
    given = pc.if_else(pc.is_in(cells, pa.array(NULLS)), None, cells)
    if pc.all(pc.is_in(given, pa.array([*MARKS, None]))).as_py():
        return given
    given = pc.if_else(pc.is_in(given, pa.array(MARKS)), None, given)
    known = given.drop_null()
    if pc.all(pc.is_in(known, pa.array(list(TRUTH)))).as_py():
        return (
            pc.is_in(given, pa.array([k for k, v in TRUTH.items() if v])).combine_chunks()
            if not given.null_count
            else _truth(given)
        )
    if pc.any(pc.match_substring_regex(known, r"^[+-]?0[0-9]|^\+")).as_py():
        return cells
    for kind in (pa.int64(), pa.float64()):
        try:
            return pc.cast(pc.utf8_trim_whitespace(given), kind)
        except pa.ArrowInvalid:
            continue
    return given if share_of_numbers(known) >= MOST else cells


def _truth(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    return pa.chunked_array(
        [pa.array([None if c is None else TRUTH[c] for c in cells.to_pylist()], pa.bool_())]
    )
