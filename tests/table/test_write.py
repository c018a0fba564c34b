"""What plait writes: whole, where it can be written, and safe to open or to print."""

from __future__ import annotations

import io
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from plait.console import Screen, escaped
from plait.errors import OutputError, TableError
from plait.table.problems import Problem
from plait.table.problems import write as write_problems
from plait.table.read import read
from plait.table.write import check_output, show, to_stream, write

FORMULAS = ["=1+1", "+49 30 1234", "-x", "@SUM(A1)", "\tx", "\rx"]
HARMLESS = ["-5", "+1.5", "-1,234.5", "1e-5", "-12%", "a=b", ""]


def written(table: pa.Table) -> str:
    stream = io.BytesIO()
    to_stream(table, stream)
    return stream.getvalue().decode()


def test_formulas_in_texts_are_quoted_and_numbers_are_not() -> None:
    text = written(pa.table({"t": FORMULAS + HARMLESS, "=n": list(range(-3, 10)), "l": [["=1", "b"]] * 13}))
    lines = text.replace("\r", "<CR>").splitlines()
    assert lines[0] == '"t","\'=n","l"'
    for line, cell in zip(lines[1:], FORMULAS + HARMLESS, strict=True):
        mark = "'" if cell in FORMULAS else ""
        assert line.startswith(f'"{mark}{cell}",'.replace("\r", "<CR>"))
        assert line.endswith(',"\'=1|b"')
    assert ",-3," in lines[1]


def test_problems_are_safe_too(tmp_path: Path) -> None:
    write_problems([Problem(0, "=x", "a\x1b[31m.png", "@bad")], tmp_path / "problems.csv")
    assert (tmp_path / "problems.csv").read_text() == "row,column,file,reason\n0,'=x,a\\x1b[31m.png,'@bad\n"


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet", "feather", "arrow"])
def test_media_and_lists_can_be_written_and_read_again(tmp_path: Path, ending: str) -> None:
    table = pa.table(
        {
            "file": pa.array([{"bytes": None, "path": "a.png"}, None]),
            "bytes": [b"\x89PNG", None],
            "list": [["a", "b"], None],
            "x": [1.5, None],
        }
    )
    path = tmp_path / "new" / "folder" / f"t.{ending}"
    write(table, path)
    assert len(read(path)) == 2
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_file_has_the_rights_that_files_have(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write(pa.table({"x": [1]}), tmp_path / "t.csv")
    assert stat.S_IMODE(os.stat(tmp_path / "t.csv").st_mode) == stat.S_IMODE(
        os.stat(tmp_path / "plain").st_mode
    )


def test_writers_beside_each_other_never_share_a_part(tmp_path: Path) -> None:
    tables = [pa.table({"x": [number] * 2000}) for number in range(20)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda table: write(table, tmp_path / "t.csv"), tables))
    assert len(set(read(tmp_path / "t.csv").data["x"].to_pylist())) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["t.csv"]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside.csv"
    outside.write_text("precious")
    link = tmp_path / "t.csv"
    link.symlink_to(outside)
    write(pa.table({"x": [1]}), link)
    assert outside.read_text() == "precious"


def test_an_output_is_checked_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(OutputError, match=r"cannot write '.*t\.csv': a file is in the way of its folder"):
        check_output(tmp_path / "file" / "t.csv")
    with pytest.raises(OutputError, match="a folder of this name is in the way; choose another name"):
        check_output(tmp_path / "folder.csv")
    with pytest.raises(TableError, match=r"cannot tell the format of 't\.xyz' by its ending"):
        check_output(tmp_path / "t.xyz")
    check_output(tmp_path / "new" / "t.csv")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("text", "encoding", "shown"),
    [
        ("red\x1b[31m\x07", "utf-8", "red\\x1b[31m\\x07"),
        ("file\u202egnp.exe", "utf-8", "file\\u202egnp.exe"),
        ("half \ud83d", "utf-8", "half \\ud83d"),
        ("名字 é", "utf-8", "名字 é"),
        ("名字 é", "latin-1", "\\u540d\\u5b57 é"),
        ("名字", None, "\\u540d\\u5b57"),
        ("two\nlines\tand a tab", "utf-8", "two\nlines\tand a tab"),
    ],
)
def test_what_is_printed_is_safe(text: str, encoding: str | None, shown: str) -> None:
    assert escaped(text, encoding) == shown


def test_a_console_that_is_not_utf_8_shows_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", stream)
    Screen(out=True).table("表", ["名字", "x"], [["值", "\x1b[2J"]])
    Screen(out=True).say("名字")
    stream.flush()
    text = stream.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]
    assert "\\u540d\\u5b57" in text
    assert "\\x1b[2J" in text


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
