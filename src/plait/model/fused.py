"""The fused vector of some columns, and the small network of each block. B rows, D width."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from plait.fusion.base import Fusion
from plait.nn.batch import Tokens
from plait.nn.layers import MLP, module_key

# the part that all numbers, categories and dates are; the others have their column's name, and no
# column has a name like this
TABLE = "\0table"


def parts(columns: Sequence[str], cells: Collection[str]) -> dict[str, list[str]]:
    """The columns of each part: a medium by itself; numbers, categories and dates, which are `cells`,
    all together.
    """
    table = [c for c in columns if c in cells]
    found = {c: [c] for c in columns if len(table) < 2 or c not in table}
    return {**found, TABLE: table} if len(table) > 1 else found


class Fused(nn.Module):
    """The fused vector of some columns: a fusion, and for each part, where there are several, a small
    network of its own (`solo`), which trains the encoders of its columns without the other parts, and
    answers for rows that have nothing else. `empty` has a vector for each part, of what it says that a
    row has none of it, and one for rows that have no cell at all: added to that of a row with one part
    or none.
    """

    def __init__(self, widths: dict[str, int], fusion: Fusion, parts: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.columns, self.fusion, self.width = list(widths), fusion, fusion.width
        self.parts = {p: list(columns) for p, columns in parts.items()} if len(parts) > 1 else {}
        self.solo = nn.ModuleDict(
            {
                module_key(p): MLP(sum(widths[c] for c in columns), [fusion.width])
                for p, columns in self.parts.items()
            }
        )
        self.empty = nn.Embedding(len(self.parts) + 1, fusion.width) if self.solo else None
        if self.empty is not None:
            nn.init.zeros_(self.empty.weight)

    def forward(
        self,
        encoded: dict[str, Tokens],
        present: dict[str, Tensor],
        single: bool = True,
        columns: Collection[str] | None = None,
    ) -> Tensor:
        """The vector of each row. With `single`, that of a row with one part, or none, is what that
        part's own network makes of it, and the empty ones of `columns` (the others are not there at
        all) say: fusion has seen few such rows, the other has seen them all.
        """
        fused_BD: Tensor = self.fusion(
            {c: encoded[c] for c in self.columns}, {c: present[c] for c in self.columns}
        )
        if not self.solo or not single:
            return fused_BD
        there = self.there(present)
        there_BP = torch.stack(list(there.values()), 1)
        few_B = there_BP.sum(1) <= 1
        if not bool(few_B.any()):
            return fused_BD
        given_P = torch.tensor(self._given(columns), device=there_BP.device)
        few_BD = self.said_by_empty(~there_BP & given_P, ~there_BP.any(1)).to(fused_BD.dtype)
        for p, there_B in there.items():
            few_BD = few_BD + torch.where(
                (few_B & there_B)[:, None], self.alone(p, encoded).to(fused_BD.dtype), 0
            )
        return torch.where(few_B[:, None], few_BD, fused_BD)

    def there(self, present: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """In which rows each part has a cell."""
        return {
            p: torch.stack([present[c] for c in columns]).any(0) if len(columns) > 1 else present[columns[0]]
            for p, columns in self.parts.items()
        }

    def alone(self, part: str, encoded: Mapping[str, Tokens]) -> Tensor:
        """The vector of one part by itself."""
        return cast(
            Tensor,
            self.solo[module_key(part)](torch.cat([encoded[c].pooled_BD() for c in self.parts[part]], 1)),
        )

    def said_by_empty(self, empty_BP: Tensor, nothing_B: Tensor) -> Tensor:
        """The sum of what the empty parts of each row say, and that there is nothing else where that is
        so.
        """
        assert self.empty is not None
        weight = self.empty.weight
        return torch.cat([empty_BP, nothing_B[:, None]], 1).to(weight.dtype) @ weight

    def knows_empty(self, columns: Collection[str] | None = None) -> bool:
        """Whether training rows have taught what it says that a part of these columns is empty: its
        vector is no longer zero.
        """
        if self.empty is None:
            return False
        at = [i for i, given in enumerate(self._given(columns)) if given]
        return bool((self.empty.weight[at] != 0).any())

    def _given(self, columns: Collection[str] | None) -> list[bool]:
        """Whether each part has one of these columns."""
        return [columns is None or any(c in columns for c in own) for own in self.parts.values()]
