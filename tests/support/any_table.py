"""Draw tables of any type, string, pattern of missing cells and column name, with Hypothesis."""

from __future__ import annotations

import datetime
import decimal
import io
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
from hypothesis import strategies as st

MOST_ROWS = 60
MOST_COLUMNS = 5
TARGET = "the target"

# what spreadsheets, databases and people write into cells
WORDS = [
    "", " ", "a", "b", "yes", "no", "True", "FALSE", "0", "1", "-1", "1,5", "1.234,56", "1e30", "1e400",
    "nan", "NaN", "None", "NULL", "n/a", "?", "-", "12 %", "$5", "5 kg", "(3)", "007", "+49 30 1",
    "2023-01-02", "01/02/2023", "31/12/2023", "9999-12-31", "0001-01-01", "12:30",
    "2023-01-02T03:04:05Z", "Feb 2023", "1.10.3", "x.png", "../..", "/", "C:\\a.png",
    "file:///etc/passwd", "data:image/png;base64,AAAA", "http://a.b/c.jpg", "[1, 2]", "['a', 'b']",
    "a|b", "a;b", "{}", "=1+1", "\x1b[31m", "\u202e", "猫", "é", "🐈", "a\nb", "a\tb", '"', "'", "\\",
    "\x00",
]  # fmt: skip

strings = st.sampled_from(WORDS) | st.text(max_size=30) | st.text(min_size=200, max_size=400)
floats = st.floats(width=32) | st.sampled_from([0.0, 1.0, 1e30, float("nan"), float("inf"), 0.1])
integers = st.integers(-(2**31), 2**31 - 1) | st.sampled_from([0, 1, 2, 20210131, -1])
moments = st.datetimes(datetime.datetime(1700, 1, 1), datetime.datetime(2260, 1, 1))
days = st.dates()
spans = st.timedeltas(datetime.timedelta(-10_000), datetime.timedelta(10_000))
decimals = st.decimals(-10_000, 10_000, places=2)
binaries = st.binary(max_size=20) | st.just(b"\x89PNG\r\n\x1a\n")

ARROW: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.null(): st.none(),
    pa.bool_(): st.booleans(),
    pa.int8(): st.integers(-128, 127),
    pa.int32(): integers,
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.float32(): floats,
    pa.float64(): st.floats() | floats,
    pa.string(): strings,
    pa.large_string(): strings,
    pa.string_view(): strings,
    pa.dictionary(pa.int32(), pa.string()): st.sampled_from(WORDS),
    pa.binary(): binaries,
    pa.large_binary(): binaries,
    pa.binary(4): st.binary(min_size=4, max_size=4),
    pa.date32(): days,
    pa.date64(): days,
    pa.timestamp("s"): moments.map(lambda moment: moment.replace(microsecond=0)),
    pa.timestamp("us", "Europe/Berlin"): moments.map(lambda moment: moment.replace(tzinfo=datetime.UTC)),
    pa.time64("us"): st.times(),
    pa.duration("us"): spans,
    pa.decimal128(12, 2): decimals,
    pa.list_(pa.string()): st.lists(strings | st.none(), max_size=3),
    pa.list_(pa.float32()): st.lists(floats, max_size=4),
    pa.list_(pa.int64(), 2): st.lists(integers, min_size=2, max_size=2),
    pa.large_list(pa.list_(pa.float64())): st.lists(st.lists(floats, max_size=2), max_size=2),
    pa.struct({"bytes": pa.binary(), "path": pa.string()}): st.fixed_dictionaries(
        {"bytes": binaries, "path": strings}
    ),
    pa.struct({"a": pa.int32()}): st.fixed_dictionaries({"a": integers}),
    pa.map_(pa.string(), pa.int32()): st.lists(st.tuples(strings, integers), max_size=2),
}
PYTHON: list[st.SearchStrategy[Any]] = [
    st.booleans(),
    integers,
    st.integers(),
    floats,
    strings,
    st.text(st.characters(categories=["Cs", "Lu"]), max_size=3),  # halves of surrogate pairs too
    moments,
    days,
    st.times(),
    spans,
    decimals,
    binaries,
    binaries.map(bytearray),
    st.complex_numbers(allow_nan=False, max_magnitude=10),
    strings.map(lambda text: pathlib.Path(text.replace("\0", "0"))),
    st.floats(width=16).map(np.float16),
    integers.map(np.int64),
    st.lists(floats, max_size=3).map(np.array),
    st.lists(strings, max_size=3),
    st.lists(strings, max_size=3).map(tuple),
    st.sets(integers, max_size=3),
    st.dictionaries(strings, integers, max_size=2),
    st.builds(decimal.Decimal, st.sampled_from(["NaN", "Infinity", "1E+400", "1.5"])),
    moments.map(pd.Timestamp),
    st.just(pd.NaT),
    st.just(pd.NA),
    binaries.map(io.BytesIO),
    st.just(object()),
    st.just(len),
]
NUMPY = [
    "float16",
    "float32",
    "int8",
    "uint16",
    "bool",
    "complex64",
    "datetime64[ns]",
    "timedelta64[s]",
    "U5",
    "S3",
]

