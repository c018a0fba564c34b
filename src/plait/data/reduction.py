"""Describe a cell by few dense numbers, and by a number that only equal cells share.

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

HASH_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # 2 ** 64 over the golden ratio, as Fibonacci hashing has it
ROWS_AT_ONCE = 1024  # whose ids are hashed together


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

    def __call__(self, x: Matrix) -> np.ndarray:
        """Return the few numbers of each row, (rows, width)."""
        columns = x[:, self.columns]
        if self.directions.size:
            return np.asarray(columns @ self.directions, dtype=np.float32)
        dense = columns.toarray() if sparse.issparse(columns) else columns
        return np.asarray(dense, dtype=np.float32)


def keys_of_texts(ids_BL: Tensor, length_B: Tensor) -> np.ndarray:
    """Return a number for each sequence of ids, int64 (B,), the same for equal ones, and 0 for empty ones.

    It is a polynomial of the ids modulo 2 ** 64, so it does not depend on the machine.
    """
    steps = ids_BL.shape[1]
    factors_L = np.cumprod(np.full(steps, HASH_FACTOR, dtype=np.uint64))
    keys = []
    for chunk_BL, lengths in zip(ids_BL.split(ROWS_AT_ONCE), length_B.split(ROWS_AT_ONCE), strict=True):
        is_valid = np.arange(steps) < lengths.numpy()[:, None]
        terms_BL = (chunk_BL.numpy().astype(np.uint64) + np.uint64(1)) * factors_L
        keys.append((terms_BL * is_valid).sum(1, dtype=np.uint64))
    return np.concatenate([np.zeros(0, np.uint64), *keys]).view(np.int64)


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
