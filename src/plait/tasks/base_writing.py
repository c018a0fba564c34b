"""Tasks that write their answer step by step, from the tokens of their inputs."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from plait.nn.batch import Encoded, Fused, Tokens
from plait.tasks.base import MAIN, LossOf, Task, Widths


class Writing(Task):
    """A text or speech. `forward` gives what the loss and `decode` need; `decode` writes the answer."""

    sorts_by_length = True

    @abstractmethod
    def build_head(self, widths: dict[str, int]) -> None:
        """Make the head for tokens of these widths, by column."""

    @abstractmethod
    def forward(self, tokens: dict[str, Tokens]) -> Tensor:
        """Return what answers are written from: (B, ...), zeros where there is nothing."""

    def build(self, widths: Widths) -> None:
        """Make the head for the tokens of each column."""
        self.build_head(widths.columns)

    def answer(self, fused: Fused | None, encoded: Encoded) -> Tensor:
        """Return what `decode` writes the answer from, computed from all tokens."""
        output: Tensor = self(encoded.tokens)
        return output

    def losses(self, fused: Fused | None, encoded: Encoded, loss_of: LossOf) -> dict[str, Tensor]:
        """Return the loss of the answer: there are no unimodal losses."""
        return {MAIN: loss_of(self(encoded.tokens), None)}

    def sees_hidden_cells(self, columns: list[str]) -> bool:
        """Hide nothing from a task that reads one of several columns: that would only take rows away."""
        return len(columns) == 1 or len(self.read(columns)) > 1
