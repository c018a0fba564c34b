"""Batches out of a prepared table: index-selects of whole tensors, no Python per row."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from plait.batch import Batch
from plait.preprocessing import Prepared, Preprocessing


class Dataset:
    """Some rows of a prepared table, ready to be cut into batches."""

    def __init__(self, prepared: Prepared, preprocessing: Preprocessing, rows: np.ndarray | None = None) -> None:
        self.prepared, self.preprocessing = prepared, preprocessing
        self.rows = torch.arange(len(prepared)) if rows is None else torch.from_numpy(np.asarray(rows, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, rows: Tensor, generator: torch.Generator | None = None) -> Batch:
        """These rows of the prepared table as encoders take them; augmented when a generator is given."""
        return self.preprocessing.transform(self.prepared.batch.take(rows), generator)

    def shuffled(self, batch_size: int, seed: int) -> list[Tensor]:
        """The row numbers of every batch of one epoch. A last batch of one row joins the one before it."""
        order = self.rows[torch.randperm(len(self.rows), generator=torch.Generator().manual_seed(seed))]
        parts = list(order.split(batch_size))
        if len(parts) > 1 and len(parts[-1]) == 1:
            parts[-2:] = [torch.cat(parts[-2:])]
        return parts

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """All rows, in order, never augmented."""
        for rows in self.rows.split(batch_size):
            yield self.batch(rows)
