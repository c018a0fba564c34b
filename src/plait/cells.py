"""Media cells: found, opened, prepared in parallel, looked up in a store before anything is decoded."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from plait.batch import Values
from plait.clips import Clip
from plait.errors import BadCell
from plait.modalities.base import Loaded, Match, Modality, Problem, Source, allocate, is_list, is_text, items, sample

BY_PATH = 64 << 20  # files larger than this are not read into memory
LONGEST_NAME = 32_767  # characters; no operating system opens a file by a longer name
VERSION = 1  # of everything that is prepared; another one finds nothing of what an earlier plait left in a store


@dataclass(frozen=True)
class Cell:
    """A media cell, prepared: its array, and what is to be said of it (`silent`). Without an array it is bad, and the one
    note is the reason."""

    array: np.ndarray | None
    notes: tuple[str, ...] = ()


class Store(Protocol):
    """Prepared cells by the digest of their content and the identity of what prepared them."""

    def digest_of(self, path: str, about: os.stat_result) -> bytes | None:
        """The digest of a file seen before with the same size and time of change."""

    def remember(self, path: str, about: os.stat_result, digest: bytes) -> None: ...

    def get(self, identity: str, digest: bytes) -> Cell | None: ...

    def put(self, identity: str, digest: bytes, cell: Cell) -> Cell:
        """Keeps a cell and returns it, its array now possibly a view of a file."""


class Nowhere:
    """The store that keeps nothing."""

    def digest_of(self, path: str, about: os.stat_result) -> bytes | None:
        return None

    def remember(self, path: str, about: os.stat_result, digest: bytes) -> None:
        pass

    def get(self, identity: str, digest: bytes) -> Cell | None:
        return None

    def put(self, identity: str, digest: bytes, cell: Cell) -> Cell:
        return cell


class Media:
    """One media cell: a path, bytes, or a dict of both as Hugging Face datasets has it. `file` is "" for bytes.

    Everything is read at most once, and only when it is asked for. Raises `BadCell` for what is no file, or an empty one.
    """

    def __init__(self, cell: Any, root: Path, store: Store | None = None) -> None:
        self._store = store or Nowhere()
        self._given: bytes | None = None
        self.file = ""
        if isinstance(cell, dict):
            cell = cell.get("bytes") or cell.get("path")
        if isinstance(cell, bytes):
            if not cell:
                raise BadCell("no bytes in the cell")
            self._given = cell
        elif not isinstance(cell, str):
            raise BadCell(f"expected a path or bytes, got {type(cell).__name__}")
        elif re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", cell):
            reason = "a URL: plait fetches nothing from the network; download it and give its path"
            raise BadCell(reason, cell[:200])
        else:
            self.file, self._about = _find(cell, root)
            if not self._about.st_size:
                raise BadCell("an empty file", self.file)

    @cached_property
    def digest(self) -> bytes:
        """A short hash of the content."""
        if self._given is not None:
            return hashlib.blake2b(self._given, digest_size=12).digest()
        known = self._store.digest_of(self.file, self._about)
        if known is None:
            if self._about.st_size > BY_PATH:
                try:
                    with open(self.file, "rb") as file:
                        known = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=12)).digest()
                except OSError as error:  # gone since it was found, or on a disk that fails
                    raise BadCell(_reason(error), self.file) from None
            else:
                known = hashlib.blake2b(self.data, digest_size=12).digest()
            self._store.remember(self.file, self._about, known)
        return known

    @cached_property
    def data(self) -> bytes:
        if self._given is not None:
            return self._given
        try:
            return Path(self.file).read_bytes()
        except OSError as error:
            raise BadCell(_reason(error), self.file) from None

    @property
    def content(self) -> bytes | str:
        """The bytes; the path of a file that is too large to be read at once."""
        return self.file if self.file and self._about.st_size > BY_PATH else self.data

    @cached_property
    def clip(self) -> Clip:
        """The cell as a clip, opened once for all that is asked of it."""
        return Clip(self.content)


def is_file(cell: str, root: Path) -> bool:
    """Return whether a string names a file that can be read, relative to `root` unless it is absolute.

    Any string may be in a cell, so this never raises, whatever the operating system says of the name.
    """
    try:
        _find(cell, root)
    except BadCell:
        return False
    return True


def _find(cell: str, root: Path) -> tuple[str, os.stat_result]:
    """Return the path and the status of the file that a cell names. Raises `BadCell` where there is none.

    Nothing else asks the operating system about the string of a cell.
    """
    if len(cell) > LONGEST_NAME:  # joining megabytes to the root would split them at every slash first
        raise BadCell(f"cannot be opened: a name of {len(cell):,} characters", cell[:200])
    path = str(root / cell)
    try:
        cell.encode()  # no table can hold what is not UTF-8, though POSIX allows it in a file's name
        about = os.stat(path)
        if stat.S_ISDIR(about.st_mode):
            raise IsADirectoryError
        if not stat.S_ISREG(about.st_mode):
            raise BadCell("neither a file nor a link to one", path)
        if not os.access(path, os.R_OK):
            raise PermissionError
    except (OSError, ValueError) as error:  # a null character, half of a surrogate pair
        raise BadCell(_reason(error), path[:200]) from None
    return path, about


def _reason(error: Exception) -> str:
    known: dict[type[Exception], str] = {
        FileNotFoundError: "no such file",
        IsADirectoryError: "a folder, not a file",
        PermissionError: "permission denied",
    }
    return known.get(type(error), f"cannot be opened: {getattr(error, 'strerror', None) or error}")


class MediaModality(Modality):
    """A modality of media cells, which learns nothing from the rows. What it makes of one is an array of bytes or halves, of
    `shape` but for its first dimension where that counts steps (`ragged`). It is built from its config alone."""

    media: ClassVar[bool] = True
    ragged: ClassVar[bool]
    nothing: ClassVar[str] = "nothing in it"
    shape: tuple[int, ...]
    dtype: torch.dtype

    @abstractmethod
    def __init__(self, config: Any) -> None: ...

    @abstractmethod
    def prepares(self) -> dict[str, Any]:
        """All options that decide what `prepare` makes, and the versions of what decodes: a prepared cell's identity."""

    @abstractmethod
    def prepare(self, media: Media) -> Cell | None:
        """One cell; None where a file has none (the sound of a silent clip). Raises `BadCell`."""

    @cached_property
    def identity(self) -> str:
        """Where its cells lie in a store."""
        about = json.dumps({"modality": type(self).__name__, "version": VERSION, **self.prepares()}, sort_keys=True)
        return hashlib.blake2b(about.encode(), digest_size=12).hexdigest()

    @classmethod
    def fit(cls, config: Any, cells: pa.ChunkedArray) -> MediaModality:
        return cls(config)

    def load(self, cells: pa.ChunkedArray, source: Source) -> Loaded:
        return load_together([self], cells, [source])[0]

    def state(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_state(cls, config: Any, state: dict[str, Any]) -> MediaModality:
        return cls(config)


def recognise(cells: pa.ChunkedArray, source: Source, what: str, suffixes: tuple[str, ...], is_one: Callable[[Media], bool]) -> Match | None:
    """How sure it is that these cells are `what`, by the content of some of them, or else by the ends of their names."""
    if is_list(cells):
        cells = items(cells)
    if not len(cells) or not (is_text(cells) or is_bytes(cells.type)):
        return None
    looked = sample(cells)
    named = sum(isinstance(c, str) and c.lower().endswith(suffixes) for c in looked)
    if is_text(cells) and not named and not any(is_file(cell, source.root) for cell in looked[:4]):
        return None
    found = sum(_is(cell, source, is_one) for cell in looked)
    if found >= len(looked) / 2:
        return Match(1.0, f"{found} of {len(looked)} cells looked at are {what} by their content")
    if named >= len(looked) / 2:
        return Match(0.9, f"names end like those of {what}, but {len(looked) - found} of {len(looked)} looked at are none under {source.root}")
    return None


def _is(cell: Any, source: Source, is_one: Callable[[Media], bool]) -> bool:
    try:
        return is_one(Media(cell, source.root))
    except BadCell:
        return False


def load_together(modalities: Sequence[MediaModality], cells: pa.ChunkedArray, sources: Sequence[Source]) -> list[Loaded]:
    """Several views of one column (a clip's frames and its sound): each cell is opened once, on as many threads as there are
    cores, and only when the store lacks one of its views.

    A cell may be a list of media: its bad ones are named and left out, and it is missing when none is left.
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


def _read_one(cell: Any, item: int, modalities: Sequence[MediaModality], collected: Sequence[_Collected], root: Path, store: Store) -> None:
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

    def loaded(self, modality: MediaModality, lengths: np.ndarray | None) -> Loaded:
        """The arrays as values. `lengths` counts the media of each cell where cells are lists of them."""
        self.problems.sort(key=lambda p: p.row)
        good = np.zeros(len(self.owner), dtype=bool)
        good[list(self.arrays)] = True
        kept = np.arange(len(good)) if lengths is None else np.flatnonzero(good)
        values = Held(Arrays([self.arrays.get(number) for number in kept.tolist()], modality.shape, modality.dtype, modality.ragged))
        notes = {note: sorted(set(rows)) for note, rows in sorted(self.notes.items())}
        digests: list[set[bytes]] = [set() for _ in range(len(self.owner) if lengths is None else len(lengths))]
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
        """These, one after the other; zeros for what is missing, and behind what is shorter. With `drop` they are kept no longer."""
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
    """Media as the cache holds them, each by itself, until a tensor of all of them is asked for (`x`). Frozen encoders do not: they read a few at a
    time, those that they have no vectors of yet, however many there are."""

    def __init__(self, x: Tensor | Arrays, length_B: Tensor | None = None, count_B: Tensor | None = None, encoded: bool = False) -> None:
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
        return Values(self.arrays.tensor(items.tolist()), None if self.length_B is None else self.length_B.index_select(0, items))


def is_bytes(kind: pa.DataType) -> bool:
    """Bytes, or the pair of bytes and path that Hugging Face datasets has."""
    pair = pa.types.is_struct(kind) and {f.name for f in kind} == {"bytes", "path"}
    return bool(pair or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
