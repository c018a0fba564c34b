"""What a fusion is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from plait.nn.batch import Tokens
from plait.recipe.registry import Component, Registry


class Fusion(nn.Module, Component, ABC):
    """Fuse the tokens of all columns into one vector of `width` for each row. It never calls an encoder.

    Where a row lacks a column, `present[column]` is False. The column's tokens are then its stand-in, under
    a mask that is False. The fused vector is finite for every subset of columns, even for none.
    """

    # The width of the fused vector. A subclass sets it.
    width: int

    @classmethod
    @abstractmethod
    def build(cls, config: Any, widths: dict[str, int]) -> Fusion:
        """Make the fusion of columns whose tokens have these widths, by column."""

    @abstractmethod
    def forward(self, tokens: dict[str, Tokens], present: dict[str, Tensor]) -> Tensor:
        """Return the fused vectors, (B, width)."""


fusions = Registry[Fusion]("fusion")
