"""A file's dialect is inferred: every way of writing one table gives the same table."""

from __future__ import annotations

import csv
import io
import itertools

import numpy as np
import pytest

from plait.errors import TableError
from plait.table.files.content import Content, FileTable
from plait.table.files.formats import read_content

NAMES = ["id", "price net", "city name", "remark", "day"]
REMARKS = [
    "fine", "so-so, really", 'he said "no"', "a; b", "it's ok", "tab\there", "x|y", "two\nlines",
    "ratio 3:4", "", '5" pipe',
]  # fmt: skip
CITIES = ["Berlin", "New York", "São Paulo", "Bad Homburg v.d.H."]
QUOTING = {
    "minimal": {"quoting": csv.QUOTE_MINIMAL},
    "all": {"quoting": csv.QUOTE_ALL},
    "none": {"quoting": csv.QUOTE_NONE},
    "single": {"quoting": csv.QUOTE_MINIMAL, "quotechar": "'"},
    "all single": {"quoting": csv.QUOTE_ALL, "quotechar": "'"},
}
ESCAPED = {"escapechar": "\\", "doublequote": False}
PREAMBLES = {
    "nothing": "",
    "comment": "# exported on 2023-01-01\n",
    "title": "Sales report 2023\n\n",
    "lines": "Report: sales\nSource: our shop\nCreated 2023-02-01\n",
    "sep": "sep={delimiter}\n",
}


def rows(decimal: str, one_line: bool) -> list[list[str]]:
    rng = np.random.default_rng(5)
    made = []
    for number in range(30):
        price = f"{rng.random() * 1000:.2f}".replace(".", decimal)
        remark = REMARKS[number % len(REMARKS)]
        remark = remark.replace("\n", " ") if one_line else remark
        day = f"2023-01-{number % 28 + 1:02d}"
        made.append([str(number + 1), price, CITIES[rng.integers(len(CITIES))], remark, day])
    return made


def read(text: str | bytes, name: str = "t.csv") -> FileTable:
    return read_content(Content(name, name, held=text.encode() if isinstance(text, str) else text))


