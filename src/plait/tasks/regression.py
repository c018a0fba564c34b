"""Predict a number: its mean, or for skewed targets the logarithm of it.

B rows, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

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
from plait.tasks.base_prediction import CALIBRATING, Prediction
from plait.tasks.predicting.metrics import NumberRows, mae, r2, rmse
from plait.tasks.predicting.scale_choice import compare, may_be_log
from plait.tasks.predicting.scales import TINY, Log, Scale, Standard, mean_offset

LARGEST = 1e150  # the square of a larger number is infinite in float64
LARGEST_TARGET = float(np.finfo(np.float32).max)
EXACT = 2**53  # larger whole numbers are rounded in float64

# A label is odd if it lies `FAR` times farther from the median than `USUAL` of the others. Skewed targets,
# such as incomes, reach a few hundred times. Fewer than `ENOUGH` labels do not tell what is usual.
FAR = 1000
USUAL = 0.95
ENOUGH = 5


class Config(TaskOptions):
    """`transform` says what is learned: the number itself, or with `log` the logarithm of its mean.

    The loss is then Tweedie's deviance, and all answers are above 0. They are means in the target's own unit,
    not exponentials of mean logarithms, which would be too small. `auto` takes `log` for skewed targets that
    are never below 0, unless a small model of the plain columns and texts is worse with it.

    `huber` is squared up to `delta` standard deviations, and linear beyond (Huber 1964).
    """

    transform: Literal["auto", "none", "log"] = Field(
        "auto", description="learn the number itself, or the logarithm of its mean"
    )
    loss: Literal["squared", "huber"] = Field(
        "squared", description="squared error, or Huber's loss, which outliers move less"
    )
    delta: float = Field(
        1.0, gt=0, le=MAX_WEIGHT, description="standard deviations beyond which Huber's loss is linear"
    )
    keep_sign: bool = Field(
        True, description="answer 0 instead of a number below 0 if no training row has one below 0"
    )

    @model_validator(mode="after")
    def _one_loss(self) -> Config:
        if self.transform == "log" and self.loss == "huber":
            raise ValueError("transform: log has a loss of its own; leave out transform or loss")
        return self


@dataclass(frozen=True)
class Labels:
    """What the labels of the training rows are like, in the target's own unit."""

    mean: float
    std: float
    has_negative: bool = True
    largest: float = 0.0

    @classmethod
    def of(cls, y_B: np.ndarray) -> Labels:
        """Measure finite numbers."""
        return cls(float(y_B.mean()), float(y_B.std()), bool(y_B.min() < 0), float(y_B.max()))


