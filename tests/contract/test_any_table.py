"""Any table ends in an answer or in an error of plait's own, never in another library's.

`PLAIT_EXAMPLES` says how many tables are drawn in place of the numbers here.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import plait
from plait.data.plan import Plan
from plait.errors import PlaitError
from plait.recipe.recipe import Recipe
from plait.table.read import read
from support.any_table import labelled_tables, tables, texts

TINY = ["training.epochs=1", "training.precision=fp32"]
ALL_CHECKS = list(HealthCheck)


def drawn(few: int) -> settings:
    """Return settings for so many tables, the same each time; for as many others as the environment says."""
    asked = os.environ.get("PLAIT_EXAMPLES")
    return settings(
        max_examples=int(asked) if asked else few,
        derandomize=asked is None,
        deadline=None,
        database=None,
        suppress_health_check=ALL_CHECKS,
    )


@pytest.mark.slow
@drawn(2000)
@given(tables(), st.integers(0, 4))
def test_any_table_is_inspected_and_planned(data: Any, place: int) -> None:
    with contextlib.suppress(PlaitError):
        plait.inspect(data)
    with contextlib.suppress(PlaitError):
        table = read(data)
        names = table.data.column_names or ["x"]
        Plan.make(table, Recipe(), [names[place % len(names)]])


@pytest.mark.slow
@drawn(500)
@given(texts())
def test_any_csv_is_inspected(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        path.write_bytes(content)
        with contextlib.suppress(PlaitError):
            plait.inspect(path)


@pytest.mark.slow
@drawn(50)
@given(labelled_tables())
def test_any_table_trains_and_is_answered(data_and_target: tuple[Any, str]) -> None:
    data, target = data_and_target
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(PlaitError):
        model = plait.fit(data, target, overrides=TINY, out=Path(folder) / "run", quiet=True)
        answers = model.predict(data)
        assert answers.num_rows == len(data)
