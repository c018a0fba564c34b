"""Tasks that compare rows with each other, by the tokens of their columns."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping

import numpy as np
from torch import Tensor

from plait.nn.batch import Encoded, Fused, Tokens
from plait.tasks.base import MAIN, LossOf, Outputs, Task, Widths


class Comparison(Task):
    """Embeddings of several columns in one space. It has no target, and rows need no label.

    Its loss compares all rows of a batch with each other, so a batch that is cut into micro-batches is
    put together again for it (see `training.objective.whole_batch_losses`).
    """

    has_target = False
    columns: list[str]

    @property
    @abstractmethod
    def width(self) -> int:
        """The width of a trained model's embeddings."""

    @property
    @abstractmethod
    def scale(self) -> Tensor:
        """What cosines are multiplied by: one over the temperature."""

    @property
    @abstractmethod
    def compares_whole_rows(self) -> bool:
        """Whether three or more cells are compared in a way that no single embedding stands for."""

    @abstractmethod
    def begin(self, encoded: Mapping[str, Iterable[Tokens]], starts: Mapping[str, int]) -> None:
        """Start from the data: from batches of training rows' tokens, by column.

        Training does not change these tokens from the index `starts` on.
        """

    @abstractmethod
    def pairs(self) -> list[tuple[int, int]]:
        """Return the pairs of columns that are compared, by their places."""

    @abstractmethod
    def directions(self) -> list[tuple[int, int]]:
        """Return both directions of each pair: what asks, and what is searched."""

    @abstractmethod
    def similarity(self, output: Tensor) -> Tensor:
        """Return how well all cells of a row go together, the more the better, from embeddings (B, K, D)."""

    @abstractmethod
    def query(self, given_KD: np.ndarray) -> np.ndarray:
        """Return one vector to look for, from a query's embeddings, zero where it has no cell."""

    @abstractmethod
    def build_head(self, widths: dict[str, int]) -> None:
        """Make the head for tokens of these widths, by column."""

    @abstractmethod
    def forward(self, tokens: dict[str, Tokens]) -> Tensor:
        """Return the embeddings, (B, columns, width)."""

    def build(self, widths: Widths) -> None:
        """Make the head for the tokens of each column."""
        self.build_head(widths.columns)

    def answer(self, fused: Fused | None, encoded: Encoded) -> Tensor:
        """Return the embeddings of some rows."""
        output: Tensor = self(encoded.tokens)
        return output

    def losses(self, fused: Fused | None, encoded: Encoded, loss_of: LossOf) -> dict[str, Tensor]:
        """Return the loss of the comparison: there are no unimodal losses."""
        return {MAIN: loss_of(self(encoded.tokens), None)}

    def sees_hidden_cells(self, columns: list[str]) -> bool:
        """Return False: a pair with a hidden cell compares nothing."""
        return False

    def outputs(self, fused: Fused | None, encoded: Encoded) -> Outputs | None:
        """Return the embeddings, from which `calibrate` may choose."""
        return Outputs(self(encoded.tokens))
