"""What a modality is, and how media cells become bytes."""

from __future__ import annotations

import os
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
from plait.errors import BadCell

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

    `digests` maps the content of each media cell to a short hash, to find the same picture on both sides of a split.
    `cut` counts cells of which only a part fits (a text beyond the maximal number of tokens).
    """

    values: Values
    present: Tensor
    problems: list[Problem] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    cut: int = 0


@dataclass(frozen=True)
class Source:
    """Where a column's cells come from: its name, and the folder that relative paths are resolved against."""

    column: str
    root: Path
    progress: Progress = lambda n: None


class Modality(ABC):
    """One column's modality, fitted. Subclasses name their `encoder`, recognise, fit and load; all state is JSON."""

    options: ClassVar[type[Options]]
    encoder: ClassVar[str]
    media: ClassVar[bool] = False
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


def read_media(cell: Any, root: Path) -> tuple[bytes, str]:
    """The bytes of a media cell, and the name of its file ("" where the cell itself holds the bytes).

    A cell is a path, bytes, or a dict of both as Hugging Face datasets has it. Raises `BadCell`.
    """
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, bytes):
        if not cell:
            raise BadCell("no bytes in the cell")
        return cell, ""
    if not isinstance(cell, str):
        raise BadCell(f"expected a path or bytes, got {type(cell).__name__}")
    if re.match(r"[a-z][a-z0-9+.-]+://", cell):
        raise BadCell("a URL: plait fetches nothing from the network; download it and give its path", cell)
    path = root / cell
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise BadCell("no such file", str(path)) from None
    except IsADirectoryError:
        raise BadCell("a folder, not a file", str(path)) from None
    except PermissionError:
        raise BadCell("permission denied", str(path)) from None
    except (OSError, ValueError) as error:  # a name too long, a null byte inside
        raise BadCell(f"cannot be opened: {error}", str(path)[:200]) from None
    if not data:
        raise BadCell("an empty file", str(path))
    return data, str(path)


def load_each(cells: pa.ChunkedArray, source: Source, shape: tuple[int, ...], load: Callable[[Any], tuple[np.ndarray, bytes]]) -> Loaded:
    """Loads a column of media cell by cell, on as many threads as there are cores, into one tensor of bytes.

    `load` returns an array of `shape` and a digest of the content, or raises `BadCell`. A cell may be a list of media: its
    bad ones are named and left out, and it is missing when none is left.
    """
    owner = np.arange(len(cells))
    if several := is_list(cells):
        lengths = np.array([len(c) if c.is_valid else 0 for c in cells])
        owner, cells = np.repeat(owner, lengths), items(cells, keep_null=True)
    x = allocate(len(cells), shape, torch.uint8)
    into = x.numpy()
    good = np.zeros(len(cells), dtype=bool)
    problems: list[Problem] = []
    digests = [b""] * len(cells)

    def one(item: int) -> None:
        cell = cells[item].as_py()
        if cell is not None:
            try:
                into[item], digests[item] = load(cell)
                good[item] = True
            except BadCell as bad:
                problems.append(Problem(int(owner[item]), source.column, bad.file, bad.reason))
        source.progress(1)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for _ in pool.map(one, range(len(cells))):
                pass
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    problems.sort(key=lambda p: p.row)
    if not several:
        return Loaded(Values(x), torch.from_numpy(good), problems, digests)
    count_B = torch.from_numpy(np.bincount(owner[good], minlength=len(lengths)))
    return Loaded(Values(x[torch.from_numpy(good)], count_B=count_B), count_B > 0, problems)


def sample(cells: pa.ChunkedArray, count: int = SAMPLE) -> list[Any]:
    """Some cells spread evenly over the column."""
    step = max(len(cells) // count, 1)
    return [cells[i].as_py() for i in range(0, len(cells), step)][:count]


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
