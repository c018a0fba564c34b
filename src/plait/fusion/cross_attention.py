"""Learned queries that attend to the tokens of all columns at once (Jaegle et al. 2021, Perceiver)."""

from __future__ import annotations

from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from plait.fusion.base import Fusion
from plait.nn.batch import Tokens
from plait.nn.layers import Block, glorot, module_key
from plait.recipe.registry import Options


class Config(Options):
    width: int = Field(64, ge=1)
    heads: int = Field(4, ge=1)
    layers: int = Field(2, ge=1)
    queries: int = Field(4, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class CrossAttention(Fusion):
    """In each layer the queries attend to every column's tokens, then to each other; the result is all
    of them, normalised.

    A token that says "nothing further" is always there, so that a row without any column has something
    to attend to; missing columns are masked.
    """

    options = Config

    def __init__(
        self, widths: dict[str, int], width: int, heads: int, layers: int, queries: int, dropout: float
    ) -> None:
        super().__init__()
        self.inputs = nn.ModuleDict(
            {module_key(c): nn.Sequential(nn.LayerNorm(w), nn.Linear(w, width)) for c, w in widths.items()}
        )
        glorot(self)
        self.kinds = nn.ParameterDict(
            {module_key(c): nn.Parameter(torch.randn(width) * 0.02) for c in widths}
        )
        self.nothing = nn.Parameter(torch.randn(width) * 0.02)
        self.queries = nn.Parameter(torch.randn(queries, width) * 0.5)
        self.across = nn.ModuleList(Block(width, heads, dropout, across=True) for _ in range(layers))
        self.within = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.width = width * queries

    @classmethod
    def build(cls, config: Config, widths: dict[str, int]) -> CrossAttention:
        return cls(widths, config.width, config.heads, config.layers, config.queries, config.dropout)

    def forward(self, tokens: dict[str, Tokens], present: dict[str, Tensor]) -> Tensor:
        rows = len(next(iter(present.values())))
        parts = [self.nothing.expand(rows, 1, -1)]
        parts += [self.inputs[module_key(c)](t.x_BLD) + self.kinds[module_key(c)] for c, t in tokens.items()]
        masks = [
            torch.ones(rows, 1, dtype=torch.bool, device=parts[0].device),
            *(t.mask_BL for t in tokens.values()),
        ]
        onto_BLD, mask_BL = torch.cat(parts, 1), torch.cat(masks, 1)
        x_BQD = self.queries.expand(rows, -1, -1)
        every_BQ = torch.ones(x_BQD.shape[:2], dtype=torch.bool, device=x_BQD.device)
        for across, within in zip(self.across, self.within, strict=True):
            x_BQD = within(across(x_BQD, mask_BL, onto_BLD), every_BQ)
        return self.norm(x_BQD).flatten(1)


component = CrossAttention
