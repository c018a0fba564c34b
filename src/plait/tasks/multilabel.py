"""Predict several labels at once: one sigmoid for each. B rows, D width, C labels."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from plait.errors import TrainingError
from plait.modalities.base import Match
from plait.nn.layers import glorot
from plait.table.conventions.listing import Listing
from plait.table.conventions.plain import Plain
from plait.table.json import JSON, read_as
from plait.table.problems import Problem
from plait.table.table import Source
from plait.table.values import is_text
from plait.tasks.base import TaskOptions, masked_mean
from plait.tasks.base_prediction import Prediction, mean_of_sigmoid
from plait.tasks.predicting.metrics import LabelRows, accuracy, f1_macro, f1_micro, log_loss


class Config(TaskOptions):
    """A label is in the answer if its probability is at least `threshold`.

    `separator` splits the labels in a column of strings, as in `red|large`.
    """

    threshold: float = Field(
        0.5, gt=0, lt=1, description="probability from which on a label is in the answer"
    )
    separator: str = Field("|", min_length=1, description="between the labels in a column of strings")


class Multilabel(Prediction):
    """Predict labels from a fused vector.

    Cells are lists of labels, or strings with a separator. An empty list means "none of them", and null
    means unlabelled.
    """

    options = Config
    conventions = (Listing, Plain)
    metrics = {"f1_micro": f1_micro, "f1_macro": f1_macro, "exact_match": accuracy, "log_loss": log_loss}
    score = "f1_micro"
    higher = True
    logits = True

    def __init__(self, config: Config, labels: list[str], shares: list[float]) -> None:
        super().__init__()
        self.config = config
        self.labels = labels
        self.shares = shares

    @classmethod
    def matches(cls, cells: pa.ChunkedArray) -> Match | None:
        """Match lists of strings."""
        kind = cells.type
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
            return None
        if not (pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type)):
            return None
        return Match(1.0, "lists of labels")

    @classmethod
    def fit(cls, config: Config, cells: pa.ChunkedArray, name: str) -> Multilabel:
        """Count the labels of the training rows. Raises `TrainingError` if there are none."""
        rows = 0
        counts: Counter[str] = Counter()
        for labels in _lists(cells, config.separator, name):
            if labels is not None:
                rows += 1
                counts.update(set(labels))
        if not counts:
            raise TrainingError(
                f"target '{name}': expected lists of labels in the training rows, found no label at all"
            )
        sorted_labels = sorted(counts)
        shares = [counts[label] / rows for label in sorted_labels]
        return cls(config, sorted_labels, shares)

    def build_head(self, width: int) -> None:
        """Make a linear layer with one logit for each label."""
        self.head = nn.Linear(width, len(self.labels))
        glorot(self.head)

    def encode(self, cells: pa.ChunkedArray, source: Source) -> tuple[Tensor, Tensor, list[Problem]]:
        """Return 1 where a row has a label, (B, C), which rows are labelled, and labels that are new."""
        index = {label: i for i, label in enumerate(self.labels)}
        target = torch.zeros(len(cells), len(index))
        labelled_B = torch.zeros(len(cells), dtype=torch.bool)
        problems = []
        for row, labels in enumerate(_lists(cells, self.config.separator, source.column)):
            if labels is None:
                continue

            # An empty list is labelled too: it has none of the labels.
            labelled_B[row] = True
            for label in labels:
                if label in index:
                    target[row, index[label]] = 1
                else:
                    reason = f"label {label!r} is not among the {len(index)} of training"
                    problems.append(Problem(row, source.column, "", reason))
        return target, labelled_B, problems

    def forward(self, fused_BD: Tensor) -> Tensor:
        """Return logits divided by the temperature, (B, C)."""
        logits = self.head(fused_BD).float()
        return logits / self.temperature

    def loss(self, output: Tensor, target: Tensor, labelled_B: Tensor) -> Tensor:
        """Return the mean binary cross-entropy over labels and rows."""
        loss_BC = F.binary_cross_entropy_with_logits(output, target, reduction="none")
        loss_B = loss_BC.mean(1)
        return masked_mean(loss_B, labelled_B)

    def pseudo(self, output: Tensor, sure: float) -> tuple[Tensor, Tensor]:
        """Return the likelier value of each label, and True where all their probabilities reach `sure`."""
        p_BC = output.sigmoid()
        answer_BC = (p_BC >= 0.5).to(output.dtype)
        is_sure_BC = torch.maximum(p_BC, 1 - p_BC) >= sure
        return answer_BC, is_sure_BC.all(1)

    def answers(self, output: Tensor) -> dict[str, pa.Array]:
        """Return the labels whose probability reaches the threshold, and the probability of each label."""
        p_BC = output.sigmoid().numpy()
        threshold = self.config.threshold
        answers = []
        for p_C in p_BC:
            scored = zip(self.labels, p_C, strict=True)
            answers.append([label for label, p in scored if p >= threshold])
        columns = {"": pa.array(answers, pa.list_(pa.string()))}
        for index, label in enumerate(self.labels):
            columns[f"probability_{label}"] = pa.array(p_BC[:, index])
        return columns

    def score_rows(self, output: np.ndarray, target: np.ndarray) -> LabelRows:
        """Compare the probabilities of logits (B, C) with the labels, 0 or 1 (B, C)."""
        logits_BC = output.astype(np.float64)
        p_BC = 1 / (1 + np.exp(-logits_BC))
        label_BC = target > 0.5
        return LabelRows.of(p_BC, label_BC, self.config.threshold)

    def baseline(self, target: Tensor) -> Tensor:
        """Return the logits of the labels' frequencies among these rows."""
        share_C = target.float().mean(0)
        return _logits(share_C)

    def baseline_output(self) -> Tensor:
        """Return the logits of the labels' frequencies in training."""
        return _logits(torch.tensor(self.shares))

    def mix(self, outputs: Tensor, weights: Tensor) -> Tensor:
        """Return the logits of the weighted mean of probabilities."""
        return mean_of_sigmoid(outputs, weights)

    def boosting(self, target: Tensor) -> list[tuple[JSON, Tensor]]:
        """Return one booster for each label."""
        return [({"objective": "binary"}, target_B) for target_B in target.unbind(1)]

    def state(self) -> JSON:
        """Return the labels and the share of training rows that have each."""
        return {"labels": self.labels, "shares": self.shares}

    @classmethod
    def from_state(cls, config: Config, state: JSON) -> Multilabel:
        """Restore the task from its labels and shares; the head is still to be built."""
        labels = read_as(list[str], state["labels"])
        shares = read_as(list[float], state["shares"])
        if not labels or len(labels) != len(shares) or len(set(labels)) != len(labels):
            raise ValueError(f"{len(labels)} labels do not go with {len(shares)} shares")
        if not all(0 <= share <= 1 for share in shares):
            raise ValueError("a share is not between 0 and 1")
        return cls(config, labels, shares)


