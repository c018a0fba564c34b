"""Describe categories and n-grams by the mean labels of the training rows that have them.

Trees see a category as a column for each of its frequent values, and a text as its main directions. Neither
says directly which values and words go with which labels. Target statistics do (Micci-Barreca 2001, "A
preprocessing scheme for high-cardinality categorical attributes").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from plait.data.features import FeatureBlock

FOLDS = 5  # in which the statistics of training rows are computed
PRIOR_ROWS = 5  # that the mean of all rows counts as, next to the rows that have a category or an n-gram
MANY_CATEGORIES = 30  # fewer ones say as much in a column each
MOST_NGRAMS = 300  # of a text, on average; the means of longer texts are all about the same
LEAST_ROWS = 1000  # of fewer, statistics are so uncertain that members are better without
MOST_NUMBERS = 10  # of a label; with more classes, each has few rows and adds its numbers


@dataclass(frozen=True)
class _Means:
    """The smoothed mean labels of the rows that have each id of a block: a category, or an n-gram.

    `means` is (ids, M) for labels of M numbers. An id that is not among `ids`, which ascend, has the mean of
    all rows, `prior` (M,).
    """

    ids: np.ndarray
    means: np.ndarray
    prior: np.ndarray

    @classmethod
    def of(cls, x: sparse.csr_array, label_NM: np.ndarray) -> _Means:
        """Average labels: (sum + a * prior) / (count + a), where a is `PRIOR_ROWS`."""
        prior = label_NM.mean(0)
        has_id = sparse.csr_array((np.ones_like(x.data), x.indices, x.indptr), shape=x.shape)
        count = np.bincount(x.indices, minlength=x.shape[1])
        ids = np.flatnonzero(count)
        sums = (has_id.T @ label_NM)[ids]
        means = (sums + PRIOR_ROWS * prior) / (count[ids, None] + PRIOR_ROWS)
        return cls(ids, means.astype(np.float32), prior.astype(np.float32))

    @classmethod
    def checked(cls, ids: np.ndarray, means: np.ndarray, prior: np.ndarray) -> _Means:
        """Return means out of a file. Raises `ValueError` unless they answer any row with finite numbers."""
        if ids.ndim != 1 or ids.dtype != np.int64 or (np.diff(ids) <= 0).any():
            raise ValueError(
                f"the ids of target statistics are {ids.dtype} {ids.shape}, expected ascending int64"
            )
        if prior.ndim != 1 or means.shape != (len(ids), len(prior)):
            raise ValueError(f"target statistics {means.shape} do not go with a prior of {prior.shape}")
        if means.dtype != np.float32 or not (np.isfinite(means).all() and np.isfinite(prior).all()):
            raise ValueError("target statistics are not finite float32 numbers")
        return cls(ids, means, prior)

    def __call__(self, block: FeatureBlock) -> np.ndarray:
        """Return the numbers of each row, (rows, width): zero where the cell is missing.

        These are the mean of its category, or of its n-grams the average mean, weighted by their inverse
        frequency, the largest and the smallest mean.
        """
        x = sparse.csr_array(block.x)
        has_ids = np.diff(x.indptr) > 0
        first = x.indptr[:-1][has_ids]
        mean_TM = self._of_entries(x.indices)
        aggregates = [mean_TM[first]]
        if block.counts_words and len(first):
            weight_T1 = x.data[:, None]
            average = np.add.reduceat(mean_TM * weight_T1, first) / np.add.reduceat(weight_T1, first)
            aggregates = [
                average,
                np.maximum.reduceat(mean_TM, first),
                np.minimum.reduceat(mean_TM, first),
            ]

        numbers = np.tile(self.prior, (len(has_ids), 3 if block.counts_words else 1))
        numbers[has_ids] = np.concatenate(aggregates, 1)
        return numbers * block.present[:, None]

    def _of_entries(self, id_T: np.ndarray) -> np.ndarray:
        """Return the mean of each of these ids, (T, M)."""
        if not len(self.ids):
            return np.tile(self.prior, (len(id_T), 1))
        place_T = np.searchsorted(self.ids, id_T).clip(max=len(self.ids) - 1)
        is_known_T = self.ids[place_T] == id_T
        return np.where(is_known_T[:, None], self.means[place_T], self.prior)


class TargetStatistics:
    """The means of all blocks that have many ids, for one target. Called with blocks, it adds to them."""

    def __init__(self, means: dict[int, _Means]) -> None:
        """Take the means by the number of their block."""
        self._means = means

    @classmethod
    def fit(
        cls, blocks: Sequence[FeatureBlock], chosen: Sequence[int], label_NM: np.ndarray, seed: int
    ) -> tuple[TargetStatistics, list[FeatureBlock]]:
        """Average the labels of training rows for the blocks of these numbers (see `blocks_to_describe`).

        Return the statistics, and the blocks of these rows with their statistics. The latter are out of fold:
        the labels of four folds describe the fifth. A row's own label in its statistics would tell a member
        to trust them more than it may with new rows (Prokhorenkova et al. 2018, "CatBoost: unbiased boosting
        with categorical features", section 3).
        """
        fold_N = np.random.default_rng(seed).permutation(len(label_NM)) % FOLDS
        fitted: dict[int, _Means] = {}
        added = []
        for number in chosen:
            block = blocks[number]
            x = sparse.csr_array(block.x)
            fitted[number] = _Means.of(x, label_NM)
            numbers = fitted[number](block)
            for fold in range(FOLDS):
                is_held_out = fold_N == fold
                of_others = _Means.of(x[~is_held_out], label_NM[~is_held_out])
                numbers[is_held_out] = of_others(block.take(is_held_out))
            added.append(_added(block, numbers))
        return cls(fitted), [*blocks, *added]

    def __call__(self, blocks: Sequence[FeatureBlock]) -> list[FeatureBlock]:
        """Return the blocks and their statistics: those of all rows that were fitted on."""
        added = []
        for number, means in self._means.items():
            added.append(_added(blocks[number], means(blocks[number])))
        return [*blocks, *added]

    def tensors(self) -> dict[str, Tensor]:
        """Return the means of each block, to be saved."""
        tensors = {}
        for number, means in self._means.items():
            tensors[f"{number}/ids"] = torch.from_numpy(means.ids)
            tensors[f"{number}/means"] = torch.from_numpy(means.means)
            tensors[f"{number}/prior"] = torch.from_numpy(means.prior)
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> TargetStatistics:
        """Invert `tensors`. Raises `KeyError` or `ValueError` for what cannot be statistics."""
        means: dict[int, _Means] = {}
        for name in tensors:
            number, _, kind = name.partition("/")
            if kind == "ids":
                arrays = [tensors[f"{number}/{each}"].numpy() for each in ("ids", "means", "prior")]
                means[int(number)] = _Means.checked(*arrays)
        return cls(means)


def blocks_to_describe(blocks: Sequence[FeatureBlock], label_NM: np.ndarray) -> list[int]:
    """Return the numbers of the blocks of training rows that statistics say more about.

    These have many categories, or are the n-grams of short texts. There are none for few rows, and for labels
    of many numbers.
    """
    if len(label_NM) < LEAST_ROWS or label_NM.shape[1] > MOST_NUMBERS:
        return []
    return [number for number, block in enumerate(blocks) if _has_many_ids(block)]


def _has_many_ids(block: FeatureBlock) -> bool:
    """Return whether a block has many categories, or the n-grams of short texts."""
    if block.form == "dense" or not block.present.any():
        return False
    x = sparse.csr_array(block.x)
    if block.counts_words:
        return len(x.indices) <= MOST_NGRAMS * int(block.present.sum())
    return len(np.unique(x.indices)) > MANY_CATEGORIES


def _added(block: FeatureBlock, numbers: np.ndarray) -> FeatureBlock:
    """Return statistics as a block beside that which they describe."""
    return FeatureBlock(block.view, block.column, "dense", numbers, block.present, numbers)
