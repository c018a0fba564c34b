"""Numbers that can be learned, and those whose differences or squares no float holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

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


def answers(task: Regression) -> list[float]:
    return task.answers(torch.tensor([-9.0, 0.0, 1.0]))[""].to_pylist()


def test_answers_keep_the_sign_of_training_rows() -> None:
    task = Regression.fit(Config(), column([0, 10, 20]), "price")
    assert answers(task)[:2] == [0, 10]
    rows = task.score_rows(np.array([-9.0]), np.array([-9.0]))
    assert rows.label_B[0] < rows.answer_B[0] == 0

    assert answers(Regression.fit(Config(), column([-1, 10, 20]), "profit"))[0] < 0
    assert answers(Regression.fit(Config(keep_sign=False), column([0, 10, 20]), "price"))[0] < 0


def test_a_logarithmic_scale_refuses_negative_training_rows() -> None:
    with pytest.raises(TrainingError, match="no number below 0; in the training rows are 2, such as -3"):
        Regression.fit(Config(transform="log"), column([1, -3, 5, -1]), "y")


def test_a_task_of_an_earlier_state_answers_as_it_did() -> None:
    task = Regression.from_state(Config(), {"mean": 10.0, "std": 5.0})
    assert answers(task)[0] == -35
