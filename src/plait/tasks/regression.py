"""Predict a number: mean squared error on the target standardised over the training rows.

B rows, D width.
"""

from __future__ import annotations

from typing import Literal

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
from plait.recipe.bounds import MAX_WEIGHT
from plait.table.conventions.clock import Clock
from plait.table.conventions.number import Number
from plait.table.json import JSON, read_as
from plait.table.problems import Problem
from plait.table.table import Source
from plait.tasks.base import TaskOptions, masked_mean
from plait.tasks.base_prediction import Prediction
from plait.tasks.predicting.metrics import NumberRows, mae, r2, rmse

LARGEST = 1e150  # the square of a larger number is infinite in float64
EXACT = 2**53  # larger whole numbers are rounded in float64

# A label is odd if it lies `FAR` times farther from the median than `USUAL` of the others. Skewed targets,
# such as incomes, reach a few hundred times. Fewer than `ENOUGH` labels do not tell what is usual.
FAR = 1000
USUAL = 0.95
ENOUGH = 5


class Config(TaskOptions):
    """`huber` is squared up to `delta` standard deviations, and linear beyond (Huber 1964)."""

    loss: Literal["squared", "huber"] = Field(
        "squared", description="squared error, or Huber's loss, which outliers move less"
    )
    delta: float = Field(
        1.0, gt=0, le=MAX_WEIGHT, description="standard deviations beyond which Huber's loss is linear"
    )
    keep_sign: bool = Field(
        True, description="answer 0 instead of a number below 0 if no training row has one below 0"
    )


