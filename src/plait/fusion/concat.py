"""Concatenation, then dense layers: the baseline that is hard to beat."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from plait.fusion.base import Fusion
from plait.nn.batch import Tokens
from plait.nn.layers import MLP
from plait.recipe.registry import Options


class Config(Options):
    hidden: tuple[int, ...] = Field((128, 64), min_length=1, description="widths of the dense layers")
    dropout: float = Field(0.0, ge=0, lt=1)


class Concat(Fusion):
    """mlp([x_1; ...; x_M]), where x_m is column m's pooled vector, or its learned token where it is
    missing.
    """

    options = Config

    def __init__(self, widths: dict[str, int], hidden: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        self.mlp = MLP(sum(widths.values()), hidden, dropout)
        self.width = hidden[-1]

    @classmethod
    def build(cls, config: Config, widths: dict[str, int]) -> Concat:
        return cls(widths, config.hidden, config.dropout)

    def forward(self, tokens: dict[str, Tokens], present: dict[str, Tensor]) -> Tensor:
        return self.mlp(torch.cat([t.pooled_BD() for t in tokens.values()], 1))


component = Concat
