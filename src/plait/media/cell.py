"""One media cell: a path, bytes or a dict of both. It is opened once, whoever reads it.

Everything that plait asks the operating system about the string of a cell is asked here.
"""

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
from plait.media.video import OpenVideo

BY_PATH = 64 << 20  # bytes; a larger file is opened by its path and not read into memory


LONGEST_NAME = 32_767  # characters; no operating system opens a file by a longer name


DIGEST_SIZE = 12  # bytes: two of 10 ** 12 files have the same digest with a probability below 1e-5


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
            return

        if not isinstance(cell, str):
            raise BadCell(f"expected a path or bytes, got {type(cell).__name__}")
        if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", cell):
            reason = "a URL: plait fetches nothing from the network; download it and give its path"
            raise BadCell(reason, cell[:200])
        self.file, self._status = _find(cell, root)
        if not self._status.st_size:
            raise BadCell("an empty file", self.file)

    @cached_property
    def digest(self) -> bytes:
        """A short hash of the content, 12 bytes of BLAKE2b."""
        if self._bytes is not None:
            return _new_hash(self._bytes).digest()

        # the store knows the digest of a file that has not changed: then it is not read at all
        digest = self._store.digest_of(self.file, self._status)
        if digest is None:
            digest = self._hash_file()
            self._store.remember(self.file, self._status, digest)
        return digest

    def _hash_file(self) -> bytes:
        if self._status.st_size <= BY_PATH:
            return _new_hash(self.data).digest()
        try:
            with open(self.file, "rb") as file:
                return hashlib.file_digest(file, _new_hash).digest()
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
    def video(self) -> OpenVideo:
        """The cell as a video, opened once for its frames and its audio."""
        return OpenVideo(self.content)


def _new_hash(content: bytes = b"") -> hashlib.blake2b:
    return hashlib.blake2b(content, digest_size=DIGEST_SIZE)


def is_file(cell: str, root: Path) -> bool:
    """Return whether a string names a file that can be read, relative to `root` unless it is absolute.

    Any string may be in a cell, so this never raises, whatever the operating system says about the name.
    """
    try:
        _find(cell, root)
    except BadCell:
        return False
    return True


def _find(cell: str, root: Path) -> tuple[str, os.stat_result]:
    """Return the path and the status of the file that a cell names. Raises `BadCell` if there is none.

    Nothing else asks the operating system about the string of a cell.
    """
    # `root / cell` splits the string at every slash, which takes long for megabytes of them
    if len(cell) > LONGEST_NAME:
        raise BadCell(f"cannot be opened: a name of {len(cell):,} characters", cell[:200])
    path = str(root / cell)
    try:
        # POSIX allows names that are not UTF-8, but no table can hold them: this raises ValueError
        cell.encode()
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
    """Return what an error of the operating system means, in plain words."""
    reasons: dict[type[Exception], str] = {
        FileNotFoundError: "no such file",
        IsADirectoryError: "a folder, not a file",
        PermissionError: "permission denied",
    }
    if type(error) in reasons:
        return reasons[type(error)]
    message = getattr(error, "strerror", None) or error
    return f"cannot be opened: {message}"


def is_bytes(kind: pa.DataType) -> bool:
    """Return whether a column holds bytes, or pairs of bytes and path as Hugging Face datasets have them."""
    if pa.types.is_struct(kind):
        return {field.name for field in kind} == {"bytes", "path"}
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
