"""Any number of labels at once: one sigmoid for each."""

from __future__ import annotations

from collections import Counter
from typing import Any

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
from plait.table.problems import Problem
from plait.table.table import Source
from plait.table.values import is_text
from plait.tasks.base import TaskOptions, masked_mean
from plait.tasks.base_prediction import Prediction, mean_of_sigmoid
from plait.tasks.predicting.metrics import LabelRows, accuracy, f1_macro, f1_micro, log_loss


class Config(TaskOptions):
    """A label is answered from `threshold` on. `separator` splits labels in a column of strings, as in
    `red|large`.
    """

    threshold: float = Field(0.5, gt=0, lt=1)
    separator: str = Field("|", min_length=1)


class Multilabel(Prediction):
    """Cells are lists of labels, or strings with a separator. An empty list means "none of them"; null
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
        kind = cells.type
        if (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and (
            pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type)
        ):
            return Match(1.0, "lists of labels")
        return None

    @classmethod
    def fit(cls, config: Config, cells: pa.ChunkedArray, name: str) -> Multilabel:
        rows = [set(row) for row in _lists(cells, config.separator) if row is not None]
        counts = Counter(label for row in rows for label in row)
        if not counts:
            raise TrainingError(
                f"target '{name}': expected lists of labels in the training rows, found no label at all"
            )
        labels = sorted(counts)
        return cls(config, labels, [counts[label] / len(rows) for label in labels])

    def build_head(self, width: int) -> None:
        self.head = nn.Linear(width, len(self.labels))
        glorot(self.head)

    def encode(self, cells: pa.ChunkedArray, source: Source) -> tuple[Tensor, Tensor, list[Problem]]:
        index = {label: i for i, label in enumerate(self.labels)}
        target = torch.zeros(len(cells), len(self.labels))
        labelled = torch.zeros(len(cells), dtype=torch.bool)
        problems = []
        for row, labels in enumerate(_lists(cells, self.config.separator)):
            if labels is None:
                continue
            labelled[row] = True
            for label in labels:
                if label in index:
                    target[row, index[label]] = 1
                else:
                    problems.append(
                        Problem(
                            row,
                            source.column,
                            "",
                            f"label {label!r} is not among the {len(index)} of training",
                        )
                    )
        return target, labelled, problems

    def forward(self, fused_BD: Tensor) -> Tensor:
        return self.head(fused_BD).float() / self.temperature

    def loss(self, output: Tensor, target: Tensor, labelled_B: Tensor) -> Tensor:
        return masked_mean(
            F.binary_cross_entropy_with_logits(output, target, reduction="none").mean(1), labelled_B
        )

    def pseudo(self, output: Tensor, sure: float) -> tuple[Tensor, Tensor]:
        p_BC = output.sigmoid()
        return (p_BC >= 0.5).to(output.dtype), (torch.maximum(p_BC, 1 - p_BC) >= sure).all(1)

    def answers(self, output: Tensor) -> dict[str, pa.Array]:
        p_BC = output.sigmoid().numpy()
        chosen = [
            [label for label, p in zip(self.labels, row, strict=True) if p >= self.config.threshold]
            for row in p_BC
        ]
        return {
            "": pa.array(chosen, pa.list_(pa.string())),
            **{f"probability_{c}": pa.array(p_BC[:, i]) for i, c in enumerate(self.labels)},
        }

    def score_rows(self, output: np.ndarray, target: np.ndarray) -> LabelRows:
        p_BC = 1 / (1 + np.exp(-output.astype(np.float64)))
        return LabelRows.of(p_BC, target > 0.5, self.config.threshold)

    def baseline(self, target: Tensor) -> Tensor:
        return target.float().mean(0).clamp(1e-6, 1 - 1e-6).logit()

    def baseline_output(self) -> Tensor:
        return torch.tensor(self.shares).clamp(1e-6, 1 - 1e-6).logit()

    def mix(self, outputs: Tensor, weights: Tensor) -> Tensor:
        return mean_of_sigmoid(outputs, weights)

    def boosting(self, target: Tensor) -> list[tuple[dict[str, Any], Tensor]]:
        return [({"objective": "binary"}, one) for one in target.unbind(1)]

    def state(self) -> dict[str, Any]:
        return {"labels": self.labels, "shares": self.shares}

    @classmethod
    def from_state(cls, config: Config, state: dict[str, Any]) -> Multilabel:
        return cls(config, state["labels"], state["shares"])


component = Multilabel


def _lists(cells: pa.ChunkedArray, separator: str) -> list[list[str] | None]:
    if is_text(cells):
        return [
            None if c is None else [p.strip() for p in c.split(separator) if p.strip()]
            for c in cells.to_pylist()
        ]
    if not (pa.types.is_list(cells.type) or pa.types.is_large_list(cells.type)):
        raise TrainingError(
            f"expected lists of labels or strings with '{separator}', the column holds {cells.type}"
        )
    return pc.cast(cells, pa.list_(pa.string())).to_pylist()
