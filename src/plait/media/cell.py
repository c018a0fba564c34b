"""One media cell: a path, bytes or a dict of both, opened once, and what is made of it."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from plait.errors import BadCell
from plait.media.video import Clip

BY_PATH = 64 << 20  # files larger than this are not read into memory


LONGEST_NAME = 32_767  # characters; no operating system opens a file by a longer name


@dataclass(frozen=True)
class Cell:
    """A media cell, prepared: its array, and what is to be said of it (`silent`). Without an array it
    is bad, and the one note is the reason.
    """

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
    """One media cell: a path, bytes, or a dict of both as Hugging Face datasets has it. `file` is ""
    for bytes.

    Everything is read at most once, and only when it is asked for. Raises `BadCell` for what is no
    file, or an empty one.
    """

    def __init__(self, cell: object, root: Path, store: Store | None = None) -> None:
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


def is_bytes(kind: pa.DataType) -> bool:
    """Bytes, or the pair of bytes and path that Hugging Face datasets has."""
    pair = pa.types.is_struct(kind) and {f.name for f in kind} == {"bytes", "path"}
    return bool(pair or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
