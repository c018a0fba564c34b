"""Metrics against scikit-learn's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn import metrics

from plait.errors import TrainingError
from plait.table.table import Source
from plait.tasks.base import tasks


def task(name: str, cells: list, **options: object):  # type: ignore[no-untyped-def]
    return tasks.find(name).fit(tasks.configure(name, options), pa.chunked_array([pa.array(cells)]), "y")


def test_classification_metrics_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    output = rng.normal(size=(200, 4)).astype(np.float32)
    target = rng.integers(0, 4, 200)
    scores = task("classification", list("abcd") * 10).measure(output, target)
    p = np.exp(output) / np.exp(output).sum(1, keepdims=True)
    predicted = p.argmax(1)
    assert scores["accuracy"] == pytest.approx(metrics.accuracy_score(target, predicted))
    assert scores["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(target, predicted))
    assert scores["f1_macro"] == pytest.approx(metrics.f1_score(target, predicted, average="macro"))
    assert scores["log_loss"] == pytest.approx(metrics.log_loss(target, p), rel=1e-5)


def test_binary_auc_with_ties_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    output = rng.integers(-3, 4, (300, 1)).astype(np.float32)
    target = rng.integers(0, 2, 300)
    fitted = task("classification", ["no", "yes"] * 10)
    scores = fitted.measure(output, target)
    assert scores["roc_auc"] == pytest.approx(metrics.roc_auc_score(target, output[:, 0]))
    one_class = np.zeros(300, dtype=np.int64)
    assert np.isnan(fitted.measure(output, one_class)["roc_auc"])


def test_regression_metrics_are_in_the_targets_unit() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(50, 10, 100)
    fitted = task("regression", y.tolist())
    mean, std = fitted.labels.mean, fitted.labels.std
    output = ((y + rng.normal(size=100) - mean) / std).astype(np.float32)
    target = ((y - mean) / std).astype(np.float32)
    scores = fitted.measure(output, target)
    answer, true_numbers = output * std + mean, target * std + mean
    assert scores["rmse"] == pytest.approx(metrics.root_mean_squared_error(true_numbers, answer), rel=1e-4)
    assert scores["mae"] == pytest.approx(metrics.mean_absolute_error(true_numbers, answer), rel=1e-4)
    assert scores["r2"] == pytest.approx(metrics.r2_score(true_numbers, answer), rel=1e-4)


def test_multilabel_metrics_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    fitted = task("multilabel", [["a", "b", "c"], ["a"]])
    output = rng.normal(size=(100, 3)).astype(np.float32)
    target = rng.integers(0, 2, (100, 3)).astype(np.float32)
    scores = fitted.measure(output, target)
    assert scores["f1_micro"] == pytest.approx(metrics.f1_score(target, output > 0, average="micro"))
    assert scores["f1_macro"] == pytest.approx(metrics.f1_score(target, output > 0, average="macro"))
    assert scores["exact_match"] == pytest.approx(metrics.accuracy_score(target, output > 0))


def test_class_weights_are_inverse_frequencies() -> None:
    fitted = task("classification", ["a"] * 30 + ["b"] * 10, class_weights="balanced")
    assert fitted.weight_C.tolist() == pytest.approx([40 / 60, 2.0])


def test_class_weights_leave_the_baseline_as_it_is() -> None:
    labels = ["a"] * 30 + ["b"] * 10
    fitted = task("classification", labels, class_weights="balanced")
    target, _, _ = fitted.encode(pa.chunked_array([labels]), Source("y", Path()))
    assert fitted.baseline_output().sigmoid().tolist() == pytest.approx([0.25])
    torch.testing.assert_close(fitted.baseline_output(), fitted.baseline(target))


def test_targets_whose_values_do_not_repeat_are_refused() -> None:
    message = "expected classes that repeat, found 50 different values in 50 training rows"
    with pytest.raises(TrainingError, match=message):
        task("classification", [f"w{i}" for i in range(50)])


def test_lists_are_no_classes() -> None:
    with pytest.raises(TrainingError, match="expected words or numbers for a classification"):
        task("classification", [["a"], ["b"]] * 10)


def test_labels_not_seen_in_training_are_named() -> None:
    fitted = task("classification", ["a", "b", "a"])
    _, labelled, problems = fitted.encode(pa.chunked_array([["a", "c", None]]), Source("y", Path()))
    assert labelled.tolist() == [True, False, False]
    assert [(p.row, p.reason) for p in problems] == [(1, "class 'c' is not among the 2 of training")]


def test_a_class_that_training_lacks_counts_as_wrong() -> None:
    """scikit-learn counts it so too. The probability of its label is not known."""
    fitted = task("classification", ["a", "b", "c", "a"])
    labels = ["a", "b", "new", "c", "new", "b", None]
    target, labelled, _ = fitted.encode(pa.chunked_array([labels]), Source("y", Path()))
    assert fitted.scorable(target, labelled).tolist() == [True] * 6 + [False]

    scored = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    answers = [fitted.classes[place] for place in scored.argmax(1)]
    scores = fitted.measure(scored, target[:6].numpy())
    assert scores["accuracy"] == pytest.approx(metrics.accuracy_score(labels[:6], answers))
    assert scores["f1_macro"] == pytest.approx(metrics.f1_score(labels[:6], answers, average="macro"))
    recalls = metrics.recall_score(labels[:6], answers, average=None, labels=["a", "b", "c", "new"])
    assert scores["balanced_accuracy"] == pytest.approx(recalls.mean())
    known = labelled[:6].numpy()
    assert scores["log_loss"] == fitted.measure(scored[known], target[:6].numpy()[known])["log_loss"]

    output = torch.from_numpy(scored)
    loss = fitted.loss(output, target[:6], labelled[:6])
    torch.testing.assert_close(loss, fitted.loss(output[known], target[:6][known], labelled[:6][known]))


def test_two_classes_are_ranked_without_unseen_ones() -> None:
    fitted = task("classification", ["a", "b", "a"])
    logits = np.array([[0.1], [0.3], [0.2], [0.9]], dtype=np.float32)
    assert fitted.measure(logits, np.array([0, 1, 1, -1]))["roc_auc"] == 1.0
    only_unseen = fitted.measure(logits, np.full(4, -1))
    assert only_unseen["accuracy"] == 0
    assert np.isnan([only_unseen["log_loss"], only_unseen["roc_auc"]]).all()
