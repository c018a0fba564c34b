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
TINY = 1e-9  # keeps the average of no n-gram from dividing by zero
MOST_NUMBERS = 10  # of a label; with more classes, each has few rows and adds its numbers


@dataclass(frozen=True)
class _Means:
    """The smoothed mean labels of the rows that have each id of a block: a category, or an n-gram.

    `ids` (T,) ascend. `counts` (1 + T,) says how many rows have each, and `means` (1 + T, M) is the mean of
    their labels, which have M numbers. The first of these are for all other ids: the mean of all rows.
    """

    ids: np.ndarray
    counts: np.ndarray
    means: np.ndarray

    @classmethod
    def of(cls, x: sparse.csr_array, label_NM: np.ndarray) -> _Means:
        """Average labels: (sum + a * mean of all) / (count + a), where a is `PRIOR_ROWS`."""
        mean_of_all = label_NM.mean(0)
        has_id = sparse.csr_array((np.ones_like(x.data), x.indices, x.indptr), shape=x.shape)
        rows_with_id = np.bincount(x.indices, minlength=x.shape[1])
        ids = np.flatnonzero(rows_with_id)

        counts = np.concatenate([[0], rows_with_id[ids]])
        sums = np.concatenate([np.zeros((1, label_NM.shape[1])), (has_id.T @ label_NM)[ids]])
        means = (sums + PRIOR_ROWS * mean_of_all) / (counts[:, None] + PRIOR_ROWS)
        return cls(ids, counts.astype(np.float32), means.astype(np.float32))

    @classmethod
    def from_tensors(cls, ids: Tensor, counts: Tensor, means: Tensor) -> _Means:
        """Take means out of a file. Raises `ValueError` unless they answer any row with finite numbers."""
        if ids.dtype != torch.int64 or counts.dtype != torch.float32 or means.dtype != torch.float32:
            raise ValueError(f"target statistics have types {ids.dtype}, {counts.dtype} and {means.dtype}")
        if ids.ndim != 1 or counts.shape != (len(ids) + 1,) or means.ndim != 2 or len(means) != len(counts):
            shapes = f"{tuple(ids.shape)}, {tuple(counts.shape)} and {tuple(means.shape)}"
            raise ValueError(f"target statistics have shapes {shapes} that do not go together")
        if (ids.diff() <= 0).any() or (counts[1:] < 1).any() or not means.isfinite().all():
            raise ValueError("target statistics have ids out of order, or numbers that cannot be theirs")
        return cls(ids.numpy(), counts.numpy(), means.numpy())

    def tensors(self) -> dict[str, Tensor]:
        """Return what `from_tensors` takes."""
        return {name: torch.from_numpy(array) for name, array in vars(self).items()}

    def __call__(self, block: FeatureBlock) -> np.ndarray:
        """Return the numbers of each row, (rows, width): zero where the cell is missing.

        A category has its mean. A text has two averages of the means of its n-grams. One weighs them as the
        block does, by inverse frequency. The other weighs them by the inverse of their counts: it is that of
        the rarest ones, such as those of a whole name.
        """
        x = sparse.csr_array(block.x)
        place_T = self._places(x.indices)
        averages = [self._average(x, x.data, place_T)]
        if block.counts_words:
            is_known_T = place_T > 0
            weight_T = is_known_T / np.maximum(self.counts[place_T], 1)
            averages.append(self._average(x, weight_T, place_T))
        numbers = np.concatenate(averages, 1) * block.present[:, None]
        return numbers.astype(np.float32)

    def _places(self, id_T: np.ndarray) -> np.ndarray:
        """Return the place of each id among the means, (T,): 0 for one that is not among them."""
        place_T = np.searchsorted(self.ids, id_T)
        is_known_T = np.isin(id_T, self.ids)
        return np.where(is_known_T, place_T + 1, 0)

    def _average(self, x: sparse.csr_array, weight_T: np.ndarray, place_T: np.ndarray) -> np.ndarray:
        """Average the means of each row's entries of `x` by weights. A row without any has that of all."""
        weight = sparse.csr_array((weight_T, place_T, x.indptr), shape=(x.shape[0], len(self.means)))
        total_N1 = np.asarray(weight.sum(1))[:, None]
        average_NM = (weight @ self.means) / np.maximum(total_N1, TINY)
        return np.where(total_N1 > 0, average_NM, self.means[0])


class TargetStatistics:
    """The means of all blocks that have many ids, for one target. Called with blocks, it adds to them."""

    def __init__(self, means: dict[int, _Means]) -> None:
        """Take the means by the number of their block. A file may have them in another order."""
        self._means = dict(sorted(means.items()))

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
            for name, tensor in means.tensors().items():
                tensors[f"{number}/{name}"] = tensor
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> TargetStatistics:
        """Invert `tensors`. Raises `ValueError` or `TypeError` for what cannot be statistics."""
        by_block: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            number, _, kind = name.partition("/")
            by_block.setdefault(int(number), {})[kind] = tensor
        return cls({number: _Means.from_tensors(**arrays) for number, arrays in by_block.items()})


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
