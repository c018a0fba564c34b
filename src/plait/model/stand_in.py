"""Choose the token that stands in for a cell that is not there. B rows, M columns, L tokens, D width.

A cell can be absent for two reasons. The table may lack the column, or training may hide the cell: then
nothing is known of it, and the missing token stands in. Or the row's cell is empty, which can say something:
what has no sound may be no animal. Then the empty token is added. `training/hiding.py` trains both.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Start = Literal["learned", "fixed", "zero"]


class StandIn(nn.Module):
    """The missing token and the empty token of one column, or of several columns of one width.

    `start` is `learned`, `zero`, or `fixed`: the missing token is drawn at random and not trained.
    Behind a frozen encoder, whose embeddings need no gradient, the layers that follow learn to know a
    fixed token, which is as long as the embeddings are.
    """

    def __init__(self, columns: int, width: int, start: Start) -> None:
        super().__init__()
        self.columns, self.width = columns, width
        self.missing: Tensor
        self.empty: Tensor

        # Tensors of one dimension take no weight decay (see `optimizer_for`), so both are kept flat.
        size = columns * width
        if start == "zero":
            self.register_buffer("missing", torch.zeros(size), persistent=False)
            self.register_buffer("empty", torch.zeros(size), persistent=False)
        else:
            missing = torch.randn(size)
            if start == "fixed":
                self.register_buffer("missing", missing)
            else:
                self.missing = nn.Parameter(missing * 0.02)
            self.empty = nn.Parameter(torch.randn(size) * 0.3)

        # True where training rows have empty cells: only then has anything been learned of what they say.
        self.has_empty_M: Tensor
        self.register_buffer("has_empty_M", torch.zeros(columns, dtype=torch.bool))

    def mark_empty(self, has_empty: list[bool]) -> None:
        """Say which columns have empty cells in training rows. Train the empty tokens only if some have."""
        self.has_empty_M.copy_(torch.tensor(has_empty))
        self.empty.requires_grad_(any(has_empty) and isinstance(self.empty, nn.Parameter))

    def forward(self, x_BMD: Tensor, present_BM: Tensor, in_table_BM: Tensor) -> Tensor:
        """Return the tokens with a stand-in wherever a cell is absent.

        Of one column, `x_BMD` may hold L tokens a row, (B, L, D); its masks are (B, 1).
        """
        empty_BM = in_table_BM & ~present_BM & self.has_empty_M
        missing_MD = self.missing.view(self.columns, self.width)
        empty_MD = self.empty.view(self.columns, self.width)
        token_BMD = missing_MD + empty_BM[..., None] * empty_MD
        return torch.where(present_BM[..., None], x_BMD, token_BMD.to(x_BMD.dtype))
