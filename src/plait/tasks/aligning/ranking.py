"""Measure retrieval in a space of vectors: ranks, recall, and the shape of the space.

Q queries, G rows of the gallery, K columns of ids, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from plait.tasks.aligning.losses import same
from plait.tasks.base_metrics import Metric, ScoredRows

TOGETHER = 1024  # queries that are compared with the gallery at once
DEPTHS = (1, 5, 10)  # of recall
GEOMETRY_ROWS = 2000  # rows that `geometry` samples


def ranks(
    query_QD: np.ndarray, gallery_GD: np.ndarray, query_ids: np.ndarray, gallery_ids: np.ndarray
) -> np.ndarray:
    """Return the rank of the first positive of each query, from 1, (Q,). NaN for a query without positives.

    Positives are rows of the gallery that share an id with the query in any column of the ids, (Q, K) and
    (G, K). Negative ids match nothing. Ties count half against the positive.
    """
    ranks_Q = np.full(len(query_QD), np.nan)
    for first in range(0, len(query_QD), TOGETHER):
        chunk = slice(first, first + TOGETHER)
        score_QG = query_QD[chunk] @ gallery_GD.T
        is_positive_QG = _positives(query_ids[chunk], gallery_ids)
        positive_score_QG = np.where(is_positive_QG, score_QG, -np.inf)
        best_Q = positive_score_QG.max(1, initial=-np.inf)

        # Other positives do not push the best one down.
        higher_Q = ((score_QG > best_Q[:, None]) & ~is_positive_QG).sum(1)
        ties_Q = ((score_QG == best_Q[:, None]) & ~is_positive_QG).sum(1)
        rank_Q = 1 + higher_Q + ties_Q / 2
        ranks_Q[chunk] = np.where(np.isfinite(best_Q), rank_Q, np.nan)
    return ranks_Q


@dataclass(frozen=True)
class RankRows(ScoredRows):
    """The rank of each row as a query, in each direction (B, directions); NaN where it asks for nothing."""

    rank_BD: np.ndarray


def recall(rows: RankRows, depth: int) -> float:
    """Return the share of queries with a positive among the first `depth`."""
    return _mean_over_directions(rows, lambda rank_Q: float((rank_Q <= depth).mean()))


def median_rank(rows: RankRows) -> float:
    """Return the median of the queries' ranks."""
    return _mean_over_directions(rows, lambda rank_Q: float(np.median(rank_Q)))


def mrr(rows: RankRows) -> float:
    """Return the mean reciprocal rank."""
    return _mean_over_directions(rows, lambda rank_Q: float((1 / rank_Q).mean()))


def _mean_over_directions(rows: RankRows, summary: Callable[[np.ndarray], float]) -> float:
    """Return the mean of the directions that have queries; NaN when none has."""
    by_direction = []
    for rank_B in rows.rank_BD.T:
        rank_Q = rank_B[np.isfinite(rank_B)]
        if len(rank_Q):
            by_direction.append(summary(rank_Q))
    if not by_direction:
        return float("nan")
    return float(np.mean(by_direction))


METRICS: dict[str, Metric] = {}
for _depth in DEPTHS:
    METRICS[f"r@{_depth}"] = partial(recall, depth=_depth)
METRICS["median_rank"] = median_rank
METRICS["mrr"] = mrr


def chance(positives: np.ndarray, gallery: int) -> dict[str, float]:
    """Return the metrics that are expected of a random ranking.

    `positives` has the number of positives of each query, and `gallery` is the number of rows. None of p
    positives is among the first k with probability C(gallery - p, k) / C(gallery, k). The median rank is
    that of all queries together.
    """
    numbers, counts = np.unique(positives[positives > 0], return_counts=True)
    if not len(numbers):
        return dict.fromkeys(METRICS, float("nan"))

    # The probability that the first positive comes at each place, over queries with different numbers of
    # positives.
    place_G = np.arange(gallery)
    p_first_G = np.zeros(gallery)
    shares = counts / counts.sum()
    for number, share in zip(numbers, shares, strict=True):
        others_G = np.maximum(gallery - place_G - number, 0)
        p_none_G = np.cumprod(others_G / (gallery - place_G))
        p_first_G += share * -np.diff(p_none_G, prepend=1.0)
    p_within_G = np.cumsum(p_first_G)

    scores = {}
    for depth in DEPTHS:
        last_place = min(depth, gallery) - 1
        scores[f"r@{depth}"] = float(p_within_G[last_place])
    median_place = np.searchsorted(p_within_G, 0.5)
    scores["median_rank"] = float(median_place + 1)
    scores["mrr"] = float((p_first_G / (place_G + 1)).sum())
    return scores


def count_positives(query_ids: np.ndarray, gallery_ids: np.ndarray) -> np.ndarray:
    """Count the rows of the gallery that are positives of each query, (Q,)."""
    counts_Q = np.zeros(len(query_ids), dtype=int)
    for first in range(0, len(query_ids), TOGETHER):
        chunk = slice(first, first + TOGETHER)
        is_positive_QG = _positives(query_ids[chunk], gallery_ids)
        counts_Q[chunk] = is_positive_QG.sum(1)
    return counts_Q


def _positives(query_ids: np.ndarray, gallery_ids: np.ndarray) -> np.ndarray:
    """Return True where a row of the gallery is a positive of the query, (Q, G)."""
    is_positive_QG = same(torch.from_numpy(query_ids), torch.from_numpy(gallery_ids))
    return is_positive_QG.numpy()


def geometry(first_ND: np.ndarray, second_ND: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Return the modality gap, alignment and uniformity of two columns' unit vectors of the same N rows.

    The gap is the distance of both means (Liang et al. 2022, "Mind the gap"). Alignment is the mean squared
    distance of pairs. Uniformity is the log of the mean of exp(-2 d^2) over all pairs of rows of one column,
    averaged over both columns (Wang and Isola 2020, eq. 1 and 2). At most 2,000 rows are drawn at random.
    """
    if len(first_ND) > GEOMETRY_ROWS:
        generator = np.random.default_rng(seed)
        rows = generator.choice(len(first_ND), GEOMETRY_ROWS, replace=False)
        first_ND, second_ND = first_ND[rows], second_ND[rows]
    if len(first_ND) < 2:
        return dict.fromkeys(("gap", "alignment", "uniformity"), float("nan"))

    gap = np.linalg.norm(first_ND.mean(0) - second_ND.mean(0))
    squared_distance_N = ((first_ND - second_ND) ** 2).sum(1)
    uniformity = (_uniformity(first_ND) + _uniformity(second_ND)) / 2
    return {
        "gap": float(gap),
        "alignment": float(squared_distance_N.mean()),
        "uniformity": uniformity,
    }


def _uniformity(x_ND: np.ndarray) -> float:
    """Return the log of the mean of exp(-2 d^2) over all pairs of rows."""
    # Of unit vectors, d^2 is 2 - 2 cos.
    cosine_NN = x_ND @ x_ND.T
    squared_distance_NN = np.clip(2 - 2 * cosine_NN, 0, None)
    pairs = np.triu_indices(len(x_ND), 1)
    potential = np.exp(-2 * squared_distance_NN[pairs])
    return float(np.log(potential.mean()))
