"""Low-rank multimodal fusion (Liu et al. 2018): every product of one entry per column, at the price of
a few vectors.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from plait.fusion.base import Fusion
from plait.nn.batch import Tokens
from plait.nn.layers import MLP, module_key
from plait.recipe.registry import Options


class Config(Options):
    width: int = Field(64, ge=1)
    rank: int = Field(8, ge=1)
    hidden: tuple[int, ...] = Field(
        (64,), min_length=1, description="widths of the dense layers behind the products"
    )
    dropout: float = Field(0.0, ge=0, lt=1)


class LowRank(Fusion):
    """mlp(h), h = sum_{i=1..rank} prod_m (w_m^(i) z_m) + b, elementwise over the width, with z_m =
    [x_m; 1]: eq. 8 to 10 of the paper. It equals the full tensor (z_1 x ... x z_M) times a weight of
    that rank.

    The appended 1 brings every lower order with it. A missing column has x_m = 0, which leaves exactly
    the orders without it. Vectors are normalised first: a product of many columns would otherwise
    vanish or explode.
    """

    options = Config

    def __init__(
        self, widths: dict[str, int], width: int, rank: int, hidden: tuple[int, ...], dropout: float
    ) -> None:
        super().__init__()
        self.norms = nn.ModuleDict({module_key(c): nn.LayerNorm(before) for c, before in widths.items()})
        self.factors = nn.ParameterDict()
        for column, before in widths.items():
            factor = torch.randn(before + 1, rank, width) / before**0.5
            factor[-1] = 1.0 + 0.1 * torch.randn(
                rank, width
            )  # near 1 times each column: all orders are there from the start
            self.factors[module_key(column)] = nn.Parameter(factor)
        self.rank_weights = nn.Parameter(torch.randn(rank) / rank**0.5)
        self.bias = nn.Parameter(torch.zeros(width))
        self.mlp = MLP(width, hidden, dropout)
        self.width = hidden[-1]

    @classmethod
    def build(cls, config: Config, widths: dict[str, int]) -> LowRank:
        return cls(widths, config.width, config.rank, config.hidden, config.dropout)

    def product_BD(self, tokens: dict[str, Tokens], present: dict[str, Tensor]) -> Tensor:
        """h of the equation. The paper's code, like this, weighs the ranks (`rank_weights`) when it
        adds them.
        """
        product: Tensor | None = None
        for column, t in tokens.items():
            key = module_key(column)
            x_BD = self.norms[key](t.pooled_BD()) * present[column][:, None]
            factor = self.factors[key]
            term_BRD = torch.einsum("bd,drk->brk", x_BD, factor[:-1].to(x_BD.dtype)) + factor[-1]
            product = term_BRD if product is None else product * term_BRD
        assert product is not None
        return torch.einsum("brk,r->bk", product, self.rank_weights.to(product.dtype)) + self.bias

    def forward(self, tokens: dict[str, Tokens], present: dict[str, Tensor]) -> Tensor:
        return self.mlp(self.product_BD(tokens, present))


component = LowRank