names = st.sampled_from(
    ["x", "y", "id", "date", "split", "label", "plait_split", "a.b", "a=b", "Name (€)"]
) | st.text(max_size=12)


row_counts = st.integers(0, 6) | st.integers(7, MOST_ROWS)


@st.composite
def arrow_tables(draw: st.DrawFn, counts: st.SearchStrategy[int]) -> pa.Table:
    """An Arrow table whose columns have any type. Names may repeat."""
    rows = draw(counts)
    columns = []
    column_names = draw(st.lists(names.filter(_encodes), min_size=1, max_size=MOST_COLUMNS))
    for _ in column_names:
        kind = draw(st.sampled_from(list(ARROW)))
        cells = draw(_column(ARROW[kind], rows))
        columns.append(pa.array(cells, kind))
    return pa.table(columns, column_names)


@st.composite
def records(draw: st.DrawFn, counts: st.SearchStrategy[int]) -> list[dict[str, Any]]:
    """Rows as dicts. A column may mix types, and a row may lack a column."""
    rows = draw(counts)
    table: list[dict[str, Any]] = [{} for _ in range(rows)]
    for name in draw(st.lists(names, min_size=1, max_size=MOST_COLUMNS, unique=True)):
        cells = draw(_column(draw(python_values), rows))
        lacks = draw(st.booleans())
        for row, cell in zip(table, cells, strict=True):
            if cell is not None or not lacks:
                row[name] = cell
    return table


