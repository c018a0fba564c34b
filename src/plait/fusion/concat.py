"""Concatenate the columns' vectors, then apply dense layers: hard to beat. B rows, D width."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from plait.fusion.base import Fusion
from plait.nn.batch import Tokens
from plait.nn.layers import MLP
from plait.recipe.bounds import Widths
from plait.recipe.registry import Options


class Config(Options):
    """`hidden` has the widths of the dense layers. The last one is that of the fused vector."""

    hidden: Widths = Field((128, 64), min_length=1, description="widths of the dense layers")
    dropout: float = Field(
        0.0, ge=0, lt=1, description="share of the entries that are set to zero in training"
    )


class Concat(Fusion):
    """Compute mlp([x_1; ...; x_M]), where x_m is column m's pooled vector.

    Where the column is missing, x_m is its stand-in.
    """

    options = Config

    def __init__(self, widths: dict[str, int], hidden: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        total_width = sum(widths.values())
        self.mlp = MLP(total_width, hidden, dropout)
        self.width = hidden[-1]

    @classmethod
    def build(cls, config: Config, widths: dict[str, int]) -> Concat:
        """Make the dense layers for the sum of the widths."""
        return cls(widths, config.hidden, config.dropout)

    def forward(self, tokens: dict[str, Tokens], present: dict[str, Tensor]) -> Tensor:
        """Return the fused vectors, (B, D)."""
        # `present` is not needed: a stand-in says that its column is missing.
        pooled = [column_tokens.pooled_BD() for column_tokens in tokens.values()]
        concatenated_BD = torch.cat(pooled, 1)
        return self.mlp(concatenated_BD)


component = Concat
