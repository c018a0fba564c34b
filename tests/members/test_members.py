"""The sums behind members. tests/contract/test_members.py has what holds for every member."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor

from plait.data.dataset import Dataset
from plait.data.features import FeatureBlock, Features
from plait.members import base_linear
from plait.members.base import Examples, choosing_folds, mean_loss
from plait.members.base_linear import solve, space_of
from plait.tasks.base_prediction import Prediction, fit_temperature
from support.members import ROWS, SEEN, TARGETS, make, table

TASKS = make(TARGETS)[0].views["network"].preprocessing.tasks


STRENGTH = 1e-3  # of regularisation


def optimum(task: Prediction, xs: list[Any], y: Tensor, outputs: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return the weights of the numbers and the bias that `solve` finds from zeros."""
    space = space_of(xs)
    bias = torch.zeros(outputs).double()
    weight = torch.zeros(space.width, bias.numel()).double()
    with mock.patch.object(base_linear, "STEPS", 1000):
        weight, bias = solve(space, task, y, STRENGTH, weight, bias)
    return space.weights(weight), bias


@pytest.mark.parametrize("ngrams", [False, True])
@pytest.mark.parametrize("rows", [40, 200])
class TestLinearModel:
    """Among the rows (40 of them, 100 numbers), and directly (200); of numbers, and of n-grams, most of
    which are zeros, beside them.
    """

    def inputs(self, rows: int, ngrams: bool) -> tuple[np.ndarray, list[Any]]:
        """Return the numbers of all rows, and the same numbers as two blocks."""
        x = np.random.default_rng(1).normal(size=(rows, 100)).astype(np.float32) / 10
        second = sparse.csr_matrix(x[:, 30:]) if ngrams else x[:, 30:]
        return x, [x[:, :30], second]

    def test_classes_have_scikit_learns_minimum(self, rows: int, ngrams: bool) -> None:
        x, xs = self.inputs(rows, ngrams)
        labels = np.random.default_rng(2).integers(0, 3, rows)
        labels[:3] = [0, 1, 2]
        weight, bias = optimum(TASKS["kind"], xs, torch.from_numpy(labels), (3,))
        probabilities = torch.from_numpy(x @ weight.numpy() + bias.numpy()).softmax(1)
        reference = LogisticRegression(C=1 / (STRENGTH * rows), max_iter=5000, tol=1e-8).fit(x, labels)
        np.testing.assert_allclose(probabilities, reference.predict_proba(x), atol=2e-3)

    def test_numbers_have_scikit_learns_minimum(self, rows: int, ngrams: bool) -> None:
        x, xs = self.inputs(rows, ngrams)
        y = np.random.default_rng(2).normal(size=rows).astype(np.float32)
        weight, bias = optimum(TASKS["price"], xs, torch.from_numpy(y), ())
        predictions = (x @ weight.numpy())[:, 0] + float(bias)
        # Ridge minimises the sum of squares + alpha |W|^2, and we their mean + strength / 2 |W|^2
        reference = Ridge(alpha=STRENGTH * rows / 2).fit(x, y)
        np.testing.assert_allclose(predictions, reference.predict(x), atol=2e-3)


def test_blocks_are_scaled_alike() -> None:
    examples, _ = make(TARGETS)
    blocks = {block.column: block for block in examples.take(np.arange(SEEN)).blocks()}
    for column, width, length in (
        ("a", -1, 1),
        ("a", None, 2),
        ("v", None, 1),
    ):  # `a` has the number itself last
        x = blocks[column].x
        present = blocks[column].present
        assert not x[~present].any()
        assert (x[present, :width] ** 2).sum(1).mean() == pytest.approx(length, rel=1e-3)
    text = blocks["text"].x
    np.testing.assert_allclose(np.sqrt(text.multiply(text).sum(1)), 1, rtol=1e-5)
    assert set(np.unique(blocks["shop"].x.toarray())) == {0, 1}
    hidden = blocks["a"].only(["v"])
    assert not hidden.x.any()
    assert not hidden.present.any()


