"""What a column's cells mean, by the convention that all of them share."""

from __future__ import annotations

import base64
import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from plait.table.conventions.base import UNKNOWN, Style
from plait.table.conventions.clock import Clock
from plait.table.conventions.date import LANGUAGES, Date
from plait.table.conventions.infer import infer_convention
from plait.table.conventions.listing import Listing
from plait.table.conventions.number import Number
from plait.table.conventions.plain import Plain
from plait.table.conventions.truth import Truth

NAN = float("nan")


def column(*cells: Any) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(cells)])


def read(*cells: Any, style: Style = UNKNOWN) -> list[Any]:
    """Infer the convention of these cells, and read them by it. None of them may be bad."""
    reading = infer_convention(column(*cells), style).convention.read(column(*cells))
    assert not reading.bad
    return reading.cells.to_pylist()


@pytest.mark.parametrize(
    ("cells", "numbers"),
    [
        (["1.234,56", "12,5"], [1234.56, 12.5]),
        (["0,5", "12,25"], [0.5, 12.25]),
        (["1,234.50", "12"], [1234.5, 12]),
        (["12,34,567.5", "1,00,000"], [1234567.5, 100000]),
        (["56 999.82", "1 000 000"], [56999.82, 1000000]),
        (["56\u202f999,82", "1"], [56999.82, 1]),
        (["56'999.82", "12"], [56999.82, 12]),
        (["56\u2019999.82", "12"], [56999.82, 12]),
        (["1_000", "12_000"], [1000, 12000]),
        (["1e5", "2.5E-3"], [1e5, 2.5e-3]),
        ([".5", "-.25"], [0.5, -0.25]),
        (["+5", "-3"], [5, -3]),
        (["\u22125", "3"], [-5, 3]),
        (["5-", "3"], [-5, 3]),
        (["(1,234.50)", "12"], [-1234.5, 12]),
        (["-$5.00", "$-6", "$7"], [-5, -6, 7]),
        (["12,50 €", "3 €"], [12.5, 3]),
        (["€ 5,-", "€ 7,50"], [5, 7.5]),
        (["USD 5", "USD 7.5"], [5, 7.5]),
        (["R$ 5,00", "R$ 1.250,00"], [5, 1250]),
        (["12,5%", "3 %"], [12.5, 3]),
        (["5.1 kg", "7kg", "3"], [5.1, 7, 3]),
        (["57.00K", "1.2M", "3"], [57000, 1.2e6, 3]),
        (["$1.5bn", "$20M"], [1.5e9, 2e7]),
        (["10 MB", "1.5 GB"], [1e7, 1.5e9]),
        (["3.5万", "2"], [35000, 2]),
        (["１２", "3"], [12, 3]),
        (["9223372036854775807", "1"], [9223372036854775807, 1]),
    ],
)
def test_numbers_are_read_as_people_write_them(cells: list[str], numbers: list[float]) -> None:
    assert read(*cells) == pytest.approx(numbers, rel=1e-12)


@pytest.mark.parametrize(
    "cells",
    [
        ["1,2,3", "4,5,6"],
        ["1.10.3", "2.1.0"],
        ["Room 12", "Room 13"],
        ["A12", "B7"],
        ["1st", "2nd", "3rd"],
        ["5 kg", "300 g", "2 lb"],
        ["<5", "7"],
        ["12 or 13", "14"],
    ],
)
def test_what_only_resembles_numbers_stays_text(cells: list[str]) -> None:
    assert infer_convention(column(*cells)).convention == Plain()


def test_marks_of_missing_cells_are_missing_beside_numbers() -> None:
    cells = column("5", "", "NA", "n/a", "-", "?", "NaN", None, "7")
    reading = infer_convention(cells).convention.read(cells)
    assert reading.cells.to_pylist() == [5, None, None, None, None, None, None, None, 7]
    assert not reading.bad


def test_a_few_cells_that_are_no_numbers_are_bad() -> None:
    cells = column(*["12,5"] * 30, "unknown")
    reading = infer_convention(cells).convention.read(cells)
    assert reading.bad == {30: "expected a number such as 1234,5, came 'unknown'"}
    assert reading.cells[30].as_py() is None


