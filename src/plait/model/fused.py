"""Fuse columns: one vector from all of them, and one from each block.

Shape letters: B rows, M columns of a block, D width.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from plait.fusion.base import Fusion
from plait.nn.batch import Encoded, Fused, select
from plait.nn.layers import MLP, module_key

TABLE = "table"  # the block of all plain columns, unless a column has this name


def blocks_of(columns: Sequence[str], plain: Collection[str]) -> dict[str, list[str]]:
    """Return the columns of each block: all plain columns together are one, each other column is another.

    A block of one column has that column's name.
    """
    plain_columns = [column for column in columns if column in plain]
    if len(plain_columns) < 2:
        return {column: [column] for column in columns}

    # A media column may itself have the name of the block.
    blocks = {column: [column] for column in columns if column not in plain_columns}
    name = TABLE
    while name in blocks:
        name += "_"
    blocks[name] = plain_columns
    return blocks


class Fuser(nn.Module):
    """A fusion of the columns that some targets read, and a unimodal network for each of their blocks.

    Fusion is as sure of itself as the column that it could memorise. A unimodal network sees one block.
    Unimodal heads and late fusion read its vector (see `tasks.base_prediction`). Without `unimodal`, or
    with one block, there are none.
    """

    def __init__(
        self, widths: Mapping[str, int], fusion: Fusion, blocks: Mapping[str, Sequence[str]], unimodal: bool
    ) -> None:
        super().__init__()
        self.columns = list(widths)
        self.fusion = fusion
        self.width = fusion.width
        self.blocks = {block: list(columns) for block, columns in blocks.items()}
        self.unimodal = nn.ModuleDict()

        # With one block, fusion is that block's unimodal network already.
        if unimodal and len(blocks) > 1:
            for block, columns in self.blocks.items():
                width = sum(widths[column] for column in columns)
                self.unimodal[module_key(block)] = MLP(width, [fusion.width])

    @property
    def unimodal_blocks(self) -> list[str]:
        """The blocks that have a unimodal network: all of them, or none."""
        if not len(self.unimodal):
            return []
        return list(self.blocks)

    def forward(self, encoded: Encoded) -> Fused:
        """Fuse the tokens of some rows."""
        tokens = select(encoded.tokens, self.columns)
        present = select(encoded.present, self.columns)
        vector_BD = self.fusion(tokens, present)

        # Where a cell is absent, the pooled vector is that of the stand-in token.
        blocks = {}
        for block in self.unimodal_blocks:
            network = self.unimodal[module_key(block)]
            pooled = [tokens[column].pooled_BD() for column in self.blocks[block]]
            blocks[block] = network(torch.cat(pooled, 1))

        has_block = self.of_blocks(present)
        has_block_in_table = self.of_blocks(encoded.in_table)
        return Fused(vector_BD, blocks, has_block, has_block_in_table)

    def of_blocks(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return masks of blocks from masks of columns: True where any column of the block is."""
        block_masks = {}
        for block, columns in self.blocks.items():
            column_masks = select(masks, columns)
            mask_MB = torch.stack(list(column_masks.values()))
            block_masks[block] = mask_MB.any(0)
        return block_masks
