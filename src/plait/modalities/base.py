"""What a modality is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
import torch

from plait.nn.batch import Layout, Loaded, Values
from plait.recipe.registry import Component, Registry
from plait.table.conventions.base import Convention
from plait.table.json import JSON
from plait.table.table import Source


@dataclass(frozen=True)
class Match:
    """How sure a modality is (0 to 1) that a column is its own, and why, for the user to read."""

    score: float
    reason: str


class Modality(Component, ABC):
    """One column's modality, fitted. Subclasses recognise, fit and load; all state is JSON.

    `encoder` names the usual encoder of its columns, and `words` the one that counts words and n-grams
    of its cells, where there is one. `media` are files, or bytes. `tabular` are plain cells: all such
    columns of a table are one block, beside its media. `is_text` says that cells are texts of any
    length, `is_label` that they are short names out of a few. `may_be_id` says that unique cells may
    only name their rows, `drops_constant` that a column with one value in all rows says nothing.
    `may_have_sound` says that cells may hold a sound, which is an input of its own, of the modality
    that `is_sound`. `conventions` are those that its columns may have, the usual one first.
    """

    encoder: ClassVar[str]
    words: ClassVar[str] = ""
    media: ClassVar[bool] = False
    tabular: ClassVar[bool] = False
    is_text: ClassVar[bool] = False
    is_label: ClassVar[bool] = False
    is_sound: ClassVar[bool] = False
    may_have_sound: ClassVar[bool] = False
    may_be_id: ClassVar[bool] = False
    drops_constant: ClassVar[bool] = True
    conventions: ClassVar[tuple[type[Convention], ...]]
    layout: Layout

    @classmethod
    @abstractmethod
    def matches(cls, cells: pa.ChunkedArray, source: Source) -> Match | None:
        """Whether this column, given without its nulls, is of this modality; None when it cannot be."""

    @classmethod
    def hears(cls, cells: pa.ChunkedArray, source: Source) -> tuple[int, int]:
        """Return how many of the cells looked at have a sound, and how many were looked at."""
        return 0, 0

    @classmethod
    @abstractmethod
    def fit(cls, config: Any, cells: pa.ChunkedArray) -> Modality:
        """The modality fitted on the cells of the training rows."""

    @abstractmethod
    def load(self, cells: pa.ChunkedArray, source: Source) -> Loaded:
        """The whole column as tensors, one entry a row. Never raises for a bad cell: names it in
        `problems`.
        """

    def transform(self, values: Values, generator: torch.Generator | None) -> Values:
        """A batch as the encoder takes it; augmented when a generator is given, which only training does."""
        return values

    @abstractmethod
    def state(self) -> JSON:
        """All that `fit` learned, as JSON."""

    @classmethod
    @abstractmethod
    def from_state(cls, config: Any, state: JSON) -> Modality:
        """The inverse of `state`."""


modalities = Registry[Modality]("modalities")