def test_a_number_of_another_convention_is_bad_not_misread() -> None:
    american = infer_convention(column("1,234.5", "2,000.25")).convention
    assert american.read(column("1,5")).bad == {0: "expected a number such as 1,234.5, came '1,5'"}
    assert american.read(column("12.5 kg")).bad
    assert american.read(column("3,000")).cells.to_pylist() == [3000]


def test_two_readings_of_numbers_are_both_named() -> None:
    recognised = infer_convention(column("1,234", "5,678", "9,012"))
    assert recognised.convention == Number(group=",")
    assert recognised.other == "1,234 is read as 1234, and may also be 1.234; if so, set decimal: ','"
    assert read("1,234", "5,678", "9,012", style=Style(decimal=",")) == [1.234, 5.678, 9.012]
    assert read("1.234", "5.678", "9.012", style=Style(decimal=",")) == [1234, 5678, 9012]
    assert not infer_convention(column("1,234", "5,678", "9,012.5")).other


@pytest.mark.parametrize(
    ("cells", "numbers"),
    [
        (pa.array([Decimal("1.50"), Decimal("2.25"), None]), [1.5, 2.25, None]),
        (pa.array([1.5, NAN, None]), [1.5, None, None]),
        (pa.array([True, False]), [1, 0]),
        (pa.array([1, 2], pa.uint64()), [1, 2]),
        (pa.array([1.5, 2], pa.float16()), [1.5, 2]),
        (pa.array(["1.5", "2"]), [1.5, 2]),
    ],
)
def test_a_column_of_numbers_reads_every_type_of_numbers(cells: pa.Array, numbers: list[Any]) -> None:
    assert Number().read(pa.chunked_array([cells])).cells.to_pylist() == numbers


def test_an_infinite_number_is_bad() -> None:
    reading = Number().read(column(1.0, float("inf"), NAN))
    assert reading.bad == {1: "expected a finite number, came inf"}
    assert Number().read(column("1e400", "2")).bad == {0: "expected a number, came '1e400'"}


DAY = dt.datetime(2023, 2, 5)
TIME = dt.datetime(2023, 2, 5, 13, 28, 59)


@pytest.mark.parametrize(
    ("cell", "time"),
    [
        ("2023-02-05", DAY),
        ("2023-02-05T13:28:59.000", TIME),
        ("2023-02-05T13:28:59.000Z", TIME),
        ("2023-02-05T13:28", TIME.replace(second=0)),
        ("2023-02-05T15:28:59+02:00", TIME),
        ("2023-02-05 13:28:59.123456+00", TIME.replace(microsecond=123456)),
        ("2023-02-05 13:28:59 UTC", TIME),
        ("2023-02-05 08:28:59 EST", TIME),
        ("2023-02-05T14:28:59+01:00[Europe/Paris]", TIME),
        ("2023-02-05 1:28:59 p.m.", TIME),
        ("2023-02-04 24:00:00", DAY),
        ("20230205", DAY),
        ("20230205T132859Z", TIME),
        ("2023-02", dt.datetime(2023, 2, 1)),
        ("2023-W06-7", dt.datetime(2023, 2, 12)),
        ("2023-W06", dt.datetime(2023, 2, 6)),
        ("2023-036", DAY),
        ("2023-Q1", dt.datetime(2023, 1, 1)),
        ("Q3 2023", dt.datetime(2023, 7, 1)),
        ("2023/02/05", DAY),
        ("2023.02.05", DAY),
        ("05.02.2023 13:28", TIME.replace(second=0)),
        ("05/02/2023 13:28:59", TIME),
        ("Sun, 05 Feb 2023 14:28:59 +0100", TIME),
        ("Sun Feb  5 13:28:59 2023", TIME),
        ("Sun Feb 05 14:28:59 CET 2023", TIME),
        ("05/Feb/2023:13:28:59 +0000", TIME),
        ("Feb 2023", dt.datetime(2023, 2, 1)),
        ("Feb 5, 2023", DAY),
        ("February 5th, 2023", DAY),
        ("Sunday, 5 February 2023", DAY),
        ("05-FEB-23", DAY),
        ("5. Februar 2023", DAY),
        ("5 févr. 2023", DAY),
        ("5 de febrero de 2023", DAY),
        ("5 febbraio 2023", DAY),
        ("5 de fevereiro de 2023", DAY),
        ("5 февраля 2023", DAY),
        ("5 lutego 2023", DAY),
        ("2023年02月05日", DAY),
        ("2023年2月5日(日) 13時28分59秒", TIME),
        ("2023년 2월 5일", DAY),
        ("9999-12-31", dt.datetime(9999, 12, 31)),
        ("0001-01-01", dt.datetime(1, 1, 1)),
    ],
)
def test_dates_are_read_as_people_write_them(cell: str, time: dt.datetime) -> None:
    assert read(cell, cell) == [time, time]


