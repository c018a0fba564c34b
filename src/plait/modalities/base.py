"""What a modality is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
import torch

from plait.nn.batch import Layout, Loaded, Values
from plait.recipe.registry import Options
from plait.table.table import Source


@dataclass(frozen=True)
class Match:
    """How sure a modality is (0 to 1) that a column is its own, and why, for the user to read."""

    score: float
    reason: str


class Modality(ABC):
    """One column's modality, fitted. Subclasses name their `encoder`, recognise, fit and load; all
    state is JSON.
    """

    options: ClassVar[type[Options]]
    encoder: ClassVar[str]
    media: ClassVar[bool] = False
    tabular: ClassVar[bool] = (
        False  # a plain cell: all such columns of a table are one part of a row, beside its media
    )
    layout: Layout

    @classmethod
    @abstractmethod
    def matches(cls, cells: pa.ChunkedArray, source: Source) -> Match | None:
        """Whether this column, given without its nulls, is of this modality; None when it cannot be."""

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
    def state(self) -> dict[str, Any]:
        """All that `fit` learned, as JSON."""

    @classmethod
    @abstractmethod
    def from_state(cls, config: Any, state: dict[str, Any]) -> Modality:
        """The inverse of `state`."""
