"""Late fusion by addition: a network for each column, whose outputs are added. B rows, D width."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from plait.fusion.base import Fusion
from plait.nn.batch import Tokens
from plait.nn.layers import MLP, module_key
from plait.recipe.bounds import Widths
from plait.recipe.registry import Options


class Config(Options):
    """`hidden` has the widths of each column's dense layers. The last one is that of the fused vector."""

    hidden: Widths = Field((64,), min_length=1, description="widths of the dense layers of each column")
    dropout: float = Field(
        0.0, ge=0, lt=1, description="share of the entries that are set to zero in training"
    )


class LogitSum(Fusion):
    """Compute sum_m present_m * f_m(x_m).

    A task's head is linear, so its logits are the sum of each column's logits. Such a sum cannot represent
    interactions between columns. A missing column adds nothing.
    """

    options = Config

    def __init__(self, widths: dict[str, int], hidden: tuple[int, ...], dropout: float) -> None:
        super().__init__()

        # Named `votes` in the weights of saved models.
        self.votes = nn.ModuleDict()
        for column, width in widths.items():
            self.votes[module_key(column)] = MLP(width, hidden, dropout)
        self.width = hidden[-1]

    @classmethod
    def build(cls, config: Config, widths: dict[str, int]) -> LogitSum:
        """Make one network for each column."""
        return cls(widths, config.hidden, config.dropout)

    def forward(self, tokens: dict[str, Tokens], present: dict[str, Tensor]) -> Tensor:
        """Return the fused vectors, (B, D)."""
        outputs = []
        for column, column_tokens in tokens.items():
            network = self.votes[module_key(column)]
            output_BD = network(column_tokens.pooled_BD())
            outputs.append(output_BD * present[column][:, None])
        total_BD: Tensor = sum(outputs[1:], start=outputs[0])
        return total_BD


component = LogitSum