@pytest.mark.parametrize("language", LANGUAGES)
def test_months_have_names_in_many_languages(language: str) -> None:
    from babel.dates import format_date

    days = [dt.date(2023, month, 17) for month in range(1, 13)]
    cells = [format_date(day, "d MMMM y", language) for day in days]
    assert [time.date() for time in read(*cells)] == days


@pytest.mark.parametrize(
    "cell", ["2023-02-30", "1.10.3", "13:28", "2023-13", "2023-W54", "31/31/2023", "May"]
)
def test_what_only_resembles_a_date_is_none(cell: str) -> None:
    assert not isinstance(infer_convention(column(cell, cell)).convention, Date)


def test_cells_decide_whether_the_day_comes_first() -> None:
    assert read("01/02/2023", "13/02/2023")[0] == dt.datetime(2023, 2, 1)
    assert read("01/02/2023", "02/13/2023")[0] == dt.datetime(2023, 1, 2)
    assert read("98-12-31", "99-01-02")[0] == dt.datetime(1998, 12, 31)


def test_two_readings_of_dates_are_both_named() -> None:
    recognised = infer_convention(column("01/02/2023", "03/04/2023"))
    assert recognised.convention == Date(shapes=("numeric",), order="dmy")
    assert recognised.other == (
        "01/02/2023 is read as 2023-02-01, and may also be 2023-01-02; if so, set format: '%m/%d/%Y'"
    )
    american = Style(day_first=False)
    assert read("01/02/2023", "03/04/2023", style=american)[0] == dt.datetime(2023, 1, 2)
    assert not infer_convention(column("01/01/2023", "02/02/2023")).other


def test_other_units_of_one_dimension_are_converted() -> None:
    assert read("2 kg", "500 g", "1.5 kg") == [2, 0.5, 1.5]
    assert read("250 ml", "1 L", "30 ml", "5") == [250, 1000, 30, 5]
    assert read("250 mg", "500 \u00b5g", "7 mg") == [250, 0.5, 7]
    kilograms = infer_convention(column("2 kg", "3 kg")).convention
    assert kilograms.read(column("250 g", "3 €")).cells.to_pylist() == [0.25, None]
    assert read("2 kg", "3 cm", "4 kg") == ["2 kg", "3 cm", "4 kg"]


def test_a_dot_between_day_and_month_leaves_no_doubt() -> None:
    recognised = infer_convention(column("01.03.2018", "02.04.2018"))
    assert recognised.convention == Date(shapes=("numeric",), order="dmy")
    assert not recognised.other


def test_nearly_all_cells_are_not_all_of_them() -> None:
    assert infer_convention(column(*["5"] * 999, "k.A.")).reason == "99.9% of the cells are numbers"
    dates = [f"{number % 28 + 1} Feb {2000 + number // 28}" for number in range(399)]
    assert infer_convention(column(*dates, "soon")).reason.startswith("99.7% of the cells are")


