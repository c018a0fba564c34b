"""Choose the token that stands in for a cell that is not there. B rows, M columns, L tokens, D width.

A cell can be absent for two reasons. The table may lack the column, or training may hide the cell: then
nothing is known of it, and the missing token stands in. Or the row's cell is empty. Of plain columns that
can say something (no income may mean no job), so there the empty token is added. `training/hiding.py`
trains both; docs/decisions/0002-empty-cells.md says why media columns have no empty token.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Start = Literal["learned", "fixed", "zero"]


class StandIn(nn.Module):
    """The missing token of one column, or of several columns of one width; with `plain`, also their
    empty tokens.

    `start` is `learned` (tokens are trained), `zero`, or `fixed`: drawn at random and not trained.
    Behind a frozen encoder, whose embeddings need no gradient, the layers that follow learn to know a
    fixed token, which is as long as the embeddings are.
    """

    def __init__(self, columns: int, width: int, start: Start, plain: bool) -> None:
        super().__init__()
        self.columns, self.width, self.plain = columns, width, plain
        self.missing: Tensor
        self._add_token("missing", start, 0.02)
        if plain:
            self.empty: Tensor
            self._add_token("empty", start, 0.3)

            # True where training rows have empty cells: only then has anything been learned of what they say.
            self.has_empty_M: Tensor
            self.register_buffer("has_empty_M", torch.zeros(columns, dtype=torch.bool))

    def _add_token(self, name: str, start: Start, deviation: float) -> None:
        """Add one token for each column. They are kept flat: what has one dimension takes no weight decay."""
        size = self.columns * self.width
        if start == "learned":
            self.register_parameter(name, nn.Parameter(torch.randn(size) * deviation))
        elif start == "fixed":
            self.register_buffer(name, torch.randn(size))
        else:
            self.register_buffer(name, torch.zeros(size), persistent=False)

    def forward(self, x_BMD: Tensor, present_BM: Tensor, in_table_BM: Tensor) -> Tensor:
        """Return the tokens with a stand-in wherever a cell is absent.

        Of one column, `x_BMD` may hold L tokens a row, (B, L, D); its masks are (B, 1).
        """
        token_BMD = self.missing.view(self.columns, self.width)
        if self.plain:
            told_BM = self.tells(present_BM, in_table_BM) & ~present_BM
            token_BMD = token_BMD + told_BM[..., None] * self.empty.view(self.columns, self.width)
        return torch.where(present_BM[..., None], x_BMD, token_BMD.to(x_BMD.dtype))

    def tells(self, present_BM: Tensor, in_table_BM: Tensor) -> Tensor:
        """Return where a column says something of a row: by a cell, or by an empty cell that training
        has seen.
        """
        if not self.plain:
            return present_BM
        return present_BM | (in_table_BM & self.has_empty_M)
