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

# these mark a missing cell only beside numbers or truth values: beside words, each is a value like any other
MARKS = ["?", ".", "-", "--"]

TRUTH = {"true": True, "false": False, "True": True, "False": False, "TRUE": True, "FALSE": False}

NUMBER_WITH_COMMA = r"^\s*-?(0|[1-9]\d*)(,\d+)?([eE][+-]?\d+)?\s*$"
LEADING_ZERO_OR_PLUS = r"^[+-]?0[0-9]|^\+"  # of codes such as 007 and of telephone numbers


def read_csv(path: Path, delimiter: str = "") -> pa.Table:
    """Read a CSV file. Without a `delimiter` the header decides which it is.

    Cells come as strings first: Arrow's own inference would read the code 007 as seven. Spreadsheets write
    semicolons where numbers have decimal commas, so such numbers are read then. Raises `TableError` for a
    file that is not UTF-8.
    """
    data = path.read_bytes()
    try:
        data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TableError(f"'{path}' is not UTF-8 (byte {error.start}); save it as UTF-8 first") from error
    data = data.removeprefix(b"\xef\xbb\xbf")
    delimiter = delimiter or _delimiter(data)

    parsing = pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    header = pa.csv.open_csv(io.BytesIO(data), parse_options=parsing).schema.names
    conversion = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(header, pa.string()),
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=True,
    )
    table = pa.csv.read_csv(io.BytesIO(data), parse_options=parsing, convert_options=conversion)
    columns = table.columns
    if delimiter == ";":
        columns = [_with_points(column) for column in columns]
    return pa.table([_typed(column) for column in columns], names=table.column_names)


def _delimiter(data: bytes) -> str:
    """Return a comma, unless the header has none outside of quotes, and has semicolons or tabs."""
    header = re.sub(r'"[^"]*"', "", io.BytesIO(data).readline().decode())
    for delimiter in ",;\t":
        if delimiter in header:
            return delimiter
    return ","


def _with_points(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Write decimal points for decimal commas in a column of numbers. Other columns stay."""
    missing = pc.is_in(cells, pa.array([*NULLS, *MARKS, None]))
    filled = cells.filter(pc.invert(missing))
    if len(filled) and pc.all(pc.match_substring_regex(filled, NUMBER_WITH_COMMA)).as_py():
        return pc.replace_substring(cells, ",", ".")
    return cells


def _typed(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert strings to whole numbers, numbers or truth values if all that are not missing are such.

    Codes such as 007 stay strings. If a few cells are no numbers all stay strings, so that the modality can
    list them as problems.
    """
    cleaned = pc.if_else(pc.is_in(cells, pa.array(NULLS)), None, cells)
    if pc.all(pc.is_in(cleaned, pa.array([*MARKS, None]))).as_py():
        return cleaned
    cleaned = pc.if_else(pc.is_in(cleaned, pa.array(MARKS)), None, cleaned)
    filled = cleaned.drop_null()
    if pc.all(pc.is_in(filled, pa.array(list(TRUTH)))).as_py():
        return _truth(cleaned)
    if pc.any(pc.match_substring_regex(filled, LEADING_ZERO_OR_PLUS)).as_py():
        return cells
    for kind in (pa.int64(), pa.float64()):
        try:
            return pc.cast(pc.utf8_trim_whitespace(cleaned), kind)
        except pa.ArrowInvalid:
            continue
    return cleaned if share_of_numbers(filled) >= MOST else cells


def _truth(cells: pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return truth values for their spellings, null where a cell is."""
    if not cells.null_count:
        spellings_of_true = [spelling for spelling, truth in TRUTH.items() if truth]
        return pc.is_in(cells, pa.array(spellings_of_true)).combine_chunks()
    truths = [None if cell is None else TRUTH[cell] for cell in cells.to_pylist()]
    return pa.chunked_array([pa.array(truths, pa.bool_())])
