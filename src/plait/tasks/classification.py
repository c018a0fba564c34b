"""Predict one of several classes: sigmoid for two, softmax for more. B rows, D width, C classes."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from plait.errors import TrainingError, count
from plait.modalities.base import Match
from plait.nn.layers import glorot
from plait.table.json import JSON, read_as
from plait.table.problems import Problem
from plait.table.table import Source
from plait.table.values import distinct
from plait.tasks.base import TaskOptions, masked_mean
from plait.tasks.base_prediction import Prediction, mean_of_sigmoid, mean_of_softmax
from plait.tasks.predicting.metrics import (
    ClassRows,
    accuracy,
    balanced_accuracy,
    f1_macro,
    log_loss,
    roc_auc,
)

UNSEEN = -1  # the index of a class that training rows lack

Label: TypeAlias = bool | int | float | str


class Config(TaskOptions):
    """`class_weights: balanced` weighs a class by the inverse of its frequency. A row's mean weight is 1."""

    class_weights: Literal["none", "balanced"] = Field(
        "none", description="weigh all rows alike, or rare classes more"
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="probability that the label shares among all classes"
    )


class Classification(Prediction):
    """Predict a class from a fused vector.

    Two classes have one logit, that of the second class in sorted order. More classes have one logit each.
    """

    options = Config
    may_stratify = True
    metrics = {
        "accuracy": accuracy,
        "balanced_accuracy": balanced_accuracy,
        "f1_macro": f1_macro,
        "log_loss": log_loss,
    }
    score = "accuracy"
    higher = True
    logits = True

    def __init__(
        self, classes: list[Label], counts: list[int], class_weights: str, label_smoothing: float
    ) -> None:
        super().__init__()
        self.classes = classes
        self.counts = counts
        self.label_smoothing = label_smoothing
        self.config = Config(class_weights=class_weights, label_smoothing=label_smoothing)
        if len(classes) == 2:
            self.metrics = {**self.metrics, "roc_auc": roc_auc}

        # Counts are in the state already, so the weights need not be saved.
        weight_C = _balanced_weights(counts) if class_weights == "balanced" else None
        self.weight_C: Tensor | None
        self.register_buffer("weight_C", weight_C, persistent=False)

    @classmethod
    def matches(cls, cells: pa.ChunkedArray) -> Match | None:
        """Match strings and truth values, and whole numbers that repeat often."""
        kind = cells.type
        if pa.types.is_nested(kind) or pa.types.is_temporal(kind) or pa.types.is_binary(kind):
            return None
        different = distinct(_plain(_readable(cells)))
        if not _is_number(kind):
            return Match(0.9, f"{count(different, 'different value')}, not numbers")

        # Few whole numbers are codes of classes. Many are amounts, for a regression.
        is_few = different <= min(20, max(2, len(cells) // 5))
        is_whole = pa.types.is_integer(kind) or (len(cells) > 0 and _are_whole(cells))
        if is_few and is_whole:
            return Match(0.8, f"only {count(different, 'different whole number')}")
        return None

    @classmethod
    def fit(cls, config: Config, cells: pa.ChunkedArray, name: str) -> Classification:
        """Count the classes of the training rows.

        Raises `TrainingError` if there are fewer than two, or so many that they hardly repeat.
        """
        labels = _plain_labels(cells, name).drop_null()
        counts = {}
        for entry in pc.value_counts(labels).to_pylist():
            counts[entry["values"]] = entry["counts"]
        classes = sorted(counts)
        if len(classes) < 2:
            present = f"only one class, {classes[0]!r}" if classes else "no labels at all"
            raise TrainingError(
                f"target '{name}': expected two or more classes in the training rows, found {present}"
            )

        rows = sum(counts.values())
        if len(classes) > max(20, rows / 2):
            raise TrainingError(
                f"target '{name}': expected classes that repeat, found {len(classes):,} different values in "
                f"{count(rows, 'training row')}; for numbers use --set tasks.{name}=regression"
            )
        class_counts = [counts[label] for label in classes]
        return cls(classes, class_counts, config.class_weights, config.label_smoothing)

    def build_head(self, width: int) -> None:
        """Make a linear layer with one logit for two classes, and one for each of more classes."""
        logits = 1 if len(self.classes) == 2 else len(self.classes)
        self.head = nn.Linear(width, logits)
        glorot(self.head)

    def encode(self, cells: pa.ChunkedArray, source: Source) -> tuple[Tensor, Tensor, list[Problem]]:
        """Return class indices (B,), which rows have one, and the cells that are none of the classes.

        These have the index `UNSEEN`.
        """
        labels = _plain_labels(_readable(cells), source.column)
        classes = pa.array(self.classes)
        try:
            labels = pc.cast(labels, classes.type)
        except pa.ArrowInvalid:
            # The training rows have numbers, and these rows have words.
            labels = pc.cast(labels, pa.string())
            classes = pc.cast(classes, pa.string())

        index = pc.fill_null(pc.index_in(labels, classes), UNSEEN)
        index_B = index.to_numpy(zero_copy_only=False).astype(np.int64)
        has_cell_B = pc.is_valid(cells).to_numpy(zero_copy_only=False)
        is_unseen_B = has_cell_B & (index_B == UNSEEN)
        index_B[~has_cell_B] = 0

        problems = []
        for row in np.flatnonzero(is_unseen_B).tolist():
            reason = f"class {cells[row].as_py()!r} is not among the {len(self.classes)} of training"
            problems.append(Problem(row, source.column, "", reason))
        return torch.from_numpy(index_B), torch.from_numpy(has_cell_B & ~is_unseen_B), problems

    def forward(self, fused_BD: Tensor) -> Tensor:
        """Return logits divided by the temperature, (B, 1) for two classes and else (B, C)."""
        logits = self.head(fused_BD).float()
        return logits / self.temperature

    def loss(self, output: Tensor, target: Tensor, labelled_B: Tensor) -> Tensor:
        """Return the mean cross-entropy, with label smoothing and class weights if the options say so."""
        smoothing = self.label_smoothing
        target = target.clamp(min=0)  # unseen classes are not labelled
        if output.shape[1] == 1:
            smooth_B = target.to(output.dtype) * (1 - smoothing) + smoothing / 2
            loss_B = F.binary_cross_entropy_with_logits(output[:, 0], smooth_B, reduction="none")
        else:
            loss_B = F.cross_entropy(output, target, reduction="none", label_smoothing=smoothing)
        if self.weight_C is not None:
            # Validation rows stay on the CPU, wherever the model is.
            loss_B = loss_B * self.weight_C.to(output.device)[target]
        return masked_mean(loss_B, labelled_B)

    def probabilities(self, output: Tensor) -> Tensor:
        """Return probabilities (B, C); each row adds up to one."""
        if output.shape[1] == 1:
            return torch.cat([(-output).sigmoid(), output.sigmoid()], 1)
        return output.softmax(1)

    def pseudo(self, output: Tensor, sure: float) -> tuple[Tensor, Tensor]:
        """Return the likeliest classes, and True where their probability is at least `sure`."""
        p_B, answer_B = self.probabilities(output).max(1)
        return answer_B, p_B >= sure

    def answers(self, output: Tensor) -> dict[str, pa.Array]:
        """Return the likeliest class, and the probability of each class."""
        p_BC = self.probabilities(output).numpy()
        likeliest_B = pa.array(p_BC.argmax(1))
        columns = {"": pa.array(self.classes).take(likeliest_B)}
        for index, label in enumerate(self.classes):
            columns[f"probability_{label}"] = pa.array(p_BC[:, index])
        return columns

    def scorable(self, target: Tensor, labelled_B: Tensor) -> Tensor:
        """Return the rows that have a label. One of a class that training lacks makes any answer wrong."""
        return labelled_B | (target == UNSEEN)

    def score_rows(self, output: np.ndarray, target: np.ndarray) -> ClassRows:
        """Compare the probabilities of logits (B, C) with the indices of the classes (B,)."""
        p_BC = self.probabilities(torch.from_numpy(output))
        return ClassRows.of(p_BC.numpy(), target)

    def baseline(self, target: Tensor) -> Tensor:
        """Return the logits of the classes' frequencies among these labels, whatever the class weights."""
        count_C = torch.bincount(target, minlength=len(self.classes))
        return _logits(count_C.float())

    def baseline_output(self) -> Tensor:
        """Return the logits of the classes' frequencies in training."""
        return _logits(torch.tensor(self.counts, dtype=torch.float32))

    def mix(self, outputs: Tensor, weights: Tensor) -> Tensor:
        """Return the logits of the weighted mean of probabilities."""
        if len(self.classes) == 2:
            return mean_of_sigmoid(outputs, weights)
        return mean_of_softmax(outputs, weights)

    def boosting(self, target: Tensor) -> list[tuple[JSON, Tensor]]:
        """Return one booster, whose raw scores are logits."""
        if len(self.classes) == 2:
            return [({"objective": "binary"}, target)]
        multiclass: JSON = {"objective": "multiclass", "num_class": len(self.classes)}
        return [(multiclass, target)]

    def label_numbers(self, target: Tensor) -> Tensor:
        """Return 1 for the label's class and 0 for the others, (B, C), or (B, 1) for two classes."""
        is_class_BC = F.one_hot(target, len(self.classes)).float()
        return is_class_BC[:, 1:] if len(self.classes) == 2 else is_class_BC

    def state(self) -> JSON:
        """Return the classes and how often each occurs in training."""
        return {"classes": self.classes, "counts": self.counts}

    @classmethod
    def from_state(cls, config: Config, state: JSON) -> Classification:
        """Restore the task from its classes and counts; the head is still to be built."""
        classes = read_as(list[Label], state["classes"])
        counts = read_as(list[int], state["counts"])
        if not classes or len(classes) != len(counts) or len(set(classes)) != len(classes) or min(counts) < 0:
            raise ValueError(f"{len(classes)} classes do not go with {len(counts)} counts")
        return cls(classes, counts, config.class_weights, config.label_smoothing)


component = Classification


def _balanced_weights(counts: list[int]) -> Tensor:
    """Return a weight for each class, (C,), so that all classes weigh the same in a sum over rows."""
    count_C = torch.tensor(counts, dtype=torch.float32)
    rows = count_C.sum()
    return rows / (len(counts) * count_C.clamp(min=1))


def _logits(count_C: Tensor) -> Tensor:
    """Return the logits of classes with these counts: (C,), or (1,) for two classes."""
    positive_C = count_C.clamp(min=1e-6)  # a class without rows would have a logit of minus infinity
    log_p_C = (positive_C / positive_C.sum()).log()
    if len(log_p_C) == 2:
        return log_p_C[1:] - log_p_C[:1]
    return log_p_C


def _plain_labels(cells: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Return the labels of the target `name` as they can be written as JSON.

    Raises `TrainingError` if the column's type cannot be turned into labels.
    """
    try:
        return _plain(cells)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise TrainingError(
            f"target '{name}': expected words or numbers for a classification, the column holds {cells.type}"
        ) from error


def _plain(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return labels in a type that JSON can hold: strings, whole numbers or truth values.

    Floating numbers that are all whole become integers; a NaN or an infinity becomes null. Numbers become
    strings if one of them does not fit into 64 bits.
    """
    cells = _without_dictionary(cells)
    kind = cells.type
    if pa.types.is_integer(kind):
        return _integers(cells)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        is_finite = pc.is_finite(pc.cast(cells, pa.float64()))
        finite = pc.if_else(is_finite, cells, None)
        return _integers(finite) if _are_whole(finite) else pc.cast(finite, pa.string())
    if pa.types.is_boolean(kind) or pa.types.is_string(kind):
        return cells
    return pc.cast(cells, pa.string())


def _is_number(kind: pa.DataType) -> bool:
    """Return whether cells of this type are numbers."""
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def _are_whole(cells: pa.ChunkedArray) -> bool:
    """Return whether all numbers are whole; True if there are none."""
    are_equal = pc.equal(pc.round(cells), cells)
    return pc.all(are_equal).as_py() is not False


def _integers(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return whole numbers as int64, or as strings if one of them does not fit."""
    try:
        return pc.cast(cells, pa.int64())
    except pa.ArrowInvalid:
        return pc.cast(cells, pa.string())


def _readable(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return labels that are bytes as strings, and null for bytes that are not UTF-8.

    Labels of other types stay as they are.
    """
    labels = _without_dictionary(cells)
    if not _is_bytes(labels.type):
        return cells
    texts = [_decoded(label) for label in labels.to_pylist()]
    return pa.chunked_array([pa.array(texts, pa.string())])


def _is_bytes(kind: pa.DataType) -> bool:
    """Return whether cells of this type are bytes."""
    is_sized = pa.types.is_fixed_size_binary(kind)
    return (
        is_sized
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
    )


def _decoded(label: bytes | None) -> str | None:
    """Return the text of a label; None if it is not UTF-8."""
    if label is None:
        return None
    try:
        return label.decode()
    except UnicodeDecodeError:
        return None


def _without_dictionary(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the cells themselves if Arrow stores them as numbers of a dictionary."""
    if pa.types.is_dictionary(cells.type):
        return pc.cast(cells, cells.type.value_type)
    return cells
