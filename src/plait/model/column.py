"""Encode one column, and stand in for its missing cells. B rows, L tokens, D width."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from plait.data.preprocessing import Preprocessing, configured
from plait.encoders.base import Encoder
from plait.errors import RecipeError
from plait.modalities.base import Modality
from plait.nn.batch import Tokens, Values, place_within
from plait.nn.layers import SetAttention, steps_mask
from plait.nn.summaries import WORDS, Statistics
from plait.recipe import registry
from plait.recipe.registry import Choice


class ColumnEncoder(nn.Module):
    """One column's encoder, run on the rows that have the column, and the token that stands in for it
    in the others: a learned one, behind a frozen encoder one drawn by lot, as long as what such
    encoders make of cells.

    Where cells are lists of media (`several`), attention makes one token of each row's set. With
    `statistics` each token also holds these numbers of the whole cell, behind what the encoder makes of
    it.
    """

    def __init__(
        self, encoder: Encoder, missing: str, several: bool = False, statistics: Statistics | None = None
    ) -> None:
        super().__init__()
        self.encoder, self.statistics = encoder, statistics
        self.width = encoder.width + (statistics.width if statistics else 0)
        self.attention = SetAttention(self.width) if several else None
        self.missing_D: Tensor
        if (
            missing == "learned" and self.fixed == 0
        ):  # the layers behind learn to know it; so nothing in a vector needs a gradient
            self.register_buffer("missing_D", torch.randn(self.width))
        elif missing == "learned":
            self.missing_D = nn.Parameter(torch.randn(self.width) * 0.02)
        else:
            self.register_buffer("missing_D", torch.zeros(self.width), persistent=False)

    @property
    def fixed(self) -> int | None:
        """From where on in a token training changes nothing: 0 for a frozen encoder, behind the
        encoder's part with statistics.
        """
        return 0 if hasattr(self.encoder, "embed") else self.encoder.width if self.statistics else None

    def forward(self, values: Values, present_B: Tensor) -> Tokens:
        if bool(present_B.all()):
            return self._encode(values)
        if values.encoded and values.count_B is None:  # hiding them costs less than picking the others
            return self.hide(self._encode(values), present_B)
        rows = present_B.nonzero()[:, 0]
        if not len(rows):
            x_BLD = self.missing_D.expand(len(present_B), 1, -1)
            return Tokens(x_BLD, torch.zeros(x_BLD.shape[:2], dtype=torch.bool, device=x_BLD.device))
        some = self._encode(values.take(rows))
        x_BLD = self.missing_D.to(some.x_BLD.dtype).expand(len(present_B), some.x_BLD.shape[1], -1)
        mask_BL = torch.zeros(x_BLD.shape[:2], dtype=torch.bool, device=x_BLD.device)
        return Tokens(x_BLD.index_copy(0, rows, some.x_BLD), mask_BL.index_copy(0, rows, some.mask_BL))

    def _encode(self, values: Values) -> Tokens:
        """The encoder's tokens; of a list of media, one for the set (see `_of_sets`). One that was
        learned on single media and meets a list, or windows of a long one, gets the tokens of all of
        them side by side.
        """
        found: Tokens = self.encoder(replace(values, count_B=None))
        if self.statistics is not None:
            numbers_B1D = self.statistics(values).to(found.x_BLD.dtype)[:, None]
            found = Tokens(
                torch.cat([found.x_BLD, numbers_B1D.expand(-1, found.x_BLD.shape[1], -1)], -1), found.mask_BL
            )
        if self.attention is not None:
            return self._of_sets(found, values.count_B)
        if values.count_B is None:
            return found
        count_B, (_, length, width) = values.count_B, found.x_BLD.shape
        at = (
            torch.arange(len(count_B), device=count_B.device).repeat_interleave(count_B),
            place_within(count_B),
        )
        x_BKLD = found.x_BLD.new_zeros(len(count_B), int(count_B.max()), length, width).index_put(
            at, found.x_BLD
        )
        mask_BKL = found.mask_BL.new_zeros(x_BKLD.shape[:3]).index_put(at, found.mask_BL)
        return Tokens(x_BKLD.flatten(1, 2), mask_BKL.flatten(1, 2))

    def _of_sets(self, found: Tokens, count_B: Tensor | None) -> Tokens:
        assert self.attention is not None
        pooled_ND = found.pooled_BD()
        count_B = (
            torch.ones(len(pooled_ND), dtype=torch.long, device=pooled_ND.device)
            if count_B is None
            else count_B
        )
        at = (
            torch.arange(len(count_B), device=count_B.device).repeat_interleave(count_B),
            place_within(count_B),
        )
        x_BKD = pooled_ND.new_zeros(len(count_B), int(count_B.max()), pooled_ND.shape[1]).index_put(
            at, pooled_ND
        )
        x_B1D = self.attention(x_BKD, steps_mask(x_BKD.shape[1], count_B))[:, None]
        return Tokens(x_B1D, torch.ones(x_B1D.shape[:2], dtype=torch.bool, device=x_B1D.device))

    def hide(self, tokens: Tokens, present_B: Tensor) -> Tokens:
        """The tokens with the learned one in every row that is not present."""
        rows, x_BLD = (~present_B).nonzero()[:, 0], tokens.x_BLD
        if len(rows):  # many times faster than `torch.where`
            x_BLD = x_BLD.index_copy(
                0, rows, self.missing_D.to(x_BLD.dtype).expand(len(rows), *x_BLD.shape[1:])
            )
        return Tokens(x_BLD, tokens.mask_BL & present_B[:, None])


def with_statistics(preprocessing: Preprocessing, encoders: Mapping[str, Encoder]) -> set[str]:
    """The columns whose tokens are to hold statistics of the cell, for an alignment to begin at: those
    that one compares, and whose encoders begin from nothing. Where two of its columns have pretrained
    encoders, texts only: their n-grams say much, mean spectra and the like little beside pretrained
    vectors, which they would only disturb.
    """
    found = set()
    for task in (task for task in preprocessing.tasks.values() if task.compares):
        columns = task.read(preprocessing.inputs)
        known = sum(encoders[c].pretrained for c in columns)
        for c in (c for c in columns if not encoders[c].pretrained and c not in preprocessing.several):
            layout = preprocessing.inputs[c].layout
            if Statistics.known_for(layout) and (known < 2 or layout.kind in WORDS):
                found.add(c)
    return found


def build_encoder(modality: Modality, choice: Choice | None, column: str) -> Encoder:
    """The encoder that the recipe chose for a column. Raises `RecipeError` when it cannot read the
    modality's layout.
    """
    assert choice is not None
    encoder, config = configured("encoders", choice)
    if modality.layout.kind not in encoder.takes:
        fitting = [
            n
            for n in registry.names("encoders")
            if modality.layout.kind in registry.find("encoders", n).takes
        ]
        raise RecipeError(
            f"column '{column}': encoder '{choice.name}' takes {', '.join(sorted(encoder.takes))}, "
            f"but {type(modality).__name__.lower()} gives {modality.layout.kind}; use {' or '.join(fitting)}"
        )
    built: Encoder = encoder.build(config, modality.layout)
    return built
