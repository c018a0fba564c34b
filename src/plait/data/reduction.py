"""Describe a cell by few dense numbers.

Trees and networks read these: hundreds of numbers of one embedding would drown the few of a plain column.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from plait.nn.summaries import Matrix

NARROW = 64  # numbers of a dense block that are left as they are
DENSE_DIRECTIONS = 48  # of wider ones, such as embeddings
SPARSE_DIRECTIONS = 32  # of n-grams
CATEGORIES = 64  # the most frequent ones, each of which is a number
NGRAMS = 4096  # the most frequent ones: rare ones turn no main direction
MOST_ROWS = 10_000  # rows that directions are fitted on

# Directions of all wide blocks together; no block has fewer than `FEWEST`.
ALL_DIRECTIONS = 192
FEWEST = 8


@dataclass
class Reduction:
    """How a row of scaled numbers becomes a few: x[columns] times `directions` (columns, width).

    Without directions, they are the columns themselves.
    """

    columns: np.ndarray
    directions: np.ndarray

    @classmethod
    def of_dense(cls, x: np.ndarray) -> Reduction:
        """Fit the principal directions of a wide block, of mean zero (Pearson 1901); leave a narrow one."""
        width = x.shape[1]
        rank = min(DENSE_DIRECTIONS, len(x) - 1, width)
        if width <= NARROW or rank < 1:
            return cls(np.arange(min(width, NARROW)), _no_directions())
        return cls(np.arange(width), _main_directions(_some_rows(x), rank))

    @classmethod
    def of_ngrams(cls, x: sparse.csr_array) -> Reduction:
        """Fit the main directions of the frequent n-grams.

        This is latent semantic analysis (Deerwester et al. 1990).
        """
        columns = _frequent(x, NGRAMS, 2)
        rank = min(SPARSE_DIRECTIONS, x.shape[0] - 1, len(columns) - 1)
        if rank < 1:
            return cls(columns[:0], _no_directions())
        return cls(columns, _main_directions(_some_rows(x)[:, columns], rank))

    @classmethod
    def of_categories(cls, x: sparse.csr_array) -> Reduction:
        """Keep the frequent categories."""
        return cls(_frequent(x, CATEGORIES, 1), _no_directions())

    @classmethod
    def from_tensors(cls, columns: Tensor, directions: Tensor, width: int) -> Reduction:
        """Restore a reduction of rows of `width` numbers. Raises `ValueError` if it cannot be one."""
        if columns.ndim != 1 or columns.dtype != torch.int64 or directions.ndim != 2:
            raise ValueError(f"a reduction has columns {columns.dtype} of {columns.ndim} dimensions")
        if ((columns < 0) | (columns >= width)).any():
            raise ValueError(f"a reduction reads a number that rows of {width} numbers do not have")
        if directions.numel() and len(directions) != len(columns):
            raise ValueError(f"{len(columns)} columns do not go with {len(directions)} directions")
        return cls(columns.numpy(), directions.numpy())

    @property
    def is_wide(self) -> bool:
        """Whether there are directions: the block has too many numbers to leave them as they are."""
        return self.directions.size > 0

    def share(self, wide: int) -> Reduction:
        """Leave out the last directions, if there are so many wide blocks that each has a smaller share."""
        if not self.is_wide:
            return self
        rank = max(ALL_DIRECTIONS // wide, FEWEST)
        return Reduction(self.columns, np.ascontiguousarray(self.directions[:, :rank]))

    def __call__(self, x: Matrix) -> np.ndarray:
        """Return the few numbers of each row, (rows, width)."""
        columns = x[:, self.columns]
        if self.directions.size:
            return np.asarray(columns @ self.directions, dtype=np.float32)
        dense = columns.toarray() if sparse.issparse(columns) else columns
        return np.asarray(dense, dtype=np.float32)


def _frequent(x: sparse.csr_array, most: int, least_rows: int) -> np.ndarray:
    """Return the columns that most rows have, at most so many, in ascending order."""
    rows_with_column = np.bincount(sparse.csr_array(x).indices, minlength=x.shape[1])
    count = min(most, int((rows_with_column >= least_rows).sum()))
    by_frequency = np.argsort(-rows_with_column, kind="stable")
    return np.sort(by_frequency[:count])


def _some_rows(x: Matrix) -> Matrix:
    """Return evenly spaced rows, if there are more than are needed."""
    if x.shape[0] <= MOST_ROWS:
        return x
    return x[np.linspace(0, x.shape[0] - 1, MOST_ROWS).astype(int)]


def _main_directions(x: Matrix, rank: int) -> np.ndarray:
    """Return the right singular vectors of the largest singular values, (width, rank)."""
    from sklearn.utils.extmath import randomized_svd  # takes longer to import than to use

    _, _, directions = randomized_svd(x, rank, n_iter=4, random_state=0)
    return np.ascontiguousarray(directions.T, dtype=np.float32)


def _no_directions() -> np.ndarray:
    return np.zeros((0, 0), dtype=np.float32)
