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

LAST = 2.0  # sorts behind all draws, which are below 1


def hide_cells(batch: Batch, probability: float, generator: torch.Generator) -> Batch:
    """Modality dropout: with this probability a row keeps only some of its present cells.

    Each row is drawn by itself. First comes the number of cells that it keeps, drawn evenly from one to all
    but one. Then that many cells are drawn. So small subsets are seen as often as large ones, and no row
    trains on nothing. A hidden cell looks as if the table lacked its column.
    """
    if probability <= 0 or len(batch.present) < 2:
        return batch
    before_CB = torch.stack(list(batch.present.values()))
    after_CB = _draw_present(before_CB, probability, generator)

    in_table_CB = torch.stack(list(batch.in_table.values()))
    in_table_CB = _draw_in_table(in_table_CB, before_CB, after_CB, generator)
    return replace(
        batch,
        present=dict(zip(batch.present, after_CB, strict=True)),
        in_table=dict(zip(batch.in_table, in_table_CB, strict=True)),
        complete=batch.masks,
    )


def _draw_present(before_CB: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Return which of the present cells stay present."""
    rows = before_CB.shape[1]

    # Number each row's cells in random order. Absent cells come last, so they are never among the first.
    draw_CB = torch.rand(before_CB.shape, generator=generator).to(before_CB.device)
    order_CB = draw_CB.masked_fill(~before_CB, LAST).argsort(0)
    place_CB = order_CB.argsort(0)

    # How many cells each row keeps: all, or in a row that is hit a number from one to all but one.
    hit_draw_B, size_draw_B = torch.rand(2, rows, generator=generator).to(before_CB.device)
    count_B = before_CB.sum(0)
    smaller_count_B = 1 + (size_draw_B * (count_B - 1)).long()
    is_hit_B = hit_draw_B < probability
    keeps_B = torch.where(is_hit_B, smaller_count_B, count_B)
    is_kept_CB = place_CB < keeps_B.clamp(min=1)
    return before_CB & is_kept_CB


def _draw_in_table(
    in_table_CB: Tensor, before_CB: Tensor, after_CB: Tensor, generator: torch.Generator
) -> Tensor:
    """Return where a row's table still counts as having the column.

    It does not for hidden cells, nor for as large a share of the empty ones. Otherwise a missing token would
    say that the cell was not empty.
    """
    hidden_CB = before_CB & ~after_CB
    present_count_C = before_CB.sum(1).clamp(min=1)
    hidden_share_C = hidden_CB.sum(1) / present_count_C

    draw_CB = torch.rand(before_CB.shape, generator=generator).to(before_CB.device)
    is_drawn_CB = draw_CB < hidden_share_C[:, None]
    hidden_empty_CB = ~before_CB & is_drawn_CB
    return in_table_CB & ~hidden_CB & ~hidden_empty_CB


def fit_empty_cells(model: MultimodalModel, data: Dataset, baselines: Mapping[str, Tensor]) -> None:
    """Fit what the model says of empty cells to the training rows.

    A column's empty token takes part only if the column has empty cells: only then does it learn anything.
    For each target, rows are counted by which of their blocks are empty.
    """
    batch, rows = data.prepared.batch, data.rows
    present = {column: present_N[rows] for column, present_N in batch.present.items()}
    for group in model.groups:
        has_empty_cells = [not bool(present[column].all()) for column in group.columns]
        group.stand_in.mark_empty(has_empty_cells)

    for target in model.fuser_of:
        if target not in baselines:
            continue  # these rows have no label to count
        is_labelled = batch.labelled[target][rows]
        labels = batch.targets[target][rows][is_labelled]
        present_by_block = model.fuser(target).of_blocks(present)
        present_NP = torch.stack(list(present_by_block.values()), 1)
        empty_NP = ~present_NP[is_labelled]
        model.prediction(target).fit_empty_blocks(baselines[target], labels, empty_NP)
