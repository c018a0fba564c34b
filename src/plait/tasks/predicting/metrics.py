"""Metrics of classes, labels and numbers. B rows, C classes or labels.

Each is a function of the rows that a task has scored, and returns what scikit-learn's function returns.
The bootstrap calls it a thousand times, so what metrics share is computed once.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from plait.tasks.base_metrics import ScoredRows

SMALLEST = 1e-7  # keeps the logarithm of a probability finite


class Counts(NamedTuple):
    """How often each class is the label, is the answer, and is both: (C,)."""

    labels: np.ndarray
    answers: np.ndarray
    hits: np.ndarray


@dataclass(frozen=True)
class CountedRows(ScoredRows):
    """Rows whose answers are right or wrong.

    `surprise_B` is minus the logarithm of the probability that a row's label got, in nats.
    """

    is_right_B: np.ndarray
    surprise_B: np.ndarray

    @property
    @abstractmethod
    def counts(self) -> Counts:
        """Return how often each class occurs. Several metrics need it."""


@dataclass(frozen=True)
class ClassRows(CountedRows):
    """Rows with one of `classes` classes. Labels and answers are indices of classes.

    A label below 0 is a class that the model does not know, so the answer is wrong. Such rows have no
    probability of their label: metrics of probabilities leave them out.

    `p_last_B` is the probability of the last class: of two classes, the positive one.
    """

    label_B: np.ndarray
    answer_B: np.ndarray
    p_last_B: np.ndarray
    classes: int

    @classmethod
    def of(cls, p_BC: np.ndarray, label_B: np.ndarray) -> ClassRows:
        """Return the rows with these probabilities and labels."""
        answer_B = p_BC.argmax(1)
        p_label_B = p_BC[np.arange(len(label_B)), label_B]
        surprise_B = -np.log(p_label_B.clip(SMALLEST))
        return cls(
            is_right_B=answer_B == label_B,
            surprise_B=np.where(label_B >= 0, surprise_B, np.nan),
            label_B=label_B,
            answer_B=answer_B,
            p_last_B=p_BC[:, -1],
            classes=p_BC.shape[1],
        )

    @cached_property
    def counts(self) -> Counts:
        """Return how often each class is the label, the answer, and both. Unknown ones are one class more."""
        classes = self.classes + 1
        label_B = np.where(self.label_B >= 0, self.label_B, self.classes)
        return Counts(
            labels=np.bincount(label_B, minlength=classes),
            answers=np.bincount(self.answer_B, minlength=classes),
            hits=np.bincount(label_B[self.is_right_B], minlength=classes),
        )


@dataclass(frozen=True)
class LabelRows(CountedRows):
    """Rows with any number of labels: True where a row has it, or is answered with it."""

    label_BC: np.ndarray
    answer_BC: np.ndarray

    @classmethod
    def of(cls, p_BC: np.ndarray, label_BC: np.ndarray, threshold: float) -> LabelRows:
        """Return the rows with these probabilities and labels. The surprise is the mean over labels."""
        answer_BC = p_BC >= threshold
        p_label_BC = np.where(label_BC, p_BC, 1 - p_BC)
        surprise_BC = -np.log(p_label_BC.clip(SMALLEST))
        return cls(
            is_right_B=(answer_BC == label_BC).all(1),
            surprise_B=surprise_BC.mean(1),
            label_BC=label_BC,
            answer_BC=answer_BC,
        )

    @cached_property
    def counts(self) -> Counts:
        """Return how often each label is there, is answered, and both."""
        hit_BC = self.label_BC & self.answer_BC
        return Counts(labels=self.label_BC.sum(0), answers=self.answer_BC.sum(0), hits=hit_BC.sum(0))


@dataclass(frozen=True)
class NumberRows(ScoredRows):
    """Rows whose labels and answers are numbers, in the target's own unit and in float64."""

    label_B: np.ndarray
    answer_B: np.ndarray

    @cached_property
    def error_B(self) -> np.ndarray:
        """Return answers minus labels. All metrics need them."""
        return self.answer_B - self.label_B

    @cached_property
    def squared_error(self) -> float:
        """Return the mean squared error. Several metrics need it."""
        squared_B = self.error_B**2
        return float(squared_B.mean())


def accuracy(rows: CountedRows) -> float:
    """Return the share of rows whose answer is right; of several labels, all of them."""
    return float(rows.is_right_B.mean())


def log_loss(rows: CountedRows) -> float:
    """Return the mean of minus the logarithm of the label's probability, in nats; NaN without any."""
    known_B = rows.surprise_B[~np.isnan(rows.surprise_B)]
    return float(known_B.mean()) if len(known_B) else float("nan")


def balanced_accuracy(rows: CountedRows) -> float:
    """Return the mean over classes of the share of their rows that are answered right."""
    counts = rows.counts
    occurs = counts.labels > 0
    recall = counts.hits[occurs] / counts.labels[occurs]
    return float(recall.mean())


def f1_macro(rows: CountedRows) -> float:
    """Return the mean F1 of the classes that are the label or the answer of a row; 0 if there are none.

    F1 of a class is 2 hits / (labels + answers).
    """
    counts = rows.counts
    total = counts.labels + counts.answers
    occurs = total > 0
    if not occurs.any():
        return 0.0
    f1 = 2 * counts.hits[occurs] / total[occurs]
    return float(f1.mean())


def f1_micro(rows: CountedRows) -> float:
    """Return F1 of all classes together."""
    counts = rows.counts
    total = counts.labels.sum() + counts.answers.sum()
    return float(2 * counts.hits.sum() / max(total, 1))


def roc_auc(rows: ClassRows) -> float:
    """Return the area under the ROC curve of two classes; NaN if one of them does not occur.

    It is the share of pairs of a positive and a negative row in the right order (Mann & Whitney 1947).
    Ties count half. scikit-learn's function builds the whole curve, which takes longer.
    """
    known_B = rows.label_B >= 0
    is_positive_B = rows.label_B[known_B] == 1
    positive = int(is_positive_B.sum())
    negative = len(is_positive_B) - positive
    if not positive or not negative:
        return float("nan")

    # Ranks of positive rows, less those that they would have if all were below the negative rows.
    rank_sum = _ranks(rows.p_last_B[known_B])[is_positive_B].sum()
    ordered_pairs = rank_sum - positive * (positive + 1) / 2
    return float(ordered_pairs / (positive * negative))


def _ranks(x_B: np.ndarray) -> np.ndarray:
    """Return each number's place in ascending order, from 1. Equal numbers share the mean of their places.

    This is SciPy's `rankdata`, which takes longer to import than a small model to predict.
    """
    _, inverse_B, count_V = np.unique(x_B, return_inverse=True, return_counts=True)
    last_V = np.cumsum(count_V)
    mean_V = last_V - (count_V - 1) / 2
    return mean_V[inverse_B]


def rmse(rows: NumberRows) -> float:
    """Return the square root of the mean squared error."""
    return rows.squared_error**0.5


def mae(rows: NumberRows) -> float:
    """Return the mean absolute error."""
    return float(np.abs(rows.error_B).mean())


def r2(rows: NumberRows) -> float:
    """Return the share of the labels' variance that is explained; NaN if all labels are the same."""
    variance = float(rows.label_B.var())
    if variance == 0:
        return float("nan")
    return 1 - rows.squared_error / variance
