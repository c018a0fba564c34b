"""The base of all modalities, and their registry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
import torch
from torch import Tensor

from plait.nn.batch import Layout, Loaded, Values
from plait.nn.summaries import KINDS, mean_of_several, summary_width
from plait.nn.traits import Traits, TraitsLayout
from plait.recipe.registry import Component, Registry, hook
from plait.table.conventions.base import Convention
from plait.table.json import JSON
from plait.table.table import Source

MEASURED = 16  # cells that are measured at once


@dataclass(frozen=True)
class Match:
    """How sure a modality is (0 to 1) that a column belongs to it, and why, for the user to read."""

    score: float
    reason: str


class Modality(Component, ABC):
    """The modality of one column, fitted to its training rows.

    Subclasses recognise columns, fit to them and load them. All that they learn can be written as JSON. The
    class attributes are all that the core knows about a modality.
    """

    encoder: ClassVar[str]  # the default encoder of a column, which is trained from scratch
    pretrained: ClassVar[str] = ""  # the encoder that runs pretrained networks, if there is one
    words: ClassVar[str] = ""  # the encoder that counts words and n-grams, if there is one
    media: ClassVar[bool] = False  # cells are files or bytes
    plain: ClassVar[bool] = False  # all such columns of a table are one block
    is_text: ClassVar[bool] = False  # cells are texts of any length
    is_label: ClassVar[bool] = False  # cells are short names out of a few
    is_sound: ClassVar[bool] = False  # cells are recordings
    may_have_sound: ClassVar[bool] = False  # cells may have audio: an input of the modality that `is_sound`
    may_have_text: ClassVar[bool] = False  # cells may show text, which can be an input of its own
    may_be_id: ClassVar[bool] = False  # if all cells differ, they may only name their rows
    drops_constant: ClassVar[bool] = True  # a column with one value in all rows says nothing
    conventions: ClassVar[tuple[type[Convention], ...]] = ()  # the usual one first; any if empty
    layout: Layout

    @classmethod
    @abstractmethod
    def matches(cls, cells: pa.ChunkedArray, source: Source) -> Match | None:
        """Return how sure it is that a column is of this modality, or None if it cannot be.

        `cells` are those of the column that are not null.
        """

    @classmethod
    @hook
    def hears(cls, cells: pa.ChunkedArray, source: Source) -> tuple[int, int]:
        """Return how many cells of a sample have audio, and the size of the sample."""
        return 0, 0

    @classmethod
    @hook
    def side(cls, cells: pa.ChunkedArray, source: Source) -> int:
        """Return the median of the longer sides of a sample of cells, in pixels; 0 where there are none."""
        return 0

    @classmethod
    @abstractmethod
    def fit(cls, config: Any, cells: pa.ChunkedArray) -> Modality:
        """Fit the modality to the cells of the training rows."""

    @hook
    def unseen(self, cells: pa.ChunkedArray) -> pa.ChunkedArray:
        """Return the cells whose value the model does not know, where that means something."""
        return cells.slice(0, 0)

    @abstractmethod
    def load(self, cells: pa.ChunkedArray, source: Source) -> Loaded:
        """Return the complete column as tensors, one entry a row.

        A bad cell never raises: it becomes a problem, and counts as missing.
        """

    @abstractmethod
    def absent(self, rows: int) -> Loaded:
        """Return a column without any cell, in the shape that the modality's encoder reads."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """What decides how a cell is prepared, besides the options; empty if nothing does."""

    @hook
    def transform(self, values: Values, generator: torch.Generator | None) -> Values:
        """Return a batch as the encoder takes it. Training gives a generator, by which it is augmented."""
        return values

    @hook
    def raw(self, values: Values) -> Tensor:
        """Return the number of each cell itself, (B, 1), where `values` say it bounded or in bins.

        A linear model needs it for a straight line. Else the width is 0.
        """
        return torch.zeros(len(values), 0)

    @hook
    def traits_layout(self) -> TraitsLayout | None:
        """Return the form of what `traits` measures; None if nothing is measured."""
        if self.layout.kind not in KINDS:
            return None
        return TraitsLayout((summary_width(self.layout),))

    @hook
    def traits(self, cells: pa.ChunkedArray, values: Values) -> Traits:
        """Measure the cells of an aligned column. `values` are what `load` made of them."""
        numbers = []
        for entries in torch.arange(len(values)).split(MEASURED):
            numbers.append(self._measured(values.some(entries)))
        return Traits(mean_of_several(torch.cat(numbers), values.count_B))

    @hook
    def _measured(self, values: Values) -> Tensor:
        """Return numbers of media, or of values of the table, that belong to a cell each, (N, width)."""
        summarise = KINDS[self.layout.kind]
        return summarise(self.transform(values, None)).float()

    @hook
    def cell_schema(self) -> JSON:
        """Return the JSON Schema (2020-12) of a cell that is not null, as a request to a service has it.

        `x-training` has what the training rows say about it: `low`, `median` and `high` of numbers and dates,
        `values` of categories, the most frequent first. An empty schema takes any cell.
        """
        return {}

    @abstractmethod
    def state(self) -> JSON:
        """Return all that `fit` learned, as JSON."""

    @classmethod
    @abstractmethod
    def from_state(cls, config: Any, state: JSON) -> Modality:
        """Build the fitted modality from what `state` returned."""


class ValueModality(Modality):
    """A modality whose cells are values that lie in the table itself: numbers, names, dates, texts."""

    def absent(self, rows: int) -> Loaded:
        """Return a column without any cell."""
        return Loaded(self.layout.absent(rows), torch.zeros(rows, dtype=torch.bool))

    @property
    def identity(self) -> str:
        """Nothing but the options decides how a value is prepared."""
        return ""


modalities = Registry[Modality]("modalities")