component = Multilabel


def _logits(share_C: Tensor) -> Tensor:
    """Return the logits of labels that this share of the rows has. A share of 0 or 1 stays finite."""
    return share_C.clamp(1e-6, 1 - 1e-6).logit()


def _lists(cells: pa.ChunkedArray, separator: str, name: str) -> list[list[str] | None]:
    """Return the labels of each row of the target `name`; None where the cell is null.

    Raises `TrainingError` if the cells are neither strings nor lists of what can be read as strings.
    """
    if is_text(cells):
        return [_split(cell, separator) for cell in cells.to_pylist()]
    if pa.types.is_list(cells.type) or pa.types.is_large_list(cells.type):
        # Lists may hold what Arrow cannot turn into strings: other lists, or bytes that are not UTF-8.
        with suppress(pa.ArrowInvalid, pa.ArrowNotImplementedError):
            lists = pc.cast(cells, pa.list_(pa.string())).to_pylist()
            return [_filled(labels) for labels in lists]
    raise TrainingError(
        f"target '{name}': expected lists of labels or strings with '{separator}', "
        f"the column holds {cells.type}"
    )


def _filled(labels: list[str | None] | None) -> list[str] | None:
    """Leave out the nulls and the empty strings of a list: they name no label."""
    return None if labels is None else [label for label in labels if label]


def _split(cell: str | None, separator: str) -> list[str] | None:
    """Split a string into labels; blanks around them do not count, and empty labels are left out."""
    if cell is None:
        return None
    return _filled([label.strip() for label in cell.split(separator)])
