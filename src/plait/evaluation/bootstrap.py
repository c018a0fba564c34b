"""Metrics with intervals, by the bootstrap over rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from plait.tasks.base_metrics import Metric, ScoredRows

QUANTILES = (0.025, 0.975)
NOT_DEFINED = float("nan")


@dataclass(frozen=True)
class Score:
    """A metric and its 95 % interval by the percentile bootstrap over rows (Efron 1979). NaN where it
    is not defined.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f}  [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(
    rows: ScoredRows, metrics: Mapping[str, Metric], resamples: int, seed: int = 0
) -> dict[str, Score]:
    """Return each metric with its 2.5 % and 97.5 % quantiles over samples of the rows, with replacement."""
    if not len(rows):
        return dict.fromkeys(metrics, Score(NOT_DEFINED, NOT_DEFINED, NOT_DEFINED))
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {name: [] for name in metrics}
    for _ in range(resamples):
        sample = rows.take(rng.integers(0, len(rows), len(rows)))
        for name, metric in metrics.items():
            drawn[name].append(metric(sample))

    scores = {}
    for name, metric in metrics.items():
        finite = [value for value in drawn[name] if np.isfinite(value)] or [NOT_DEFINED]
        low, high = np.quantile(finite, QUANTILES)
        scores[name] = Score(float(metric(rows)), float(low), float(high))
    return scores
