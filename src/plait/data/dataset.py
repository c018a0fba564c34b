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
        self.prepared, self.preprocessing = prepared, preprocessing
        self.rows = (
            torch.arange(len(prepared))
            if rows is None
            else torch.from_numpy(np.asarray(rows, dtype=np.int64))
        )

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, rows: Tensor, generator: torch.Generator | None = None) -> Batch:
        """These rows of the prepared table as encoders take them; augmented when a generator is given."""
        return self.preprocessing.transform(self.prepared.batch.take(rows), generator)

    def shuffled(self, batch_size: int, seed: int, alike: bool = False) -> list[Tensor]:
        """The row numbers of every batch of one epoch. A last batch of one row joins the one before it.
        With `alike`, sounds and clips of about the same length come together, for less padding: of the
        rows of so many batches, drawn by lot, the shortest are in one batch, and so on; these batches
        come in any order.
        """
        generator = torch.Generator().manual_seed(seed)
        order = self.rows[torch.randperm(len(self.rows), generator=generator)]
        parts = list(order.split(batch_size))
        if len(parts) > 1 and len(parts[-1]) == 1:
            parts[-2:] = [torch.cat(parts[-2:])]
        length_N = self._lengths() if alike else None
        if length_N is None:
            return parts
        sizes = [len(part) for part in parts]
        pools = [pool[length_N[pool].argsort(stable=True)] for pool in order.split(POOLED * batch_size)]
        batches = torch.cat(pools).split(sizes)
        return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]

    def _lengths(self) -> Tensor | None:
        """For each row of the table the length of its sounds or clips, the most varied ones; none where
        the table has none.
        """
        columns = [
            c
            for c, m in self.preprocessing.inputs.items()
            if m.layout.kind in ("spectrogram", "wave", "frames")
        ]
        values = (self.prepared.batch.values[c] for c in columns)
        found = [v.length_B for v in values if v.length_B is not None and v.count_B is None and not v.encoded]
        return max(found, key=lambda length_B: float(length_B.float().std()), default=None)

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """All rows, in order, never augmented."""
        for rows in self.rows.split(batch_size):
            yield self.batch(rows)
