"""A transformer decoder that writes text, and the beam search for its likeliest text.

The decoder is that of Vaswani et al. 2017, "Attention is all you need", sec. 3.1, with normalisation first.

B rows, M tokens of memory, L steps, V ids, D width, K beams.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plait.nn.layers import Dropout, steps_mask
from plait.tasks.writing.spelling import NOTHING

Continuations = dict[tuple[int, ...], list[int]]  # the ids that may follow each prefix


@dataclass(frozen=True)
class SearchOptions:
    """How to search for the likeliest text.

    A text has at most `longest` ids. `beam` is the number of prefixes that are kept. A text's score is its
    log-probability over ((5 + length) / 6)^`penalty` (Wu et al. 2016, "Google's neural machine translation
    system", eq. 14). No sequence of `no_repeat` ids is written twice, unless that is 0 (Paulus et al. 2018,
    sec. 2.5). If `allowed` is set, only its texts are written (see `continuations`).
    """

    longest: int
    beam: int = 1
    penalty: float = 0.0
    no_repeat: int = 0
    allowed: Continuations | None = None

    def score(self, log_p: Tensor, ids: int) -> Tensor:
        """Normalise log-probabilities of sequences of `ids` ids, the end of the text included."""
        length: float = ((5 + ids) / 6) ** self.penalty
        return log_p / length


def positions(steps: int, width: int, device: torch.device) -> Tensor:
    """Return sines and cosines of each step, (steps, width) (ib., sec. 3.5)."""
    step_L1 = torch.arange(steps, device=device)[:, None]
    even = torch.arange(0, width, 2, device=device)
    frequency = torch.exp(even * (-math.log(10_000.0) / width))
    angle = step_L1 * frequency
    interleaved = torch.stack([angle.sin(), angle.cos()], 2).flatten(1)
    return interleaved[:, :width]  # an odd width leaves one cosine over


class TextDecoder(nn.Module):
    """Predict each next id from the ids before it and from the memory's tokens.

    The output layer shares its matrix with the embedding of the input (Press & Wolf 2017).
    """

    def __init__(self, vocabulary: int, width: int, heads: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.width = width

        # The last one begins a text.
        self.embedding = nn.Embedding(vocabulary + 1, width)
        layer = nn.TransformerDecoderLayer(
            width, heads, 2 * width, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerDecoder(layer, layers, nn.LayerNorm(width))
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        self.dropout = Dropout(dropout)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)

    def forward(self, ids_BL: Tensor, memory_BMD: Tensor, mask_BM: Tensor) -> Tensor:
        """Return logits (B, L + 1, V): of the first id, of the one after the first id, and so on."""
        begin_B1 = ids_BL.new_full((len(ids_BL), 1), len(self.bias))
        input_BL = torch.cat([begin_B1, ids_BL], 1)
        steps, width = input_BL.shape[1], self.embedding.embedding_dim
        embedded_BLD = self.embedding(input_BL) * math.sqrt(width)
        x_BLD = embedded_BLD + positions(steps, width, ids_BL.device)

        # True where a step may not attend to another one, because it is later.
        later_LL = torch.ones(steps, steps, dtype=torch.bool, device=ids_BL.device).triu(1)

        # Without `tgt_is_causal`, torch compares the mask with others in every step, and waits for the GPU.
        y_BLD = self.layers(
            self.dropout(x_BLD),
            memory_BMD,
            tgt_mask=later_LL,
            memory_key_padding_mask=~mask_BM,
            tgt_is_causal=False,
        )
        weight_VD = self.embedding.weight[:-1]
        return y_BLD @ weight_VD.T.to(y_BLD.dtype) + self.bias


def surprise(logits_BLV: Tensor, ids_BL: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the mean cross-entropy of each row's ids and of the end behind them, (B,), in nats.

    `logits_BLV` (B, L + 1, V) are those of `TextDecoder.forward`. `smoothing` is label smoothing (Szegedy
    et al. 2016, sec. 7).
    """
    target_BL = F.pad(ids_BL, (0, 1), value=NOTHING)
    loss_BL = F.cross_entropy(
        logits_BLV.float().transpose(1, 2), target_BL, reduction="none", label_smoothing=smoothing
    )
    length_B = (ids_BL != NOTHING).sum(1) + 1
    mask_BL = steps_mask(target_BL.shape[1], length_B)
    return (loss_BL * mask_BL).sum(1) / mask_BL.sum(1)


