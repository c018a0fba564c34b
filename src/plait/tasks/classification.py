"""One of several classes: sigmoid for two, softmax for more."""

from __future__ import annotations

from typing import Any, Literal

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


class Config(TaskOptions):
    """`class_weights: balanced` weighs a class by the inverse of its frequency (mean weight of a row: 1)."""

    class_weights: Literal["none", "balanced"] = "none"
    label_smoothing: float = Field(0.0, ge=0, lt=1)


class Classification(Prediction):
    """Two classes have one logit, of the second class in sorted order; more have one each."""

    options = Config
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
        self, classes: list[Any], counts: list[int], class_weights: str, label_smoothing: float
    ) -> None:
        super().__init__()
        self.classes, self.counts, self.label_smoothing = classes, counts, label_smoothing
        if len(classes) == 2:
            self.metrics = {**self.metrics, "roc_auc": roc_auc}
        self.config = Config(class_weights=class_weights, label_smoothing=label_smoothing)
        count_C = torch.tensor(counts, dtype=torch.float32)
        weight_C = count_C.sum() / (len(counts) * count_C.clamp(min=1))
        self.weight_C: Tensor | None
        self.register_buffer("weight_C", weight_C if class_weights == "balanced" else None, persistent=False)

    @classmethod
    def matches(cls, cells: pa.ChunkedArray) -> Match | None:
        kind, different = cells.type, distinct(_plain(cells)) if not pa.types.is_nested(cells.type) else 0
        if pa.types.is_nested(kind) or pa.types.is_temporal(kind) or pa.types.is_binary(kind):
            return None
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
            return Match(0.9, f"{different} different values that are no numbers")
        whole = pa.types.is_integer(kind) or bool(pc.all(pc.equal(pc.round(cells), cells)).as_py())
        if whole and different <= min(20, max(2, len(cells) // 5)):
            return Match(0.8, f"only {different} different whole numbers")
        return None

    @classmethod
    def fit(cls, config: Config, cells: pa.ChunkedArray, name: str) -> Classification:
        plain = _plain_labels(cells, name)
        counted = {c["values"]: c["counts"] for c in pc.value_counts(plain.drop_null()).to_pylist()}
        classes = sorted(counted)
        if len(classes) < 2:
            what = f"only one class, {classes[0]!r}" if classes else "no labels at all"
            raise TrainingError(
                f"target '{name}': expected two or more classes in the training rows, found {what}"
            )
        rows = sum(counted.values())
        if len(classes) > max(20, rows / 2):
            raise TrainingError(
                f"target '{name}': expected classes that repeat, found {len(classes):,} different values in "
                f"{rows:,} training rows; "
                f"for numbers use --set tasks.{name}=regression"
            )
        return cls(classes, [counted[c] for c in classes], config.class_weights, config.label_smoothing)

    def build_head(self, width: int) -> None:
        self.head = nn.Linear(width, 1 if len(self.classes) == 2 else len(self.classes))
        glorot(self.head)

    def encode(self, cells: pa.ChunkedArray, source: Source) -> tuple[Tensor, Tensor, list[Problem]]:
        plain = _plain_labels(cells, source.column)
        known = pa.array(self.classes)
        try:
            plain = pc.cast(plain, known.type)
        except pa.ArrowInvalid:  # numbers in training, words here
            plain, known = pc.cast(plain, pa.string()), pc.cast(known, pa.string())
        found = pc.index_in(plain, known)
        given = pc.is_valid(cells).to_numpy(zero_copy_only=False)
        index = pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)
        index[~given] = -1
        problems = [
            Problem(
                int(row),
                source.column,
                "",
                f"class {cells[int(row)].as_py()!r} is not among the {len(self.classes)} of training",
            )
            for row in np.flatnonzero(given & (index < 0))
        ]
        target = torch.from_numpy(index)
        return target.clamp(min=0), target >= 0, problems

    def forward(self, fused_BD: Tensor) -> Tensor:
        return self.head(fused_BD).float() / self.temperature

    def loss(self, output: Tensor, target: Tensor, labelled_B: Tensor) -> Tensor:
        if output.shape[1] == 1:
            wanted = target.to(output.dtype) * (1 - self.label_smoothing) + self.label_smoothing / 2
            loss_B = F.binary_cross_entropy_with_logits(output[:, 0], wanted, reduction="none")
        else:
            loss_B = F.cross_entropy(output, target, reduction="none", label_smoothing=self.label_smoothing)
        if self.weight_C is not None:
            loss_B = loss_B * self.weight_C.to(output.device)[target]  # validation rows are kept on the CPU
        return masked_mean(loss_B, labelled_B)

    def probabilities(self, output: Tensor) -> Tensor:
        """(B, classes), each row adding up to one."""
        if output.shape[1] == 1:
            return torch.cat([(-output).sigmoid(), output.sigmoid()], 1)
        return output.softmax(1)

    def pseudo(self, output: Tensor, sure: float) -> tuple[Tensor, Tensor]:
        p_B, answer_B = self.probabilities(output).max(1)
        return answer_B, p_B >= sure

    def answers(self, output: Tensor) -> dict[str, pa.Array]:
        p_BC = self.probabilities(output).numpy()
        answer = pa.array(self.classes).take(pa.array(p_BC.argmax(1)))
        return {"": answer, **{f"probability_{c}": pa.array(p_BC[:, i]) for i, c in enumerate(self.classes)}}

    def score_rows(self, output: np.ndarray, target: np.ndarray) -> ClassRows:
        return ClassRows.of(self.probabilities(torch.from_numpy(output)).numpy(), target)

    def baseline(self, target: Tensor) -> Tensor:
        return _logits(torch.bincount(target, minlength=len(self.classes)).float())

    def baseline_output(self) -> Tensor:
        count_C = torch.tensor(self.counts, dtype=torch.float32)
        return _logits(count_C if self.weight_C is None else count_C * self.weight_C.cpu())

    def mix(self, outputs: Tensor, weights: Tensor) -> Tensor:
        return (mean_of_sigmoid if len(self.classes) == 2 else mean_of_softmax)(outputs, weights)

    def boosting(self, target: Tensor) -> list[tuple[dict[str, Any], Tensor]]:
        if len(self.classes) == 2:
            return [({"objective": "binary"}, target)]
        return [({"objective": "multiclass", "num_class": len(self.classes)}, target)]

    def state(self) -> dict[str, Any]:
        return {"classes": self.classes, "counts": self.counts}

    @classmethod
    def from_state(cls, config: Config, state: dict[str, Any]) -> Classification:
        return cls(state["classes"], state["counts"], config.class_weights, config.label_smoothing)


component = Classification


def _logits(count_C: Tensor) -> Tensor:
    """The output that gives classes these shares."""
    share_C = count_C.clamp(min=1e-6)
    logits = (share_C / share_C.sum()).log()
    return logits[1:] - logits[:1] if len(logits) == 2 else logits


def _plain_labels(cells: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Return the labels of the target `name` as they can be written as JSON."""
    try:
        return _plain(cells)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise TrainingError(
            f"target '{name}': expected words or numbers for a classification, the column holds {cells.type}"
        ) from error


def _plain(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Values as they can be written as JSON: strings, whole numbers or truth values."""
    kind = cells.type
    if pa.types.is_dictionary(kind):
        cells = pc.cast(cells, kind.value_type)
        kind = cells.type
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        whole = pc.if_else(pc.is_finite(pc.cast(cells, pa.float64())), cells, None)
        return (
            pc.cast(whole, pa.int64())
            if pc.all(pc.equal(pc.round(whole), whole)).as_py() is not False
            else pc.cast(whole, pa.string())
        )
    if pa.types.is_integer(kind):
        return pc.cast(cells, pa.int64())
    return cells if pa.types.is_boolean(kind) or pa.types.is_string(kind) else pc.cast(cells, pa.string())
