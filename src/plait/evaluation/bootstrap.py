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
    """A metric and its 95 % interval, by the percentile bootstrap over rows (Efron 1979).

    All are NaN where the metric is not defined.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f}  [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(
    rows: ScoredRows, metrics: Mapping[str, Metric], resamples: int, seed: int = 0
) -> dict[str, Score]:
    """Return each metric with its 2.5 % and 97.5 % quantiles over samples of the rows, with replacement.

    All metrics see the same samples. A sample in which a metric is not defined does not count for it.
    """
    if not len(rows):
        return dict.fromkeys(metrics, Score(NOT_DEFINED, NOT_DEFINED, NOT_DEFINED))
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {name: [] for name in metrics}
    for _ in range(resamples):
        numbers = rng.integers(0, len(rows), len(rows))
        sample = rows.take(numbers)
        for name, metric in metrics.items():
            drawn[name].append(metric(sample))

    scores = {}
    for name, metric in metrics.items():
        # A sample may have rows of one class only, for which some metrics are not defined.
        finite = [score for score in drawn[name] if np.isfinite(score)]
        low, high = np.quantile(finite or [NOT_DEFINED], QUANTILES)
        scores[name] = Score(float(metric(rows)), float(low), float(high))
    return scores