class Regression(Prediction):
    """Predict a number on one of two scales (see `predicting/scales.py`). Answers are in its own unit.

    Prices and counts are never negative, so no answer is below 0 if no training row is (`keep_sign`).
    """

    options = Config
    conventions = (Number, Clock)
    metrics = {"rmse": rmse, "mae": mae, "r2": r2}
    score = "rmse"
    higher = False
    logits = False
    squared = True
    offset: Tensor

    def __init__(self, config: Config, labels: Labels, is_log: bool = False) -> None:
        super().__init__()
        self.config = config
        self.labels = labels
        self.is_log = is_log
        self.scale: Scale
        if is_log:
            self.scale = Log(labels.mean, labels.largest)
            # What the head's answers lack on validation rows. Models of the other scale have no such buffer.
            self.register_buffer("offset", torch.zeros(()))
        else:
            delta = config.delta if config.loss == "huber" else None
            self.scale = Standard(labels.mean, labels.std, delta)

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
        if config.transform == "log" and y.min() < 0:
            raise TrainingError(
                f"target '{name}': transform: log expects no number below 0; in the training rows are "
                f"{int((y < 0).sum()):,}, such as {y.min():g}; leave transform out"
            )
        return cls(config, Labels.of(y), is_log=config.transform == "log")

    @classmethod
    def fill_in(
        cls, config: TaskOptions, cells: pa.ChunkedArray, numbers: Callable[[], np.ndarray]
    ) -> tuple[JSON, str]:
        """Choose the scale of skewed numbers that are never below 0, by rows that a small model holds out."""
        assert isinstance(config, Config)
        if config.transform != "auto":
            return {}, ""
        y = _numbers(cells, "")
        is_finite = np.isfinite(y)
        if config.loss == "huber" or not may_be_log(y[is_finite]):
            return {"transform": "none"}, ""

        compared = compare(numbers()[is_finite], y[is_finite])
        transform = "none" if compared.is_worse else "log"
        learned = "the number itself" if compared.is_worse else "the logarithm of the mean"
        trial = (
            f"rmse with a logarithm {compared.ratio:.2f} of that without, on {compared.rows:,} training rows"
        )
        if compared.ratio > 1 and not compared.is_worse:
            trial += ", which may be chance"
        return {"transform": transform}, f"skewed: learns {learned} ({trial})"

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
        """Return numbers on the scale (B,), and which rows have one."""
        y = _numbers(cells, source.column)
        labelled = np.isfinite(y)
        on_scale = np.where(labelled, self.scale.target(y), 0)
        # A row that is not trained on may be out of all proportion to those that are.
        target = torch.from_numpy(np.clip(on_scale, -LARGEST_TARGET, LARGEST_TARGET).astype(np.float32))
        return target, torch.from_numpy(labelled), []

    def forward(self, fused_BD: Tensor) -> Tensor:
        """Return standardised numbers or logarithms, (B,)."""
        output_B1 = self.head(fused_BD)
        output_B: Tensor = output_B1[:, 0].float()
        return output_B + self.offset if self.is_log else output_B

    def loss(self, output: Tensor, target: Tensor, labelled_B: Tensor) -> Tensor:
        """Return the mean loss of the scale."""
        return masked_mean(self.scale.loss(output, target), labelled_B)

    @property
    def calibrates(self) -> bool:
        """Whether validation rows give an offset."""
        return self.is_log

    def fit_offset(self, output: Tensor, target: Tensor) -> float:
        """Return what makes the mean of the answers that of the labels, if these are enough rows."""
        if not isinstance(self.scale, Log) or len(target) < CALIBRATING:
            return 0.0
        return mean_offset(self.scale, output, target)

    def add_offset(self, offset: float) -> None:
        """Set the offset of the head. Of the standard scale, there is none."""
        if self.is_log:
            self.offset.fill_(offset)

    def pseudo(self, output: Tensor, sure: float) -> tuple[Tensor, Tensor]:
        """Return the answer itself, and True for all rows: numbers have no probability."""
        everywhere_B = torch.ones_like(output, dtype=torch.bool)
        return self.scale.as_target(output), everywhere_B

    def answers(self, output: Tensor) -> dict[str, pa.Array]:
        """Return numbers in the target's own unit."""
        answer_B = self._answer(output.numpy())
        return {"": pa.array(answer_B)}

    def score_rows(self, output: np.ndarray, target: np.ndarray) -> NumberRows:
        """Compare numbers in the target's own unit. Both come on the scale, (B,)."""
        return NumberRows(self.scale.label(target), self._answer(output))

    def _answer(self, output_B: np.ndarray) -> np.ndarray:
        """Return outputs in the target's own unit, none of a sign that training rows do not have."""
        answer_B = self.scale.answer(output_B)
        if self.config.keep_sign and not self.labels.has_negative:
            return np.maximum(answer_B, 0)
        return answer_B

    def baseline(self, target: Tensor) -> Tensor:
        """Return the output that answers the mean of these labels."""
        return self.scale.baseline(target)

    def baseline_output(self) -> Tensor:
        """Return 0, the output that answers the mean of the training rows on both scales."""
        return torch.zeros(())

    def mix(self, outputs: Tensor, weights: Tensor) -> Tensor:
        """Return the output that answers the weighted mean of answers."""
        return self.scale.mix(outputs, weights)

    def boosting(self, target: Tensor) -> list[tuple[JSON, Tensor]]:
        """Return one booster, with the loss of the scale."""
        if self.is_log and not bool((target > 0).any()):
            target = target.clamp(min=TINY)  # LightGBM refuses labels that are all 0
        return [(self.scale.booster(), target)]

    def may_boost(self, target: Tensor) -> bool:
        """Return whether a number is above 0 on the log scale: 0 has no logarithm."""
        return not self.is_log or bool((target > 0).any())

    def state(self) -> JSON:
        """Return what the labels of the training rows are like, and whether the scale is logarithmic."""
        return {**asdict(self.labels), "is_log": self.is_log}

    @classmethod
    def from_state(cls, config: Config, state: JSON) -> Regression:
        """Restore the task from what `state` returned; the head is still to be built."""
        mean = read_as(float, state["mean"])
        std = read_as(float, state["std"])
        if std <= 0:
            raise ValueError(f"the standard deviation is {std}, expected a number above 0")
        # Models that were trained before the rest was measured answer as they did.
        has_negative = read_as(bool, state.get("has_negative", True))
        largest = read_as(float, state.get("largest", 0.0))
        is_log = read_as(bool, state.get("is_log", False))
        if is_log and (has_negative or mean <= 0 or largest < mean):
            raise ValueError(f"no logarithmic scale has a mean of {mean} and a largest number of {largest}")
        return cls(config, Labels(mean, std, has_negative, largest), is_log)


component = Regression


def _numbers(cells: pa.ChunkedArray, name: str) -> np.ndarray:
    """Return cells as float64 (B,), NaN where there is none. Raises `TrainingError` for other types."""
    kind = cells.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind):
        return pc.cast(cells, pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float64)
    raise TrainingError(f"target '{name}': expected numbers for a regression, the column holds {kind}")
