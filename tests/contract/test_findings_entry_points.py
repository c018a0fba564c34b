"""One value has one meaning: whatever a row comes in, the model reads it as its training column."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import plait
from plait.data.arguments import recipe_from
from plait.data.plan import Plan
from plait.errors import BadCellsError
from plait.table.read import read
from plait.table.sides import Sources, read_sides

ROWS = 40
FAST = ["training.epochs=1", "split.valid=0.25"]
FLAGS = [row % 3 == 0 for row in range(ROWS)]
COLOURS = ["red", "green", "blue", "red"] * (ROWS // 4)
DAYS = [dt.date(2023, 1, 1) + dt.timedelta(days=17 * row) for row in range(ROWS)]
AMOUNTS = [1000.5 + 37.25 * row for row in range(ROWS)]


def frame(**columns: Any) -> pd.DataFrame:
    cells = {
        "flag": FLAGS,
        "colour": COLOURS,
        "day": [day.isoformat() for day in DAYS],
        "amount": [f"{amount:,.2f}" for amount in AMOUNTS],
        "label": ["yes" if flag else "no" for flag in FLAGS],
    }
    return pd.DataFrame({**cells, **columns})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> plait.Model:
    out = tmp_path_factory.mktemp("entry") / "run"
    plait.fit(frame(), "label", out=out, overrides=FAST, quiet=True)
    return plait.load(out)


@pytest.fixture(scope="module")
def expected(model: plait.Model) -> list[float]:
    return probabilities(model.predict(frame()))


def probabilities(answers: pa.Table) -> list[float]:
    values: list[float] = answers["label_probability_yes"].to_pylist()
    return values


SPELLINGS = {
    "True": ("True", "False"),
    "TRUE": ("TRUE", "FALSE"),
    "1": (1, 0),
    "1.0": (1.0, 0.0),
    "yes": ("yes", "no"),
    "Y": ("Y", "N"),
    "on": ("on", "off"),
    "numpy": (np.True_, np.False_),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_truth_values_are_read_in_every_spelling(
    spelling: str, model: plait.Model, expected: list[float], tmp_path: Path
) -> None:
    true, false = SPELLINGS[spelling]
    table = frame(flag=[true if flag else false for flag in FLAGS])
    assert probabilities(model.predict(table)) == pytest.approx(expected)
    table.to_csv(tmp_path / "rows.csv", index=False)
    assert probabilities(model.predict(tmp_path / "rows.csv")) == pytest.approx(expected)


@pytest.mark.parametrize(
    "write",
    [
        lambda day: int(f"{day:%Y%m%d}"),
        lambda day: float(f"{day:%Y%m%d}"),
        lambda day: day,
        pd.Timestamp,
        lambda day: f"{day}T00:00:00",
        lambda day: f"{day:%b %d, %Y}",
    ],
    ids=["integer", "float", "date", "timestamp", "T", "month name"],
)
def test_dates_are_read_in_every_type(
    write: Callable[[dt.date], Any], model: plait.Model, expected: list[float]
) -> None:
    assert probabilities(model.predict(frame(day=list(map(write, DAYS))))) == pytest.approx(expected)


@pytest.mark.parametrize("write", [float, Decimal, lambda amount: f"{amount:.2f}", np.float64])
def test_numbers_are_read_in_every_type(
    write: Callable[[float], Any], model: plait.Model, expected: list[float]
) -> None:
    table = frame(amount=list(map(write, AMOUNTS)))
    assert probabilities(model.predict(table)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("column", "cell", "shown"),
    [
        ("flag", "ok", "flag: 40 x expected true or false, came 'ok'"),
        ("flag", 2, "flag: 40 x expected true or false, came 2"),
        ("day", 1_609_459_200_000_000, "day: 40 x expected a date such as 2023-02-05, came 1609459200000000"),
        ("day", "05/02/2023", "day: 40 x expected a date such as 2023-02-05, came '05/02/2023'"),
        ("amount", "1,5", "amount: 40 x expected a number such as 1,234.5, came '1,5'"),
        ("amount", "1.234,5", "amount: 40 x expected a number such as 1,234.5, came '1.234,5'"),
        ("amount", "5 kg", "amount: 40 x expected a number such as 1,234.5, came '5 kg'"),
    ],
)
def test_cells_that_do_not_fit_are_counted_and_named(
    column: str, cell: Any, shown: str, model: plait.Model, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = model.predict(frame(**{column: [cell] * ROWS}))
    assert answers["problem"].null_count == 0
    assert shown in capsys.readouterr().err


def test_bad_cells_of_many_kinds_are_one_line(model: plait.Model, capsys: pytest.CaptureFixture[str]) -> None:
    model.predict(frame(day=list(range(ROWS))))
    _, *lines = capsys.readouterr().err.splitlines()
    assert lines == ["  day: 40 x expected a date such as 2023-02-05, came 0"]


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        (str.title, "40 of 40 cells have values that the model does not know, such as 'Red'. These are most"),
        (lambda word: f"{word} ", ""),
        (lambda word: "rot", "40 of 40 cells have values that the model does not know, such as 'rot'"),
        (lambda word: {"blue": "bleu"}.get(word, word), "10 of 40 cells have values that the model does"),
    ],
    ids=["Red", "spaces", "unknown", "some"],
)
def test_categories_that_are_all_unknown_are_warned_of(
    change: Callable[[str], str], shown: str, model: plait.Model, capsys: pytest.CaptureFixture[str]
) -> None:
    model.predict(frame(colour=list(map(change, COLOURS))))
    err = capsys.readouterr().err
    assert shown in err
    assert bool(err) == bool(shown)


@pytest.mark.parametrize(
    "row",
    [
        frame().iloc[4],
        frame().to_dict("records")[4],
        [{**frame().to_dict("records")[4], "flag": np.False_, "amount": np.float32(AMOUNTS[4])}],
        {**frame().to_dict("records")[4], "amount": np.array(AMOUNTS[4]), "colour": np.str_(COLOURS[4])},
    ],
    ids=["series", "dict", "numpy scalars", "numpy array without dimensions"],
)
def test_one_row_comes_in_any_object(row: object, model: plait.Model, expected: list[float]) -> None:
    (answer,) = probabilities(model.predict(row))
    assert answer == pytest.approx(expected[4], abs=1e-5)


@pytest.mark.parametrize("missing", [float("nan"), None, pd.NA, pd.NaT, np.float64("nan")])
def test_records_of_a_frame_have_missing_cells_of_any_kind(missing: Any) -> None:
    records = frame(colour=[missing, "red"] * 20, amount=[1.5, missing] * 20).to_dict("records")
    schema = plait.inspect(records, "label").schema
    assert (schema["colour"].modality, schema["colour"].missing) == ("category", 20)
    assert (schema["amount"].modality, schema["amount"].missing) == ("number", 20)


def test_a_text_and_a_number_in_one_column_are_numbers() -> None:
    inspection = plait.inspect([{"x": "3", "y": "a"}, {"x": 4.0, "y": "b"}], "y")
    assert inspection.schema["x"].modality == "number"
    assert not inspection.problems


@pytest.mark.parametrize(
    ("train", "valid", "cells"),
    [
        (["00501", "02134"], ["90001", "10115"], ["00501", "02134", "90001", "10115"]),
        (["90001", "10115"], ["00501", "02134"], [90001, 10115, 501, 2134]),
        (["True", "False"], ["yes", "0"], [True, False, True, False]),
        (["True", "False"], ["True", "unknown"], [True, False, True, None]),
        (["1.5", "2"], ["n/a", "3"], [1.5, 2, None, 3]),
        (["1", "2"], ["1.5", "2.5"], [1, 2, 1.5, 2.5]),
        (
            ["2023-01-01", "2023-02-01"],
            ["", ""],
            [dt.datetime(2023, 1, 1), dt.datetime(2023, 2, 1), None, None],
        ),
    ],
    ids=["zip", "zip as numbers", "truth", "unknown", "n/a", "fractions", "empty"],
)
def test_files_typed_apart_are_read_as_trainings_column(
    train: list[str], valid: list[str], cells: list[Any], tmp_path: Path
) -> None:
    for name, column in (("train.csv", train), ("valid.csv", valid)):
        table = pd.DataFrame({"x": column * 10, "z": range(20), "label": ["a", "b"] * 10})
        table.to_csv(tmp_path / name, index=False)
    joined = read_sides(Sources(tmp_path / "train.csv", tmp_path / "valid.csv"))
    plan = Plan.make(joined, recipe_from(None, columns={"z": "number"}), "label")
    typed = plan.read(joined).data.column("x").to_pylist()
    assert [*typed[:2], *typed[20:22]] == cells


def test_labels_typed_apart_are_one_kind_of_label() -> None:
    train = pd.DataFrame({"x": range(20), "label": [0, 1] * 10})
    valid = pd.DataFrame({"x": range(4), "label": ["0", "1"] * 2})
    joined = read_sides(Sources(train, valid))
    plan = Plan.make(joined, recipe_from(None, columns={"x": "number"}), "label")
    assert plan.read(joined).data.column("label").to_pylist() == [0, 1] * 12


def test_tables_in_memory_are_told_apart(tmp_path: Path) -> None:
    valid = frame(amount=["much"] * ROWS)
    with pytest.raises(BadCellsError, match="the valid table row 0: expected a number"):
        plait.fit(frame(), "label", valid=valid, out=tmp_path / "run", overrides=FAST, quiet=True)


def test_an_empty_string_is_a_missing_cell_as_in_a_file(tmp_path: Path) -> None:
    table = frame(colour=["red", "", "  ", "blue"] * 10, label=["a", "b", "", " "] * 10)
    table.to_csv(tmp_path / "rows.csv", index=False)
    for source in (table, tmp_path / "rows.csv"):
        plan = Plan.make(read(source), recipe_from(None), "label")
        assert plan.schema["colour"].missing == 20
        assert plan.split.without_label == 20
