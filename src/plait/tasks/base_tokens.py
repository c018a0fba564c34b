"""Tasks that read the tokens of their columns, and not the fused vector: writing and comparison."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from plait.nn.batch import Encoded, Fused, Tokens
from plait.tasks.base import MAIN, Task, Widths


class TokenTask(Task):
    """A task with one loss, whose head reads the tokens of all its columns."""

    @abstractmethod
    def build_head(self, widths: dict[str, int]) -> None:
        """Make the head for tokens of these widths, by column."""

    @abstractmethod
    def forward(self, tokens: dict[str, Tokens]) -> Tensor:
        """Return the output of some rows from the tokens of each column, (B, ...)."""

    def build(self, widths: Widths) -> None:
        """Make the head for the tokens of each column."""
        self.build_head(widths.columns)

    def answer(self, fused: Fused | None, encoded: Encoded) -> Tensor:
        """Return the output of some rows, computed from all tokens."""
        output: Tensor = self(encoded.tokens)
        return output

    def trained_outputs(self, fused: Fused | None, encoded: Encoded) -> dict[str, Tensor]:
        """Return the output: there are no unimodal ones."""
        return {MAIN: self(encoded.tokens)}
