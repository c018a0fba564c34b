"""Contrastive objectives that put cells of one row close together, from unit vectors.

B rows, M candidates, K columns, D width. `x_BKD` holds a row's vectors, and zeros where the row lacks the
column; `present_BK` says which it has. `negative_BM` is True where a candidate is a negative of the row:
different in all columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

TINY = 1e-6  # added under the square root of a volume, whose slope at zero is infinite


def info_nce(logits_BM: Tensor, negative_BM: Tensor, hardness: float = 0.0) -> Tensor:
    """Return -log softmax at each row's own candidate, (B,). Candidate b is that of row b.

    This is van den Oord et al. 2018, eq. 4. With `hardness` (beta) the N negatives weigh in proportion to
    exp(beta * logit), and their weights add up to N (Robinson et al. 2021, "Contrastive learning with hard
    negative samples", eq. 4 with tau+ = 0).
    """
    # Candidates that are neither the row's own nor negatives do not count.
    positive_B = logits_BM.diagonal()
    negative_logits_BM = logits_BM.masked_fill(~negative_BM, -torch.inf)
    if hardness:
        # Weights are constants: the gradient does not flow through them.
        hard_logits_BM = hardness * logits_BM.detach()
        log_weight_BM = hard_logits_BM.masked_fill(~negative_BM, -torch.inf).log_softmax(1)

        # A row without negatives would be NaN.
        log_weight_BM = torch.where(negative_BM, log_weight_BM, torch.zeros_like(log_weight_BM))
        count_B = negative_BM.sum(1).clamp(min=1).to(logits_BM.dtype)
        negative_logits_BM = negative_logits_BM + log_weight_BM + count_B.log()[:, None]
    candidate_logits = torch.cat([positive_B[:, None], negative_logits_BM], 1)
    return candidate_logits.logsumexp(1) - positive_B


def siglip(logits_BM: Tensor, negative_BM: Tensor) -> Tensor:
    """Return the sum over candidates of -log sigmoid(z * logit), (B,).

    z is 1 for each row's own candidate and -1 for negatives (Zhai et al. 2023, "Sigmoid loss for language
    image pre-training", algorithm 1).
    """
    positive_loss_B = -F.logsigmoid(logits_BM.diagonal())
    negative_loss_BM = -F.logsigmoid(-logits_BM)
    negative_loss_BM = torch.where(negative_BM, negative_loss_BM, torch.zeros_like(negative_loss_BM))
    return positive_loss_B + negative_loss_BM.sum(1)


def volume(
    x_BKD: Tensor, present_BK: Tensor, candidate_MKD: Tensor, candidate_present_MK: Tensor, anchor: int
) -> Tensor:
    """Return the volume that b's anchor vector spans with m's vectors of all other columns, (B, M).

    It is sqrt(det(V'V)) (Cicchetti et al. 2025, "Gramian multimodal representation learning and alignment",
    eq. 4 to 6). A column that either of the two lacks counts as a unit vector at right angles to all others.
    This leaves the volume of the other columns as it is.
    """
    rows, columns = x_BKD.shape[:2]
    candidates = len(candidate_MKD)

    # The Gram matrix of m's vectors, in which b's vector takes the place of the anchor.
    gram_MKK = candidate_MKD @ candidate_MKD.transpose(1, 2)
    anchor_BMK = torch.einsum("bd,mkd->bmk", x_BKD[:, anchor], candidate_MKD)
    gram_BMKK = gram_MKK.expand(rows, candidates, columns, columns).clone()
    gram_BMKK[:, :, anchor, :] = anchor_BMK
    gram_BMKK[:, :, :, anchor] = anchor_BMK

    # Vectors have length 1, so the diagonal is 1. Missing cells have the rows and columns of the identity.
    present_BMK = present_BK[:, None] & candidate_present_MK[None]
    off_diagonal_KK = ~torch.eye(columns, dtype=torch.bool, device=x_BKD.device)
    both_BMKK = present_BMK[..., None] & present_BMK[..., None, :] & off_diagonal_KK
    identity_KK = torch.eye(columns, device=x_BKD.device, dtype=x_BKD.dtype)
    gram_BMKK = gram_BMKK * both_BMKK + identity_KK

    # Rounding can make the determinant slightly negative.
    determinant_BM = torch.linalg.det(gram_BMKK).clamp(min=0)
    return (determinant_BM + TINY).sqrt()


def multilinear(
    x_BKD: Tensor, present_BK: Tensor, neutral_KD: Tensor, anchor: int, orders: Sequence[Tensor]
) -> Tensor:
    """Return multilinear inner products sum_d prod_k x_kd of anchors with tuples of other columns, (B, B).

    The diagonal has each row's own tuple. The other entries have tuples drawn at random, each column in an
    order of its own, `orders` (Saporta et al. 2024, "Contrasting with Symile", eq. 4 and section 3.2). The
    column's learned neutral vector replaces a missing one in the product.
    """
    complete_BKD = torch.where(present_BK[..., None], x_BKD, neutral_KD)
    row_vectors, drawn_vectors = [], []
    for column in range(x_BKD.shape[1]):
        if column != anchor:
            row_vectors.append(complete_BKD[:, column])
            drawn_vectors.append(complete_BKD[orders[column], column])
    row_product_BD = torch.stack(row_vectors).prod(0)
    drawn_product_BD = torch.stack(drawn_vectors).prod(0)

    anchor_BD = x_BKD[:, anchor]
    positive_B = (anchor_BD * row_product_BD).sum(1)
    negative_BB = anchor_BD @ drawn_product_BD.T
    is_self_BB = torch.eye(len(x_BKD), dtype=torch.bool, device=x_BKD.device)
    return torch.where(is_self_BB, positive_B[:, None], negative_BB)


def same(ids_BK: Tensor, candidate_ids_MK: Tensor) -> Tensor:
    """Return True where two rows have the same id in any column, (B, M). Negative ids match nothing."""
    rows, candidates = len(ids_BK), len(candidate_ids_MK)
    same_BM = torch.zeros(rows, candidates, dtype=torch.bool, device=ids_BK.device)
    for ids_B, candidate_ids_M in zip(ids_BK.unbind(1), candidate_ids_MK.unbind(1), strict=True):
        is_equal_BM = ids_B[:, None] == candidate_ids_M[None]
        same_BM |= is_equal_BM & (ids_B >= 0)[:, None]
    return same_BM
