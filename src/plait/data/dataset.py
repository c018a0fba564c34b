"""Batches out of a prepared table: index-selects of whole tensors, no Python per row."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from plait.data.preprocessing import Prepared, Preprocessing
from plait.nn.batch import Batch

POOLED = 16  # batches whose rows are sorted by length together


class Dataset:
    """Some rows of a prepared table, ready to be cut into batches."""

    def __init__(
        self, prepared: Prepared, preprocessing: Preprocessing, rows: np.ndarray | None = None
    ) -> None:
        self.prepared = prepared
        self.preprocessing = preprocessing
        if rows is None:
            self.rows = torch.arange(len(prepared))
        else:
            self.rows = torch.from_numpy(np.asarray(rows, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, rows: Tensor, generator: torch.Generator | None = None) -> Batch:
        """Return the rows with these numbers as encoders take them; augmented if there is a generator."""
        cells = self.prepared.batch.take(rows)
        return self.preprocessing.transform(cells, generator)

    def shuffled(self, batch_size: int, seed: int, alike: bool = False) -> list[Tensor]:
        """Draw the row numbers of every batch of one epoch.

        With `alike`, recordings of about the same length come together, for less padding: the rows of
        `POOLED` batches are sorted by length before they are cut. The batches are then shuffled.
        """
        generator = torch.Generator().manual_seed(seed)
        order = self.rows[torch.randperm(len(self.rows), generator=generator)]
        batches = list(order.split(batch_size))

        # batch normalisation has no variance of one row, and an alignment nothing to compare it with
        if len(batches) > 1 and len(batches[-1]) == 1:
            batches[-2:] = [torch.cat(batches[-2:])]

        length_N = self._lengths() if alike else None
        if length_N is None:
            return batches

        # sort within pools only: an epoch that is sorted as a whole would have the same batches each time
        sorted_pools = []
        for pool in order.split(POOLED * batch_size):
            by_length = length_N[pool].argsort(stable=True)
            sorted_pools.append(pool[by_length])
        sizes = [len(batch) for batch in batches]
        batches = list(torch.cat(sorted_pools).split(sizes))

        # else every pool would go from short recordings to long ones
        shuffled = torch.randperm(len(batches), generator=generator).tolist()
        return [batches[i] for i in shuffled]

    def _lengths(self) -> Tensor | None:
        """Return the length of each row's recording (N,), of the column where lengths vary most.

        Return None if no column has recordings, one to a cell.
        """
        lengths = []
        for column, modality in self.preprocessing.inputs.items():
            values = self.prepared.batch.values[column]
            if not modality.layout.is_recording or values.encoded:
                continue
            # a cell of several recordings has several lengths
            if values.length_B is not None and values.count_B is None:
                lengths.append(values.length_B)
        return max(lengths, key=_spread, default=None)

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """Yield all rows in batches, in order, never augmented."""
        for rows in self.rows.split(batch_size):
            yield self.batch(rows)


def _spread(length_N: Tensor) -> float:
    """Return the standard deviation of lengths."""
    return float(length_N.float().std())
