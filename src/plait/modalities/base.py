"""What a modality is."""

from __future__ import annotations

import os
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from plait.batch import Layout, Values
from plait.components import Options

SAMPLE = 24  # cells looked at to recognise a media column
IN_MEMORY = 2 << 30  # bytes of one prepared column above which it lies in a temporary file instead
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Match:
    """How sure a modality is (0 to 1) that a column is its own, and why, for the user to read."""

    score: float
    reason: str


@dataclass(frozen=True)
class Problem:
    """A cell that could not be read: `row` counts from 0 in the table that was given."""

    row: int
    column: str
    file: str
    reason: str


@dataclass
class Loaded:
    """A column, prepared. Missing and bad cells have `present` False and zeros in `values`.

    `digests` has short hashes of the content of each row's media, to find the same picture on both sides of a split.
    `notes` maps what is worth a warning, but no problem (`silent`), to the rows of which it is true.
    """

    values: Values
    present: Tensor
    problems: list[Problem] = field(default_factory=list)
    digests: list[set[bytes]] = field(default_factory=list)
    notes: dict[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """Where a column's cells come from: its name, the folder that relative paths are resolved against, and the store of
    prepared media (a `cells.Store`). Of a `part` of another column, as the sound of a clip is, a cell may have none."""

    column: str
    root: Path
    progress: Progress = lambda n: None
    store: Any = None
    part: bool = False


class Modality(ABC):
    """One column's modality, fitted. Subclasses name their `encoder`, recognise, fit and load; all state is JSON."""

    options: ClassVar[type[Options]]
    encoder: ClassVar[str]
    media: ClassVar[bool] = False
    tabular: ClassVar[bool] = False  # a plain cell: all such columns of a table are one part of a row, beside its media
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
        """The whole column as tensors, one entry a row. Never raises for a bad cell: names it in `problems`."""

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


def allocate(rows: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor of zeros; in an unlinked temporary file when it would fill the memory."""
    size = rows * int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if size <= IN_MEMORY:
        return torch.zeros((rows, *shape), dtype=dtype)
    with tempfile.NamedTemporaryFile(prefix="plait-") as file:
        os.truncate(file.name, size)
        return torch.from_file(file.name, shared=True, size=size // dtype.itemsize, dtype=dtype).view(rows, *shape)


def sample(cells: pa.ChunkedArray, count: int = SAMPLE) -> list[Any]:
    """Some cells spread evenly over the column."""
    count = min(count, len(cells))
    return [cells[i * len(cells) // count].as_py() for i in range(count)]


def is_list(cells: pa.ChunkedArray) -> bool:
    kind = cells.type
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def items(cells: pa.ChunkedArray, keep_null: bool = False) -> pa.ChunkedArray:
    """All media of a column of lists, one after the other."""
    flat = pc.list_flatten(cells)
    return flat if keep_null else flat.drop_null()


def is_text(cells: pa.ChunkedArray) -> bool:
    return pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type)


def words_a_cell(cells: pa.ChunkedArray) -> float:
    """The mean number of words. In scripts without spaces, three letters count as one word."""
    texts = [t for t in sample(cells, 500) if t]
    if not texts:
        return 0.0
    dense = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0e7f]")
    return sum(max(len(t.split()), len(dense.findall(t)) / 3) for t in texts) / len(texts)


def distinct(cells: pa.ChunkedArray) -> int:
    return len(cells.unique())