def cells(text: str | bytes, name: str = "t.csv") -> dict[str, list[str | None]]:
    return read(text, name).data.to_pydict()


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("decimal", [".", ","])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_every_dialect_gives_the_same_table(delimiter: str, decimal: str, header: bool) -> None:
    for quoting, escaped, preamble in itertools.product(QUOTING, [False, True], PREAMBLES):
        table = rows(decimal, one_line=quoting == "none")
        text = io.StringIO()
        options = {**QUOTING[quoting], **(ESCAPED if escaped or quoting == "none" else {})}
        writer = csv.writer(text, delimiter=delimiter, lineterminator="\n", **options)  # type: ignore[arg-type]
        if header:
            writer.writerow(NAMES)
        writer.writerows(table)

        found = cells(PREAMBLES[preamble].format(delimiter=delimiter) + text.getvalue())
        names = NAMES if header else [f"Unnamed: {number}" for number in range(5)]
        columns = zip(*table, strict=True)
        expected = {n: [cell or None for cell in column] for n, column in zip(names, columns, strict=True)}
        assert found == expected, (quoting, escaped, preamble)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("price, EUR;label\n57,5;a\n12,25;b\n", {"price, EUR": ["57,5", "12,25"], "label": ["a", "b"]}),
        ("a|b|c\n1|x|2\n3|y|4\n", {"a": ["1", "3"], "b": ["x", "y"], "c": ["2", "4"]}),
        ("# made by me, today\na,b\nq,x\nw,y\n", {"a": ["q", "w"], "b": ["x", "y"]}),
        ("# a,b\n1,2\n3,4\n", {"a": ["1", "3"], "b": ["2", "4"]}),
        ("a,b\n1,2\n3,4,\n5,6\n", {"a": ["1", "3", "5"], "b": ["2", "4", "6"]}),
        ("a,b\n1,2\n3,4\n\x1a", {"a": ["1", "3"], "b": ["2", "4"]}),
        ("a,b\r\n1,2\r\n3,4\r\n\x1a\r\n", {"a": ["1", "3"], "b": ["2", "4"]}),
        ("a,b\nx\\, y,2\nz\\, u,4\n", {"a": ["x, y", "z, u"], "b": ["2", "4"]}),
        ("a,b\n1,x,\\\n2,y,\\\n", {"": ["1", "2"], "a": ["x", "y"], "b": ["\\", "\\"]}),
        ("a,b\n1,2\n3,4\n\0\0", {"a": ["1", "3"], "b": ["2", "4"]}),
        ("a,b\r1,2\r3,4\r", {"a": ["1", "3"], "b": ["2", "4"]}),
        ("\n\na,b\r\n\r\n1,2\r\n\r\n3,4", {"a": ["1", "3"], "b": ["2", "4"]}),
        ("a;b;\n1;2;\n3;4;\n", {"a": ["1", "3"], "b": ["2", "4"]}),
        ("a,b\n1,2,\n3,4,\n", {"a": ["1", "3"], "b": ["2", "4"]}),
        ("a,b,,\n1,2,,\n", {"a": ["1"], "b": ["2"]}),
        ('"a" "b"\n"1" 5.5 "x y"\n"2" 6 "z"\n', {"": ["1", "2"], "a": ["5.5", "6"], "b": ["x y", "z"]}),
        (
            "name  age\nbob   30\nann    4\nmia   5\n",
            {"name": ["bob", "ann", "mia"], "age": ["30", "4", "5"]},
        ),
        ('a, b, c\n1, "x, y", 3\n2, "z", 4\n', {"a": ["1", "2"], "b": ["x, y", "z"], "c": ["3", "4"]}),
        ('p,q\n"C:\\dir\\",1\n"C:\\new",2\n', {"p": ["C:\\dir\\", "C:\\new"], "q": ["1", "2"]}),
        ('p,q\n"C:\\new",1\n"say \\"hi\\"",2\n', {"p": ["C:\\new", 'say "hi"'], "q": ["1", "2"]}),
        ('a,b\n1,5" pipe\n2,ok\n', {"a": ["1", "2"], "b": ['5" pipe', "ok"]}),
        ('a\tb\nx\t"hello\ny\tworld"\nz\t5\n', {"a": ["x", "y", "z"], "b": ['"hello', 'world"', "5"]}),
        ('a\tb\nx\t"hello\ny\tworld\nz\t5\n', {"a": ["x", "y", "z"], "b": ['"hello', "world", "5"]}),
        ("id,time\n1,10:30\n2,11:45\n", {"id": ["1", "2"], "time": ["10:30", "11:45"]}),
        ("id,tags\n1,a|b|c\n2,d|e|f\n", {"id": ["1", "2"], "tags": ["a|b|c", "d|e|f"]}),
        ("a\tb\n1,5\tx\n2,5\ty\n", {"a": ["1,5", "2,5"], "b": ["x", "y"]}),
        ("a,b\n,\n", {"a": [None], "b": [None]}),
        ("| a | b |\n|---|---|\n| 1 | x |\n| 2 | y |\n", {"a": ["1", "2"], "b": ["x", "y"]}),
        (" id | name \n----+------\n  1 | x\n  2 | y\n", {"id": ["1", "2"], "name": ["x", "y"]}),
        ("+---+---+\n| a | b |\n+---+---+\n| 1 | x |\n+---+---+\n", {"a": ["1"], "b": ["x"]}),
        ("a, b\n1, x\n2, y\n", {"a": ["1", "2"], "b": ["x", "y"]}),
        ("a^b\n1^2\n3^4\n", {"a": ["1", "3"], "b": ["2", "4"]}),
        (
            "% made by x\na b\n1 2\n4 5\n7 8\n",
            {"a": ["1", "4", "7"], "b": ["2", "5", "8"]},
        ),
        (
            '"Source","WDI",\n\n"Country","Code","1990","2000"\n"Aruba","ABW","1","2"\n"Bonaire","BES","2","3"\n',
            {"Country": ["Aruba", "Bonaire"], "Code": ["ABW", "BES"], "1990": ["1", "2"], "2000": ["2", "3"]},
        ),
        ("a,b,c\n", {"a": [], "b": [], "c": []}),
    ],
)
def test_files_as_programs_write_them(text: str, expected: dict[str, list[str | None]]) -> None:
    assert cells(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "text\nyes; and no\n",
        "text\nyes, I do\nno, never\nwell, maybe\n",
        "full name\nJohn Smith\nAnn Lee\nBob Ray\n",
        "when\n2023-01-05 10:30:00\n2023-01-06 11:45:00\n2023-01-07 12:00:01\n",
        "time\n10:30:00\n11:45:00\n",
        "text\nnote: hello\nwarn: bye\n",
        "url\nhttp://a.b/c\nhttp://a.b/d\n",
        "price\n56 999\n12 345\n1 000\n",
    ],
)
def test_one_column_stays_one_column(text: str) -> None:
    name, *lines = text.splitlines()
    assert cells(text) == {name: lines}


