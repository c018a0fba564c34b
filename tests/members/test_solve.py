"""The solver of linear models, with and without a deadline."""

from __future__ import annotations

import time

import numpy as np
import torch

from plait.members.base_linear import solve, space_of, space_seconds
from plait.runs.deadline import NO_LIMIT, Deadline
from plait.tasks.classification import Classification

ROWS, WIDTH = 80, 5
X = np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype(np.float32)
Y = torch.from_numpy((X[:, 0] > 0).astype(np.int64))


def solved(deadline: Deadline) -> tuple[torch.Tensor, torch.Tensor]:
    task = Classification(["a", "b", "c"], [1, 1, 1], "none", 0.0)
    weight = torch.zeros(WIDTH, 3, dtype=torch.float64)
    return solve(space_of([X]), task, Y, 0.01, weight, torch.zeros(3, dtype=torch.float64), deadline)


def test_a_deadline_far_ahead_changes_nothing() -> None:
    for free, limited in zip(solved(NO_LIMIT), solved(Deadline.after("1h")), strict=True):
        assert torch.equal(free, limited)


def test_at_the_deadline_the_best_weights_so_far_are_returned() -> None:
    weight, bias = solved(Deadline(ends=time.monotonic() - 1))
    assert torch.equal(weight, torch.zeros(WIDTH, 3, dtype=torch.float64)), "those that it began with"
    assert torch.isfinite(bias).all()


def test_only_products_of_rows_take_long_before_the_first_step() -> None:
    assert space_seconds([X]) == 0
    assert space_seconds([X.T]) < space_seconds([np.concatenate([X.T] * 2)])
