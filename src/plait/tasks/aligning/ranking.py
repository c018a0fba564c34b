"""How well vectors find what belongs to them: ranks, recall, and what a space of vectors looks like. Q
queries, G gallery, D width.
"""

from __future__ import annotations

import numpy as np
import torch

from plait.tasks.aligning.losses import same

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
    """The same, expected of a ranking by lot, for queries with so many positives each: that none is
    among the first k has probability C(gallery - p, k) / C(gallery, k). The median is that of all
    queries' ranks together.
    """
    numbers, counts = np.unique(positives[positives > 0], return_counts=True)
    if not len(numbers):
        return metrics(np.zeros(0))
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


def interval(found: np.ndarray, resamples: int = 1000, seed: int = 0) -> dict[str, tuple[float, float]]:
    """95 % intervals by the percentile bootstrap over queries; the gallery stays as it is."""
    found = found[np.isfinite(found)]
    if not len(found):
        return {name: (float("nan"), float("nan")) for name in metrics(found)}
    rng = np.random.default_rng(seed)
    drawn = [metrics(found[rng.integers(0, len(found), len(found))]) for _ in range(resamples)]
    limits = {name: np.quantile([d[name] for d in drawn], [0.025, 0.975]) for name in drawn[0]}
    return {name: (float(low), float(high)) for name, (low, high) in limits.items()}