def test_a_linear_model_reads_numbers_themselves() -> None:
    """Its last number of a column is a straight line of the cell, though bins and bounds come before it."""
    examples, _ = make(TARGETS)
    block = next(block for block in examples.blocks() if block.column == "a")
    x = np.array(table(TARGETS).column("a").to_pylist(), dtype=float)[examples.rows.numpy()]
    inside = np.isfinite(x) & (x >= np.nanmin(x[:SEEN])) & (x <= np.nanmax(x[:SEEN]))
    line = np.polyfit(x[inside], block.x[inside, -1], 1)
    np.testing.assert_allclose(np.polyval(line, x[inside]), block.x[inside, -1], atol=1e-4)


def test_features_are_the_same_after_saving() -> None:
    examples, _ = make(TARGETS)
    features = examples.features
    restored = Features.from_state(features.state(), features.tensors())
    for before, after in zip(examples.blocks(), restored(examples.views), strict=True):
        np.testing.assert_array_equal(dense(before), dense(after))


def dense(block: FeatureBlock) -> np.ndarray:
    return block.x.toarray() if sparse.issparse(block.x) else block.x


def test_folds_take_their_rows_from_features_computed_once() -> None:
    examples, _ = make(TARGETS)
    calls = []

    def features(views: dict[str, Dataset]) -> list[FeatureBlock]:
        calls.append(views)
        return examples.features(views)

    counted = Examples(examples.views, features, examples.prepared)
    fold = counted.take(np.arange(40)).take(np.arange(5, 15))
    for block, expected in zip(fold.blocks(), examples.blocks(), strict=True):
        np.testing.assert_array_equal(block.present, expected.present[5:15])
    assert len(counted.blocks()[0].present) == ROWS
    assert len(calls) == 1


class TestChoices:
    """Three folds, of which the last has no labelled row, and two settings."""

    losses = np.array([[1.0, 3.0], [4.0, np.nan], [np.nan, np.nan]])
    rows = np.array([1, 3, 0])

    def test_every_fold_is_left_to_the_others(self) -> None:
        assert choosing_folds(3) == [[1, 2], [0, 2], [0, 1], [0, 1, 2]]

    def test_losses_are_averaged_over_rows(self) -> None:
        assert mean_loss(self.losses, self.rows, [0, 1, 2]).tolist() == [(1 + 3 * 4) / 4, np.inf]
        assert mean_loss(self.losses[:, 0], self.rows, [0, 2]) == 1

    def test_folds_without_rows_choose_the_first_setting(self) -> None:
        assert mean_loss(self.losses, self.rows, [2]).tolist() == [0, 0]


class TestMeansOfAnswers:
    """Two models' answers for five rows, averaged by weights."""

    weights = torch.tensor([0.25, 0.75])

    def outputs(self, *shape: int) -> Tensor:
        return torch.randn(2, 5, *shape, generator=torch.Generator().manual_seed(0))

    def mean(self, answers: Tensor) -> Tensor:
        return 0.25 * answers[0] + 0.75 * answers[1]

    def test_probabilities_of_classes_are_averaged(self) -> None:
        logits = self.outputs(3)
        mixed = TASKS["kind"].mix(logits, self.weights)
        torch.testing.assert_close(mixed.softmax(-1), self.mean(logits.softmax(-1)))

    @pytest.mark.parametrize(("target", "width"), [("warm", 1), ("tags", 2)])
    def test_probabilities_of_labels_are_averaged(self, target: str, width: int) -> None:
        logits = self.outputs(width)
        mixed = TASKS[target].mix(logits, self.weights)
        torch.testing.assert_close(mixed.sigmoid(), self.mean(logits.sigmoid()))

    def test_numbers_are_averaged(self) -> None:
        numbers = self.outputs()
        torch.testing.assert_close(TASKS["price"].mix(numbers, self.weights), self.mean(numbers))


class TestTemperature:
    """Labels that are drawn from the probabilities of the logits."""

    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 3, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]

    @pytest.mark.parametrize("temperature", [1, 5])
    def test_it_undoes_what_was_put_on(self, temperature: float) -> None:
        fitted = fit_temperature(TASKS["kind"], self.logits * temperature, self.labels)
        assert fitted == pytest.approx(temperature, rel=0.1)

    def test_few_rows_fit_none(self) -> None:
        assert fit_temperature(TASKS["kind"], self.logits[:10] * 5, self.labels[:10]) == 1

    def test_numbers_have_none(self) -> None:
        assert fit_temperature(TASKS["price"], self.logits[:, 0], self.logits[:, 1]) == 1
