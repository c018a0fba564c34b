"""Numbers, dates, times and codes as people write them, through a CSV file, as a model reads them."""

from __future__ import annotations

import csv
import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import plait
from plait.table.schema import Column
from support.tables import planned_cells

ROWS = 60
NUMBERS = np.random.default_rng(0).uniform(100, 99_999, ROWS).round(2).tolist()
START = dt.datetime(2023, 2, 5, 13, 28, 59)
TIMES = [START + dt.timedelta(days=11 * row, seconds=1237 * row) for row in range(ROWS)]


def rows(cells: list[Any]) -> list[dict[str, Any]]:
    return [{"x": cell, "label": "ab"[row % 2]} for row, cell in enumerate(cells)]


def csv_of(folder: Path, cells: list[Any], delimiter: str = ",") -> Path:
    path = folder / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["x", "label"], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows(cells))
    return path


def column_of(table: object) -> Column:
    return plait.inspect(table, "label").schema["x"]


def european(number: float) -> str:
    return f"{number:,.2f}".translate(str.maketrans(",.", ".,"))


def negative_above_half(form: str) -> Callable[[float], str]:
    """Return a way to write numbers of which the larger half is negative."""
    return lambda number: form.format(number) if number > 50_000 else f"{number:,.2f}"


def signed(number: float) -> float:
    return -number if number > 50_000 else number


@pytest.mark.parametrize(
    "write",
    [
        european,
        lambda number: f"{number:.2f}".replace(".", ","),
        lambda number: f"{number:.2f} €".replace(".", ","),
        lambda number: f"{number:.2f}%".replace(".", ","),
        lambda number: f"{number:_.2f}",
        lambda number: f"{number:,.2f}".replace(",", " "),
        lambda number: f"{number:,.2f}".replace(",", "\u202f").replace(".", ","),
        lambda number: f"{number:,.2f}".replace(",", "'"),
        lambda number: f"{number:.2f} kg",
        lambda number: f"USD {number:.2f}",
        lambda number: f"{number / 1000:.5f}K",
        lambda number: f"{number:.2f}".translate(str.maketrans("0123456789.", "٠١٢٣٤٥٦٧٨٩٫")),
    ],
    ids=["1.234,56", "12,5", "12,50 €", "12,5%", "1_000", "56 999.82", "narrow space", "56'999.82", "5.1 kg",
         "USD 5", "57.00K", "arabic"],
)  # fmt: skip
def test_numbers_are_numbers_however_they_are_written(write: Callable[[float], str], tmp_path: Path) -> None:
    for delimiter in (",", ";"):
        path = csv_of(tmp_path, list(map(write, NUMBERS)), delimiter)
        assert column_of(path).modality == "number"
        assert planned_cells(path, "x") == pytest.approx(NUMBERS)


@pytest.mark.parametrize("form", ["({:,.2f})", "-${:,.2f}", "\u2212{:,.2f}", "{:,.2f}-"])
def test_negative_numbers_have_many_signs(form: str, tmp_path: Path) -> None:
    path = csv_of(tmp_path, list(map(negative_above_half(form), NUMBERS)))
    assert planned_cells(path, "x") == pytest.approx(list(map(signed, NUMBERS)))


def test_fractions_below_one_have_a_decimal_comma(tmp_path: Path) -> None:
    cells = [f"0,{row % 9 + 1}" for row in range(ROWS)]
    assert planned_cells(csv_of(tmp_path, cells), "x") == [(row % 9 + 1) / 10 for row in range(ROWS)]


@pytest.mark.parametrize(
    ("cells", "modality"),
    [
        ([f"{row % 3},{row % 5},{row % 7}" for row in range(ROWS)], ("text", "category")),
        ([f"1.{row % 12}.{row % 5}" for row in range(ROWS)], ("id", "category")),
        (["00501", "02134", "90001", "10115"] * 15, ("category",)),
        ([f"+4930{90_000 + row % 7}" for row in range(ROWS)], ("category",)),
        ([f"{row % 9 + 10}e{row % 7 + 10}" for row in range(ROWS)], ("id", "category")),
    ],
    ids=["1,2,3", "1.10.3", "zip", "+49", "57e37"],
)
def test_lists_versions_and_codes_are_no_numbers(
    cells: list[str], modality: tuple[str, ...], tmp_path: Path
) -> None:
    column = column_of(csv_of(tmp_path, cells))
    assert (column.modality or column.role) in modality


@pytest.mark.parametrize("name", ["PassengerId", "CustomerID", "OrderNumber", "user_id", "order no"])
def test_unique_integers_named_like_ids_are_ids(name: str) -> None:
    numbers = np.random.default_rng(0).permutation(10_000)[:ROWS].tolist()
    table = [{name: number, "z": 0.5 * (row % 5), "label": row % 2} for row, number in enumerate(numbers)]
    assert plait.inspect(table, "label").schema[name].role == "id"


@pytest.mark.parametrize(
    "make",
    [
        lambda numbers: pa.table({"x": pa.array(numbers, pa.decimal128(10, 2)), "label": ["a", "b"] * 30}),
        lambda numbers: pa.table({"x": pa.array(numbers, pa.decimal256(40, 2)), "label": ["a", "b"] * 30}),
        lambda numbers: pd.DataFrame({"x": numbers, "label": ["a", "b"] * 30}),
        lambda numbers: pl.DataFrame({"x": numbers, "label": ["a", "b"] * 30}),
    ],
    ids=["decimal128", "decimal256", "pandas", "polars"],
)
def test_decimals_are_numbers(make: Callable[[list[Decimal]], object]) -> None:
    table = make([Decimal(f"{number:.2f}") for number in NUMBERS])
    assert column_of(table).modality == "number"
    assert planned_cells(table, "x") == pytest.approx(NUMBERS)


