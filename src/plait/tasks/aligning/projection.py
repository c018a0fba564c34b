"""Project a column's vectors into a space that is learned. B rows, D width, S width of the space."""

from __future__ import annotations

from torch import Tensor, nn

from plait.nn.layers import Dropout, glorot


class Projection(nn.Module):
    """A linear map, plus a network with one layer of `hidden` units (none if 0).

    The network's output begins at zero.
    """

    def __init__(self, width: int, hidden: int, space: int, dropout: float) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.linear = glorot(nn.Linear(width, space))
        self.hidden = None
        if hidden:
            into = nn.Linear(width, hidden)
            out = nn.Linear(hidden, space, bias=False)
            self.hidden = nn.Sequential(into, nn.GELU(), nn.LayerNorm(hidden), out)
            glorot(self.hidden)
            nn.init.zeros_(out.weight)

    def forward(self, x_BD: Tensor) -> Tensor:
        """Return vectors of the space, (B, S)."""
        x_BD = self.dropout(x_BD)
        output_BS: Tensor = self.linear(x_BD)
        if self.hidden is not None:
            output_BS = output_BS + self.hidden(x_BD)
        return output_BS