def test_a_column_of_dates_reads_clear_dates_of_any_shape() -> None:
    iso = infer_convention(column("2023-02-05 13:28:59", "2023-02-06 00:00:00")).convention
    for cell in ("2023-02-05T13:28:59", "Feb 5, 2023 13:28:59", "Sun Feb  5 13:28:59 2023"):
        assert iso.read(column(cell)).cells.to_pylist() == [TIME]
    assert iso.read(column(TIME)).cells.to_pylist() == [TIME]
    assert iso.read(column(DAY.date())).cells.to_pylist() == [DAY]
    assert iso.read(column(20230205, None)).cells.to_pylist() == [DAY, None]
    assert iso.read(column(20230205.0, NAN)).cells.to_pylist() == [DAY, None]


def test_a_year_among_dates_is_a_date() -> None:
    """Where no more is known, as of old books; a column of years holds numbers."""
    assert read("March 1st 2007", "1948", "May 2nd 1999")[1] == dt.datetime(1948, 1, 1)
    assert read("2007", "1948", "May 2nd 1999") == ["2007", "1948", "May 2nd 1999"]
    assert read("2007", "1948") == [2007, 1948]


def test_a_date_with_two_meanings_is_bad_unless_training_decides() -> None:
    iso = infer_convention(column("2023-02-05", "2023-02-06")).convention
    assert iso.read(column("05/02/2023")).bad == {0: "expected a date such as 2023-02-05, came '05/02/2023'"}
    assert iso.read(column(5, 1675603739)).bad.keys() == {0, 1}


def test_a_format_of_the_user_comes_first() -> None:
    convention = Date(format="%m/%d/%y")
    cells = column("12/31/63", "01/02/23", "2020-01-01", "31/12/63")
    reading = convention.read(cells)
    assert [str(time)[:10] for time in reading.cells.to_pylist()[:3]] == [
        "1963-12-31",
        "2023-01-02",
        "2020-01-01",
    ]
    assert reading.bad == {3: "expected a date like %m/%d/%y, came '31/12/63'"}


@pytest.mark.parametrize(
    ("cells", "seconds"),
    [
        (["05:14:54", "23:00:01.5"], [18894, 82801.5]),
        (["12:30", "00:15"], [45000, 900]),
        (["4:12.08", "3:59.1"], [252.08, 239.1]),
        (["3:45 PM", "12:01 am"], [56700, 60]),
        (["11h38", "9 h 05", "36h20"], [41880, 32700, 130800]),
        (["11:38 Uhr", "09:05 Uhr"], [41880, 32700]),
        (["11时38分", "9时05分"], [41880, 32700]),
        (["2 days 03:00:00", "0 days 00:00:01"], [183600, 1]),
        ([dt.time(1, 2, 3), dt.time(0)], [3723, 0]),
        ([dt.timedelta(hours=1), None], [3600, None]),
    ],
)
def test_times_of_day_and_durations_are_seconds(cells: list[Any], seconds: list[float]) -> None:
    assert read(*cells) == seconds


def test_truth_has_many_spellings() -> None:
    bools = infer_convention(column(True, False)).convention
    assert bools == infer_convention(column("True", "false", "NA")).convention == Truth()
    for true, false in (("True", "False"), ("TRUE", "FALSE"), (1, 0), (1.0, 0.0), ("1", "0"), ("yes", "no")):
        assert bools.read(column(true, false)).cells.to_pylist() == [True, False]
    assert bools.read(column("maybe")).bad == {0: "expected true or false, came 'maybe'"}
    assert bools.read(column(2)).bad == {0: "expected true or false, came 2"}


def test_words_for_truth_keep_the_spelling_of_training() -> None:
    words = infer_convention(column("Ja", "Nein", "Ja")).convention
    assert words.read(column(True, False)).cells.to_pylist() == ["Ja", "Nein"]
    assert words.read(column("ja", "no")).cells.to_pylist() == ["Ja", "Nein"]


def test_zeros_and_ones_are_numbers() -> None:
    assert infer_convention(column("0", "1", "1")).convention == Number()


@pytest.mark.parametrize(
    "cells", [["00501", "90001"], ["007", "12"], ["+49 30 901820", "+49 89 2180"], ["57e37", "12e05"]]
)
def test_codes_keep_every_character(cells: list[str]) -> None:
    assert read(*cells) == cells