@pytest.mark.parametrize("infinite", [Decimal("Infinity"), float("-inf"), "1e999"])
def test_an_infinite_number_is_a_problem_of_its_row(infinite: Any) -> None:
    inspection = plait.inspect(rows([*map(Decimal, NUMBERS[1:]), infinite]), "label")
    assert inspection.schema["x"].modality == "number"
    assert [problem.row for problem in inspection.problems] == [ROWS - 1]


@pytest.mark.parametrize(
    ("form", "kept"),
    [
        ("%Y-%m-%dT%H:%M:%S.000", "%Y-%m-%d %H:%M:%S"),
        ("%Y-%m-%dT%H:%M:%S.000Z", "%Y-%m-%d %H:%M:%S"),
        ("%Y-%m-%dT%H:%M:%S,000", "%Y-%m-%d %H:%M:%S"),
        ("%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"),
        ("%d.%m.%Y %H:%M", "%Y-%m-%d %H:%M"),
        ("%d/%m/%Y %H:%M:%S", "%Y-%m-%d %H:%M:%S"),
        ("%m/%d/%Y %I:%M:%S %p", "%Y-%m-%d %H:%M:%S"),
        ("%a, %d %b %Y %H:%M:%S +0000", "%Y-%m-%d %H:%M:%S"),
        ("%a %b %d %H:%M:%S %Y", "%Y-%m-%d %H:%M:%S"),
        ("%Y年%m月%d日", "%Y-%m-%d"),
        ("%Y.%m.%d", "%Y-%m-%d"),
        ("%b %Y", "%Y-%m-01"),
        ("%Y%m%d%H%M%S", "%Y-%m-%d %H:%M:%S"),
        ("%B %d, %Y at %I:%M %p", "%Y-%m-%d %H:%M"),
    ],
)
def test_dates_are_dates_however_they_are_written(form: str, kept: str, tmp_path: Path) -> None:
    path = csv_of(tmp_path, [time.strftime(form) for time in TIMES])
    assert column_of(path).modality == "datetime"
    expected = [dt.datetime.fromisoformat(time.strftime(kept)) for time in TIMES]
    assert planned_cells(path, "x") == expected


def test_dates_with_a_zone_are_read_in_utc(tmp_path: Path) -> None:
    path = csv_of(tmp_path, [f"{time + dt.timedelta(hours=2):%Y-%m-%dT%H:%M:%S}+02:00" for time in TIMES])
    assert planned_cells(path, "x") == TIMES


@pytest.mark.parametrize("form", ["%H:%M:%S", "%H:%M:%S,000", "%Hh%M", "%H:%M"])
def test_times_of_day_are_seconds_since_midnight(form: str, tmp_path: Path) -> None:
    path = csv_of(tmp_path, [time.strftime(form) for time in TIMES])
    assert column_of(path).modality == "number"
    seconds = [time.hour * 3600 + time.minute * 60 + time.second * ("%S" in form) for time in TIMES]
    assert planned_cells(path, "x") == seconds


def test_laps_and_times_of_python_are_seconds(tmp_path: Path) -> None:
    laps = [f"{row % 4 + 2}:{row % 50 + 10}.08" for row in range(ROWS)]
    expected = [60 * (row % 4 + 2) + row % 50 + 10.08 for row in range(ROWS)]
    assert planned_cells(csv_of(tmp_path, laps), "x") == pytest.approx(expected)
    table = rows([time.time() for time in TIMES])
    assert planned_cells(table, "x") == planned_cells(
        csv_of(tmp_path, [time.strftime("%H:%M:%S") for time in TIMES]), "x"
    )


@pytest.mark.parametrize(
    "cells",
    [
        ["2023-02-05", "2023-03-06", "9999-12-31"],
        [dt.date(2023, 2, 5), dt.date(2023, 3, 6), dt.date(9999, 12, 31)],
        [dt.date(2023, 2, 5), dt.date(2023, 3, 6), dt.date(1, 1, 1)],
        [dt.datetime(2023, 2, 5), dt.datetime(2023, 3, 6), dt.datetime(9999, 12, 31)],
    ],
    ids=["text", "date", "year one", "datetime"],
)
def test_a_date_for_never_is_a_date(cells: list[Any]) -> None:
    table = rows(cells * 20)
    assert column_of(table).modality == "datetime"
    assert not plait.inspect(table, "label").problems


THOUSANDS = [f"{row % 9 + 1},{row % 800 + 100}" for row in range(ROWS)]
SLASHES = [f"{row % 12 + 1:02d}/{row * 5 % 12 + 1:02d}/2023" for row in range(ROWS)]


@pytest.mark.parametrize(
    ("cells", "override", "locale"),
    [
        (THOUSANDS, "columns.x.decimal=,", "de"),
        (SLASHES, "columns.x.format=%m/%d/%Y", "en_US"),
    ],
    ids=["1,234", "01/02/2023"],
)
def test_two_readings_are_both_named_and_can_be_chosen(
    cells: list[str], override: str, locale: str, tmp_path: Path
) -> None:
    path = csv_of(tmp_path, cells)
    (warning,) = plait.inspect(path, "label").warnings
    assert "is read as" in warning
    assert "may also be" in warning
    assert f"--set {override}" in warning
    second = planned_cells(path, "x", overrides=[override])
    assert second != planned_cells(path, "x")
    assert planned_cells(path, "x", overrides=[f"locale={locale}"]) == second
