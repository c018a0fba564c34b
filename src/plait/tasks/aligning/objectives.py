"""The losses of an alignment, over pairs of columns or over complete rows.

B rows, K columns, D width of the space, M candidates of a comparison: the rows of a batch and of the bank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from plait.tasks.aligning.losses import info_nce, multilinear, same, siglip, volume
from plait.tasks.base import masked_mean

PAIRWISE = ("infonce", "siglip")  # objectives that compare columns two by two


@dataclass(frozen=True)
class Rows:
    """What is compared: vectors (B, K, D), zeros where a row lacks the column, and ids (B, K + 1).

    `negative_BB` is True where two rows differ in all cells and in their group.
    """

    x_BKD: Tensor
    ids: Tensor
    present_BK: Tensor
    negative_BB: Tensor

    @classmethod
    def of(cls, x_BKD: Tensor, ids: Tensor, labelled_B: Tensor) -> Rows:
        """Find out which cells are present, and which rows are negatives."""
        present_BK = (x_BKD != 0).any(-1) & labelled_B[:, None]
        is_self_BB = torch.eye(len(ids), dtype=torch.bool, device=ids.device)
        return cls(x_BKD, ids, present_BK, ~same(ids, ids) & ~is_self_BB)


def pair_loss(
    rows: Rows,
    directions: Sequence[tuple[int, int]],
    bank: tuple[Tensor, Tensor],
    scale: Tensor,
    bias: Tensor | None,
    hardness: float,
) -> Tensor:
    """Return the mean over pairs of columns, both directions, and the rows that have both columns.

    `bank` has the vectors and ids of earlier rows. With a `bias` the loss is that of sigmoids, else InfoNCE.
    """
    bank_MKD, bank_ids = bank
    differs_BM = torch.cat([rows.negative_BB, ~same(rows.ids, bank_ids)], 1)

    losses = []
    for query, key in directions:
        both_B = rows.present_BK[:, query] & rows.present_BK[:, key]
        keys_MD = rows.x_BKD[:, key]
        if len(bank_MKD):
            keys_MD = torch.cat([keys_MD, bank_MKD[:, key]])
        has_key_M = (keys_MD != 0).any(-1)
        negative_BM = differs_BM & has_key_M & both_B[:, None]
        logits_BM = scale * rows.x_BKD[:, query] @ keys_MD.T
        if bias is not None:
            loss_B = siglip(logits_BM + bias, negative_BM)
        else:
            loss_B = info_nce(logits_BM, negative_BM, hardness)
        losses.append(masked_mean(loss_B, both_B))
    return torch.stack(losses).mean()


def volume_loss(rows: Rows, anchors: Sequence[int], scale: Tensor) -> Tensor:
    """Return the loss of `gram`: the mean over anchors, both directions, and rows with two columns."""
    losses = []
    for anchor in anchors:
        complete_B = _complete(rows, anchor)
        complete_negative_BB = rows.negative_BB & complete_B[:, None] & complete_B[None]

        # Vectors that belong together span a small volume.
        x_BKD, present_BK = rows.x_BKD, rows.present_BK
        logits_BB = -scale * volume(x_BKD, present_BK, x_BKD, present_BK, anchor)
        losses.append(masked_mean(info_nce(logits_BB, complete_negative_BB), complete_B))
        losses.append(masked_mean(info_nce(logits_BB.T, complete_negative_BB), complete_B))
    return torch.stack(losses).mean()


def product_loss(rows: Rows, anchors: Sequence[int], neutral_KD: Tensor, scale: Tensor) -> Tensor:
    """Return the loss of `symile`: the mean over anchors, and rows with the anchor and another column."""
    columns = rows.x_BKD.shape[1]
    losses = []
    for anchor in anchors:
        complete_B = _complete(rows, anchor)
        orders = [torch.randperm(len(rows.ids), device=rows.ids.device) for _ in range(columns)]
        products_BB = multilinear(rows.x_BKD, rows.present_BK, neutral_KD, anchor, orders)
        negative_tuple_BB = _negative_tuples(rows.ids, complete_B, anchor, orders)
        losses.append(masked_mean(info_nce(scale * products_BB, negative_tuple_BB), complete_B))
    return torch.stack(losses).mean()


def _complete(rows: Rows, anchor: int) -> Tensor:
    """Return True for rows with the anchor and another column, (B,)."""
    return rows.present_BK[:, anchor] & (rows.present_BK.sum(1) > 1)


def _negative_tuples(ids: Tensor, complete_B: Tensor, anchor: int, orders: Sequence[Tensor]) -> Tensor:
    """Return True where a randomly drawn tuple differs from the row's own cells in a column, (B, B)."""
    same_cell = []
    for column, order in enumerate(orders):
        if column == anchor:
            continue
        ids_B = ids[:, column]
        drawn_B = ids_B[order]

        # What the row lacks cannot differ.
        lacks_cell_B = ids_B < 0
        same_cell.append((ids_B[:, None] == drawn_B[None]) | lacks_cell_B[:, None])
    differs_BB = ~torch.stack(same_cell).all(0)
    is_self_BB = torch.eye(len(ids), dtype=torch.bool, device=ids.device)
    return differs_BB & ~is_self_BB & complete_B[:, None]
