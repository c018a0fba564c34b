"""A transformer encoder over token embeddings (Vaswani et al. 2017).

It normalises before each block (Xiong et al. 2020).
"""

from __future__ import annotations

from typing import Self

import torch
from pydantic import Field, model_validator
from torch import nn

from plait.encoders.base import Encoder
from plait.nn.batch import Layout, Tokens, Values
from plait.nn.layers import Block, Dropout
from plait.recipe.bounds import MAX_HEADS, MAX_LAYERS, MAX_WIDTH
from plait.recipe.registry import Options


class Config(Options):
    """`layers` blocks of `width`, each with so many attention `heads`. `dropout` of entries."""

    width: int = Field(64, ge=1, le=MAX_WIDTH, description="of the tokens; a multiple of heads")
    heads: int = Field(4, ge=1, le=MAX_HEADS, description="attention heads in each block")
    layers: int = Field(2, ge=1, le=MAX_LAYERS, description="blocks")
    dropout: float = Field(
        0.1, ge=0, lt=1, description="share of the entries that are set to zero in training"
    )

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class Transformer(Encoder):
    """One token out for each token in, with learned positions."""

    options = Config
    takes = frozenset({"tokens"})

    def __init__(
        self, vocabulary: int, longest: int, width: int, heads: int, layers: int, dropout: float
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(torch.randn(longest, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.dropout = Dropout(dropout)
        self.width = width
        nn.init.normal_(self.embedding.weight, std=0.02)

    @classmethod
    def build(cls, config: Config, layout: Layout) -> Transformer:
        """Build the encoder for texts of a layout's vocabulary and length."""
        return cls(
            layout.vocabulary, layout.size[0], config.width, config.heads, config.layers, config.dropout
        )

    def forward(self, values: Values) -> Tokens:
        """Encode ids (B, L) as tokens (B, L, width)."""
        # Attention needs a token to attend to, even in an empty text.
        mask_BL = values.mask_BL()
        mask_BL[:, 0] |= ~mask_BL.any(1)

        length = values.x.shape[1]
        x_BLD = self.embedding(values.x) + self.position[:length]
        x_BLD = self.dropout(x_BLD)
        for block in self.blocks:
            x_BLD = block(x_BLD, mask_BL)
        return Tokens(self.norm(x_BLD), mask_BL)


component = Transformer
