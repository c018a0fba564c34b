"""A table on the screen."""

from __future__ import annotations

import pyarrow as pa
import pytest

from plait.table.write import show

TABLE = pa.table({"score": [0.5, 0.25], "price": [12.0, None], "size": [1.5, 2.0], "id": ["a", "b"]})


def test_whole_numbers_have_no_decimals(capsys: pytest.CaptureFixture[str]) -> None:
    show(TABLE, "two rows")
    title, header, *rows = capsys.readouterr().out.splitlines()
    assert title == "two rows"
    assert header.split() == ["score", "price", "size", "id"]
    assert [row.split() for row in rows] == [["0.500", "12", "1.500", "a"], ["0.250", "2.000", "b"]]


def test_a_table_that_is_too_wide_is_printed_row_by_row(capsys: pytest.CaptureFixture[str]) -> None:
    note = "a text that goes on " * 8
    show(TABLE.append_column("note", pa.array([note, "short"])), "two rows")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["two rows", "score 0.500"]
    assert lines[5] == f"  note   {note}"
    assert lines[6] == "score 0.250"
