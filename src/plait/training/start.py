"""What is fitted to the data before training: statistics of cells, and linear maps of alignments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from plait.data.dataset import Dataset
from plait.model.network import MultimodalModel
from plait.nn.batch import Tokens, Values
from plait.nn.traits import Traits
from plait.tasks.base_comparison import Comparison

MAX_ROWS = 10_000  # rows that the linear maps of an alignment are fitted on, at most
AT_ONCE = 32  # rows whose cells are prepared at once


@torch.inference_mode()
def begin(model: MultimodalModel, data: Dataset) -> None:
    """Fit the statistics of cells, and the linear maps of alignments.

    The maps are between what training does not change in the tokens of two columns: embeddings of frozen
    encoders, and statistics.
    """
    count = min(len(data), MAX_ROWS)
    rows = data.rows[torch.linspace(0, len(data) - 1, count).long()]
    model.eval()
    for column in model.separate_columns:
        statistics = model.encoder(column).statistics
        if statistics is not None:
            statistics.fit(_traits(data, column, rows))

    for target, task in model.comparisons.items():
        _begin_alignment(model, task, data, rows, data.prepared.batch.targets[target][rows])


def _begin_alignment(
    model: MultimodalModel, task: Comparison, data: Dataset, rows: Tensor, target: Tensor
) -> None:
    """Fit the linear maps of an alignment between the columns that have fixed tokens."""
    blocks = {}
    for column in task.columns:
        of_column = model.encoder(column).fixed_blocks if column in model.separate_columns else []
        if of_column:
            blocks[column] = of_column
    if len(blocks) > 1:
        tokens = {column: _tokens(model, data, column, rows) for column in blocks}
        task.begin(tokens, blocks, target)


def _traits(data: Dataset, column: str, rows: Tensor) -> Traits:
    """Return the traits of a column's present cells."""
    batch = data.prepared.batch
    present = batch.present[column][rows]
    traits = batch.values[column].traits
    assert traits is not None
    return traits.take(rows[present])


def _tokens(model: MultimodalModel, data: Dataset, column: str, rows: Tensor) -> Iterator[Tokens]:
    """Yield what training does not change in a column's tokens, batch by batch.

    The masks of rows without a cell are False.
    """
    for values, present_B in _cells(data, column, rows):
        yield model.encoder(column).encode_fixed(values.packed(present_B), present_B)


def _cells(data: Dataset, column: str, rows: Tensor) -> Iterator[tuple[Values, Tensor]]:
    """Yield a column's cells as its encoder takes them, never augmented, and where they are present."""
    batch = data.prepared.batch
    modality = data.preprocessing.inputs[column]
    for batch_rows in rows.split(AT_ONCE):
        values = batch.values[column].take(batch_rows)
        # Frozen embeddings are encoded already.
        if not values.encoded:
            values = replace(modality.transform(values, None), traits=values.traits)
        yield values, batch.present[column][batch_rows]
