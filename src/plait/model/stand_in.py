"""Choose the token that stands in for an absent cell.

A cell can be absent for two reasons. The table may lack the column, or training may hide the cell: then
nothing is known of it, and the missing token stands in. Or the row's cell is empty, which can say something:
what has no audio may be no animal. Then the empty token is added. `training/hiding.py` trains both.

Shape letters: B rows, M columns, L tokens, D width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Start = Literal["learned", "fixed", "zero"]


def start_of(missing: str, is_frozen: bool = False) -> Start:
    """Return how the missing token begins: by the recipe's `missing`, and the columns' encoder."""
    if missing == "zero":
        return "zero"
    return "fixed" if is_frozen else "learned"


class StandIn(nn.Module):
    """The missing token and the empty token of one column, or of several columns of one width.

    `start` says how the missing token begins:

    - `learned`: small random numbers, which are trained;
    - `fixed`: random numbers that are not trained, as long a vector as the embeddings of a frozen encoder.
      These need no gradient, so the layers that follow learn what a fixed token means;
    - `zero`: both tokens are zero and not trained.
    """

    def __init__(self, columns: int, width: int, start: Start) -> None:
        super().__init__()
        self.columns = columns
        self.width = width
        self.missing: Tensor
        self.empty: Tensor

        # Tensors of one dimension take no weight decay (see `optimizer_for`), so both are flat.
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

        # True where training rows have empty cells. Elsewhere the empty token has learned nothing.
        self.has_empty_M: Tensor
        self.register_buffer("has_empty_M", torch.zeros(columns, dtype=torch.bool))

    def mark_empty(self, has_empty: list[bool]) -> None:
        """Set which columns have empty cells in training rows. Train the empty tokens only if some have."""
        self.has_empty_M.copy_(torch.tensor(has_empty))
        is_trained = any(has_empty) and isinstance(self.empty, nn.Parameter)
        self.empty.requires_grad_(is_trained)

    def forward(self, x_BMD: Tensor, present_BM: Tensor, in_table_BM: Tensor) -> Tensor:
        """Return the tokens with a stand-in wherever a cell is absent.

        With a single column, `x_BMD` may hold L tokens a row, (B, L, D), while the masks are (B, 1).
        """
        empty_BM = in_table_BM & ~present_BM & self.has_empty_M
        is_on_cpu = present_BM.device.type == "cpu"
        if self.columns == 1 and is_on_cpu and not torch.compiler.is_compiling():
            return self._written(x_BMD, present_BM[:, 0], empty_BM[:, 0])
        missing_MD = self.missing.view(self.columns, self.width)
        empty_MD = self.empty.view(self.columns, self.width)
        token_BMD = missing_MD + empty_BM[..., None] * empty_MD
        return torch.where(present_BM[..., None], x_BMD, token_BMD.to(x_BMD.dtype))

    def _written(self, x_BLD: Tensor, present_B: Tensor, empty_B: Tensor) -> Tensor:
        """Return the tokens of the only column, with a stand-in written into the rows without a cell.

        To write every row anew takes a tenth of a step where only a head is trained. But a GPU would have to
        be waited for, and an exported network must not depend on which rows of one batch have a cell.
        """
        row_N = (~present_B).nonzero()[:, 0]
        token_ND = self.missing + empty_B[row_N, None] * self.empty
        token_NLD = token_ND[:, None].expand(-1, x_BLD.shape[1], -1)
        return x_BLD.index_copy(0, row_N, token_NLD.to(x_BLD.dtype))
