"""Fuse columns: one vector from all of them, and one from each block alone. B rows, D width."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from plait.fusion.base import Fusion
from plait.nn.batch import Encoded, Fused
from plait.nn.layers import MLP, module_key

TABLE = "table"  # the block of all plain columns, unless a column has this name


def blocks_of(columns: Sequence[str], plain: Collection[str]) -> dict[str, list[str]]:
    """Return the columns of each block: each media column is one, all plain columns together are another.

    A block of one column has that column's name.
    """
    table = [column for column in columns if column in plain]
    blocks = {column: [column] for column in columns if len(table) < 2 or column not in table}
    if len(table) > 1:
        name = TABLE
        while name in blocks:
            name += "_"
        blocks[name] = table
    return blocks


class Fuser(nn.Module):
    """A fusion of the columns that some targets read, and a small network for each of their blocks.

    Fusion is as sure of itself as the column that it could memorise. The networks of single blocks see
    one block each, for unimodal heads and late fusion (see `tasks.base_prediction`). Without
    `unimodal`, or with one block, there are none.
    """

    def __init__(
        self, widths: Mapping[str, int], fusion: Fusion, blocks: Mapping[str, Sequence[str]], unimodal: bool
    ) -> None:
        super().__init__()
        self.columns, self.fusion, self.width = list(widths), fusion, fusion.width
        self.blocks = {block: list(columns) for block, columns in blocks.items()}
        self.unimodal = nn.ModuleDict()
        if unimodal and len(blocks) > 1:
            for block, columns in self.blocks.items():
                width = sum(widths[column] for column in columns)
                self.unimodal[module_key(block)] = MLP(width, [fusion.width])

    @property
    def unimodal_blocks(self) -> list[str]:
        """The blocks that have a network of their own: all of them, or none."""
        return list(self.blocks) if len(self.unimodal) else []

    def forward(self, encoded: Encoded) -> Fused:
        """Fuse the tokens of some rows."""
        tokens = {column: encoded.tokens[column] for column in self.columns}
        present = {column: encoded.present[column] for column in self.columns}
        vector_BD = self.fusion(tokens, present)

        blocks = {}
        for block in self.unimodal_blocks:
            pooled_BD = torch.cat([tokens[column].pooled_BD() for column in self.blocks[block]], 1)
            blocks[block] = self.unimodal[module_key(block)](pooled_BD)
        return Fused(vector_BD, blocks, self.of_blocks(present), self.of_blocks(encoded.in_table))

    def of_blocks(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return masks of blocks from masks of columns: True where one of the block's columns is."""
        of_blocks = {}
        for block, columns in self.blocks.items():
            of_blocks[block] = torch.stack([masks[column] for column in columns]).any(0)
        return of_blocks