def test_codes_of_one_width_get_back_their_zeros() -> None:
    postcodes = infer_convention(column("00501", "90001")).convention
    assert postcodes.read(column(501, 90001)).cells.to_pylist() == ["00501", "90001"]
    assert postcodes.read(column(501.0, NAN)).cells.to_pylist() == ["00501", None]


@pytest.mark.parametrize(
    ("cells", "lists"),
    [
        (["[0.126, -0.132]", "[1, 2]"], [[0.126, -0.132], [1, 2]]),
        (["[0.126 -0.132]", "[1.\n 2.]"], [[0.126, -0.132], [1, 2]]),
        (["(1, 2)", "(3, 4)"], [[1, 2], [3, 4]]),
        (["[1, null]", "[nan, 2]"], [[1, None], [None, 2]]),
        (["['a.png', 'b.png']", "[]"], [["a.png", "b.png"], []]),
        (['["red", "it\'s"]', '["a\\"b"]'], [["red", "it's"], ['a"b']]),
        (["['red' 'blue']", "['green']"], [["red", "blue"], ["green"]]),
        (["a.png;b.png", "c.png"], [["a.png", "b.png"], ["c.png"]]),
    ],
)
def test_lists_in_text_form_are_lists(cells: list[str], lists: list[list[Any]]) -> None:
    assert read(*cells) == lists


@pytest.mark.parametrize(
    "cells", [["[note] a text", "[x] more"], ["[[1, 2], [3]]"], ["a, b", "c"], ["(0.9, 2.0]"], ["[" * 5000]]
)
def test_what_only_resembles_a_list_stays_text(cells: list[str]) -> None:
    assert not isinstance(infer_convention(column(*cells)).convention, Listing)


def test_files_in_text_form_are_bytes() -> None:
    png = b"\x89PNG\r\n\x1a\n" + bytes(100)
    text = base64.b64encode(png).decode()
    assert read(text, f"data:image/png;base64,{text}", text.rstrip("=")) == [png, png, png]
    assert read("a" * 80, "b" * 80) == ["a" * 80, "b" * 80], "these decode, but to no file"


def test_words_read_every_type_of_cell() -> None:
    words = Plain()
    assert words.read(column(3.0, 2.5, NAN)).cells.to_pylist() == ["3", "2.5", None]
    assert words.read(column(True)).cells.to_pylist() == ["true"]
    assert words.read(column(DAY.date())).cells.to_pylist() == ["2023-02-05"]
    assert words.read(pa.chunked_array([pa.nulls(2)])).cells.to_pylist() == [None, None]


@pytest.mark.parametrize("convention", [Truth(), Number(), Date(), Clock(), Listing()])
@pytest.mark.parametrize(
    "text", ["", " ", "\0", "[" * 10_000, "9" * 10_000, "\u202e", "data:,", "1" + "," * 999]
)
def test_no_cell_ends_in_an_error(convention: Any, text: str) -> None:
    cells = column(text, None)
    assert len(convention.read(cells).cells) == 2
    infer_convention(cells)


@pytest.mark.parametrize(
    "cells",
    [
        pa.array([], pa.string()),
        pa.nulls(3),
        pa.array([[1], [2, 3]]),
        pa.array([b"x", None]),
        pa.array([{"path": "x"}]),
        pa.array([dt.datetime(2023, 1, 1)], pa.timestamp("ns", "Europe/Berlin")),
        pa.array([1], pa.duration("ns")),
        pa.array(["a", "b"]).dictionary_encode(),
        pa.array(["1,5", "2.5 kg", "x"], pa.large_string()),
    ],
)
def test_every_convention_reads_every_type(cells: pa.Array) -> None:
    cells = pa.chunked_array([cells])
    infer_convention(cells)
    for convention in (Truth(), Number(), Date(), Clock(), Listing(), Plain()):
        reading = convention.read(cells)
        assert len(reading.cells) == len(cells)
        filled = np.flatnonzero(cells.is_valid().to_numpy(zero_copy_only=False))
        assert set(reading.bad) <= set(filled.tolist())
