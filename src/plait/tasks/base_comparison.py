"""Tasks that compare rows with each other, by the tokens of their columns."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping

import numpy as np
from torch import Tensor

from plait.nn.batch import Encoded, Fused, Tokens
from plait.tasks.base import Outputs, Task
from plait.tasks.base_tokens import TokenTask


class Comparison(TokenTask):
    """Embeddings of several columns in one space, (B, columns, width). It has no target, and rows need no
    label.

    Its loss compares all rows of a batch with each other, so a batch that is cut into micro-batches is
    put together again for it (see `training.first_pass.compare`).
    """

    has_target = False
    steps = 250
    patience = 10

    # Half as many spectra a second find as much, in half the time.
    cells = {"audio": {"hop": 0.02}}

    # Rows of about the same length take less padding. They are also the negatives that are hardest to tell
    # apart, while linear maps know lengths already.
    sorts_by_length = True
    columns: list[str]

    @property
    @abstractmethod
    def width(self) -> int:
        """Return the width of a trained model's embeddings."""

    @property
    @abstractmethod
    def scale(self) -> Tensor:
        """Return what cosines are multiplied by: one over the temperature."""

    @property
    @abstractmethod
    def compares_whole_rows(self) -> bool:
        """Return whether three or more cells are compared in a way that no single embedding stands for."""

    @abstractmethod
    def begin(
        self, encoded: Mapping[str, Iterable[Tokens]], blocks: Mapping[str, list[slice]], target: Tensor
    ) -> None:
        """Start from the data: from batches of training rows' tokens, by column, and these rows' targets.

        `blocks` are the places in these tokens that training does not change.
        """

    @abstractmethod
    def pairs(self) -> list[tuple[int, int]]:
        """Return the pairs of columns that are compared, as indices into `columns`."""

    @abstractmethod
    def directions(self) -> list[tuple[int, int]]:
        """Return both directions of each pair: (column of the query, column of the gallery)."""

    @abstractmethod
    def shares(self) -> dict[str, float]:
        """Return the share of linear maps in each pair of columns, by the pair; nothing without maps."""

    @abstractmethod
    def halves(self, output: Tensor, first: int, second: int) -> dict[str, tuple[Tensor, Tensor]]:
        """Return what embeddings (B, K, D) of two columns are made of, by name; nothing if of one thing only.

        Each half has unit vectors of both columns, (B, E), and zeros for missing cells.
        """

    @abstractmethod
    def similarity(self, output: Tensor) -> Tensor:
        """Return how well all cells of a row go together, from embeddings (B, K, D). Higher is better."""

    @abstractmethod
    def query(self, cells_KD: np.ndarray) -> np.ndarray:
        """Return one vector to search with, from a query's embeddings, zero where it has no cell."""

    def sees_hidden_cells(self, columns: list[str]) -> bool:
        """Return False: a pair with a hidden cell compares nothing."""
        return False

    def outputs(self, fused: Fused | None, encoded: Encoded) -> Outputs | None:
        """Return the embeddings, from which `calibrate` may choose."""
        return Outputs(self(encoded.tokens))


def comparisons(tasks: Mapping[str, Task]) -> dict[str, Comparison]:
    """Return the tasks that compare rows, by name."""
    return {name: task for name, task in tasks.items() if isinstance(task, Comparison)}
