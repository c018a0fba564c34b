"""A few dense numbers of each cell, for trees and networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from plait.data.reduction import ALL_DIRECTIONS, CATEGORIES, DENSE_DIRECTIONS, FEWEST, NARROW, Reduction


def wide(rows: int = 120) -> np.ndarray:
    """Return 100 numbers a row that vary in three directions, of mean zero."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 3)) @ rng.normal(size=(3, 100))
    return (x - x.mean(0)).astype(np.float32)


def test_a_narrow_block_stays_as_it_is() -> None:
    x = wide()[:, :NARROW]
    np.testing.assert_array_equal(Reduction.of_dense(x)(x), x)


def test_main_directions_keep_all_distances_that_there_are() -> None:
    x = wide()
    reduced = Reduction.of_dense(x)(x)
    assert reduced.shape == (len(x), DENSE_DIRECTIONS)
    np.testing.assert_allclose(reduced @ reduced.T, x @ x.T, rtol=1e-3, atol=1e-2)
    spread = reduced.std(0)
    assert (spread[:2] > spread[1:3]).all()


def test_many_wide_blocks_share_the_directions() -> None:
    reduction = Reduction.of_dense(wide())
    assert reduction.share(12).directions.shape[1] == ALL_DIRECTIONS // 12
    assert reduction.share(1000).directions.shape[1] == FEWEST
    assert reduction.share(1).directions.shape[1] == DENSE_DIRECTIONS


def test_only_frequent_categories_have_a_number() -> None:
    ids = np.concatenate([np.arange(200), np.arange(50)])
    x = sparse.csr_array((np.ones(250), (np.arange(250), ids)), shape=(250, 300))
    reduced = Reduction.of_categories(x)(x)
    assert reduced.shape == (250, CATEGORIES)
    assert reduced[:50].any(1).all()


def test_a_text_column_of_one_text_has_no_directions() -> None:
    x = sparse.csr_array(np.ones((5, 1)))
    assert Reduction.of_ngrams(x)(x).shape == (5, 0)


@pytest.mark.parametrize("columns", [torch.tensor([0, 9]), torch.tensor([-1, 0]), torch.tensor([0.0, 1.0])])
def test_a_reduction_of_other_rows_is_refused(columns: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="a reduction"):
        Reduction.from_tensors(columns, torch.zeros(2, 1), width=4)
    with pytest.raises(ValueError, match="do not go with"):
        Reduction.from_tensors(torch.tensor([0, 1, 2]), torch.zeros(2, 1), width=4)