def continuations(texts: Iterable[list[int]]) -> Continuations:
    """Return the ids that may follow each prefix, if only these texts may be written."""
    after: dict[tuple[int, ...], set[int]] = {}
    for ids in texts:
        for end, next_id in enumerate([*ids, NOTHING]):
            prefix = tuple(ids[:end])
            after.setdefault(prefix, set()).add(next_id)
    return {prefix: sorted(next_ids) for prefix, next_ids in after.items()}


def search(
    log_p_next: Callable[[Tensor, Tensor], Tensor],
    rows: int,
    options: SearchOptions,
    device: torch.device | None = None,
) -> list[list[int]]:
    """Return the text of each row with the highest score that a beam search finds.

    `log_p_next(ids_NL, row_N)` gives log-probabilities (N, V) of the id that follows each prefix of the row.
    """
    # One beam at first: the empty prefix.
    ids_BKL = torch.zeros(rows, 1, 0, dtype=torch.long, device=device)
    log_p_BK = torch.zeros(rows, 1, device=device)
    nothing_yet: tuple[float, list[int]] = (-math.inf, [])
    best = [nothing_yet] * rows
    for step in range(options.longest + 1):
        beams = log_p_BK.shape[1]
        row_N = torch.arange(rows, device=device).repeat_interleave(beams)
        ids_NL = ids_BKL.flatten(0, 1)
        log_p_NV = log_p_next(ids_NL, row_N)
        if step == options.longest:
            # Nothing but the end may follow.
            log_p_NV[:, NOTHING + 1 :] = -math.inf
        log_p_NV = _without_forbidden(log_p_NV, ids_NL, options)
        log_p_BKV = log_p_BK[:, :, None] + log_p_NV.unflatten(0, (rows, beams))

        # A text may end here. Remember it if it is the best so far.
        ended_BK = options.score(log_p_BKV[:, :, NOTHING], step)
        _keep_best(best, ended_BK, ids_BKL)
        log_p_BKV[:, :, NOTHING] = -math.inf

        # Or it goes on, with the likeliest ids of all beams.
        vocabulary = log_p_BKV.shape[2]
        count = min(options.beam, log_p_BKV[0].numel())
        log_p_BK, index_BK = log_p_BKV.flatten(1).topk(count)
        beam_BK1 = (index_BK // vocabulary)[..., None]
        next_BK1 = (index_BK % vocabulary)[..., None]
        prefix_BKL = ids_BKL.gather(1, beam_BK1.expand(-1, -1, step))
        ids_BKL = torch.cat([prefix_BKL, next_BK1], 2)

        # Stop when no row has a prefix that is likelier than its best text.
        best_B = torch.tensor([score for score, _ in best], device=device)
        prefix_score_B = options.score(log_p_BK[:, 0], step + 1)
        if not bool((prefix_score_B > best_B).any()):
            break
    return [ids for _, ids in best]


def _keep_best(best: list[tuple[float, list[int]]], score_BK: Tensor, ids_BKL: Tensor) -> None:
    """Replace the best text of each row for which a beam has a better one."""
    for row, scores in enumerate(score_BK.tolist()):
        beam = max(range(len(scores)), key=scores.__getitem__)
        best_score, _ = best[row]
        if scores[beam] > best_score:
            best[row] = scores[beam], ids_BKL[row, beam].tolist()


def _without_forbidden(log_p_NV: Tensor, ids_NL: Tensor, options: SearchOptions) -> Tensor:
    """Set ids that may not come next to minus infinity."""
    if not options.no_repeat and options.allowed is None:
        return log_p_NV
    for row, ids in enumerate(ids_NL.tolist()):
        if options.allowed is not None:
            # A beam that is not the beginning of an allowed text may only end.
            next_ids = options.allowed.get(tuple(ids), [NOTHING])
            allowed_log_p = log_p_NV[row, next_ids].clone()
            log_p_NV[row] = -math.inf
            log_p_NV[row, next_ids] = allowed_log_p
        if options.no_repeat:
            repeating = _repeating(ids, options.no_repeat)
            log_p_NV[row, repeating] = -math.inf
    return log_p_NV


def _repeating(ids: list[int], length: int) -> list[int]:
    """Return the ids that would write a sequence of `length` ids for the second time."""
    if len(ids) < length:
        return []

    # Any id that has followed the last `length` - 1 ids before.
    tail_start = len(ids) - length + 1
    tail = ids[tail_start:]
    repeating = []
    for start in range(tail_start):
        end = start + length - 1
        if ids[start:end] == tail:
            repeating.append(ids[end])
    return repeating
