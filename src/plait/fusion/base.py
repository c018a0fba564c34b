"""What a fusion is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from plait.nn.batch import Tokens
from plait.recipe.registry import Component, Registry


class Fusion(nn.Module, Component, ABC):
    """From the tokens of all columns to one vector of `width` a row. Never calls an encoder.

    A row in which a column is missing has `present[column]` False, that column's learned token in its
    tokens, and a mask that is False; the result is finite for every subset of columns, the empty one
    included.
    """

    width: int

    @classmethod
    @abstractmethod
    def build(cls, config: Any, widths: dict[str, int]) -> Fusion:
        """The fusion of columns whose tokens are this wide."""

    @abstractmethod
    def forward(self, tokens: dict[str, Tokens], present: dict[str, Tensor]) -> Tensor:
        """fused_BD."""


fusions = Registry[Fusion]("fusion")
