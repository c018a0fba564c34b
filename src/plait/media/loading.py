"""Load columns of media: look each cell up in a store, and prepare it in parallel if it is not there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from plait.errors import BadCell, PlaitError
from plait.media.cell import Cell, Media, Nowhere, Store, is_missing
from plait.media.guard import Unread, guarded, without_warnings
from plait.nn.batch import Loaded, Values, allocate
from plait.table.problems import Problem
from plait.table.table import Source
from plait.table.values import is_list, items


@runtime_checkable
class Preparation(Protocol):
    """How one kind of media is prepared: what loading needs to know of a `MediaModality`."""

    nothing: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    ragged: ClassVar[bool]
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def identity(self) -> str:
        """The key of its cells in a store."""

    def prepare(self, media: Media) -> Cell | None:
        """Prepare one cell. Returns None if the file has none of this media. Raises `BadCell`."""


def load_together(
    modalities: Sequence[Preparation], cells: pa.ChunkedArray, sources: Sequence[Source]
) -> list[Loaded]:
    """Load several views of one column, such as a video's frames and its audio.

    Each cell is opened once, on as many threads as there are cores, and only if the store lacks one of its
    views. A cell may be a list of media: bad ones are reported as problems and left out. Such a cell is
    missing if none is left.
    """
    lengths = None
    owner = np.arange(len(cells))
    if is_list(cells):
        lengths = _list_lengths(cells)
        owner = np.repeat(owner, lengths)
        cells = items(cells, keep_null=True)
    collected = [_Collected(source, owner) for source in sources]
    root = sources[0].root
    store = sources[0].store or Nowhere()

    def read(item: int) -> None:
        """Read one cell, and advance the progress bars."""
        cell = cells[item].as_py()
        if not is_missing(cell):
            _read_cell(cell, item, modalities, collected, root, store)
        for source in sources:
            source.progress(1)

    with without_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            # The loop raises what a thread has raised.
            for _ in pool.map(read, range(len(cells))):
                pass
        except (KeyboardInterrupt, PlaitError):
            # Otherwise the pool would read all other cells before it stops.
            pool.shutdown(cancel_futures=True)
            raise
    pairs = zip(modalities, collected, strict=True)
    return [collection.loaded(modality, lengths) for modality, collection in pairs]


def _list_lengths(cells: pa.ChunkedArray) -> np.ndarray:
    """Return how many items each cell has, 0 for a null."""
    lengths = pc.fill_null(pc.list_value_length(cells), 0)
    return lengths.to_numpy().astype(np.int64)


def _read_cell(
    cell: object,
    item: int,
    modalities: Sequence[Preparation],
    collected: Sequence[_Collected],
    root: Path,
    store: Store,
) -> None:
    """Read one cell for every modality; what is wrong with it becomes problems."""
    suffixes: list[str] = []
    for modality in modalities:
        suffixes += modality.suffixes
    try:
        with guarded("cannot be read"):
            media = Media(cell, root, store, tuple(suffixes))
            digest = media.digest
    except BadCell as bad:
        # The file itself is bad: one problem is enough, however many views it has.
        collected[0].bad(item, bad)
        return

    for modality, collection in zip(modalities, collected, strict=True):
        try:
            prepared_cell = _looked_up(modality, media, digest, store)
        except BadCell as bad:
            collection.bad(item, bad)
            continue
        if prepared_cell.array is not None:
            collection.good(item, prepared_cell, digest)
            continue

        # A video without audio is a problem only where the user asked for audio.
        reasons = prepared_cell.notes
        if not reasons and not collection.source.part:
            reasons = (modality.nothing,)
        for reason in reasons:
            collection.bad(item, BadCell(reason, media.file))


def _looked_up(modality: Preparation, media: Media, digest: bytes, store: Store) -> Cell:
    """Return a cell from the store; else prepare it as `prepared` does and keep it.

    A cell whose content is bad is kept too. One that could not be read is not: the next run may succeed.
    """
    stored = store.get(modality.identity, digest)
    if stored is not None:
        return stored
    return store.put(modality.identity, digest, prepared(modality, media))


def prepared(modality: Preparation, media: Media) -> Cell:
    """Prepare a cell. One whose content is bad has no array, and the reason as a note.

    Raises `BadCell` if the file could not be read, or memory was short.
    """
    try:
        # This is the one place where cells are read: whatever is raised below makes one bad cell, no more.
        with guarded("broken or cut short"):
            cell = modality.prepare(media) or Cell(None)
            _check_finite(cell)
    except Unread as bad:
        raise BadCell(bad.reason, media.file) from None
    except BadCell as bad:
        # Only errors of the operating system name a file: the content may be good.
        if bad.file:
            raise
        return Cell(None, (bad.reason,))
    return cell


def _check_finite(cell: Cell) -> None:
    """Raise `BadCell` for an array with a value that is not finite: it would spoil a training."""
    array = cell.array
    if array is not None and array.dtype.kind == "f" and not np.isfinite(array).all():
        raise BadCell("holds values that are no numbers, or too large")


@dataclass
class _Collected:
    """What has been read of one view of a column. Each item is written by one thread only.

    An item is one media file; `owner[i]` is the row of item i.
    """

    source: Source
    owner: np.ndarray
    arrays: dict[int, np.ndarray] = field(default_factory=dict)
    digests: dict[int, bytes] = field(default_factory=dict)
    notes: dict[str, list[int]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def bad(self, item: int, bad: BadCell) -> None:
        """Report an item that cannot be used as a problem of its row."""
        self.problems.append(Problem(int(self.owner[item]), self.source.column, bad.file, bad.reason))

    def good(self, item: int, cell: Cell, digest: bytes) -> None:
        """Keep the array, digest and notes of an item."""
        assert cell.array is not None
        self.arrays[item] = cell.array
        self.digests[item] = digest
        row = int(self.owner[item])
        for note in cell.notes:
            self.notes.setdefault(note, []).append(row)

    def loaded(self, modality: Preparation, lengths: np.ndarray | None) -> Loaded:
        """Return the column. `lengths` counts the media of each cell if cells are lists of them.

        A bad item of a list is left out; a bad cell that is no list stays as zeros.
        """
        # Threads finish in any order.
        self.problems.sort(key=lambda problem: problem.row)
        good = np.zeros(len(self.owner), dtype=bool)
        good[list(self.arrays)] = True
        entries = np.arange(len(good)) if lengths is None else np.flatnonzero(good)
        arrays = [self.arrays.get(item) for item in entries.tolist()]
        values = Held(Arrays(arrays, modality.shape, modality.dtype, modality.ragged))

        notes = {}
        for note, rows in sorted(self.notes.items()):
            notes[note] = sorted(set(rows))
        row_count = len(self.owner) if lengths is None else len(lengths)
        digests: list[set[bytes]] = [set() for _ in range(row_count)]
        for item, digest in self.digests.items():
            digests[self.owner[item]].add(digest)

        if lengths is None:
            return Loaded(values, torch.from_numpy(good), self.problems, digests, notes)
        count_B = torch.from_numpy(np.bincount(self.owner[good], minlength=row_count))
        values.count_B = count_B
        return Loaded(values, count_B > 0, self.problems, digests, notes)


@dataclass
class Arrays:
    """Prepared media, one array each, of a modality's shape; None for a missing one."""

    items: list[np.ndarray | None]
    shape: tuple[int, ...]
    dtype: torch.dtype
    ragged: bool

    def lengths(self) -> Tensor:
        """Return the number of steps of each item, 0 for a missing one."""
        steps = [0 if array is None else len(array) for array in self.items]
        return torch.tensor(steps, dtype=torch.long)

    def tensor(self, items: list[int], drop: bool = False) -> Tensor:
        """Copy these items into one tensor, with zeros for missing ones and behind shorter ones.

        With `drop`, each item is forgotten as soon as it has been copied.
        """
        arrays = [self.items[item] for item in items]
        shape = self.shape
        if self.ragged:
            steps = max((len(array) for array in arrays if array is not None), default=1)
            shape = (steps, *self.shape[1:])
        x = allocate(len(items), shape, self.dtype)
        x_numpy = x.numpy()  # shares its memory with `x`
        for position, item in enumerate(items):
            array = arrays[position]
            if array is not None:
                x_numpy[position, : len(array)] = array
            # Both lists refer to the array, which would otherwise stay in memory.
            if drop:
                self.items[item] = None
                arrays[position] = None
        return x


