"""Low-rank multimodal fusion (Liu et al. 2018): all products of one entry per column, for the cost of few.

B rows, D width of a column, R rank, K width of the product.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from plait.fusion.base import Fusion
from plait.nn.batch import Tokens
from plait.nn.layers import MLP, module_key
from plait.recipe.bounds import MAX_WIDTH, Widths
from plait.recipe.registry import Options


class Config(Options):
    """`width` is that of the product. The last of `hidden` is that of the fused vector."""

    width: int = Field(64, ge=1, le=MAX_WIDTH, description="of the product")
    rank: int = Field(8, ge=1, le=MAX_WIDTH, description="of the tensor that the product stands for")
    hidden: Widths = Field((64,), min_length=1, description="widths of the dense layers after the products")
    dropout: float = Field(
        0.0, ge=0, lt=1, description="share of the entries that are set to zero in training"
    )


class LowRank(Fusion):
    """Compute mlp(h) with h = sum_{i=1..rank} prod_m (w_m^(i) z_m) + b and z_m = [x_m; 1].

    Products are elementwise over the width (eq. 8 to 10 of the paper). h equals the full tensor
    (z_1 x ... x z_M) times a weight of that rank.

    The appended 1 adds every lower order. A missing column has x_m = 0, which leaves exactly the orders
    without it. Vectors are normalised first. Otherwise a product of many columns would vanish or explode.
    """

    options = Config

    def __init__(
        self, widths: dict[str, int], width: int, rank: int, hidden: tuple[int, ...], dropout: float
    ) -> None:
        super().__init__()
        self.norms = nn.ModuleDict()
        for column, column_width in widths.items():
            self.norms[module_key(column)] = nn.LayerNorm(column_width)
        self.factors = nn.ParameterDict()
        for column, column_width in widths.items():
            factor = torch.randn(column_width + 1, rank, width) / column_width**0.5

            # Near 1 times each column, so that all orders are there from the start.
            factor[-1] = 1.0 + 0.1 * torch.randn(rank, width)
            self.factors[module_key(column)] = nn.Parameter(factor)
        self.rank_weights = nn.Parameter(torch.randn(rank) / rank**0.5)
        self.bias = nn.Parameter(torch.zeros(width))
        self.mlp = MLP(width, hidden, dropout)
        self.width = hidden[-1]

    @classmethod
    def build(cls, config: Config, widths: dict[str, int]) -> LowRank:
        """Make the factors for these columns."""
        return cls(widths, config.width, config.rank, config.hidden, config.dropout)

    def product_BD(self, tokens: dict[str, Tokens], present: dict[str, Tensor]) -> Tensor:
        """Return h of the equation, (B, K).

        The sum over ranks is weighted by `rank_weights`, as in the paper's code.
        """
        product_BRK: Tensor | None = None
        for column, column_tokens in tokens.items():
            key = module_key(column)
            normalised_BD = self.norms[key](column_tokens.pooled_BD())
            x_BD = normalised_BD * present[column][:, None]

            # The last row of a factor belongs to the appended 1.
            factor = self.factors[key]
            weight_DRK = factor[:-1].to(x_BD.dtype)
            term_BRK = torch.einsum("bd,drk->brk", x_BD, weight_DRK) + factor[-1]
            product_BRK = term_BRK if product_BRK is None else product_BRK * term_BRK
        assert product_BRK is not None
        rank_weight_R = self.rank_weights.to(product_BRK.dtype)
        return torch.einsum("brk,r->bk", product_BRK, rank_weight_R) + self.bias

    def forward(self, tokens: dict[str, Tokens], present: dict[str, Tensor]) -> Tensor:
        """Return the fused vectors, (B, last of `hidden`)."""
        return self.mlp(self.product_BD(tokens, present))


component = LowRank
