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
    drawn = draw(rows, metrics, resamples, seed)
    return {name: interval(metric(rows), drawn[name]) for name, metric in metrics.items()}


def draw(
    rows: ScoredRows, metrics: Mapping[str, Metric], resamples: int, seed: int = 0
) -> dict[str, np.ndarray]:
    """Return each metric in every sample of the rows, with replacement.

    With one seed, two scorings of the same rows get the same samples, so their differences are paired.
    """
    rng = np.random.default_rng(seed)
    drawn = {name: np.empty(resamples) for name in metrics}
    for resample in range(resamples):
        sample = rows.take(rng.integers(0, len(rows), len(rows)))
        for name, metric in metrics.items():
            drawn[name][resample] = metric(sample)
    return drawn


def interval(value: float, drawn: np.ndarray) -> Score:
    """Return a value with the interval that its values in bootstrap samples give."""
    # A sample may have rows of one class only, for which some metrics are not defined.
    finite = drawn[np.isfinite(drawn)]
    low, high = np.quantile(finite if len(finite) else [NOT_DEFINED], QUANTILES)
    return Score(float(value), float(low), float(high))
