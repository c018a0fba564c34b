"""One media cell: a path, bytes or a dict of both. It is opened once, whoever reads it."""

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
    """A prepared media cell: its array, and notes for the user (`silent`).

    A cell without an array is bad; its one note is the reason.
    """

    array: np.ndarray | None
    notes: tuple[str, ...] = ()


class Store(Protocol):
    """Prepared cells by the digest of their content and the identity of what prepared them."""

    def digest_of(self, path: str, status: os.stat_result) -> bytes | None:
        """Return the digest of a file that had the same size and time of change before, or None."""

    def remember(self, path: str, status: os.stat_result, digest: bytes) -> None:
        """Keep the digest of a file, with its size and time of change."""

    def get(self, identity: str, digest: bytes) -> Cell | None:
        """Return a prepared cell, or None if the store does not hold it."""

    def put(self, identity: str, digest: bytes, cell: Cell) -> Cell:
        """Keep a cell and return it; its array may now be a view of a file."""


class Nowhere:
    """The store that keeps nothing."""

    def digest_of(self, path: str, status: os.stat_result) -> bytes | None:
        """Return None."""
        return None

    def remember(self, path: str, status: os.stat_result, digest: bytes) -> None:
        """Keep nothing."""

    def get(self, identity: str, digest: bytes) -> Cell | None:
        """Return None."""
        return None

    def put(self, identity: str, digest: bytes, cell: Cell) -> Cell:
        """Return the cell without keeping it."""
        return cell


class Media:
    """One media cell: a path, bytes, or a dict of both as Hugging Face datasets have it.

    `file` is the path, or "" for bytes. Everything is read at most once, and only when it is needed. Raises
    `BadCell` for an empty file, and for anything that is no file.
    """

    def __init__(self, cell: object, root: Path, store: Store | None = None) -> None:
        self._store = store or Nowhere()
        self._bytes: bytes | None = None
        self.file = ""
        if isinstance(cell, dict):
            cell = cell.get("bytes") or cell.get("path")
        if isinstance(cell, bytes):
            if not cell:
                raise BadCell("no bytes in the cell")
            self._bytes = cell
        elif not isinstance(cell, str):
            raise BadCell(f"expected a path or bytes, got {type(cell).__name__}")
        elif re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", cell):
            reason = "a URL: plait fetches nothing from the network; download it and give its path"
            raise BadCell(reason, cell[:200])
        else:
            self.file, self._status = _find(cell, root)
            if not self._status.st_size:
                raise BadCell("an empty file", self.file)

    @cached_property
    def digest(self) -> bytes:
        """A short hash of the content, 12 bytes of BLAKE2b."""
        if self._bytes is not None:
            return hashlib.blake2b(self._bytes, digest_size=12).digest()
        digest = self._store.digest_of(self.file, self._status)
        if digest is None:
            digest = self._hash_file()
            self._store.remember(self.file, self._status, digest)
        return digest

    def _hash_file(self) -> bytes:
        if self._status.st_size <= BY_PATH:
            return hashlib.blake2b(self.data, digest_size=12).digest()
        try:
            with open(self.file, "rb") as file:
                return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=12)).digest()
        except OSError as error:  # deleted since it was checked, or on a disk that fails
            raise BadCell(_reason(error), self.file) from None

    @cached_property
    def data(self) -> bytes:
        """The content of the file. Raises `BadCell`."""
        if self._bytes is not None:
            return self._bytes
        try:
            return Path(self.file).read_bytes()
        except OSError as error:
            raise BadCell(_reason(error), self.file) from None

    @property
    def content(self) -> bytes | str:
        """The bytes, or the path if the file is too large to be read into memory."""
        if self.file and self._status.st_size > BY_PATH:
            return self.file
        return self.data

    @cached_property
    def clip(self) -> Clip:
        """The cell as a video, opened once for its frames and its sound."""
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
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError
        if not stat.S_ISREG(status.st_mode):
            raise BadCell("neither a file nor a link to one", path)
        if not os.access(path, os.R_OK):
            raise PermissionError
    except (OSError, ValueError) as error:  # a null character, half of a surrogate pair
        raise BadCell(_reason(error), path[:200]) from None
    return path, status


def _reason(error: Exception) -> str:
    reasons: dict[type[Exception], str] = {
        FileNotFoundError: "no such file",
        IsADirectoryError: "a folder, not a file",
        PermissionError: "permission denied",
    }
    default = f"cannot be opened: {getattr(error, 'strerror', None) or error}"
    return reasons.get(type(error), default)


def is_bytes(kind: pa.DataType) -> bool:
    """Return whether a column holds bytes, or pairs of bytes and path as Hugging Face datasets have them."""
    is_pair = pa.types.is_struct(kind) and {field.name for field in kind} == {"bytes", "path"}
    return bool(is_pair or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
