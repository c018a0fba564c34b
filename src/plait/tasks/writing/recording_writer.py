"""What writes the text of a recording: the head of a transcription.

B rows, L steps of a recording, V ids (`NOTHING` among them).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

from torch import Tensor, nn

from plait.nn.batch import Tokens
from plait.table.json import JSON


class RecordingWriter(nn.Module, ABC):
    """Turn the tokens of a recording into an output, train on it, and write the text from it."""

    @abstractmethod
    def study(self, texts: list[list[int]]) -> None:
        """Learn what it needs of the training rows' texts, as ids."""

    @abstractmethod
    def build(self, column: str, width: int) -> None:
        """Make its layers for tokens of the width that the encoder of this column makes."""

    @abstractmethod
    def load_pretrained(self) -> None:
        """Load weights that training starts from, if it has some."""

    @abstractmethod
    def rates(self) -> Iterable[tuple[Tensor, float]]:
        """Return parameters with their share of the recipe's learning rate."""

    @abstractmethod
    def forward(self, recording: Tokens) -> Tensor:
        """Return the output, (B, ...), and zeros where there is nothing."""

    @abstractmethod
    def learnable(self, output: Tensor, target: Tensor, labelled_B: Tensor) -> Tensor:
        """Return the labelled rows whose ids (B, L) can be written, (B,)."""

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor, labelled_B: Tensor) -> Tensor:
        """Return the mean loss of ids (B, L) over the rows that `learnable` returns."""

    @abstractmethod
    def write(self, output: Tensor, thorough: bool) -> Tensor:
        """Return ids, (B, L). `thorough` asks for the best text, not for the fastest."""

    @abstractmethod
    def state(self) -> JSON:
        """Return all that it has learned besides weights, as JSON."""
