from __future__ import annotations

import datetime as dt
import shlex

import pyarrow as pa
import pytest

import plait
from plait.data.reading import Conventions, infer_conventions, of_input
from plait.recipe.recipe import load
from plait.table.read import read
from plait.table.table import Table


def infer(table: Table, *overrides: str) -> Conventions:
    recipe = load(None, overrides)
    accepted = {name: of_input(recipe.columns.get(name)) for name in table.data.column_names}
    return infer_conventions(table, accepted, recipe)


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


def test_numbers_with_a_few_slips_are_named() -> None:
    table = read(pa.table({"height": [*map(str, range(60, 78)), "5'4", "six"]}))
    doubt = "column 'height': 90% of the cells are numbers, and \"5'4\" is none, so all are taken for words"
    warning = infer(table).warnings["height"]
    assert warning == f"{doubt}; if such cells may count as missing, empty them in the table"

    options = {"height": "tasks.height=regression"}
    target = infer_conventions(table, {"height": ()}, load(None), as_numbers=options)
    assert target.warnings["height"].endswith(", --set tasks.height=regression")


def test_labels_that_are_no_numbers_are_problems_of_a_regression() -> None:
    rows = [{"x": number, "height": str(number)} for number in range(60, 78)]
    table = [*rows, {"x": 5, "height": "5'4"}, {"x": 6, "height": "six"}]
    asked = plait.inspect(table, "height")
    assert asked.tasks["height"][0] == "classification"
    model = plait.fit(table, "height", overrides=["tasks.height=regression", "training.epochs=1"], quiet=True)
    assert isinstance(model.predict({"x": 70}).to_pylist()[0]["height"], float)


def test_words_with_a_few_numbers_are_no_slips() -> None:
    cells = ["12a", "12b", "flat 3", *map(str, range(10))]
    assert not infer(read(pa.table({"door": cells}))).warnings
    assert not infer(read(pa.table({"code": [f"{n:03d}" for n in range(100)]}))).warnings
