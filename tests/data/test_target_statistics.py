"""Categories and n-grams described by the mean labels of the rows that have them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from plait.data.features import FeatureBlock, Form
from plait.data.target_statistics import (
    LEAST_ROWS,
    MANY_CATEGORIES,
    MOST_NUMBERS,
    PRIOR_ROWS,
    TargetStatistics,
    blocks_to_describe,
)

ROWS = 40


def block(form: Form, ids: list[list[int]], width: int) -> FeatureBlock:
    """Return a block whose rows have these ids, each with a weight of 1; a row without ids lacks the cell."""
    row = np.repeat(np.arange(len(ids)), [len(of_row) for of_row in ids])
    id_of_entry = np.concatenate([np.array(of_row, int) for of_row in ids])
    x = sparse.csr_array((np.ones(len(row), np.float32), (row, id_of_entry)), shape=(len(ids), width))
    present = np.array([bool(of_row) for of_row in ids])
    return FeatureBlock("view", "column", form, x, present, np.zeros((len(ids), 0), np.float32))


def fitted(of: FeatureBlock, labels: np.ndarray) -> TargetStatistics:
    statistics, _ = TargetStatistics.fit([of], [0], labels[:, None].astype(np.float32), 0)
    return statistics


def numbers(statistics: TargetStatistics, of: FeatureBlock) -> np.ndarray:
    """Return the numbers that statistics add to a block."""
    _, added = statistics([of])
    np.testing.assert_array_equal(added.x, added.reduced)
    return added.reduced


class TestCategories:
    """Half of the rows have category 1 and a label of 1, the others category 2 and a label of 3."""

    labels = np.repeat([1.0, 3.0], ROWS // 2)
    statistics = fitted(block("one_hot", [[1]] * (ROWS // 2) + [[2]] * (ROWS // 2), 5), labels)

    def test_a_category_has_its_smoothed_mean(self) -> None:
        count = ROWS // 2
        expected = (count * 1 + PRIOR_ROWS * 2) / (count + PRIOR_ROWS)
        assert numbers(self.statistics, block("one_hot", [[1]], 5)).item() == pytest.approx(expected)

    def test_a_new_category_has_the_mean_of_all(self) -> None:
        assert numbers(self.statistics, block("one_hot", [[4]], 5)).item() == pytest.approx(2)

    def test_a_missing_cell_has_zeros(self) -> None:
        of = block("one_hot", [[], [1]], 5)
        _, added = self.statistics([of])
        assert not added.reduced[0].any()
        np.testing.assert_array_equal(added.present, of.present)

    def test_they_are_the_same_after_saving(self) -> None:
        restored = TargetStatistics.from_tensors(self.statistics.tensors())
        of = block("one_hot", [[1], [2], [3]], 5)
        np.testing.assert_array_equal(numbers(restored, of), numbers(self.statistics, of))


def test_a_rare_ngram_has_most_of_the_second_average() -> None:
    """All rows have n-gram 0, and four of them n-gram 1 and a label of 1 in place of 0."""
    ids = [[0, 1]] * 4 + [[0]] * (ROWS - 4)
    statistics = fitted(block("bag", ids, 3), np.repeat([1.0, 0.0], [4, ROWS - 4]))
    by_frequency, by_count = numbers(statistics, block("bag", [[0, 1]], 3))[0]
    assert by_count > 1.5 * by_frequency
    unknown = numbers(statistics, block("bag", [[2]], 3))
    np.testing.assert_allclose(unknown, 4 / ROWS, rtol=1e-5)


def test_training_rows_do_not_see_their_own_labels() -> None:
    of = block("one_hot", [[row % 3] for row in range(ROWS)], 3)
    labels = np.random.default_rng(0).normal(size=(ROWS, 1)).astype(np.float32)
    changed = labels.copy()
    changed[7] = 100
    _, (_, before) = TargetStatistics.fit([of], [0], labels, 0)
    _, (_, after) = TargetStatistics.fit([of], [0], changed, 0)
    assert before.reduced[7] == after.reduced[7]
    assert not np.array_equal(before.reduced, after.reduced)


def test_a_fold_without_known_ids_has_the_mean_of_all() -> None:
    """Only one row has the cell, so that its fold learns nothing from the others."""
    ids: list[list[int]] = [[1], *[[]] * (ROWS - 1)]
    _, (_, added) = TargetStatistics.fit([block("bag", ids, 3)], [0], np.ones((ROWS, 1), np.float32), 0)
    np.testing.assert_allclose(added.reduced[0], 1)


class TestChoice:
    """Which blocks are described."""

    labels = np.zeros((LEAST_ROWS, 1))
    many = block("one_hot", [[row % (MANY_CATEGORIES + 1)] for row in range(LEAST_ROWS)], 100)
    few = block("one_hot", [[row % MANY_CATEGORIES] for row in range(LEAST_ROWS)], 100)
    short = block("bag", [[row % 9] for row in range(LEAST_ROWS)], 10)
    long = block("bag", [list(range(400))] * LEAST_ROWS, 400)

    def test_many_categories_and_short_texts_are(self) -> None:
        assert blocks_to_describe([self.few, self.many, self.short, self.long], self.labels) == [1, 2]

    def test_few_rows_have_no_statistics(self) -> None:
        rows = np.arange(LEAST_ROWS - 1)
        assert not blocks_to_describe([self.many.take(rows)], self.labels[rows])

    def test_many_classes_have_no_statistics(self) -> None:
        assert not blocks_to_describe([self.many], np.zeros((LEAST_ROWS, MOST_NUMBERS + 1)))


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("ids", torch.tensor([2, 1])),
        ("ids", torch.tensor([1.0, 2.0])),
        ("counts", torch.ones(2)),
        ("counts", torch.zeros(3)),
        ("means", torch.full((3, 1), torch.nan)),
        ("means", torch.ones(2, 1)),
    ],
)
def test_what_cannot_be_statistics_is_refused(name: str, tensor: torch.Tensor) -> None:
    tensors = TestCategories.statistics.tensors()
    assert f"0/{name}" in tensors
    with pytest.raises(ValueError, match="target statistics have"):
        TargetStatistics.from_tensors({**tensors, f"0/{name}": tensor})


def test_saved_statistics_of_many_blocks_keep_their_order() -> None:
    """A file lists its tensors by name, where 11 comes before 2; members read columns by their places."""
    blocks = [block("one_hot", [[row % (2 + number)] for row in range(ROWS)], 20) for number in range(12)]
    labels = np.arange(ROWS, dtype=np.float32)[:, None]
    statistics, _ = TargetStatistics.fit(blocks, [2, 11], labels, 0)
    restored = TargetStatistics.from_tensors(dict(sorted(statistics.tensors().items())))
    for before, after in zip(statistics(blocks), restored(blocks), strict=True):
        np.testing.assert_array_equal(before.reduced, after.reduced)
    assert list(statistics.tensors()) != sorted(statistics.tensors())