def test_a_file_of_one_quoted_column() -> None:
    assert cells('text\n"hello, you\nworld"\n"bye"\n') == {"text": ["hello, you\nworld", "bye"]}


@pytest.mark.parametrize(
    "text",
    [
        "5.1,3.5,Iris-setosa\n4.9,3.0,Iris-setosa\n6.1,3.1,Iris-virginica\n",
        "1,2,3\n4,5,6\n7,8,9\n",
        "cats/1.png,cat\ncats/2.png,cat\ndogs/1.png,dog\n",
        "2023-01-02,4.5\n2023-01-03,4.6\n",
        "root:x:0:0:root\nbin:x:1:1:bin\nsys:x:2:2:sys\n",
    ],
)
def test_a_first_row_of_data_is_no_header_and_plait_says_so(text: str) -> None:
    found = read(text)
    assert found.data.num_rows == len(text.splitlines())
    assert found.data.column_names[:2] == ["Unnamed: 0", "Unnamed: 1"]
    assert "has no header" in found.notes[0]


@pytest.mark.parametrize(
    "text",
    ["country,1990,1991,1992\nFrance,1.5,2.5,3\n", "1990,1995,2000\n1.5,2.5,3\n", "0,1,2\n4,5,6\n7,8,9\n"],
)
def test_a_header_may_have_numbers(text: str) -> None:
    assert read(text).data.column_names == text.splitlines()[0].split(",")


def test_a_row_with_a_cell_too_many_is_named() -> None:
    message = r"row 1 \(line 5\) has 3 cells, expected 2: '3,4,9'. Put cells that hold a ',' in double quotes"
    with pytest.raises(TableError, match=message):
        read("# a comment\n\na,b\n1,2\n3,4,9\n5,6\n7,8\n")


@pytest.mark.parametrize("before", ["", "".join(f'{n},"text {n}"\n' for n in range(20_000))])
def test_quotes_that_are_not_doubled_belong_to_their_cell(before: str) -> None:
    found = read(f'a,b\n{before}1,"he said "hi, you" ok"\n2,"x ""y"" z"\n3,5" pipe\n')
    assert found.data.slice(found.data.num_rows - 3)["b"].to_pylist() == [
        'he said "hi, you" ok',
        'x "y" z',
        '5" pipe',
    ]


def test_short_rows_end_in_missing_cells_and_are_named() -> None:
    found = read("a,b,c\n1,2,3\n4,5\n6,7,8\n")
    assert found.data.to_pydict() == {"a": ["1", "4", "6"], "b": ["2", "5", "7"], "c": ["3", None, "8"]}
    assert found.notes == (
        "t.csv: 1 row has fewer than 3 cells, so the last count as missing: row 1 (line 3)",
    )


def test_what_stands_above_the_header_is_named() -> None:
    found = read("Report of 2023\nCreated: today\n\nid,name\n1,a\n2,b\n")
    assert found.data.to_pydict() == {"id": ["1", "2"], "name": ["a", "b"]}
    assert "'Report of 2023'" in found.notes[0]


@pytest.mark.parametrize("megabytes", [3, 50])
def test_a_cell_of_many_megabytes(megabytes: int) -> None:
    long = "word, " * (megabytes * 170_000)
    assert cells(f'id,text\n1,short\n2,"{long}"\n3,x\n') == {
        "id": ["1", "2", "3"],
        "text": ["short", long, "x"],
    }


def test_many_rows_before_the_first_odd_one() -> None:
    lines = [f"{number},text {number}" for number in range(100_000)]
    with pytest.raises(TableError, match=r"row 99998 \(line 100000\) has 3 cells"):
        read("\n".join(["a,b", *lines[:-2], "1,2,3", *lines[-2:]]))


@pytest.mark.parametrize("remark", ["fine", "two\\nlines", 'he said "no', "C:\\new"])
def test_the_null_of_a_database_is_missing_in_any_column(remark: str) -> None:
    text = f"id\tcity\tremark\n1\t\\N\t{remark}\n2\tRome\t\\N\n\\N\tOslo\tok\n"
    assert cells(text, "t.tsv") == {
        "id": ["1", "2", None],
        "city": [None, "Rome", "Oslo"],
        "remark": [remark, None, "ok"],
    }