@st.composite
def frames(draw: st.DrawFn, counts: st.SearchStrategy[int]) -> pd.DataFrame:
    """A pandas frame of objects, NumPy types, categories and pandas' own types, under any index."""
    rows = draw(counts)
    frame = pd.DataFrame(index=pd.RangeIndex(rows))
    for name in draw(st.lists(names | integers, min_size=1, max_size=MOST_COLUMNS, unique=True)):
        frame[name] = draw(_series(rows))
    index = draw(st.sampled_from(["range", "strings", "dates", "repeated"]))
    if index == "strings":
        frame.index = pd.Index([f"row {row}" for row in range(rows)])
    elif index == "dates":
        frame.index = pd.date_range("2020-01-01", periods=rows, name="when")
    elif index == "repeated":
        frame.index = pd.Index([row // 2 for row in range(rows)], name="group")
    return frame


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    """A CSV file, of any encoding that its cells have."""
    table = pa.table({name: [str(cell) for cell in cells] for name, cells in draw(_text_columns()).items()})
    file = io.BytesIO()
    pa.csv.write_csv(table, file, pa.csv.WriteOptions(delimiter=draw(st.sampled_from(",;\t|"))))
    content = file.getvalue().decode()
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252", "gb18030"]))
    return content.encode(encoding, "replace")


python_values = st.sampled_from(PYTHON) | st.just(st.one_of(PYTHON))


def tables(counts: st.SearchStrategy[int] = row_counts) -> st.SearchStrategy[Any]:
    """Tables as `plait.fit` takes them: Arrow, pandas, polars, lists of dicts."""
    arrow = arrow_tables(counts)
    return arrow | records(counts) | frames(counts) | arrow.map(_as_polars)


@st.composite
def labelled_tables(draw: st.DrawFn) -> tuple[Any, str]:
    """A table of at least 24 rows with a column that can be learned, and its name."""
    table = draw(tables(st.integers(24, MOST_ROWS)))
    labels = draw(
        st.sampled_from([["yes", "no"], [1.5, 2.5, 7.0, 3.25], [0, 1, 2], [True, False], ["a|b", "b"]])
    )
    cells = [labels[row % len(labels)] for row in range(len(table))]
    if isinstance(table, list):
        return [{**row, TARGET: cell} for row, cell in zip(table, cells, strict=True)], TARGET
    if isinstance(table, pa.Table):
        return table.append_column(TARGET, pa.array(cells)), TARGET
    if isinstance(table, pd.DataFrame):
        return table.assign(**{TARGET: cells}), TARGET
    return table.with_columns(pl.Series(TARGET, cells)), TARGET


def _as_polars(table: pa.Table) -> Any:
    """Return a polars frame, or the Arrow table where polars does not take it."""
    try:
        return pl.from_arrow(table)
    except (
        pl.exceptions.PolarsError,
        pl.exceptions.PanicException,
        pa.ArrowException,
        TypeError,
        ValueError,
    ):
        return table


def _column(values: st.SearchStrategy[Any], rows: int) -> st.SearchStrategy[list[Any]]:
    """Draw a column of few different values, or of many, with any share of missing cells."""
    missing = values | st.none()
    many = st.lists(missing, min_size=rows, max_size=rows)
    few = st.lists(missing, min_size=1, max_size=3).flatmap(
        lambda pool: st.lists(st.sampled_from(pool), min_size=rows, max_size=rows)
    )
    return many | few


@st.composite
def _series(draw: st.DrawFn, rows: int) -> Any:
    """A pandas column."""
    kind = draw(
        st.sampled_from(["object", "numpy", "category", "string", "Int64", "boolean", "sparse", "period"])
    )
    makers: dict[str, Callable[[], Any]] = {
        "category": lambda: pd.Categorical(draw(_column(st.sampled_from(WORDS), rows))),
        "string": lambda: pd.array(draw(_column(strings.filter(_encodes), rows)), dtype="string"),
        "Int64": lambda: pd.array(draw(_column(integers, rows)), dtype="Int64"),
        "boolean": lambda: pd.array(draw(_column(st.booleans(), rows)), dtype="boolean"),
        "sparse": lambda: pd.arrays.SparseArray(draw(st.lists(floats, min_size=rows, max_size=rows))),
        "period": lambda: pd.period_range("2020-01", periods=rows, freq="M"),
        "numpy": lambda: np.arange(rows).astype("int64").astype(draw(st.sampled_from(NUMPY))),
        "object": lambda: pd.Series(draw(_column(draw(python_values), rows)), dtype=object),
    }
    return makers[kind]()


@st.composite
def _text_columns(draw: st.DrawFn) -> dict[str, list[str | None]]:
    rows = draw(row_counts)
    columns = {}
    for name in draw(st.lists(names.filter(_encodes), min_size=1, max_size=MOST_COLUMNS, unique=True)):
        columns[name] = draw(_column(strings.filter(_encodes), rows))
    return columns


def _encodes(text: str) -> bool:
    """Return whether a text can be written in UTF-8: halves of surrogate pairs cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
