"""A batch has the same gradient however it is cut into micro-batches: with every task and balancing."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from plait.balancing.base import balancings
from plait.tasks.base_comparison import Comparison
from support.components import variants
from support.steps import gradients
from support.tasks import ROWS, task_names

PARTS = {1: ROWS, 2: 4, 3: 3, 8: 1}  # the rows of a micro-batch, by the number of these

WEIGHED = {"class_weights": "balanced", "label_smoothing": 0.1}
TASKS: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in task_names()]
TASKS.append(("classification", WEIGHED))


def assert_same_gradients(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """They are equal but for the rounding of float32, which is about 1e-7 of the largest terms."""
    assert actual.keys() == expected.keys()
    largest = max(float(gradient.norm()) for gradient in expected.values())
    for name, gradient in expected.items():
        difference = float((actual[name] - gradient).norm())
        assert difference < 1e-5 * float(gradient.norm()) + 1e-6 * largest, name


@pytest.mark.parametrize("parts", [2, 3, 8])
@pytest.mark.parametrize(("name", "options"), TASKS)
def test_a_task_has_the_gradient_of_the_batch(name: str, options: dict[str, Any], parts: int) -> None:
    """Labels and cells are missing, and not alike in all micro-batches."""
    loss, expected = gradients({"target": name}, PARTS[1], options)
    loss_in_parts, actual = gradients({"target": name}, PARTS[parts], options)
    assert loss_in_parts == pytest.approx(loss, rel=1e-5)
    assert_same_gradients(actual, expected)


@pytest.mark.parametrize("parts", [2, 3, 8])
@pytest.mark.parametrize("name", task_names(Comparison))
def test_a_comparison_has_it_beside_another_target(name: str, parts: int) -> None:
    targets = {"target": name, "other": "classification"}
    loss, expected = gradients(targets, PARTS[1])
    loss_in_parts, actual = gradients(targets, PARTS[parts])
    assert loss_in_parts == pytest.approx(loss, rel=1e-5)
    assert_same_gradients(actual, expected)


@pytest.mark.parametrize("parts", [2, 3, 8])
@pytest.mark.parametrize(("name", "options"), variants(balancings))
def test_a_balancing_has_the_gradient_of_the_batch(name: str, options: dict[str, Any], parts: int) -> None:
    """One target has fewer labels than the other one."""
    targets, balancing = {"target": "classification", "other": "regression"}, {"name": name, **options}
    loss, expected = gradients(targets, PARTS[1], balancing=balancing)
    loss_in_parts, actual = gradients(targets, PARTS[parts], balancing=balancing)
    assert loss_in_parts == pytest.approx(loss, rel=1e-5)
    assert_same_gradients(actual, expected)
