"""Gated multimodal units (Arevalo et al. 2017, section 3.1, the case of many modalities)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from plait.fusion.base import Fusion
from plait.nn.batch import Tokens
from plait.nn.layers import MLP, glorot, module_key
from plait.recipe.registry import Options


class Config(Options):
    width: int = Field(128, ge=1)
    hidden: tuple[int, ...] = Field(
        (64,), min_length=1, description="widths of the dense layers behind the gates"
    )
    dropout: float = Field(0.0, ge=0, lt=1)


class Gated(Fusion):
    """mlp(sum_m z_m * h_m), h_m = tanh(W_m x_m + b_m), z_m = sigmoid(V_m [x_1; ...; x_M] + c_m).

    The gates see all columns, and with them which are missing (by their learned tokens); a missing
    column's h_m is left out of the sum.
    """

    options = Config

    def __init__(self, widths: dict[str, int], width: int, hidden: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        self.values = nn.ModuleDict({module_key(c): nn.Linear(before, width) for c, before in widths.items()})
        self.gates = nn.Linear(sum(widths.values()), width * len(widths))
        glorot(self)
        self.mlp = MLP(width, hidden, dropout)
        self.width = hidden[-1]

    @classmethod
    def build(cls, config: Config, widths: dict[str, int]) -> Gated:
        return cls(widths, config.width, config.hidden, config.dropout)

    def forward(self, tokens: dict[str, Tokens], present: dict[str, Tensor]) -> Tensor:
        pooled = {c: t.pooled_BD() for c, t in tokens.items()}
        present_BM = torch.stack([present[c] for c in pooled], 1)
        h_BMD = torch.stack([self.values[module_key(c)](x_BD).tanh() for c, x_BD in pooled.items()], 1)
        z_BMD = self.gates(torch.cat(list(pooled.values()), 1)).sigmoid().unflatten(1, (len(pooled), -1))
        return self.mlp((z_BMD * h_BMD * present_BM[..., None]).sum(1))


component = Gated
