"""Encode one column.

Shape letters: B rows, P rows that have a cell, N media of all rows (where cells are lists), K media of one
row, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from plait.encoders.base import Encoder, FrozenEncoder
from plait.encoders.base import encoders as encoder_registry
from plait.errors import RecipeError
from plait.modalities.base import Modality
from plait.model.stand_in import StandIn, start_of
from plait.nn.batch import Tokens, Values, place_within
from plait.nn.layers import SetAttention, steps_mask
from plait.nn.summaries import Statistics
from plait.recipe.registry import Choice


class ColumnEncoder(nn.Module):
    """The encoder of one column. Rows without a cell get stand-in tokens.

    Where cells are lists of media (`several`), attention makes one token of each row's set. With
    `statistics`, the statistics of the cell are appended to each of its tokens.
    """

    def __init__(
        self,
        column: str,
        encoder: Encoder,
        missing: str,
        several: bool = False,
        statistics: Statistics | None = None,
    ) -> None:
        super().__init__()
        self.columns = [column]
        self.encoder = encoder
        self.statistics = statistics
        self.width = encoder.width
        if statistics is not None:
            self.width += statistics.width
        self.attention = SetAttention(self.width) if several else None

        self.stand_in = StandIn(1, self.width, start_of(missing, is_frozen=self.fixed == 0))

    @property
    def fixed(self) -> int | None:
        """The index in a token from which on training changes nothing; None if it changes all entries.

        It is 0 for a frozen encoder, and the encoder's width where statistics are appended.
        """
        if isinstance(self.encoder, FrozenEncoder):
            return 0
        if self.statistics is not None:
            return self.encoder.width
        return None

    @property
    def fixed_blocks(self) -> list[slice]:
        """The places in a token that training does not change: a frozen embedding, blocks of statistics."""
        blocks = []
        if isinstance(self.encoder, FrozenEncoder):
            blocks.append(slice(0, self.encoder.width))
        if self.statistics is not None:
            start = self.encoder.width
            for block in self.statistics.blocks:
                blocks.append(slice(start + block.start, start + block.stop))
        return blocks

    def forward(
        self, values: Mapping[str, Values], present: Mapping[str, Tensor], in_table: Mapping[str, Tensor]
    ) -> dict[str, Tokens]:
        """Return the column's tokens, by its name."""
        (column,) = self.columns
        tokens = self.encode(values[column], present[column])
        return self.hide({column: tokens}, present, in_table)

    def hide(
        self, tokens: Mapping[str, Tokens], present: Mapping[str, Tensor], in_table: Mapping[str, Tensor]
    ) -> dict[str, Tokens]:
        """Put stand-in tokens into the rows in which the column is absent."""
        (column,) = self.columns
        column_tokens = tokens[column]
        present_B1 = present[column][:, None]
        in_table_B1 = in_table[column][:, None]
        x_BLD = self.stand_in(column_tokens.x_BLD, present_B1, in_table_B1)
        mask_BL = column_tokens.mask_BL & present_B1
        return {column: Tokens(x_BLD, mask_BL)}

    def encode(self, values: Values, present_B: Tensor) -> Tokens:
        """Encode the cells of some rows.

        In rows without a cell, tokens are arbitrary and masks are False. So absent cells may be left out of
        `values` (see `Values.packed`).
        """
        # Without any cell there is nothing to encode: each row has one token, which its mask hides.
        if not len(values):
            x_B1D = torch.zeros(len(present_B), 1, self.width, device=present_B.device)
            return Tokens(x_B1D, torch.zeros_like(present_B)[:, None])

        tokens = self._encode(values)
        if values.row_P is not None:
            tokens = _in_rows(tokens, values.row_P, len(present_B))
        return Tokens(tokens.x_BLD, tokens.mask_BL & present_B[:, None])

    def encode_fixed(self, values: Values, present_B: Tensor) -> Tokens:
        """Return the tokens that `encode` returns, with zeros for what an encoder that is trained makes."""
        if isinstance(self.encoder, FrozenEncoder) or self.statistics is None:
            return self.encode(values, present_B)

        # Convolutions over all recordings take long, and nothing reads what they make.
        assert values.traits is not None
        numbers_PD = self.statistics(values.traits)
        zeros_PD = numbers_PD.new_zeros(len(numbers_PD), self.encoder.width)
        tokens = Tokens.one_each(torch.cat([zeros_PD, numbers_PD], 1))
        if values.row_P is not None:
            tokens = _in_rows(tokens, values.row_P, len(present_B))
        return Tokens(tokens.x_BLD, tokens.mask_BL & present_B[:, None])

    def _encode(self, values: Values) -> Tokens:
        """Encode all of these cells, then join the media of a row, then add statistics."""
        tokens: Tokens = self.encoder(replace(values, count_B=None, row_P=None, traits=None))
        if self.attention is not None:
            tokens = _attend_to_sets(self.attention, tokens, values.count_B)
        elif values.count_B is not None:
            tokens = _side_by_side(tokens, values.count_B)
        if self.statistics is None:
            return tokens
        assert values.traits is not None
        return _append_statistics(tokens, self.statistics(values.traits))


