"""Media cells: found, opened, prepared in parallel, looked up in a store before anything is decoded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from plait.errors import BadCell
from plait.media.cell import Cell, Media, Nowhere, Store
from plait.nn.batch import Loaded, Values, allocate
from plait.table.problems import Problem
from plait.table.table import Source
from plait.table.values import is_list, items


class Preparation(Protocol):
    """How one kind of media is prepared: a `MediaModality`, as far as loading needs to know it."""

    nothing: ClassVar[str]
    ragged: ClassVar[bool]
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def identity(self) -> str:
        """Where its cells lie in a store."""

    def prepare(self, media: Media) -> Cell | None:
        """One cell; None where a file has none. Raises `BadCell`."""


def load_together(
    modalities: Sequence[Preparation], cells: pa.ChunkedArray, sources: Sequence[Source]
) -> list[Loaded]:
    """Several views of one column (a clip's frames and its sound): each cell is opened once, on as many
    threads as there are cores, and only when the store lacks one of its views.

    A cell may be a list of media: its bad ones are named and left out, and it is missing when none is
    left.
    """
    owner, several = np.arange(len(cells)), is_list(cells)
    lengths = np.ones(len(cells), dtype=np.int64)
    if several:
        lengths = np.array([len(c) if c.is_valid else 0 for c in cells], dtype=np.int64)
        owner, cells = np.repeat(owner, lengths), items(cells, keep_null=True)
    collected = [_Collected(source, owner) for source in sources]
    store = sources[0].store or Nowhere()

    def one(item: int) -> None:
        cell = cells[item].as_py()
        if cell is not None:
            _read_one(cell, item, modalities, collected, sources[0].root, store)
        for source in sources:
            source.progress(1)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for _ in pool.map(one, range(len(cells))):
                pass
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    return [c.loaded(m, lengths if several else None) for m, c in zip(modalities, collected, strict=True)]


def _read_one(
    cell: object,
    item: int,
    modalities: Sequence[Preparation],
    collected: Sequence[_Collected],
    root: Path,
    store: Store,
) -> None:
    try:
        media = Media(cell, root, store)
        digest = media.digest
    except BadCell as bad:
        collected[0].bad(item, bad)
        return
    for modality, into in zip(modalities, collected, strict=True):
        found = store.get(modality.identity, digest)
        if found is None:
            try:
                found = modality.prepare(media) or Cell(None)
            except MemoryError:  # says nothing of the content either: not kept
                into.bad(item, BadCell("not enough memory to decode it", media.file))
                continue
            except BadCell as bad:
                if bad.file:  # the file could not be read, which says nothing of its content
                    into.bad(item, bad)
                    continue
                found = Cell(None, (bad.reason,))
            found = store.put(modality.identity, digest, found)
        if found.array is None:
            for reason in found.notes or ([] if into.source.part else [modality.nothing]):
                into.bad(item, BadCell(reason, media.file))
        else:
            into.good(item, found, digest)


@dataclass
class _Collected:
    """What has been found of one view of a column; each item is written by one thread only."""

    source: Source
    owner: np.ndarray
    arrays: dict[int, np.ndarray] = field(default_factory=dict)
    digests: dict[int, bytes] = field(default_factory=dict)
    notes: dict[str, list[int]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def bad(self, item: int, bad: BadCell) -> None:
        self.problems.append(Problem(int(self.owner[item]), self.source.column, bad.file, bad.reason))

    def good(self, item: int, cell: Cell, digest: bytes) -> None:
        assert cell.array is not None
        self.arrays[item], self.digests[item] = cell.array, digest
        for note in cell.notes:
            self.notes.setdefault(note, []).append(int(self.owner[item]))

    def loaded(self, modality: Preparation, lengths: np.ndarray | None) -> Loaded:
        """The arrays as values. `lengths` counts the media of each cell where cells are lists of them."""
        self.problems.sort(key=lambda p: p.row)
        good = np.zeros(len(self.owner), dtype=bool)
        good[list(self.arrays)] = True
        kept = np.arange(len(good)) if lengths is None else np.flatnonzero(good)
        values = Held(
            Arrays(
                [self.arrays.get(number) for number in kept.tolist()],
                modality.shape,
                modality.dtype,
                modality.ragged,
            )
        )
        notes = {note: sorted(set(rows)) for note, rows in sorted(self.notes.items())}
        digests: list[set[bytes]] = [
            set() for _ in range(len(self.owner) if lengths is None else len(lengths))
        ]
        for item, digest in self.digests.items():
            digests[self.owner[item]].add(digest)
        if lengths is None:
            return Loaded(values, torch.from_numpy(good), self.problems, digests, notes)
        values.count_B = torch.from_numpy(np.bincount(self.owner[good], minlength=len(lengths)))
        return Loaded(values, values.count_B > 0, self.problems, digests, notes)


@dataclass
class Arrays:
    """Prepared media, an array each, of a modality's shape, or None for one that is missing."""

    found: list[np.ndarray | None]
    shape: tuple[int, ...]
    dtype: torch.dtype
    ragged: bool

    def lengths(self) -> Tensor:
        return torch.tensor([0 if array is None else len(array) for array in self.found], dtype=torch.long)

    def tensor(self, items: list[int], drop: bool = False) -> Tensor:
        """These, one after the other; zeros for what is missing, and behind what is shorter. With
        `drop` they are kept no longer.
        """
        some = [self.found[item] for item in items]
        steps = max((len(array) for array in some if array is not None), default=1) if self.ragged else 0
        x = allocate(len(items), (steps, *self.shape[1:]) if self.ragged else self.shape, self.dtype)
        into = x.numpy()
        for place, item in enumerate(items):
            if (array := some[place]) is not None:
                into[place, : len(array)] = array
            if drop:
                self.found[item] = some[place] = None
        return x


class Held(Values):
    """Media as the cache holds them, each by itself, until a tensor of all of them is asked for (`x`).
    Frozen encoders do not: they read a few at a time, those that they have no vectors of yet, however
    many there are.
    """

    def __init__(
        self,
        x: Tensor | Arrays,
        length_B: Tensor | None = None,
        count_B: Tensor | None = None,
        encoded: bool = False,
    ) -> None:
        self.length_B, self.count_B, self.encoded = length_B, count_B, encoded
        if isinstance(x, Arrays):
            self.arrays, self.length_B = x, x.lengths() if x.ragged else None
        else:
            self.x = x

    @cached_property
    def x(self) -> Tensor:  # type: ignore[override]
        return self.arrays.tensor(list(range(len(self))), drop=True)

    def __len__(self) -> int:
        return len(self.x if "x" in vars(self) else self.arrays.found)

    def take(self, rows: Tensor) -> Values:
        """Whoever takes rows will take others: from one tensor, that goes faster."""
        return Values(self.x, self.length_B, self.count_B, self.encoded).take(rows)

    def some(self, items: Tensor) -> Values:
        if "x" in vars(self):
            return super().some(items)
        return Values(
            self.arrays.tensor(items.tolist()),
            None if self.length_B is None else self.length_B.index_select(0, items),
        )
