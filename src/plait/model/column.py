"""Encode one column. B rows, N media (where cells are lists), L tokens, D width."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from plait.data.preprocessing import Preprocessing
from plait.encoders.base import Encoder, FrozenEncoder
from plait.encoders.base import encoders as encoder_registry
from plait.errors import RecipeError
from plait.modalities.base import Modality
from plait.model.stand_in import StandIn, Start
from plait.nn.batch import Tokens, Values, place_within
from plait.nn.layers import SetAttention, steps_mask
from plait.nn.summaries import WORDS, Statistics
from plait.recipe.registry import Choice


class ColumnEncoder(nn.Module):
    """The encoder of one column. It runs on the rows that have a cell; stand-in tokens fill the other
    rows.

    Where cells are lists of media (`several`), attention makes one token of each row's set. With
    `statistics`, each token also holds these numbers of its whole cell, after what the encoder makes of
    it.
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
        self.encoder, self.statistics = encoder, statistics
        self.width = encoder.width + (statistics.width if statistics else 0)
        self.attention = SetAttention(self.width) if several else None
        start: Start = "zero" if missing == "zero" else "fixed" if self.fixed == 0 else "learned"
        self.stand_in = StandIn(1, self.width, start)

    @property
    def fixed(self) -> int | None:
        """The index from which on training changes nothing in a token; None if it changes all of it.

        It is 0 for a frozen encoder, and the encoder's width where statistics follow.
        """
        if isinstance(self.encoder, FrozenEncoder):
            return 0
        return self.encoder.width if self.statistics else None

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
        present_B1, in_table_B1 = present[column][:, None], in_table[column][:, None]
        x_BLD = self.stand_in(tokens[column].x_BLD, present_B1, in_table_B1)
        return {column: Tokens(x_BLD, tokens[column].mask_BL & present_B1)}

    def encode(self, values: Values, present_B: Tensor) -> Tokens:
        """Encode the cells that are present. The tokens of other rows mean nothing, and their masks are
        False.
        """
        # A graph for export has fixed shapes: it encodes every row. So does a frozen encoder, whose
        # rows are cheap.
        if (
            torch.compiler.is_exporting()
            or bool(present_B.all())
            or (values.encoded and values.count_B is None)
        ):
            tokens = self._encode(values)
            return Tokens(tokens.x_BLD, tokens.mask_BL & present_B[:, None])

        rows = present_B.nonzero()[:, 0]
        if not len(rows):
            x_BLD = torch.zeros(len(present_B), 1, self.width, device=present_B.device)
            return Tokens(x_BLD, torch.zeros(x_BLD.shape[:2], dtype=torch.bool, device=x_BLD.device))

        tokens = self._encode(values.take(rows))
        x_BLD = tokens.x_BLD.new_zeros(len(present_B), *tokens.x_BLD.shape[1:])
        mask_BL = tokens.mask_BL.new_zeros(x_BLD.shape[:2])
        return Tokens(x_BLD.index_copy(0, rows, tokens.x_BLD), mask_BL.index_copy(0, rows, tokens.mask_BL))

    def _encode(self, values: Values) -> Tokens:
        """Encode all of these cells."""
        tokens: Tokens = self.encoder(replace(values, count_B=None))
        if self.statistics is not None:
            numbers_B1D = self.statistics(values).to(tokens.x_BLD.dtype)[:, None]
            numbers_BLD = numbers_B1D.expand(-1, tokens.x_BLD.shape[1], -1)
            tokens = Tokens(torch.cat([tokens.x_BLD, numbers_BLD], -1), tokens.mask_BL)
        if self.attention is not None:
            return _attended(self.attention, tokens, values.count_B)
        return tokens if values.count_B is None else _side_by_side(tokens, values.count_B)


def _attended(attention: SetAttention, tokens: Tokens, count_B: Tensor | None) -> Tokens:
    """Make one token of each row's set of media."""
    pooled_ND = tokens.pooled_BD()
    if count_B is None:
        count_B = torch.ones(len(pooled_ND), dtype=torch.long, device=pooled_ND.device)
    x_BKD = pooled_ND.new_zeros(len(count_B), int(count_B.max()), pooled_ND.shape[1])
    x_BKD = x_BKD.index_put(_row_and_place(count_B), pooled_ND)
    x_B1D = attention(x_BKD, steps_mask(x_BKD.shape[1], count_B))[:, None]
    return Tokens(x_B1D, torch.ones(x_B1D.shape[:2], dtype=torch.bool, device=x_B1D.device))


def _side_by_side(tokens: Tokens, count_B: Tensor) -> Tokens:
    """Give each row the tokens of all of its media.

    This happens to an encoder that was trained on single media and meets a list, or the windows of a
    long recording.
    """
    _, length, width = tokens.x_BLD.shape
    x_BKLD = tokens.x_BLD.new_zeros(len(count_B), int(count_B.max()), length, width)
    mask_BKL = tokens.mask_BL.new_zeros(x_BKLD.shape[:3])
    places = _row_and_place(count_B)
    x_BKLD, mask_BKL = x_BKLD.index_put(places, tokens.x_BLD), mask_BKL.index_put(places, tokens.mask_BL)
    return Tokens(x_BKLD.flatten(1, 2), mask_BKL.flatten(1, 2))


def _row_and_place(count_B: Tensor) -> tuple[Tensor, Tensor]:
    """Return the row of each medium, and its place among those of its row."""
    rows = torch.arange(len(count_B), device=count_B.device).repeat_interleave(count_B)
    return rows, place_within(count_B)


def columns_with_statistics(preprocessing: Preprocessing, encoders: Mapping[str, Encoder]) -> set[str]:
    """Return the columns whose tokens hold statistics of the cell, from which an alignment can start.

    These are the aligned columns whose encoders start from nothing. Where two of the columns have
    pretrained encoders, only texts: their n-grams say much, while mean spectra and the like would
    disturb pretrained embeddings.
    """
    columns = set()
    for task in preprocessing.tasks.values():
        if task.has_target:
            continue
        aligned = task.read(preprocessing.inputs)
        pretrained = sum(encoders[column].pretrained for column in aligned)
        for column in aligned:
            layout = preprocessing.inputs[column].layout
            starts_from_nothing = not encoders[column].pretrained and column not in preprocessing.several
            has_statistics = Statistics.known_for(layout) and (pretrained < 2 or layout.kind in WORDS)
            if starts_from_nothing and has_statistics:
                columns.add(column)
    return columns


def build_encoder(modality: Modality, choice: Choice | None, column: str) -> Encoder:
    """The encoder that the recipe chose for a column. Raises `RecipeError` when it cannot read the
    modality's layout.
    """
    assert choice is not None
    encoder, config = encoder_registry.choose(choice)
    kind = modality.layout.kind
    if kind not in encoder.takes:
        fitting = [name for name in encoder_registry.names() if kind in encoder_registry.find(name).takes]
        raise RecipeError(
            f"column '{column}': encoder '{choice.name}' takes {', '.join(sorted(encoder.takes))}, "
            f"but {type(modality).__name__.lower()} gives {kind}; use {' or '.join(fitting)}"
        )
    return encoder.build(config, modality.layout)