def _in_rows(tokens: Tokens, row_P: Tensor, rows: int) -> Tokens:
    """Put tokens into their places among all rows."""
    length, width = tokens.x_BLD.shape[1:]
    x_BLD = tokens.x_BLD.new_zeros(rows, length, width)
    mask_BL = tokens.mask_BL.new_zeros(rows, length)
    x_BLD = x_BLD.index_copy(0, row_P, tokens.x_BLD)
    mask_BL = mask_BL.index_copy(0, row_P, tokens.mask_BL)
    return Tokens(x_BLD, mask_BL)


def _append_statistics(tokens: Tokens, numbers_BD: Tensor) -> Tokens:
    """Append the statistics of a cell to each of its tokens, in float32: half of it would blur durations."""
    length = tokens.x_BLD.shape[1]
    numbers_BLD = numbers_BD[:, None].expand(-1, length, -1)
    x_BLD = torch.cat([tokens.x_BLD.float(), numbers_BLD], -1)
    return Tokens(x_BLD, tokens.mask_BL)


def _attend_to_sets(attention: SetAttention, tokens: Tokens, count_B: Tensor | None) -> Tokens:
    """Make one token of each row's set of media. Without `count_B`, each row has one medium."""
    pooled_ND = tokens.pooled_BD()
    if count_B is None:
        count_B = torch.ones(len(pooled_ND), dtype=torch.long, device=pooled_ND.device)

    # K is the largest set. Smaller ones are padded with zeros, which the mask hides.
    largest = int(count_B.max())
    x_BKD = pooled_ND.new_zeros(len(count_B), largest, pooled_ND.shape[1])
    x_BKD = x_BKD.index_put(_row_and_place(count_B), pooled_ND)
    mask_BK = steps_mask(largest, count_B)
    x_BD = attention(x_BKD, mask_BK)
    return Tokens.one_each(x_BD)


def _side_by_side(tokens: Tokens, count_B: Tensor) -> Tokens:
    """Give each row the tokens of all of its media.

    This happens to an encoder that was trained on single media and meets a list, or the windows of a
    long recording.
    """
    largest = int(count_B.max())
    x_BKLD = tokens.x_BLD.new_zeros(len(count_B), largest, *tokens.x_BLD.shape[1:])
    mask_BKL = tokens.mask_BL.new_zeros(x_BKLD.shape[:3])

    places = _row_and_place(count_B)
    x_BKLD = x_BKLD.index_put(places, tokens.x_BLD)
    mask_BKL = mask_BKL.index_put(places, tokens.mask_BL)
    return Tokens(x_BKLD.flatten(1, 2), mask_BKL.flatten(1, 2))


def _row_and_place(count_B: Tensor) -> tuple[Tensor, Tensor]:
    """Return the row of each medium, and its place among those of its row."""
    row_B = torch.arange(len(count_B), device=count_B.device)
    row_N = row_B.repeat_interleave(count_B)
    return row_N, place_within(count_B)


def build_encoder(modality: Modality, choice: Choice | None, column: str) -> Encoder:
    """Build the encoder that the plan has for a column.

    Raises `RecipeError` if it cannot read the modality's layout.
    """
    assert choice is not None
    encoder_class, config = encoder_registry.choose(choice)
    kind = modality.layout.kind
    if kind in encoder_class.takes:
        return encoder_class.build(config, modality.layout)

    kinds = ", ".join(sorted(encoder_class.takes))
    modality_name = type(modality).__name__.lower()
    names = encoder_registry.names()
    fitting = " or ".join(name for name in names if kind in encoder_registry.find(name).takes)
    raise RecipeError(
        f"column '{column}': encoder '{choice.name}' takes {kinds}, but {modality_name} gives {kind}; "
        f"use {fitting}"
    )