class Regression(Prediction):
    """Predict (y - mean) / std of the training rows. Answers are in the target's own unit.

    Prices and counts are never negative, so no answer is below 0 if no training row is (`keep_sign`).
    """

    options = Config
    conventions = (Number, Clock)
    metrics = {"rmse": rmse, "mae": mae, "r2": r2}
    score = "rmse"
    higher = False
    logits = False
    squared = True

    def __init__(self, config: Config, mean: float, std: float, has_negative: bool = True) -> None:
        super().__init__()
        self.config = config
        self.mean = mean
        self.std = std
        self.has_negative = has_negative

    @classmethod
    def matches(cls, cells: pa.ChunkedArray) -> Match | None:
        """Match numbers."""
        if pa.types.is_integer(cells.type) or pa.types.is_floating(cells.type):
            return Match(0.5, "numbers")
        return None

    @classmethod
    def fit(cls, config: Config, cells: pa.ChunkedArray, name: str) -> Regression:
        """Measure the mean, the standard deviation and the sign of the training rows' numbers.

        Raises `TrainingError` if there are no two different numbers, or if their squares are out of range.
        """
        y = _numbers(cells, name)
        y = y[np.isfinite(y)]
        if len(y) < 2 or y.min() == y.max():
            present = f"only the number {y[0]:g}" if len(y) else "no numbers at all"
            if len(y) and abs(y[0]) > EXACT:
                present += ", once rounded to 16 digits: subtract what they have in common"
            raise TrainingError(
                f"target '{name}': expected numbers that differ in the training rows, found {present}"
            )

        # losses and metrics square numbers, whose squares must be neither infinite nor zero
        if np.abs(y).max() > LARGEST or y.max() - y.min() < 1 / LARGEST:
            raise TrainingError(
                f"target '{name}': numbers from {y.min():g} to {y.max():g} cannot be squared; train on them "
                f"in another unit"
            )
        return cls(config, float(y.mean()), float(y.std()), bool(y.min() < 0))

    @classmethod
    def odd(cls, cells: pa.ChunkedArray) -> dict[int, str]:
        """Return the rows whose number is far beyond all usual ones, such as 1e30 among prices.

        The squared error of one such row outweighs all others: the model would predict nothing else.
        """
        if not (pa.types.is_integer(cells.type) or pa.types.is_floating(cells.type)):
            return {}
        y = _numbers(cells, "")
        filled = y[np.isfinite(y)]
        if not len(filled):
            return {}
        distance = np.abs(y - np.median(filled))
        differing = distance[distance > 0]
        if len(differing) < ENOUGH:
            return {}
        usual = float(np.quantile(differing, USUAL, method="lower"))
        rows = np.flatnonzero(distance > FAR * usual).tolist()
        return {row: f"{y[row]:g}, over {FAR:,} times as far from the median as usual" for row in rows}

    def build_head(self, width: int) -> None:
        """Make a linear layer with one output."""
        self.head = nn.Linear(width, 1)
        glorot(self.head)

    def encode(self, cells: pa.ChunkedArray, source: Source) -> tuple[Tensor, Tensor, list[Problem]]:
        """Return standardised numbers (B,), and which rows have one."""
        y = _numbers(cells, source.column)
        labelled = np.isfinite(y)
        standardised = np.where(labelled, (y - self.mean) / self.std, 0)
        target = torch.from_numpy(standardised.astype(np.float32))
        return target, torch.from_numpy(labelled), []

    def forward(self, fused_BD: Tensor) -> Tensor:
        """Return standardised numbers, (B,)."""
        output_B1 = self.head(fused_BD)
        return output_B1[:, 0].float()

    def loss(self, output: Tensor, target: Tensor, labelled_B: Tensor) -> Tensor:
        """Return the mean squared error or Huber loss, in squared standard deviations."""
        if self.config.loss == "huber":
            loss_B = F.huber_loss(output, target, reduction="none", delta=self.config.delta)
        else:
            loss_B = F.mse_loss(output, target, reduction="none")
        return masked_mean(loss_B, labelled_B)

    def pseudo(self, output: Tensor, sure: float) -> tuple[Tensor, Tensor]:
        """Return the output itself, and True for all rows: numbers have no probability."""
        everywhere_B = torch.ones_like(output, dtype=torch.bool)
        return output, everywhere_B

    def answers(self, output: Tensor) -> dict[str, pa.Array]:
        """Return numbers in the target's own unit."""
        answer_B = self._answer(output.numpy())
        return {"": pa.array(answer_B)}

    def score_rows(self, output: np.ndarray, target: np.ndarray) -> NumberRows:
        """Compare numbers in the target's own unit. Both come standardised, (B,)."""
        label_B = self._in_unit(target)
        answer_B = self._answer(output)
        return NumberRows(label_B, answer_B)

    def _answer(self, output_B: np.ndarray) -> np.ndarray:
        """Return outputs in the target's own unit, none of a sign that training rows do not have."""
        answer_B = self._in_unit(output_B)
        if self.config.keep_sign and not self.has_negative:
            return np.maximum(answer_B, 0)
        return answer_B

    def _in_unit(self, standardised_B: np.ndarray) -> np.ndarray:
        """Return standardised numbers in the target's own unit, in float64."""
        return standardised_B.astype(np.float64) * self.std + self.mean

    def baseline(self, target: Tensor) -> Tensor:
        """Return the mean of these standardised numbers."""
        return target.float().mean()

    def baseline_output(self) -> Tensor:
        """Return 0, the mean of the training rows in standardised numbers."""
        return torch.zeros(())

    def mix(self, outputs: Tensor, weights: Tensor) -> Tensor:
        """Return the weighted mean of numbers."""
        weighted = outputs * weights[:, None]
        return weighted.sum(0)

    def boosting(self, target: Tensor) -> list[tuple[JSON, Tensor]]:
        """Return one booster, with the loss of the options."""
        if self.config.loss == "huber":
            huber: JSON = {"objective": "huber", "alpha": self.config.delta}
            return [(huber, target)]
        return [({"objective": "regression"}, target)]

    def state(self) -> JSON:
        """Return the mean and the standard deviation of the training rows, and whether one is below 0."""
        return {"mean": self.mean, "std": self.std, "has_negative": self.has_negative}

    @classmethod
    def from_state(cls, config: Config, state: JSON) -> Regression:
        """Restore the task from what `state` returned; the head is still to be built."""
        mean = read_as(float, state["mean"])
        std = read_as(float, state["std"])
        if std <= 0:
            raise ValueError(f"the standard deviation is {std}, expected a number above 0")
        # Models that were trained before this was measured answer as they did.
        return cls(config, mean, std, read_as(bool, state.get("has_negative", True)))


component = Regression


def _numbers(cells: pa.ChunkedArray, name: str) -> np.ndarray:
    """Return cells as float64 (B,), NaN where there is none. Raises `TrainingError` for other types."""
    kind = cells.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind):
        return pc.cast(cells, pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float64)
    raise TrainingError(f"target '{name}': expected numbers for a regression, the column holds {kind}")
