"""The packs of the cache: files in which arrays lie one after the other."""

from __future__ import annotations

import contextlib
import mmap
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SIZE = 64 << 20  # bytes after which a process begins its next pack; a pack is deleted as one
DISK_BLOCK = 512  # bytes: POSIX counts what a file takes on disk in these, whatever the disk's own blocks are


@dataclass(frozen=True)
class PackFile:
    """A pack on disk: its name, the bytes that it takes there, and when it was changed (seconds)."""

    name: str
    size: int
    changed: float


class Packs:
    """The packs in a folder. Only the process that began a pack writes to it; all processes read it.

    So two processes never write to one file. Every pack that this process has begun or read stays mapped
    into its memory, so that arrays can be views of it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._maps: dict[str, mmap.mmap] = {}

        # The pack that this process writes to, its name, and the bytes written to it.
        self._pack: mmap.mmap | None = None
        self._name = ""
        self._size = 0

    @property
    def opened(self) -> list[str]:
        """The names of the packs that this process has begun or read."""
        return list(self._maps)

    def has_room(self, size: int) -> bool:
        """Return whether so many bytes fit into the pack that this process writes to."""
        return self._pack is not None and self._size + size <= len(self._pack)

    def begin(self, size: int) -> str:
        """Begin a pack that has room for so many bytes, and return its name.

        Raises `OSError` if the disk has no room for it.
        """
        name = f"{uuid.uuid4().hex}.pack"
        with open(self.folder / name, "xb+") as file:
            try:
                # Reserve the bytes now: writing to a map on a full disk would kill the process (SIGBUS).
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)
                else:
                    file.truncate(size)
            except OSError:
                (self.folder / name).unlink()
                raise
            self._pack = self._maps[name] = mmap.mmap(file.fileno(), size)
        self._name = name
        self._size = 0
        return name

    def append(self, array: np.ndarray) -> tuple[str, int]:
        """Copy an array into the pack, which must have room for it.

        Return the pack's name, and the array's offset in bytes.
        """
        assert self._pack is not None
        offset = self._size
        self._pack[offset : offset + array.nbytes] = array.tobytes()
        self._size += array.nbytes
        return self._name, offset

    def flush(self) -> None:
        """Flush what this process has written to the disk."""
        if self._pack is not None:
            self._pack.flush()

    def end(self) -> None:
        """Give the bytes that this process has reserved, but not used, back to the disk."""
        if self._pack is None:
            return

        # Another process may have deleted the pack meanwhile; on Windows it may still be mapped.
        with contextlib.suppress(OSError):
            os.truncate(self.folder / self._name, self._size)
        self._pack = None

    def read(self, name: str, offset: int, size: int) -> memoryview | None:
        """Return a view of so many bytes; None if the pack does not have them.

        Raises `OSError` or `ValueError` if the pack cannot be opened: another process may have deleted it.
        """
        if name not in self._maps:
            # A damaged entry may name a path: nothing outside of the folder is read.
            with open(self.folder / Path(name).name, "rb") as file:
                self._maps[name] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        content = self._maps[name]
        end = offset + size
        return memoryview(content)[offset:end] if 0 <= offset <= end <= len(content) else None

    def on_disk(self) -> Iterator[PackFile]:
        """Yield the packs of all processes that are on disk."""
        for path in self.folder.glob("*.pack"):
            try:
                status = path.stat()
            except FileNotFoundError:  # another process has deleted it meanwhile
                continue

            # The end of a pack may be reserved and not used, so its blocks count, not its length.
            blocks = getattr(status, "st_blocks", status.st_size // DISK_BLOCK)
            yield PackFile(path.name, blocks * DISK_BLOCK, status.st_mtime)

    def delete(self, name: str) -> None:
        """Delete a pack. Processes that have opened it go on reading it."""
        (self.folder / name).unlink(missing_ok=True)
