"""Start values that come from the data: statistics, and linear maps of an alignment."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from plait.data.dataset import Dataset
from plait.data.frozen import TOGETHER
from plait.model.network import MultimodalModel
from plait.nn.batch import Tokens, Values
from plait.tasks.base_comparison import Comparison

MAX_ROWS = 10_000  # rows that the linear maps of an alignment are fitted on, at most


@torch.inference_mode()
def begin(model: MultimodalModel, data: Dataset) -> None:
    """Fit the statistics of cells, and let alignments start at linear maps.

    The maps are between what training does not change in the tokens of two columns or more: embeddings
    of frozen encoders, and statistics.
    """
    count = min(len(data), MAX_ROWS)
    rows = data.rows[torch.linspace(0, len(data) - 1, count).long()]
    model.eval()
    for column in model.separate_columns:
        statistics = model.encoder(column).statistics
        if statistics is not None:
            statistics.fit(_present_cells(data, column, rows))

    for task in model.comparisons.values():
        _begin_alignment(model, task, data, rows)


def _begin_alignment(model: MultimodalModel, task: Comparison, data: Dataset, rows: Tensor) -> None:
    """Let an alignment start at linear maps between the columns that have fixed tokens."""
    starts = {}
    for column in task.columns:
        fixed = model.encoder(column).fixed if column in model.separate_columns else None
        if fixed is not None:
            starts[column] = fixed
    if len(starts) > 1:
        tokens = {column: _tokens(model, data, column, rows) for column in starts}
        task.begin(tokens, starts)


def _tokens(model: MultimodalModel, data: Dataset, column: str, rows: Tensor) -> Iterator[Tokens]:
    """Yield the tokens of a column, batch by batch. The masks of rows without a cell are False."""
    for values, present_B in _cells(data, column, rows):
        yield model.encoder(column).encode(values.packed(present_B), present_B)


def _present_cells(data: Dataset, column: str, rows: Tensor) -> Iterator[Values]:
    """Yield a column's cells without those of rows that have none."""
    for values, present_B in _cells(data, column, rows):
        yield values.take(present_B.nonzero()[:, 0])


def _cells(data: Dataset, column: str, rows: Tensor) -> Iterator[tuple[Values, Tensor]]:
    """Yield a column's cells as its encoder takes them, never augmented, and where they are present."""
    batch = data.prepared.batch
    modality = data.preprocessing.inputs[column]
    for batch_rows in rows.split(TOGETHER):
        values = batch.values[column].take(batch_rows)
        # Frozen embeddings are encoded already.
        if not values.encoded:
            values = modality.transform(values, None)
        yield values, batch.present[column][batch_rows]
