"""What a task is. B rows, D fused width."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from torch import Tensor, nn

from plait.batch import Tokens
from plait.components import Options
from plait.modalities.base import Match, Problem


class Task(nn.Module, ABC):
    """One target: its state, head, loss and metrics, and the way back from outputs to words.

    `score` names the metric that chooses the best epoch, and `higher` says whether more of it is better.
    """

    options: ClassVar[type[Options]]
    score: str
    higher: bool

    @classmethod
    @abstractmethod
    def matches(cls, cells: pa.ChunkedArray) -> Match | None:
        """Whether a target with these cells, nulls left out, is predicted by this task."""

    @classmethod
    @abstractmethod
    def fit(cls, config: Any, cells: pa.ChunkedArray, name: str) -> Task:
        """The task for the target `name`, fitted on its training rows. Raises `TrainingError` when they cannot be learned from."""

    @abstractmethod
    def build_head(self, fused: int, encoded: dict[str, int]) -> None:
        """Makes the head, once the widths of the fused vector and of each column's tokens are known."""

    @abstractmethod
    def encode(self, cells: pa.ChunkedArray, name: str) -> tuple[Tensor, Tensor, list[Problem]]:
        """The target as a tensor, True where there is a label, and labels that cannot be used."""

    @abstractmethod
    def forward(self, fused_BD: Tensor, encoded: dict[str, Tokens]) -> Tensor:
        """The output: logits, or the scaled value."""

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor, labelled_B: Tensor) -> Tensor:
        """The mean loss over the labelled rows; zero when there are none."""

    @abstractmethod
    def answers(self, output: Tensor) -> dict[str, pa.Array]:
        """The answer under the key "", and more about it under suffixes such as "probability_cat"."""

    @abstractmethod
    def measure(self, output: np.ndarray, target: np.ndarray) -> dict[str, float]:
        """Metrics over labelled rows, by name."""

    @abstractmethod
    def prior(self, target: Tensor) -> Tensor:
        """The output, for one row, of the best guess that sees no input, from the training targets."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """All that `fit` learned, as JSON."""

    @classmethod
    @abstractmethod
    def from_state(cls, config: Any, state: dict[str, Any]) -> Task:
        """The inverse of `state`; the head is still to be built."""


def masked_mean(loss_B: Tensor, labelled_B: Tensor) -> Tensor:
    """The mean of the labelled rows' losses, zero (with zero gradients) when there are none."""
    weight_B = labelled_B.to(loss_B.dtype)
    return (loss_B * weight_B).sum() / weight_B.sum().clamp(min=1)
