"""Hide cells in training, so that the tokens that stand in for absent cells are learned. B rows, C columns.

`model/stand_in.py` chooses those tokens; this file trains them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from plait.data.dataset import Dataset
from plait.model.network import MultimodalModel
from plait.nn.batch import Batch


def hide_cells(batch: Batch, probability: float, generator: torch.Generator) -> Batch:
    """Modality dropout: with this probability a row keeps only some of its present cells.

    Each row is drawn by itself. The number of cells that it keeps is drawn evenly from one to all but
    one, then that many cells at random. So small subsets are seen as often as large ones, and no row
    trains on nothing. A hidden cell looks as if the table lacked its column.
    """
    if probability <= 0 or len(batch.present) < 2:
        return batch
    before_CB = torch.stack(list(batch.present.values()))
    draw_CB = torch.rand(before_CB.shape, generator=generator).to(before_CB.device)

    # Absent cells come last in the order of the draws.
    place_CB = draw_CB.masked_fill(~before_CB, 2.0).argsort(0).argsort(0)
    count_B = before_CB.sum(0)
    hits_B, size_B = torch.rand(2, len(batch), generator=generator).to(before_CB.device)
    keeps_B = torch.where(hits_B < probability, 1 + (size_B * (count_B - 1)).long(), count_B)
    present_CB = before_CB & (place_CB < keeps_B.clamp(min=1))

    in_table_CB = torch.stack(list(batch.in_table.values()))
    in_table_CB = _in_table(in_table_CB, before_CB, present_CB, generator)
    columns = list(batch.present)
    return replace(
        batch,
        present=dict(zip(columns, present_CB, strict=True)),
        in_table=dict(zip(batch.in_table, in_table_CB, strict=True)),
        complete=batch.masks,
    )


def _in_table(in_table_CB: Tensor, before_CB: Tensor, after_CB: Tensor, generator: torch.Generator) -> Tensor:
    """Return where a row still tells whether it has a cell.

    It does not tell it of hidden cells, nor of as large a share of the empty ones: otherwise a missing
    token would say that the cell was not empty.
    """
    hidden_CB = before_CB & ~after_CB
    hidden_share_C = hidden_CB.sum(1) / before_CB.sum(1).clamp(min=1)
    draw_CB = torch.rand(before_CB.shape, generator=generator).to(before_CB.device)
    untold_CB = ~before_CB & (draw_CB < hidden_share_C[:, None])
    return in_table_CB & ~hidden_CB & ~untold_CB


def fit_empty_cells(model: MultimodalModel, data: Dataset, baselines: Mapping[str, Tensor]) -> None:
    """Tell the model where training rows have empty cells, and what a count of these rows says of each
    target.

    Only in columns with empty cells does an empty token learn anything.
    """
    batch, rows = data.prepared.batch, data.rows
    present = {column: present_N[rows] for column, present_N in batch.present.items()}
    for group in model.groups:
        group.stand_in.mark_empty([not bool(present[column].all()) for column in group.columns])

    for target in model.fuser_of:
        if target not in baselines:
            continue  # these rows have no label to count
        is_labelled = batch.labelled[target][rows]
        labels = batch.targets[target][rows][is_labelled]
        of_blocks = model.fuser(target).of_blocks(present)
        empty_NP = torch.stack([~present_N[is_labelled] for present_N in of_blocks.values()], 1)
        model.prediction(target).fit_empty_blocks(baselines[target], labels, empty_NP)
