"""Numbers that can be learned, and those whose differences or squares no float holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from plait.errors import TrainingError
from plait.table.table import Source
from plait.tasks.regression import Config, Regression


def column(cells: list[Any]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(cells)])


def test_large_whole_numbers_are_numbers() -> None:
    cells = column([10**18 + 1000 * i for i in range(10)])
    task = Regression.fit(Config(), cells, "y")
    target, labelled, problems = task.encode(cells, Source("y", Path()))
    assert labelled.all()
    assert not problems
    assert target[-1] == pytest.approx(1.5667, abs=1e-3)


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        ([5, 5, 5], "found only the number 5"),
        ([10**18 + i for i in range(9)], "once rounded to 16 digits: subtract what they have in common"),
        ([1e300, 2e300, 3e300], "numbers from 1e.300 to 3e.300 cannot be squared; train on them in another"),
        ([1e-300, 2e-300], "numbers from 1e-300 to 2e-300 cannot be squared"),
        ([None, None, 3.0], "found only the number 3"),
    ],
)
def test_numbers_that_cannot_be_learned_are_refused(numbers: list[Any], reason: str) -> None:
    with pytest.raises(TrainingError, match=reason):
        Regression.fit(Config(), column(numbers), "y")
