"""Every kind of file that holds a table is read, or refused by name with what to do."""

from __future__ import annotations

import bz2
import contextlib
import datetime
import gzip
import io
import json
import lzma
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.orc
import pyarrow.parquet
import pytest
import xlsxwriter

from plait.errors import TableError
from plait.table.files.columnar import read_arrow
from plait.table.files.content import Content
from plait.table.read import read
from support.tables import typed_cells

ROWS = {"name": ["é", "b", None], "n": [1, 2, 3]}
CSV = "name,n\né,1\nb,2\n,3\n"


def cells(path: Path | str) -> dict[str, list[Any]]:
    return typed_cells(path)


# --- compression -----------------------------------------------------------------------------------------


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), CSV)  # with no time: workers must name tests alike
    return buffer.getvalue()


def gzipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)  # with no time, as above


def zstandard(data: bytes) -> bytes:
    buffer = pa.BufferOutputStream()
    with pa.CompressedOutputStream(buffer, "zstd") as stream:
        stream.write(data)
    return buffer.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("t.csv.gz", gzipped(CSV.encode())),
        ("t.csv.bz2", bz2.compress(CSV.encode())),
        ("t.csv.xz", lzma.compress(CSV.encode())),
        ("t.csv.zst", zstandard(CSV.encode())),
        ("t.zip", zipped("t.csv")),
        ("t.csv.zip", zipped("t.csv", "__MACOSX/._t.csv")),
        ("t.csv", gzipped(CSV.encode())),
        ("t.tsv.gz", gzipped(CSV.replace(",", "\t").encode("utf-16"))),
        ("t.jsonl.gz", gzipped('{"name": "é", "n": 1}\n{"name": "b", "n": 2}\n{"n": 3}\n'.encode())),
    ],
)
def test_compressed_files(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    assert cells(tmp_path / name) == ROWS


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (
            "t.zip",
            zipped("a.csv", "b.csv"),
            r"expected an archive of one file, came 2: a\.csv, b\.csv; unpack it",
        ),
        ("t.zip", zipped("a.csv")[:60], "cannot be read as ZIP"),
        ("t.csv.gz", gzipped(CSV.encode() * 99)[:-20], "is damaged and cannot be decompressed"),
        ("t.csv.xz", lzma.compress(CSV.encode())[:-9], "is damaged and cannot be decompressed"),
        ("t.csv.zst", zstandard(CSV.encode())[:12], "is damaged and cannot be decompressed"),
        ("t.csv.gz", gzipped(b""), "holds an empty file"),
    ],
)
def test_archives_that_are_no_table_are_refused(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(TableError, match=message):
        read(tmp_path / name)


# --- names and places ------------------------------------------------------------------------------------


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, expected in [(CSV, ROWS), ('[{"a": 1}]', {"a": [1]}), ('{"a": 1}\n{"a": 2}\n', {"a": [1, 2]})]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        assert cells("-") == expected


def test_a_file_address_is_a_path_and_a_web_address_is_refused(tmp_path: Path) -> None:
    (tmp_path / "my table.csv").write_text(CSV)
    assert cells(f"file://{tmp_path}/my%20table.csv") == ROWS
    with pytest.raises(
        TableError, match="is a URL: plait fetches nothing from the network; download it first"
    ):
        read("https://example.org/t.csv")


@pytest.mark.parametrize("place", ["a\0b.csv", "x" * 5000, "a/" * 3000])
def test_no_text_given_for_a_path_is_a_traceback(place: str) -> None:
    with pytest.raises(TableError, match=r"no file"):
        read(place)


def test_a_file_without_an_ending_is_read_by_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "table").write_text(CSV)
    assert cells(tmp_path / "table") == ROWS
    (tmp_path / "picture").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    with pytest.raises(TableError, match="is no text, and no other format that plait reads"):
        read(tmp_path / "picture")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("t.pkl", b"x", "unpickling runs code; save it as Parquet"),
        ("t.dta", b"x", "use pandas.read_stata"),
        ("t.xls", b"<html><table>", "is a web page or XML, no table; save it as CSV"),
        ("t.feather", b"FEA1xxxx", "is of the first version of Feather"),
    ],
)
def test_other_formats_are_refused_with_what_to_do(
    tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(TableError, match=message):
        read(tmp_path / name)


# --- folders and globs -----------------------------------------------------------------------------------


def test_a_folder_or_glob_of_files_is_one_table(tmp_path: Path) -> None:
    for number in range(3):
        pa.parquet.write_table(pa.table({"x": [number], "y": ["a"]}), tmp_path / f"part-{number}.parquet")
    (tmp_path / "_SUCCESS").touch()
    assert cells(tmp_path) == {"x": [0, 1, 2], "y": ["a", "a", "a"]}
    assert cells(str(tmp_path / "part-[01]*.parquet")) == {"x": [0, 1], "y": ["a", "a"]}
    assert read(tmp_path).root == tmp_path
    with pytest.raises(TableError, match=r"no file fits '.*\*\.orc'"):
        read(str(tmp_path / "*.orc"))


def test_columns_of_several_types_become_strings(tmp_path: Path) -> None:
    pa.parquet.write_table(pa.table({"x": [1, 2]}), tmp_path / "a.parquet")
    pa.parquet.write_table(pa.table({"x": ["n/a", "3"]}), tmp_path / "b.parquet")
    assert [str(cell) for cell in cells(tmp_path)["x"]] in (["1", "2", "n/a", "3"], ["1", "2", "None", "3"])
    pa.parquet.write_table(pa.table({"z": [1]}), tmp_path / "c.parquet")
    with pytest.raises(TableError, match=r"c.parquet' has other columns than '.*a.parquet': x, z"):
        read(tmp_path)


def test_folders_of_parts_have_columns_of_their_own(tmp_path: Path) -> None:
    for year in (2022, 2023):
        (tmp_path / f"year={year}").mkdir()
        pa.parquet.write_table(pa.table({"x": [year]}), tmp_path / f"year={year}" / "part-0.parquet")
    assert cells(tmp_path) == {"x": [2022, 2023], "year": [2022, 2023]}


def test_a_folder_of_several_tables_is_refused_by_name(tmp_path: Path) -> None:
    for side in ("train", "test"):
        (tmp_path / f"{side}.csv").write_text(CSV)
    with pytest.raises(TableError, match=r"holds several tables: test\.csv, train\.csv; name one of them"):
        read(tmp_path)


def test_a_flat_folder_of_media_has_a_row_for_each_file(tmp_path: Path) -> None:
    for name in ("b.png", "a.png", "README.md", ".hidden"):
        (tmp_path / name).write_bytes(b"x")
    assert cells(tmp_path) == {"image": ["a.png", "b.png"]}


# --- columnar files --------------------------------------------------------------------------------------


def test_orc_and_both_forms_of_arrow(tmp_path: Path) -> None:
    table = pa.table(ROWS)
    pa.orc.write_table(table, str(tmp_path / "t.orc"))
    pa.feather.write_feather(table, str(tmp_path / "t.feather"))
    with pa.ipc.new_stream(str(tmp_path / "t.arrows"), table.schema) as writer:
        writer.write_table(table)
    for name in ("t.orc", "t.feather", "t.arrows"):
        assert cells(tmp_path / name) == ROWS


def test_damaged_arrow_files_never_end_the_process() -> None:
    buffer = pa.BufferOutputStream()
    table = pa.table({"a": [f"text {n}" for n in range(50)], "l": [[n] * (n % 4) for n in range(50)]})
    with pa.ipc.new_file(buffer, table.schema) as writer:
        writer.write_table(table)
    data = np.frombuffer(buffer.getvalue(), dtype=np.uint8)
    rng = np.random.default_rng(0)
    read_anyway = 0
    for _ in range(300):
        damaged = data.copy()
        damaged[rng.integers(8, len(data), 3)] = rng.integers(0, 256, 3)
        try:
            read_arrow(Content("t.arrow", "t.arrow", held=damaged.tobytes())).data.to_pylist()
            read_anyway += 1
        except (TableError, pa.ArrowException, OSError, ValueError, KeyError, UnicodeDecodeError):
            continue
    assert read_anyway < 300


# --- JSON ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '[{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]',
        '{"a": 1, "b": "x"}\n{"a": 2, "b": "y"}\n',
        '{"a": [1, 2], "b": ["x", "y"]}',
        '{"a": {"0": 1, "1": 2}, "b": {"0": "x", "1": "y"}}',
        '{"0": {"a": 1, "b": "x"}, "1": {"a": 2, "b": "y"}}',
        '{"columns": ["a", "b"], "index": [0, 1], "data": [[1, "x"], [2, "y"]]}',
        '{"schema": {"fields": []}, "data": [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]}',
        '{"count": 2, "items": [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]}',
        '[["a", "b"], [1, "x"], [2, "y"]]',
        '[{"a": 1,\n  "b": "x"},\n {"a": 2, "b": "y"}]',
    ],
)
def test_forms_of_json(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.json"
    path.write_text(text)
    assert cells(path) == {"a": [1, 2], "b": ["x", "y"]}


def test_mixed_scalars_of_json_become_strings(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    lines = [{"a": 5, "t": "2023-01-02", "b": 10**30}, {"a": "no", "t": "x", "b": 5}, {"a": 2.0}, {"a": True}]
    path.write_text("\n".join(map(json.dumps, lines)))
    table = read(path).data
    assert table["a"].to_pylist() == ["5", "no", "2", "true"]
    assert table["t"].to_pylist() == ["2023-01-02", "x", None, None]


def test_dates_in_json_lines_stay_strings(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(
        '{"t": "2023-01-02 03:04:05", "l": ["2023-01-02"]}\n{"t": "2023-01-03 00:00:00", "l": []}\n'
    )
    assert read(path).data.to_pydict() == {
        "t": ["2023-01-02 03:04:05", "2023-01-03 00:00:00"],
        "l": [["2023-01-02"], []],
    }


@pytest.mark.parametrize("megabytes", [3, 50])
def test_a_json_cell_of_many_megabytes(tmp_path: Path, megabytes: int) -> None:
    path = tmp_path / "t.jsonl"
    long = "word " * (megabytes * 200_000)
    path.write_text(json.dumps({"t": "x"}) + "\n" + json.dumps({"t": long}) + "\n")
    assert cells(path) == {"t": ["x", long]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"type": "Topology", "objects": {}}', "is a map .Topology., not a table"),
        ('{"type": "FeatureCollection", "features": []}', "is a map without features, not a table"),
        ('{"type": "FeatureCollection", "features": [5]}', "feature 0 is no object"),
        (
            '[{"a": {"b": 1}}]',
            "column 'a', row 0: a cell holds an object with b; make each of its keys a column",
        ),
        ('[{"a": 1}, 5]', "expected an array of objects, or one object a line; item 1 is int"),
        ('[{"a": 1},\n{"a": }]', "cannot be read as JSON: line 2: Expecting value"),
        ('{"a": [1, 2], "b": [1]}', "columns have different lengths: 'a' 2, 'b' 1"),
        ('{"x": [{"a": 1}], "y": [{"a": 1}], "z": 1}', "has several tables: x, y; keep one of them"),
        ('[{"a": "hi \\ud83d there"}]', "column 'a', row 0: the text holds .*half of a surrogate pair"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_json_that_is_no_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "t.json"
    path.write_text(text)
    with pytest.raises(TableError, match=message):
        read(path)


def test_the_features_of_a_map_are_rows(tmp_path: Path) -> None:
    point = {"type": "Point", "coordinates": [11.5, 48.1, 520]}
    area = {"type": "Polygon", "coordinates": [[[0, 0], [0, 1], [1, 1], [0, 0]]]}
    features = [
        {"type": "Feature", "id": "a", "geometry": point, "properties": {"town": "Munich"}},
        {"type": "Feature", "id": "b", "geometry": area, "properties": {"town": "Rome", "n": 2}},
        {"type": "Feature", "id": "c", "geometry": None, "properties": None},
    ]
    path = tmp_path / "t.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    table = read(path)
    assert table.data.to_pydict() == {
        "longitude": [11.5, None, None],
        "latitude": [48.1, None, None],
        "town": ["Munich", "Rome", None],
        "id": ["a", "b", "c"],
        "n": [None, 2, None],
    }
    assert "1 line or area of the map left out" in table.notes[0]


# --- workbooks -------------------------------------------------------------------------------------------


def make_workbook(path: Path, sheets: int = 1) -> Path:
    with xlsxwriter.Workbook(str(path)) as workbook:
        day = workbook.add_format({"num_format": "yyyy-mm-dd"})
        percent = workbook.add_format({"num_format": "0%"})
        for number in range(sheets):
            sheet = workbook.add_worksheet(f"Sheet {number + 1}")
            sheet.merge_range(0, 0, 0, 4, "Sales of 2023")
            sheet.write_row(2, 0, ["shop", "n", "share", "day", "mixed"])
            sheet.merge_range(3, 0, 4, 0, "north")
            sheet.write(5, 0, "south")
            for row in range(3):
                sheet.write(3 + row, 1, row + number)
                sheet.write(3 + row, 2, 0.25, percent)
                sheet.write_datetime(3 + row, 3, datetime.datetime(2023, 1, row + 1), day)
                sheet.write(3 + row, 4, [5, "n/a", 0.5][row])
        workbook.add_worksheet("empty")
    return path


def test_a_sheet_has_the_types_that_it_shows(tmp_path: Path) -> None:
    found = read(make_workbook(tmp_path / "book.xlsx"))
    assert found.data["shop"].to_pylist() == ["north", "north", "south"]
    assert found.data["n"].to_pylist() == [0, 1, 2]
    assert found.data["share"].to_pylist() == [0.25] * 3
    assert found.data["day"].to_pylist() == [datetime.date(2023, 1, day) for day in (1, 2, 3)]
    assert found.notes == (
        f"{tmp_path}/book.xlsx: what stands above the header was left out: 'Sales of 2023'",
    )


def test_a_sheet_is_named_behind_the_file(tmp_path: Path) -> None:
    path = make_workbook(tmp_path / "book.xlsx", sheets=2)
    assert cells(f"{path}#Sheet 2")["n"] == [1, 2, 3]
    with pytest.raises(
        TableError, match=r"has 2 sheets: Sheet 1, Sheet 2; name one, as in '.*book.xlsx#Sheet 1'"
    ):
        read(path)
    with pytest.raises(TableError, match=r"has no sheet 'sheet2': did you mean 'Sheet 2'"):
        read(f"{path}#sheet2")
    with pytest.raises(TableError, match="sheet 'empty' is empty"):
        read(f"{path}#empty")


def test_open_document_sheets(tmp_path: Path) -> None:
    content = """<?xml version="1.0" encoding="UTF-8"?><office:document-content
     xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"
     xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0"
     xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"><office:body><office:spreadsheet>
     <table:table table:name="One"><table:table-row>
     <table:table-cell office:value-type="string"><text:p>a</text:p></table:table-cell>
     <table:table-cell office:value-type="string"><text:p>b</text:p></table:table-cell></table:table-row>
     <table:table-row><table:table-cell office:value-type="string"><text:p>x</text:p></table:table-cell>
     <table:table-cell office:value-type="float" office:value="5"><text:p>5</text:p></table:table-cell>
     </table:table-row></table:table></office:spreadsheet></office:body></office:document-content>"""
    path = tmp_path / "book.ods"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        archive.writestr("content.xml", re.sub(r">\s+<", "><", content))
        archive.writestr("META-INF/manifest.xml", "<manifest/>")
    assert cells(path) == {"a": ["x"], "b": [5]}


def test_a_damaged_workbook_is_refused(tmp_path: Path) -> None:
    path = make_workbook(tmp_path / "book.xlsx")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(TableError, match="cannot be read as"):
        read(path)


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "python_calamine", None)
    with pytest.raises(TableError, match=r"needs python-calamine: pip install 'plait\[excel\]'"):
        read(make_workbook(tmp_path / "book.xlsx"))


def test_a_workbook_damaged_anywhere_is_refused_or_read(tmp_path: Path) -> None:
    path = make_workbook(tmp_path / "book.xlsx")
    content = path.read_bytes()
    random = np.random.default_rng(0)
    for place in random.integers(0, len(content), 60):
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        with contextlib.suppress(TableError):
            read(path)


def write_sheet(
    path: Path, rows: list[list[Any]], merged: tuple[tuple[int, int, int, int], ...] = ()
) -> Path:
    with xlsxwriter.Workbook(str(path)) as workbook:
        sheet = workbook.add_worksheet()
        for number, row in enumerate(rows):
            sheet.write_row(number, 0, row)
        for top, first, bottom, last in merged:
            sheet.merge_range(top, first, bottom, last, rows[top][first])
    return path


YEARS = [["shop", 2023, None, 2024, None], [None, "sold", "left", "sold", "left"]]
SHOPS = [["north", 1, 2, 3, 4], ["south", 5, 6, 7, 8], ["west", 9, 1, 2, 3]]


def test_merged_names_stand_before_those_below_them(tmp_path: Path) -> None:
    merged = ((0, 0, 1, 0), (0, 1, 0, 2), (0, 3, 0, 4))
    table = read(write_sheet(tmp_path / "t.xlsx", [*YEARS, *SHOPS], merged))
    assert table.data.column_names == ["shop", "2023 sold", "2023 left", "2024 sold", "2024 left"]
    assert table.data["shop"].to_pylist() == ["north", "south", "west"]


def test_a_pivot_table_of_pandas_keeps_the_names_of_its_index(tmp_path: Path) -> None:
    rows = [[None, "mean", None, "max", None], ["symbol", "A", "B", "A", "B"], ["year"], [2001, 1, 2, 3, 4]]
    path = write_sheet(tmp_path / "t.xlsx", [*rows, [2002, 5, 6, 7, 8]], ((0, 1, 0, 2), (0, 3, 0, 4)))
    table = read(path)
    assert table.data.column_names == ["year", "mean A", "mean B", "max A", "max B"]
    assert table.data["year"].to_pylist() == [2001, 2002]


def test_merged_names_above_different_ones_are_left_out(tmp_path: Path) -> None:
    rows = [["Person", None, "Pay"], ["name", "age", "salary"], ["Ann", 30, 5], ["Bob", 40, 6]]
    table = read(write_sheet(tmp_path / "t.xlsx", rows, ((0, 0, 0, 1),)))
    assert table.data.column_names == ["name", "age", "salary"]


@pytest.mark.parametrize(
    ("last", "is_left_out"),
    [
        (["Total", 15, 9], True),
        (["Gesamt:", 15, None], True),
        (["合计", None, 9], True),
        (["Total", 14, 9], False),
        (["Total", None, None], False),
        (["east", 15, 9], False),
    ],
)
def test_a_last_row_of_totals_is_no_row(tmp_path: Path, last: list[Any], is_left_out: bool) -> None:
    rows = [["shop", "n", "m"], *[shop[:3] for shop in SHOPS], last]
    table = read(write_sheet(tmp_path / "t.xlsx", rows))
    assert len(table) == (3 if is_left_out else 4)
    assert bool(table.notes) == is_left_out


def test_the_longest_of_several_sheets_is_the_example(tmp_path: Path) -> None:
    path = tmp_path / "t.xlsx"
    with xlsxwriter.Workbook(str(path)) as workbook:
        workbook.add_worksheet("About").write(0, 0, "Do not forward")
        shops = workbook.add_worksheet("Shops")
        for number, row in enumerate(SHOPS):
            shops.write_row(number, 0, row)
    with pytest.raises(TableError, match=r"name one, as in .*#Shops"):
        read(path)
