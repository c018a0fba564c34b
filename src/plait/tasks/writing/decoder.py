"""A transformer that writes (Vaswani et al. 2017, sec. 3.1, normalisation first), and the search for
what it would rather write.

B rows, M tokens of memory, L steps, V ids, D width, K beams.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plait.nn.layers import Dropout, steps_mask
from plait.tasks.writing.spelling import NOTHING

Allowed = dict[tuple[int, ...], list[int]]  # what may come after what, where only some texts may be written


def positions(steps: int, width: int, device: torch.device) -> Tensor:
    """Sines and cosines of each step, (steps, width) (ib., sec. 3.5)."""
    angle = torch.arange(steps, device=device)[:, None] * torch.exp(
        torch.arange(0, width, 2, device=device) * (-math.log(10_000.0) / width)
    )
    return torch.stack([angle.sin(), angle.cos()], 2).flatten(1)[:, :width]


class TextDecoder(nn.Module):
    """Logits of each next id, from the ids before it and the memory's tokens. What it writes is
    embedded by the same matrix as what it has written (Press & Wolf 2017).
    """

    def __init__(self, vocabulary: int, width: int, heads: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.width = width
        self.embedding = nn.Embedding(vocabulary + 1, width)  # the last one begins a text
        layer = nn.TransformerDecoderLayer(
            width, heads, 2 * width, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerDecoder(layer, layers, nn.LayerNorm(width))
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        self.dropout = Dropout(dropout)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)

    def forward(self, ids_BL: Tensor, memory_BMD: Tensor, mask_BM: Tensor) -> Tensor:
        """(B, L + 1, V): after nothing, after the first id, and so on."""
        began_BL = torch.cat([ids_BL.new_full((len(ids_BL), 1), len(self.bias)), ids_BL], 1)
        steps, width = began_BL.shape[1], self.embedding.embedding_dim
        x_BLD = self.embedding(began_BL) * math.sqrt(width) + positions(steps, width, ids_BL.device)
        later_LL = torch.ones(steps, steps, dtype=torch.bool, device=ids_BL.device).triu(1)
        y_BLD = self.layers(
            self.dropout(x_BLD), memory_BMD, tgt_mask=later_LL, memory_key_padding_mask=~mask_BM
        )
        return y_BLD @ self.embedding.weight[:-1].T.to(y_BLD.dtype) + self.bias


def surprise(logits_BLV: Tensor, ids_BL: Tensor, smoothing: float = 0.0) -> Tensor:
    """For each row the mean loss of its ids and of the end behind them, (B,), of logits (B, L + 1, V)
    that know the ids before each; with label smoothing (Szegedy et al. 2016, sec. 7).
    """
    wanted_BL = F.pad(ids_BL, (0, 1), value=NOTHING)
    loss_BL = F.cross_entropy(
        logits_BLV.float().transpose(1, 2), wanted_BL, reduction="none", label_smoothing=smoothing
    )
    mask_BL = steps_mask(wanted_BL.shape[1], (ids_BL != NOTHING).sum(1) + 1)
    return (loss_BL * mask_BL).sum(1) / mask_BL.sum(1)


def only(texts: Iterable[list[int]]) -> Allowed:
    """What may come after what, if only these texts may be written."""
    found: dict[tuple[int, ...], set[int]] = {}
    for ids in texts:
        for end, i in enumerate([*ids, NOTHING]):
            found.setdefault(tuple(ids[:end]), set()).add(i)
    return {before: sorted(after) for before, after in found.items()}


def search(
    next_of: Callable[[Tensor, Tensor], Tensor],
    rows: int,
    longest: int,
    beam: int = 1,
    penalty: float = 0.0,
    no_repeat: int = 0,
    allowed: Allowed | None = None,
    device: torch.device | None = None,
) -> list[list[int]]:
    """The likeliest text of each row that a beam search finds: the sum of the logarithms of its ids'
    probabilities, over ((5 + length) / 6)^`penalty` (Wu et al. 2016, "Google's neural machine
    translation system", eq. 14). No stretch of `no_repeat` ids is written twice, where that is above 0
    (Paulus et al. 2018, sec. 2.5).

    `next_of` gives log-probabilities (N, V) of the ids after (N, L) of the rows (N,).
    """
    ids = torch.zeros(rows, 1, 0, dtype=torch.long, device=device)
    score = torch.zeros(rows, 1, device=device)
    ended: list[tuple[float, list[int]]] = [(-math.inf, [])] * rows
    for step in range(longest + 1):
        live = score.shape[1]
        row_N = torch.arange(rows, device=device).repeat_interleave(live)
        log_p = next_of(ids.flatten(0, 1), row_N)
        if step == longest:
            log_p[:, NOTHING + 1 :] = -math.inf
        if no_repeat or allowed is not None:
            log_p = _forbidden(log_p, ids.flatten(0, 1).tolist(), no_repeat, allowed)
        whole = score[:, :, None] + log_p.unflatten(0, (rows, live))
        shorter = ((5 + step) / 6) ** penalty
        for row, some in enumerate((whole[:, :, NOTHING] / shorter).tolist()):
            best = max(range(live), key=some.__getitem__)
            if some[best] > ended[row][0]:
                ended[row] = some[best], ids[row, best].tolist()
        whole[:, :, NOTHING] = -math.inf
        score, at = whole.flatten(1).topk(min(beam, whole[0].numel()))
        ids = torch.cat(
            [
                ids.gather(1, (at // whole.shape[2])[..., None].expand(-1, -1, step)),
                (at % whole.shape[2])[..., None],
            ],
            2,
        )
        hopeful = score[:, 0] / (((6 + step) / 6) ** penalty) > torch.tensor(
            [e[0] for e in ended], device=device
        )
        if not bool(hopeful.any()):
            break
    return [found for _, found in ended]


def _forbidden(log_p: Tensor, texts: list[list[int]], no_repeat: int, allowed: Allowed | None) -> Tensor:
    """The same with ids that may not come next at minus infinity."""
    for row, ids in enumerate(texts):
        if allowed is not None:
            after = allowed.get(tuple(ids), [NOTHING])
            kept = log_p[row, after].clone()
            log_p[row] = -math.inf
            log_p[row, after] = kept
        if no_repeat and len(ids) >= no_repeat:
            tail = ids[len(ids) - no_repeat + 1 :]
            repeated = [
                ids[i + no_repeat - 1]
                for i in range(len(ids) - no_repeat + 1)
                if ids[i : i + no_repeat - 1] == tail
            ]
            log_p[row, repeated] = -math.inf
    return log_p
