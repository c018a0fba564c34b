"""Objectives that teach columns what goes with what, from unit vectors. B rows, M candidates, K
columns, D width.

`x_BKD` holds a row's vectors, zeros where the row lacks the column, which `have_BK` says. `other_BB` is
True where two rows are different things: only those count as each other's negatives.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

TINY = 1e-6  # under the square root of a volume, whose slope at nothing is infinite


def info_nce(logits_BM: Tensor, other_BM: Tensor, hardness: float = 0.0) -> Tensor:
    """-log softmax at each row's own candidate, which is number b for row b (van den Oord et al. 2018,
    eq. 4), per row.

    With `hardness` (beta) the N negatives weigh in proportion to exp(beta * logit), their weights
    adding up to N (Robinson et al. 2021, "Contrastive learning with hard negative samples", eq. 4 with
    tau+ = 0).
    """
    own_B = logits_BM.diagonal()
    negative_BM = logits_BM.masked_fill(~other_BM, -torch.inf)
    if hardness:
        count_B = other_BM.sum(1).clamp(min=1).to(logits_BM.dtype)
        share_BM = (hardness * logits_BM.detach()).masked_fill(~other_BM, -torch.inf).log_softmax(1)
        share_BM = torch.where(
            other_BM, share_BM, torch.zeros_like(share_BM)
        )  # a row without negatives would be nan
        negative_BM = negative_BM + share_BM + count_B.log()[:, None]
    return torch.cat([own_B[:, None], negative_BM], 1).logsumexp(1) - own_B


def siglip(logits_BM: Tensor, other_BM: Tensor) -> Tensor:
    """-log sigmoid(z * logit), z = 1 for each row's own candidate and -1 for all others, summed over
    candidates (Zhai et al. 2023, "Sigmoid loss for language image pre-training", algorithm 1), per row.
    """
    against_BM = -F.logsigmoid(-logits_BM)
    return -F.logsigmoid(logits_BM.diagonal()) + torch.where(
        other_BM, against_BM, torch.zeros_like(against_BM)
    ).sum(1)


def volume(x_BKD: Tensor, have_BK: Tensor, onto_MKD: Tensor, onto_have_MK: Tensor, anchor: int) -> Tensor:
    """The volume of the body that b's anchor vector spans with m's vectors of all other columns,
    sqrt(det(V'V)) (Cicchetti et al. 2025, "Gramian multimodal representation learning and alignment",
    eq. 4 to 6), (B, M).

    The gate for what is missing: a column that either of the two lacks is left out, as if it were at
    right angles to all others, which leaves the volume of the others as it is.
    """
    rows, candidates, columns = len(x_BKD), len(onto_MKD), x_BKD.shape[1]
    gate_BMK = have_BK[:, None] & onto_have_MK[None]
    gram_MKK = onto_MKD @ onto_MKD.transpose(1, 2)
    across_BMK = torch.einsum("bd,mkd->bmk", x_BKD[:, anchor], onto_MKD)
    gram = gram_MKK.expand(rows, candidates, columns, columns).clone()
    gram[:, :, anchor, :] = across_BMK
    gram[:, :, :, anchor] = across_BMK
    apart = ~torch.eye(columns, dtype=torch.bool, device=x_BKD.device)
    gram = gram * (gate_BMK[..., None] & gate_BMK[..., None, :] & apart)
    gram = gram + torch.eye(columns, device=x_BKD.device, dtype=x_BKD.dtype)
    return (torch.linalg.det(gram).clamp(min=0) + TINY).sqrt()


def multilinear(
    x_BKD: Tensor, have_BK: Tensor, neutral_KD: Tensor, anchor: int, orders: Sequence[Tensor]
) -> Tensor:
    """The multilinear inner products sum_d prod_k x_kd (Saporta et al. 2024, "Contrasting with Symile",
    eq. 4) of each row's anchor with its own other columns on the diagonal, and beside it with tuples of
    the others' (section 3.2: negatives drawn by lot, each column in an order of its own, `orders`), (B,
    M = B).

    The gate for what is missing: its column's neutral vector, which is learned, takes its place in the
    product.
    """
    full_BKD = torch.where(have_BK[..., None], x_BKD, neutral_KD)
    others = [k for k in range(x_BKD.shape[1]) if k != anchor]
    own_BD = torch.stack([full_BKD[:, k] for k in others]).prod(0)
    drawn_BD = torch.stack([full_BKD[orders[k], k] for k in others]).prod(0)
    found_BB = x_BKD[:, anchor] @ drawn_BD.T
    own_B = (x_BKD[:, anchor] * own_BD).sum(1)
    eye = torch.eye(len(x_BKD), dtype=torch.bool, device=x_BKD.device)
    return torch.where(eye, own_B[:, None], found_BB)


def same(ids_BK: Tensor, others_MK: Tensor) -> Tensor:
    """True where two rows have the same value in any column, (B, M). Negative ids are no value."""
    found = torch.zeros(len(ids_BK), len(others_MK), dtype=torch.bool, device=ids_BK.device)
    for k in range(ids_BK.shape[1]):
        one, other = ids_BK[:, k], others_MK[:, k]
        found |= (one[:, None] == other[None]) & (one >= 0)[:, None]
    return found
