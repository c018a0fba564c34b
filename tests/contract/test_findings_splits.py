"""Splits as people have them in their tables: by time, by group, and in a column of many names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import plait
from plait.data.arguments import recipe_from
from plait.data.plan import Plan
from plait.errors import TableError
from plait.table.read import read

ROWS = 60


def rows(**columns: Any) -> pd.DataFrame:
    x = np.random.default_rng(0).normal(size=ROWS)
    return pd.DataFrame({"x": x, **columns, "label": ["a", "b"] * (ROWS // 2)})


def plan(*overrides: str, **columns: Any) -> Plan:
    return Plan.make(read(rows(**columns)), recipe_from(None, overrides=overrides), "label")


DAYS = pd.date_range("2020-01-31", periods=ROWS, freq="19D")
UNPADDED = [f"{day.month}/{day.day}/{day.year}" for day in DAYS]


@pytest.mark.parametrize(
    "times",
    [
        DAYS,
        DAYS.tz_localize("Europe/Berlin"),
        DAYS.strftime("%Y-%m-%d"),
        DAYS.strftime("%d/%m/%Y"),  # 31/01/2020 is before 01/12/2020
        UNPADDED,  # 9/1/2023 is before 10/1/2023
        DAYS.strftime("%d %b %Y"),
        [f"{minute // 60}:{minute % 60:02d}" for minute in range(590, 590 + ROWS)],  # 9:50 is before 10:00
        np.arange(ROWS) * 1.5,
    ],
    ids=["datetime", "zone", "iso", "day first", "month first", "month name", "clock", "number"],
)
def test_a_split_by_time_goes_forward_however_it_is_written(times: Any) -> None:
    split = plan("split.time=t", "split.test=0.1", t=list(times)).split
    assert [*split.train, *split.valid, *split.test] == list(range(ROWS))
    assert len(split.valid)
    assert len(split.test)


TRAIN_AND_TEST = [True] * 45 + [False] * 15


@pytest.mark.parametrize(
    ("name", "train", "test"),
    [
        ("split", "training", "testing"),
        ("is_train", True, False),
        ("is_train", 1, 0),
        ("fold", "train", "holdout"),
        ("subset", "TRAIN", "eval"),
        ("train_test", "train", "test"),
        ("in_training_set", "yes", "no"),
        ("kfold", "train", "test"),
    ],
)
def test_a_tables_own_split_is_used_and_not_learned_from(name: str, train: Any, test: Any) -> None:
    made = plan(**{name: [train if is_train else test for is_train in TRAIN_AND_TEST]})
    assert made.split.test.tolist() == list(range(45, ROWS))
    assert made.schema[name].role == "split"
    assert made.schema[name].reason == "holds " + ", ".join(sorted([str(train), str(test)]))
    assert list(made.columns) == ["x"]


@pytest.mark.parametrize("name", ["fold", "split", "partition"])
def test_a_column_named_like_a_split_is_not_learned_from_unsaid(name: str) -> None:
    table = rows(**{name: [0, 1, 2, 3] * 15})
    (warning,) = plait.inspect(table, "label").warnings
    assert f"column '{name}' is named like a split, but does not say which rows train" in warning
    assert not plait.inspect(table, "label", columns={name: "number"}).warnings


def test_one_group_alone_is_refused_by_name() -> None:
    with pytest.raises(TableError, match="all 60 rows have one group, 'a' in column 'g'"):
        plan("split.group=g", g=["a"] * ROWS)
    with pytest.raises(TableError, match="no row has a group in column 'g'"):
        plan("split.group=g", g=[None] * ROWS)


def test_rows_without_a_group_train() -> None:
    groups = [None if row % 2 else f"g{row % 8}" for row in range(ROWS)]
    split = plan("split.group=g", g=groups).split
    assert "30 without a group train" in split.how
    assert len(split.valid)
    assert not np.any(split.valid % 2)
