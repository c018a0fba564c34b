"""Predict several labels at once: one sigmoid for each. B rows, D width, C labels."""

from __future__ import annotations

from collections import Counter

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
from plait.table.json import JSON, read_as
from plait.table.problems import Problem
from plait.table.table import Source
from plait.table.values import is_text
from plait.tasks.base import TaskOptions, masked_mean
from plait.tasks.base_prediction import Prediction, mean_of_sigmoid
from plait.tasks.predicting.metrics import LabelRows, accuracy, f1_macro, f1_micro, log_loss


class Config(TaskOptions):
    """A label is in the answer if its probability is at least `threshold`. `separator` splits the labels in
    a column of strings, as in `red|large`.
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
    metrics = {"f1_micro": f1_micro, "f1_macro": f1_macro, "exact_match": accuracy, "log_loss": log_loss}
    score = "f1_micro"
    higher = True
    logits = True

    def __init__(self, config: Config, labels: list[str], shares: list[float]) -> None:
        super().__init__()
        self.config, self.labels, self.shares = config, labels, shares

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
        for labels in _lists(cells, config.separator):
            if labels is not None:
                rows += 1
                counts.update(set(labels))
        if not counts:
            raise TrainingError(
                f"target '{name}': expected lists of labels in the training rows, found no label at all"
            )
        sorted_labels = sorted(counts)
        return cls(config, sorted_labels, [counts[label] / rows for label in sorted_labels])

    def build_head(self, width: int) -> None:
        """Make a linear layer with one logit a label."""
        self.head = nn.Linear(width, len(self.labels))
        glorot(self.head)

    def encode(self, cells: pa.ChunkedArray, source: Source) -> tuple[Tensor, Tensor, list[Problem]]:
        """Return 1 where a row has a label, (B, C), which rows are labelled, and labels that are new."""
        index = {label: i for i, label in enumerate(self.labels)}
        target = torch.zeros(len(cells), len(self.labels))
        labelled_B = torch.zeros(len(cells), dtype=torch.bool)
        problems = []
        for row, labels in enumerate(_lists(cells, self.config.separator)):
            if labels is None:
                continue
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
        return self.head(fused_BD).float() / self.temperature

    def loss(self, output: Tensor, target: Tensor, labelled_B: Tensor) -> Tensor:
        """Return the mean binary cross-entropy over labels and rows."""
        loss_BC = F.binary_cross_entropy_with_logits(output, target, reduction="none")
        return masked_mean(loss_BC.mean(1), labelled_B)

    def pseudo(self, output: Tensor, sure: float) -> tuple[Tensor, Tensor]:
        """Return the likelier value of each label, and True where all are at least `sure` of it."""
        p_BC = output.sigmoid()
        answer_BC = (p_BC >= 0.5).to(output.dtype)
        is_sure_BC = torch.maximum(p_BC, 1 - p_BC) >= sure
        return answer_BC, is_sure_BC.all(1)

    def answers(self, output: Tensor) -> dict[str, pa.Array]:
        """Return the labels from the threshold on, and the probability of each label."""
        p_BC = output.sigmoid().numpy()
        answers = []
        for p_C in p_BC:
            scored = zip(self.labels, p_C, strict=True)
            answers.append([label for label, p in scored if p >= self.config.threshold])
        columns = {"": pa.array(answers, pa.list_(pa.string()))}
        for index, label in enumerate(self.labels):
            columns[f"probability_{label}"] = pa.array(p_BC[:, index])
        return columns

    def score_rows(self, output: np.ndarray, target: np.ndarray) -> LabelRows:
        """Compare the probabilities of logits (B, C) with the labels, 0 or 1 (B, C)."""
        p_BC = 1 / (1 + np.exp(-output.astype(np.float64)))
        return LabelRows.of(p_BC, target > 0.5, self.config.threshold)

    def baseline(self, target: Tensor) -> Tensor:
        """Return the logits of the labels' frequencies among these rows."""
        return target.float().mean(0).clamp(1e-6, 1 - 1e-6).logit()

    def baseline_output(self) -> Tensor:
        """Return the logits of the labels' frequencies in training."""
        return torch.tensor(self.shares).clamp(1e-6, 1 - 1e-6).logit()

    def mix(self, outputs: Tensor, weights: Tensor) -> Tensor:
        """Return the logits of the weighted mean of probabilities."""
        return mean_of_sigmoid(outputs, weights)

    def boosting(self, target: Tensor) -> list[tuple[JSON, Tensor]]:
        """Return one booster a label."""
        return [({"objective": "binary"}, target_B) for target_B in target.unbind(1)]

    def state(self) -> JSON:
        """Return the labels and the share of training rows that have each."""
        return {"labels": self.labels, "shares": self.shares}

    @classmethod
    def from_state(cls, config: Config, state: JSON) -> Multilabel:
        """Restore the task from its labels and shares; the head is still to be built."""
        return cls(config, read_as(list[str], state["labels"]), read_as(list[float], state["shares"]))


component = Multilabel


def _lists(cells: pa.ChunkedArray, separator: str) -> list[list[str] | None]:
    """Return the labels of each row; None where the cell is null. Raises `TrainingError` for other types."""
    if is_text(cells):
        return [_split(cell, separator) for cell in cells.to_pylist()]
    if not (pa.types.is_list(cells.type) or pa.types.is_large_list(cells.type)):
        raise TrainingError(
            f"expected lists of labels or strings with '{separator}', the column holds {cells.type}"
        )
    return pc.cast(cells, pa.list_(pa.string())).to_pylist()


def _split(cell: str | None, separator: str) -> list[str] | None:
    """Split a string into labels; blanks around them do not count, and empty labels are left out."""
    if cell is None:
        return None
    labels = [label.strip() for label in cell.split(separator)]
    return [label for label in labels if label]
