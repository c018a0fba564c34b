"""Choose the scale of a target by cross-validating a small model of its inputs on both.

The model is additive: a piecewise linear function of each number. On the standard scale it is a ridge
regression of the target, on the log scale a Tweedie regression with a logarithmic link. N rows, D numbers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from plait.tasks.predicting.scales import BEYOND, MAX_LOG, POWER, TINY

ROWS = 2000  # that the scales are compared on, at most
LEAST_ROWS = 30  # fewer do not tell
FOLDS = 3
PIECES = 8  # of the function of each number
PENALTIES = (0.01, 1.0, 20.0)  # on squared weights, of inputs from 0 to 1 and targets with a mean of 1
STEPS = 15  # of the Tweedie regression, at most
TOLERANCE = 1e-3  # of the outputs, at which it stops
MAX_CHANGE = 3.0  # of a row's working response, in its own mean: else one outlier moves everything

Answer = Callable[[np.ndarray], np.ndarray]  # from numbers (N, D) to answers (N,)
Fit = Callable[[np.ndarray, np.ndarray, float], Answer]  # from numbers, labels and the penalty

CERTAIN = 2.0  # standard errors of a difference that is hardly chance
TOO_MUCH = 1.1  # a ratio that speaks against the log scale even on few rows
SKEWED = 1.0  # skewness from which a target without negative numbers may take the log scale


@dataclass(frozen=True)
class Comparison:
    """The root mean squared error on the log scale in units of that on the standard scale.

    `is_worse` says that the log scale is worse by more than two standard errors of the difference, or by so
    much that a few rows must not decide for it.
    """

    ratio: float
    is_worse: bool
    rows: int


def skewness(y_N: np.ndarray) -> float:
    """Return the third standardised moment of numbers that differ."""
    deviation_N = y_N - y_N.mean()
    return float((deviation_N**3).mean() / (deviation_N**2).mean() ** 1.5)


def may_be_log(y_N: np.ndarray) -> bool:
    """Return whether numbers are skewed, and none is below 0."""
    if len(y_N) < LEAST_ROWS or y_N.min() < 0 or y_N.max() <= 0:
        return False
    y_N = y_N / y_N.max()  # powers of the numbers themselves may be infinite
    return bool(y_N.std() > TINY) and skewness(y_N) >= SKEWED


def compare(x_ND: np.ndarray, y_N: np.ndarray) -> Comparison:
    """Compare both scales by the squared errors of rows that the model was not fitted on.

    `x_ND` has NaN where a number is missing. Errors are in the target's own unit on both scales, so that
    they can be compared. Each scale has the penalty that suits it best.
    """
    order = np.random.default_rng(0).permutation(len(y_N))[:ROWS]
    y = y_N[order] / y_N.max()
    y = y / max(y.mean(), TINY)
    pieces = _pieces(x_ND[order])
    standard_errors = _least([_held_out_errors(_ridge, pieces, y, penalty) for penalty in PENALTIES])
    log_errors = _least([_held_out_errors(_tweedie, pieces, y, penalty) for penalty in PENALTIES])

    difference = log_errors - standard_errors
    standard_error = difference.std() / np.sqrt(len(y))
    ratio = np.sqrt(log_errors.mean() / max(standard_errors.mean(), 1e-300))
    is_worse = ratio > TOO_MUCH or difference.mean() > CERTAIN * standard_error
    return Comparison(float(ratio), bool(is_worse), len(y))


def _least(errors: list[np.ndarray]) -> np.ndarray:
    """Return the errors of the least mean."""
    return min(errors, key=lambda squared_N: float(squared_N.mean()))


def _held_out_errors(fit: Fit, x_ND: np.ndarray, y_N: np.ndarray, penalty: float) -> np.ndarray:
    """Return the squared error of each row, by a model of the other folds: (N,)."""
    fold_N = np.arange(len(y_N)) % FOLDS
    errors = np.zeros(len(y_N))
    for fold in range(FOLDS):
        train, held_out = fold_N != fold, fold_N == fold
        answer = fit(x_ND[train], y_N[train], penalty)(x_ND[held_out])
        errors[held_out] = (answer - y_N[held_out]) ** 2
    return errors


def _pieces(x_ND: np.ndarray) -> np.ndarray:
    """Return for each number how far it is on each piece of its range, from 0 to 1: (N, pieces).

    Pieces have as many rows each. A missing number counts as the median, and has a column of its own.
    """
    columns = []
    for x in x_ND.T / 4:  # the difference of two numbers may be infinite, that of their fourths is not
        is_present = np.isfinite(x)
        present = x[is_present]
        if not len(present):
            continue
        edges = np.unique(np.quantile(present, np.linspace(0, 1, PIECES + 1), method="lower"))
        filled = np.where(is_present, x, np.median(present))
        for low, high in itertools.pairwise(edges):
            columns.append(np.clip((filled - low) / (high - low), 0, 1))
        if not is_present.all():
            columns.append(~is_present)
    return np.stack(columns, 1).astype(np.float64) if columns else np.zeros((len(x_ND), 0))


def _ridge(x_ND: np.ndarray, y_N: np.ndarray, penalty: float) -> Answer:
    """Fit a ridge regression. No answer is below 0."""
    weight, bias = _weighted_ridge(x_ND, y_N, np.ones(len(y_N)), penalty)
    return lambda x_ND: np.maximum(x_ND @ weight + bias, 0)


def _tweedie(x_ND: np.ndarray, y_N: np.ndarray, penalty: float) -> Answer:
    """Fit a Tweedie regression with a logarithmic link. No answer is more than twice the largest label.

    It is fitted by iteratively reweighted least squares (Nelder & Wedderburn 1972).
    """
    max_output = np.log(max(y_N.max(), TINY)) + BEYOND
    output = np.full(len(y_N), np.log(max(y_N.mean(), TINY)))
    for _ in range(STEPS):
        mean = np.exp(output)
        change = np.clip((y_N - mean) / mean, -MAX_CHANGE, MAX_CHANGE)
        weight, bias = _weighted_ridge(x_ND, output + change, mean ** (2 - POWER), penalty)
        previous, output = output, np.clip(x_ND @ weight + bias, -MAX_LOG, max_output)
        if np.abs(output - previous).max() < TOLERANCE:
            break
    return lambda x_ND: np.exp(np.clip(x_ND @ weight + bias, -MAX_LOG, max_output))


def _weighted_ridge(
    x_ND: np.ndarray, y_N: np.ndarray, weight_N: np.ndarray, penalty: float
) -> tuple[np.ndarray, float]:
    """Return the weights and the bias of a ridge regression on weighted rows."""
    x_mean = np.average(x_ND, axis=0, weights=weight_N)
    y_mean = np.average(y_N, weights=weight_N)
    centred = x_ND - x_mean
    gram = (centred * weight_N[:, None]).T @ centred + penalty * np.eye(x_ND.shape[1])
    weight = np.linalg.solve(gram, centred.T @ (weight_N * (y_N - y_mean)))
    return weight, float(y_mean - x_mean @ weight)
