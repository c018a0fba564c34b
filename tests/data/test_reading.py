from __future__ import annotations

import datetime as dt
import shlex

import pyarrow as pa
import pytest

from plait.data.reading import Conventions, infer_conventions
from plait.recipe.recipe import load
from plait.table.read import read
from plait.table.table import Table


def infer(table: Table, *overrides: str) -> Conventions:
    return infer_conventions(table, dict.fromkeys(table.data.column_names, ()), load(None, overrides))


@pytest.mark.parametrize(
    ("cells", "second"),
    [
        (["08/01/2023", "02/03/2023", "04/05/2023"], dt.datetime(2023, 8, 1)),
        (["08-01-23", "02-03-23", "04-05-23"], dt.datetime(2023, 8, 1)),
        (["08/01/2023 1:05 PM", "02/03/2023 4:30 AM", "04/05/2023 4:30 AM"], dt.datetime(2023, 8, 1, 13, 5)),
        (["Mon 08/01/2023", "Tue 02/03/2023", "Wed 04/05/2023"], dt.datetime(2023, 8, 1)),
        (["1,100", "2,200", "3,300"], 1.1),
    ],
)
@pytest.mark.parametrize("name", ["when", "Order date", "when.at"])
def test_the_option_of_a_warning_gives_its_second_reading(
    cells: list[str], second: dt.datetime | float, name: str
) -> None:
    table = read(pa.table({name: cells}))
    warning = infer(table).warnings[name]
    option, override = shlex.split(warning.partition("if so, ")[2])
    assert option == "--set"

    conventions = infer(table, override)
    assert not conventions.warnings
    reading = conventions.by_column[name].read(table.column(name))
    assert not reading.bad
    assert reading.cells[0].as_py() == second


def test_a_decimal_comma_puts_the_day_first() -> None:
    table = read(pa.table({"price": ["1,5", "2,25"], "when": ["08/01/2023", "02/03/2023"]}))
    conventions = infer(table)
    assert not conventions.warnings
    assert conventions.by_column["when"].read(table.column("when")).cells[0].as_py() == dt.datetime(
        2023, 1, 8
    )
