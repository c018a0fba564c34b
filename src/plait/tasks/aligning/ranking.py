"""Measure retrieval in a space of vectors: ranks, recall, and the shape of the space.

Q queries, G rows of the gallery, K columns of ids, D width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from plait.tasks.aligning.losses import same

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
        score = query_QD[chunk] @ gallery_GD.T
        is_positive = _positives(query_ids[chunk], gallery_ids)
        best = np.where(is_positive, score, -np.inf).max(1, initial=-np.inf)
        higher = ((score > best[:, None]) & ~is_positive).sum(1)
        ties = ((score == best[:, None]) & ~is_positive).sum(1)
        ranks_Q[chunk] = np.where(np.isfinite(best), 1 + higher + ties / 2, np.nan)
    return ranks_Q


def metrics(found: np.ndarray) -> dict[str, float]:
    """Recall at 1, 5, 10 (the share of queries with a positive among the first so many), median rank,
    mean reciprocal rank.
    """
    found = found[np.isfinite(found)]
    if not len(found):
        return {**{f"r@{k}": float("nan") for k in DEPTHS}, "median_rank": float("nan"), "mrr": float("nan")}
    return {
        **{f"r@{k}": float((found <= k).mean()) for k in DEPTHS},
        "median_rank": float(np.median(found)),
        "mrr": float((1 / found).mean()),
    }


def chance(positives: np.ndarray, gallery: int) -> dict[str, float]:
    """Return the metrics that are expected of a random ranking.

    `positives` has the number of positives of each query, and `gallery` is the number of rows. None of p
    positives is among the first k with probability C(gallery - p, k) / C(gallery, k). The median rank is
    that of all queries together.
    """
    numbers, counts = np.unique(positives[positives > 0], return_counts=True)
    if not len(numbers):
        return metrics(np.zeros(0))
    place_G = np.arange(gallery)
    p_first_G = np.zeros(gallery)  # the probability that the first positive comes at each place
    for number, share in zip(numbers, counts / counts.sum(), strict=True):
        p_none_G = np.cumprod(np.maximum(gallery - place_G - number, 0) / (gallery - place_G))
        p_first_G += share * -np.diff(p_none_G, prepend=1.0)
    p_within_G = np.cumsum(p_first_G)

    scores = {}
    for depth in DEPTHS:
        scores[f"r@{depth}"] = float(p_within_G[min(depth, gallery) - 1])
    scores["median_rank"] = float(np.searchsorted(p_within_G, 0.5) + 1)
    scores["mrr"] = float((p_first_G / (place_G + 1)).sum())
    return scores


def count_positives(query_ids: np.ndarray, gallery_ids: np.ndarray) -> np.ndarray:
    """Count the rows of the gallery that are positives of each query, (Q,)."""
    counts_Q = np.zeros(len(query_ids), dtype=int)
    for first in range(0, len(query_ids), TOGETHER):
        chunk = slice(first, first + TOGETHER)
        counts_Q[chunk] = _positives(query_ids[chunk], gallery_ids).sum(1)
    return counts_Q


def _positives(query_ids: np.ndarray, gallery_ids: np.ndarray) -> np.ndarray:
    """Return True where a row of the gallery is a positive of the query, (Q, G)."""
    return same(torch.from_numpy(query_ids), torch.from_numpy(gallery_ids)).numpy()


def geometry(first_ND: np.ndarray, second_ND: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Return the modality gap, alignment and uniformity of two columns' unit vectors of the same N rows.

    The gap is the distance of both means (Liang et al. 2022, "Mind the gap"). Alignment is the mean squared
    distance of pairs. Uniformity is the log of the mean of exp(-2 d^2) over all pairs of rows of one column,
    averaged over both columns (Wang and Isola 2020, eq. 1 and 2). At most 2,000 rows are drawn at random.
    """
    if len(first_ND) > GEOMETRY_ROWS:
        rows = np.random.default_rng(seed).choice(len(first_ND), GEOMETRY_ROWS, replace=False)
        first_ND, second_ND = first_ND[rows], second_ND[rows]
    if len(first_ND) < 2:
        return dict.fromkeys(("gap", "alignment", "uniformity"), float("nan"))
    squared_distance_N = ((first_ND - second_ND) ** 2).sum(1)
    return {
        "gap": float(np.linalg.norm(first_ND.mean(0) - second_ND.mean(0))),
        "alignment": float(squared_distance_N.mean()),
        "uniformity": (_uniformity(first_ND) + _uniformity(second_ND)) / 2,
    }


def _uniformity(x_ND: np.ndarray) -> float:
    """Return the log of the mean of exp(-2 d^2) over all pairs of rows."""
    squared_distance_NN = np.clip(2 - 2 * (x_ND @ x_ND.T), 0, None)
    pairs = np.triu_indices(len(x_ND), 1)
    return float(np.log(np.exp(-2 * squared_distance_NN[pairs]).mean()))


def interval(found: np.ndarray, resamples: int = 1000, seed: int = 0) -> dict[str, tuple[float, float]]:
    """95 % intervals by the percentile bootstrap over queries; the gallery stays as it is."""
    found = found[np.isfinite(found)]
    if not len(found):
        return {name: (float("nan"), float("nan")) for name in metrics(found)}
    rng = np.random.default_rng(seed)
    drawn: list[dict[str, Any]] = [
        metrics(found[rng.integers(0, len(found), len(found))]) for _ in range(resamples)
    ]
    limits = {name: np.quantile([d[name] for d in drawn], [0.025, 0.975]) for name in drawn[0]}
    return {name: (float(low), float(high)) for name, (low, high) in limits.items()}
