"""Any bytes under any name are a table or a TableError, and what programs write is read back."""

from __future__ import annotations

import contextlib
import csv
import io

from hypothesis import example, given, settings
from hypothesis import strategies as st

from plait.errors import TableError
from plait.table.cells import normalised
from plait.table.files.content import Content, decompressed
from plait.table.files.formats import read_content

NAMES = [
    "t.csv",
    "t.tsv",
    "t.txt",
    "t.json",
    "t.jsonl",
    "t",
    "t.xls",
    "t.parquet",
    "t.arrow",
    "t.orc",
    "t.xlsx",
]
BITS = [
    ",", ";", "\t", "|", ":", " ", "\n", "\r\n", "\r", '"', "'", "\\", "#", "a", "1", "1,5", "2023-01-02",
    "é", "\0", "\x1a", '""', "sep=;", "{", "}", "[", "]", '"a":', "null", "\ufeff", "x.png", "\n\n", "|--|",
    "+--+",
]  # fmt: skip
CELLS = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from('\n",;\t|\\'), max_size=20)
WORDS = st.from_regex(r"[a-zA-Zé][a-zA-Zé ]{0,15}[a-zA-Zé]", fullmatch=True)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from(BITS), min_size=1, max_size=60).map("".join).map(str.encode)
    | st.binary(max_size=80),
    st.sampled_from(NAMES),
)
def test_any_bytes_are_a_table_or_an_error_of_plait(data: bytes, name: str) -> None:
    with contextlib.suppress(TableError):
        table = read_content(decompressed(Content(name, name, held=data))).data
        normalised(table, name)


@settings(max_examples=100, deadline=None, derandomize=True)
@example([("\\", "\\"), ("a", "b")], ",")
@given(st.lists(st.tuples(WORDS, CELLS), min_size=3, max_size=8), st.sampled_from(",;\t"))
def test_what_a_program_has_quoted_is_read_back(rows: list[tuple[str, str]], delimiter: str) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([("word", "any text"), *rows])
    data = text.getvalue().encode()
    found = read_content(Content("t.csv", "t.csv", held=data)).data.to_pylist()
    assert found == [{"word": word, "any text": cell or None} for word, cell in rows]
