"""One media cell: a path, bytes or a dict of both. It is opened once, whoever reads it.

Everything that plait asks the operating system about the string of a cell is asked here.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, unquote_to_bytes, urlsplit

import numpy as np
import pyarrow as pa

from plait.errors import BadCell
from plait.media.video import OpenVideo
from plait.table.conventions.base import NULLS

BY_PATH = 64 << 20  # bytes; a larger file is opened by its path and not read into memory


LONGEST_NAME = 32_767  # characters; no operating system opens a file by a longer name


DIGEST_SIZE = 12  # bytes: two of 10 ** 12 files have the same digest with a probability below 1e-5


# Programs write these for a missing cell. No path is one of them.
MARKS = frozenset(NULLS)


SHORTEST_BASE64 = 64  # characters; a shorter word may be base64 by accident
BASE64 = re.compile(r"[A-Za-z0-9+/_\-\s]+={0,2}\s*")


# how files of images, audio and video begin, and what other files of them have at the fifth byte
HEADS = (
    b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"OggS", b"fLaC", b"ID3",
    b"\xff\xfb", b"\x1aE\xdf\xa3", b"FORM",
)  # fmt: skip
HEAD_AT_FOUR = b"ftyp"


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


class InMemory:
    """What stores have in common that keep nothing of files on the disk."""

    def digest_of(self, path: str, status: os.stat_result) -> bytes | None:
        """Return None."""
        return None

    def remember(self, path: str, status: os.stat_result, digest: bytes) -> None:
        """Keep nothing."""


class Nowhere(InMemory):
    """The store that keeps nothing."""

    def get(self, identity: str, digest: bytes) -> Cell | None:
        """Return None."""
        return None

    def put(self, identity: str, digest: bytes, cell: Cell) -> Cell:
        """Return the cell without keeping it."""
        return cell


class Media:
    """One media cell: a path, bytes, or a dict of both as Hugging Face datasets have it.

    A string may also hold a file itself, as a `data:` URI or as base64. `file` is the path, or "" for bytes.
    A name without an ending is that of the one file that has an ending out of `suffixes`. Everything is read
    at most once, and only when it is needed. Raises `BadCell` for an empty file, and for anything that is no
    file.
    """

    def __init__(
        self, cell: object, root: Path, store: Store | None = None, suffixes: tuple[str, ...] = ()
    ) -> None:
        self._store = store or Nowhere()
        self._bytes: bytes | None = None
        self.file = ""
        if isinstance(cell, dict):
            cell = cell.get("bytes") or cell.get("path")
        if isinstance(cell, str) and holds_file(cell):
            cell = _decoded(cell)

        if isinstance(cell, bytes):
            if not cell:
                raise BadCell("no bytes in the cell")
            self._bytes = cell
            return

        if not isinstance(cell, str):
            raise BadCell(f"expected a path or bytes, got {type(cell).__name__}")
        self.file, self._status = _find(cell, root, suffixes)
        if not self._status.st_size:
            raise BadCell("an empty file", self.file)
        if _is_sparse(self._status):
            size = self._status.st_size / 1e9
            raise BadCell(f"a file with a hole: of its {size:.1f} GB less than 1 % were written", self.file)

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


def is_missing(cell: object) -> bool:
    """Return whether a cell is null, or a string that programs write for a missing one."""
    return cell is None or (isinstance(cell, str) and len(cell) < 16 and cell.strip() in MARKS)


def holds_file(cell: str) -> bool:
    """Return whether a string is not the name of a file, but a file: a `data:` URI, or base64 of media."""
    if cell[:5].lower() == "data:":
        return "," in cell[:1000]
    if len(cell) < SHORTEST_BASE64 or not BASE64.fullmatch(cell[:SHORTEST_BASE64]):
        return False
    head = _from_base64(cell[:SHORTEST_BASE64]) or b""
    return head.startswith(HEADS) or head[4:8] == HEAD_AT_FOUR


def _decoded(cell: str) -> bytes:
    """Return the file that a string holds. Raises `BadCell` if it is damaged."""
    content = file_in(cell)
    if content is None:
        raise BadCell("base64 that is broken or cut short")
    return content


def file_in(cell: str) -> bytes | None:
    """Return the file that a `data:` URI or base64 writes; None for other text."""
    if cell[:5].lower() != "data:":
        return _from_base64(cell)
    head, comma, text = cell.partition(",")
    if not comma:
        return None
    return _from_base64(unquote(text)) if head.lower().endswith(";base64") else unquote_to_bytes(text)


def _from_base64(text: str) -> bytes | None:
    """Return the bytes that base64 writes, in either alphabet; None for other text."""
    letters = "".join(text.split()).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(letters + "=" * (-len(letters) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def is_file(cell: str, root: Path, suffixes: tuple[str, ...] = ()) -> bool:
    """Return whether a string names a file that can be read, relative to `root` unless it is absolute.

    With `suffixes`, the name may lack one of them. Any string may be in a cell, so this never raises,
    whatever the operating system says about the name.
    """
    try:
        _find(cell, root, suffixes)
    except BadCell:
        return False
    return True


def _find(cell: str, root: Path, suffixes: tuple[str, ...]) -> tuple[str, os.stat_result]:
    """Return the path and the status of the file that a cell names. Raises `BadCell` if there is none.

    Nothing else asks the operating system about the string of a cell.
    """
    # `root / cell` splits the string at every slash, which takes long for megabytes of them
    if len(cell) > LONGEST_NAME:
        raise BadCell(f"cannot be opened: a name of {len(cell):,} characters", cell[:200])
    if _is_address(cell):
        reason = "a URL: plait fetches nothing from the network; download it and give its path"
        raise BadCell(reason, cell[:200])
    first = None
    for name in _spellings(cell):
        try:
            return _status(name, root)
        except BadCell as bad:
            if bad.reason != "no such file":
                raise
            first = first or bad
    name = _with_suffix(cell.strip(), root, suffixes)
    if name:
        return _status(name, root)
    raise _drive(cell) or first or BadCell("no such file", cell[:200])


def _is_address(cell: str) -> bool:
    return bool(re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", cell)) and cell[:7].lower() != "file://"


def _spellings(cell: str) -> Iterator[str]:
    """Yield a cell, and then other ways to write the name of the same local file.

    People leave spaces at the ends, write `file://` before it, and use the slashes of Windows.
    """
    yield cell
    stripped = cell.strip()
    if stripped != cell:
        yield stripped
    if stripped[:7].lower() == "file://":
        address = urlsplit(stripped)
        if address.netloc.lower() not in ("", "localhost"):
            raise BadCell(
                f"a file of another machine ({address.netloc}); copy it and give its path", cell[:200]
            )
        stripped = unquote(address.path)
        yield stripped
    if "\\" in stripped:
        yield stripped.replace("\\", "/")


def _drive(cell: str) -> BadCell | None:
    """Return what is wrong with a path of Windows that another system cannot open; None for other paths."""
    name = cell.strip().removeprefix("file:///")
    if os.name == "nt" or not re.match(r"[a-zA-Z]:[\\/]|\\\\", name):
        return None
    where = f"on drive {name[:2]}" if name[1] == ":" else "on another machine"
    return BadCell(f"a path of Windows {where}; copy the files and give paths below the root", cell[:200])


def _with_suffix(name: str, root: Path, suffixes: tuple[str, ...]) -> str:
    """Return the name with the ending of the one file that has it; empty if there is none.

    Raises `BadCell` if there are several.
    """
    folder, stem = os.path.split(str(root / name))
    if not suffixes or not stem:
        return ""
    try:
        changed = os.stat(folder).st_mtime_ns
        names = _by_stem(folder, changed).get(stem, ())
    except (OSError, ValueError):
        return ""
    fitting = [found for found in names if found.lower().endswith(suffixes)]
    if len(fitting) > 1:
        raise BadCell(f"names several files ({', '.join(fitting[:3])}); give its ending too", name[:200])
    return os.path.join(folder, fitting[0]) if fitting else ""


@lru_cache(maxsize=64)
def _by_stem(folder: str, changed: int) -> dict[str, list[str]]:
    """List a folder by names without endings. `changed` is its time of change: a later one lists it again."""
    names: dict[str, list[str]] = {}
    for name in sorted(os.listdir(folder)):
        names.setdefault(os.path.splitext(name)[0], []).append(name)
    return names


def _status(name: str, root: Path) -> tuple[str, os.stat_result]:
    """Return the path and the status of a file. Raises `BadCell` if it is none that can be read."""
    path = str(root / name)
    try:
        # POSIX allows names that are not UTF-8, but no table can hold them: this raises ValueError
        name.encode()
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


def _is_sparse(status: os.stat_result) -> bool:
    """Return whether hardly any of a large file was ever written. Not every system counts the blocks."""
    written = getattr(status, "st_blocks", 0) * 512
    return status.st_size > BY_PATH and 0 < written < status.st_size / 100


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
