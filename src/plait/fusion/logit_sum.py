"""Late fusion: every column votes on its own, and the votes are added."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from plait.fusion.base import Fusion
from plait.nn.batch import Tokens
from plait.nn.layers import MLP, module_key
from plait.recipe.registry import Options


class Config(Options):
    hidden: tuple[int, ...] = Field(
        (64,), min_length=1, description="widths of each column's own dense layers"
    )
    dropout: float = Field(0.0, ge=0, lt=1)


class LogitSum(Fusion):
    """sum_m present_m * f_m(x_m). A task's head is linear, so its logits are the sum of each column's
    logits: additive in the columns, and unable to represent any interaction between them. A missing
    column has no vote.
    """

    options = Config

    def __init__(self, widths: dict[str, int], hidden: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        self.votes = nn.ModuleDict(
            {module_key(c): MLP(width, hidden, dropout) for c, width in widths.items()}
        )
        self.width = hidden[-1]

    @classmethod
    def build(cls, config: Config, widths: dict[str, int]) -> LogitSum:
        return cls(widths, config.hidden, config.dropout)

    def forward(self, tokens: dict[str, Tokens], present: dict[str, Tensor]) -> Tensor:
        votes = [self.votes[module_key(c)](t.pooled_BD()) * present[c][:, None] for c, t in tokens.items()]
        total: Tensor = sum(votes[1:], start=votes[0])
        return total


component = LogitSum
