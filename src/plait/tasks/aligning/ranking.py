"""How well vectors find what belongs to them: ranks, recall, and what a space of vectors looks like. Q
queries, G gallery, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from plait.tasks.aligning.losses import same
from plait.tasks.base_metrics import Metric, ScoredRows

TOGETHER = 1024  # queries at once


DEPTHS = (1, 5, 10)


def ranks(
    query_QD: np.ndarray, gallery_GD: np.ndarray, query_ids: np.ndarray, gallery_ids: np.ndarray
) -> np.ndarray:
    """For each query the place, from 1, of the first of its positives: rows of the gallery that share
    an id with it in any column of the ids, (Q, K) and (G, K), of which negative ones are none. Ties
    count half against it. NaN for a query without positives.
    """
    found = np.full(len(query_QD), np.nan)
    for first in range(0, len(query_QD), TOGETHER):
        part = slice(first, first + TOGETHER)
        score = query_QD[part] @ gallery_GD.T
        positive = _positives(query_ids[part], gallery_ids)
        best = np.where(positive, score, -np.inf).max(1, initial=-np.inf)
        higher = ((score > best[:, None]) & ~positive).sum(1)
        ties = ((score == best[:, None]) & ~positive).sum(1)
        found[part] = np.where(np.isfinite(best), 1 + higher + ties / 2, np.nan)
    return found


@dataclass(frozen=True)
class RankRows(ScoredRows):
    """The rank of each row as a query, in each direction (B, directions); NaN where it asks for nothing."""

    rank_BD: np.ndarray


def recall(rows: RankRows, depth: int) -> float:
    """Return the share of queries with a positive among the first `depth`."""
    return _mean_over_directions(rows, lambda rank_Q: (rank_Q <= depth).mean())


def median_rank(rows: RankRows) -> float:
    """Return the median of the queries' ranks."""
    return _mean_over_directions(rows, np.median)


def mrr(rows: RankRows) -> float:
    """Return the mean reciprocal rank."""
    return _mean_over_directions(rows, lambda rank_Q: (1 / rank_Q).mean())


def _mean_over_directions(rows: RankRows, summary: Callable[[np.ndarray], Any]) -> float:
    """Return the mean of the directions that have queries; NaN when none has."""
    by_direction = []
    for rank_B in rows.rank_BD.T:
        rank_Q = rank_B[np.isfinite(rank_B)]
        if len(rank_Q):
            by_direction.append(float(summary(rank_Q)))
    return float(np.mean(by_direction)) if by_direction else float("nan")


METRICS: dict[str, Metric] = {
    **{f"r@{depth}": partial(recall, depth=depth) for depth in DEPTHS},
    "median_rank": median_rank,
    "mrr": mrr,
}


def chance(positives: np.ndarray, gallery: int) -> dict[str, float]:
    """The same, expected of a ranking by lot, for queries with so many positives each: that none is
    among the first k has probability C(gallery - p, k) / C(gallery, k). The median is that of all
    queries' ranks together.
    """
    numbers, counts = np.unique(positives[positives > 0], return_counts=True)
    if not len(numbers):
        return dict.fromkeys(METRICS, float("nan"))
    place = np.arange(gallery)
    first = np.zeros(gallery)  # the probability that the first positive comes at each place
    for number, share in zip(numbers, counts / counts.sum(), strict=True):
        none = np.cumprod(np.maximum(gallery - place - number, 0) / (gallery - place))
        first += share * -np.diff(none, prepend=1.0)
    found = np.cumsum(first)
    return {
        **{f"r@{k}": float(found[min(k, gallery) - 1]) for k in DEPTHS},
        "median_rank": float(np.searchsorted(found, 0.5) + 1),
        "mrr": float((first / (place + 1)).sum()),
    }


def count_positives(query_ids: np.ndarray, gallery_ids: np.ndarray) -> np.ndarray:
    """How many rows of the gallery are positives of each query."""
    counts = np.zeros(len(query_ids), dtype=int)
    for first in range(0, len(query_ids), TOGETHER):
        part = slice(first, first + TOGETHER)
        counts[part] = _positives(query_ids[part], gallery_ids).sum(1)
    return counts


def _positives(query_ids: np.ndarray, gallery_ids: np.ndarray) -> np.ndarray:
    return same(torch.from_numpy(query_ids), torch.from_numpy(gallery_ids)).numpy()


def geometry(one_ND: np.ndarray, other_ND: np.ndarray, seed: int = 0) -> dict[str, float]:
    """What the space looks like, from unit vectors of the same rows: the modality gap, the distance of
    both means (Liang et al. 2022, "Mind the gap"); alignment, the mean squared distance of pairs; and
    uniformity, the log of the mean of exp(-2 d^2) over all pairs of rows of one side, mean of both
    sides (Wang and Isola 2020, eq. 1 and 2). Of at most 2,000 rows, by lot.
    """
    if len(one_ND) > 2000:
        rows = np.random.default_rng(seed).choice(len(one_ND), 2000, replace=False)
        one_ND, other_ND = one_ND[rows], other_ND[rows]
    if len(one_ND) < 2:
        return dict.fromkeys(("gap", "alignment", "uniformity"), float("nan"))

    def uniform(x: np.ndarray) -> float:
        squared = np.clip(2 - 2 * (x @ x.T), 0, None)[np.triu_indices(len(x), 1)]
        return float(np.log(np.exp(-2 * squared).mean()))

    return {
        "gap": float(np.linalg.norm(one_ND.mean(0) - other_ND.mean(0))),
        "alignment": float(((one_ND - other_ND) ** 2).sum(1).mean()),
        "uniformity": (uniform(one_ND) + uniform(other_ND)) / 2,
    }
