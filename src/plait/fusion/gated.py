"""Gated multimodal units (Arevalo et al. 2017, section 3.1, the case of many modalities).

B rows, M columns, D width.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from plait.fusion.base import Fusion
from plait.nn.batch import Tokens
from plait.nn.layers import MLP, glorot, module_key
from plait.recipe.bounds import MAX_WIDTH, Widths
from plait.recipe.registry import Options


class Config(Options):
    """`width` is that of the gated vectors. The last of `hidden` is that of the fused vector."""

    width: int = Field(128, ge=1, le=MAX_WIDTH, description="of the gated vectors")
    hidden: Widths = Field((64,), min_length=1, description="widths of the dense layers after the gates")
    dropout: float = Field(
        0.0, ge=0, lt=1, description="share of the entries that are set to zero in training"
    )


class Gated(Fusion):
    """Compute mlp(sum_m z_m * h_m), h_m = tanh(W_m x_m + b_m), z_m = sigmoid(V_m [x_1; ...; x_M] + c_m).

    The gates see all columns. They also see which are missing, by their stand-ins. A missing column's h_m
    is left out of the sum.
    """

    options = Config

    def __init__(self, widths: dict[str, int], width: int, hidden: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        self.values = nn.ModuleDict()
        for column, column_width in widths.items():
            self.values[module_key(column)] = nn.Linear(column_width, width)

        # One layer for the gates of all columns.
        total_width = sum(widths.values())
        self.gates = nn.Linear(total_width, width * len(widths))
        glorot(self)
        self.mlp = MLP(width, hidden, dropout)
        self.width = hidden[-1]

    @classmethod
    def build(cls, config: Config, widths: dict[str, int]) -> Gated:
        """Make the gates for these columns."""
        return cls(widths, config.width, config.hidden, config.dropout)

    def forward(self, tokens: dict[str, Tokens], present: dict[str, Tensor]) -> Tensor:
        """Return the fused vectors, (B, last of `hidden`)."""
        pooled, hidden, masks = [], [], []
        for column, column_tokens in tokens.items():
            x_BD = column_tokens.pooled_BD()
            h_BD = self.values[module_key(column)](x_BD).tanh()
            pooled.append(x_BD)
            hidden.append(h_BD)
            masks.append(present[column])
        h_BMD = torch.stack(hidden, 1)
        present_BM = torch.stack(masks, 1)

        # Columns lie one behind the other in the width of the gates.
        gates_BN = self.gates(torch.cat(pooled, 1)).sigmoid()
        z_BMD = gates_BN.unflatten(1, (len(pooled), -1))
        gated_BMD = z_BMD * h_BMD * present_BM[..., None]
        return self.mlp(gated_BMD.sum(1))


component = Gated