class Held(Values):
    """Media as the cache holds them, one array each, until `x` needs them in one tensor.

    Frozen encoders need no such tensor: they read a few items at a time, and only those that have no
    embedding yet. So a column may be larger than the memory.
    """

    def __init__(
        self,
        x: Tensor | Arrays,
        length_B: Tensor | None = None,
        count_B: Tensor | None = None,
        encoded: bool = False,
    ) -> None:
        self.length_B = length_B
        self.count_B = count_B
        self.encoded = encoded
        if isinstance(x, Arrays):
            self.arrays = x
            self.length_B = x.lengths() if x.ragged else None
        else:
            self.x = x

    @cached_property
    def x(self) -> Tensor:  # type: ignore[override]
        """All items in one tensor; the arrays are forgotten as they are copied."""
        return self.arrays.tensor(list(range(len(self))), drop=True)

    @property
    def _is_tensor(self) -> bool:
        """Return whether `x` has been computed; a cached property lies in the instance from then on."""
        return "x" in vars(self)

    def __len__(self) -> int:
        return len(self.x) if self._is_tensor else len(self.arrays.items)

    def take(self, rows: Tensor) -> Values:
        """Return the values of these rows, copied.

        A caller that takes rows will take more of them, which is faster from one tensor.
        """
        whole = Values(self.x, self.length_B, self.count_B, self.encoded, traits=self.traits)
        return whole.take(rows)

    def some(self, items: Tensor) -> Values:
        """Return these items, whatever rows they belong to, without a tensor of all items."""
        if self._is_tensor:
            return super().some(items)
        length_B = None if self.length_B is None else self.length_B.index_select(0, items)
        return Values(self.arrays.tensor(items.tolist()), length_B)
