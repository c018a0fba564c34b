"""Learned queries that attend to the tokens of all columns at once (Jaegle et al. 2021, Perceiver).

B rows, L tokens of all columns, Q queries, D width.
"""

from __future__ import annotations

from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from plait.fusion.base import Fusion
from plait.nn.batch import Tokens
from plait.nn.layers import Block, glorot, module_key
from plait.recipe.bounds import MAX_HEADS, MAX_LAYERS, MAX_WIDTH
from plait.recipe.registry import Options


class Config(Options):
    """The fused vector has `width` times `queries` entries."""

    width: int = Field(
        64, ge=1, le=MAX_WIDTH, description="of the tokens and the queries; a multiple of heads"
    )
    heads: int = Field(4, ge=1, le=MAX_HEADS, description="attention heads in each block")
    layers: int = Field(2, ge=1, le=MAX_LAYERS, description="blocks")
    queries: int = Field(4, ge=1, le=MAX_HEADS, description="learned vectors that attend to the tokens")
    dropout: float = Field(
        0.1, ge=0, lt=1, description="share of the entries that are set to zero in training"
    )

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"expected a width that is a multiple of heads {self.heads}, came {self.width}")
        return self


class CrossAttention(Fusion):
    """In each layer the queries attend to every column's tokens, then to each other.

    The fused vector is all queries, normalised. Missing columns are masked. One learned token, `nothing`, is
    always there, so that a row without any column has a token to attend to.
    """

    options = Config

    def __init__(
        self, widths: dict[str, int], width: int, heads: int, layers: int, queries: int, dropout: float
    ) -> None:
        super().__init__()
        self.inputs = nn.ModuleDict()
        for column, column_width in widths.items():
            norm = nn.LayerNorm(column_width)
            projection = nn.Linear(column_width, width)
            self.inputs[module_key(column)] = nn.Sequential(norm, projection)
        glorot(self)

        # A vector for each column, added to its tokens: attention cannot tell columns apart without it.
        self.kinds = nn.ParameterDict()
        for column in widths:
            kind_D = torch.randn(width) * 0.02
            self.kinds[module_key(column)] = nn.Parameter(kind_D)

        self.nothing = nn.Parameter(torch.randn(width) * 0.02)

        # Queries differ from the start, so that each of them can attend to something else.
        self.queries = nn.Parameter(torch.randn(queries, width) * 0.5)
        self.across = nn.ModuleList(Block(width, heads, dropout, across=True) for _ in range(layers))
        self.within = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.width = width * queries

    @classmethod
    def build(cls, config: Config, widths: dict[str, int]) -> CrossAttention:
        """Make the queries and the layers for these columns."""
        return cls(widths, config.width, config.heads, config.layers, config.queries, config.dropout)

    def forward(self, tokens: dict[str, Tokens], present: dict[str, Tensor]) -> Tensor:
        """Return the fused vectors, (B, Q * D)."""
        first_column_B = next(iter(present.values()))
        rows, device = len(first_column_B), self.nothing.device
        vectors = [self.nothing.expand(rows, 1, -1)]
        masks = [torch.ones(rows, 1, dtype=torch.bool, device=device)]
        for column, column_tokens in tokens.items():
            key = module_key(column)
            x_BLD = self.inputs[key](column_tokens.x_BLD)
            vectors.append(x_BLD + self.kinds[key])
            masks.append(column_tokens.mask_BL)
        memory_BLD = torch.cat(vectors, 1)
        mask_BL = torch.cat(masks, 1)

        x_BQD = self.queries.expand(rows, -1, -1)
        # All rows begin with the same queries, and no query is ever masked.
        query_mask_BQ = torch.ones(x_BQD.shape[:2], dtype=torch.bool, device=device)
        for across, within in zip(self.across, self.within, strict=True):
            x_BQD = across(x_BQD, mask_BL, memory_BLD)
            x_BQD = within(x_BQD, query_mask_BQ)
        return self.norm(x_BQD).flatten(1)


component = CrossAttention
