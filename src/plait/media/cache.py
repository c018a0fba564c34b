"""Keep prepared cells on disk: computed once, shared by all runs.

Cells are found by their content and by the identity of what prepared them. Arrays lie one after the other in
packs (`cache_packs.py`); an SQLite database (`cache_database.py`) says what lies where. A process that is
killed leaves at most some bytes that nothing refers to: a pack is flushed to the disk before the database
refers to it. The cache may be deleted at any time.

Every entry carries a checksum: a damaged one is dropped, and its cell is prepared again. Whatever goes wrong
with the cache ends the cache, for this run, and never the run.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from xxhash import xxh3_128_digest

from plait.console import Screen
from plait.errors import OutputError, PlaitError, count
from plait.media import cache_packs
from plait.media.cache_database import connect, is_damaged, remove
from plait.media.cache_packs import Packs
from plait.media.cell import Cell

INDEX = "index.sqlite"  # the database in the cache's folder
NOTHING = memoryview(b"")  # the bytes of a cell without an array
LIMIT = 20e9  # bytes on disk; less where a tenth of the free space is less
EVERY = 2.0  # seconds between two commits: a kill costs no more work than that

T = TypeVar("T")


@dataclass(frozen=True)
class Usage:
    """What a cache holds: `bytes` on disk, the numbers of prepared `cells`, of `bad` ones, and of `packs`.

    A bad cell is one that could not be read.
    """

    folder: Path
    bytes: int
    limit: int
    cells: int
    bad: int
    packs: int

    def show(self) -> Usage:
        """Print the usage on screen, and return it."""
        cells = f"{count(self.cells, 'prepared cell')}, {self.bad:,} of them unreadable"
        size = f"{self.bytes / 1e9:.2f} of at most {self.limit / 1e9:.1f} GB"
        Screen(out=True).say(f"{self.folder}: {cells}; {size} in {count(self.packs, 'pack')}")
        return self


def folder() -> Path:
    """Return the cache's folder: `PLAIT_CACHE`, or `plait/cells` in the user's cache folder."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("PLAIT_CACHE") or base / "plait" / "cells")


def open_store(tell: Callable[[str], None] = lambda text: None) -> Cache | None:
    """Open the user's cache. Returns None if `PLAIT_CACHE` is `off`.

    If its folder cannot be written to, tells the user so and returns None.
    """
    if os.environ.get("PLAIT_CACHE") == "off":
        return None
    try:
        return Cache(folder(), tell=tell)
    except (OSError, sqlite3.Error, ValueError) as error:
        tell(_without_cache(folder(), error))
        return None


def show(clear: bool = False) -> None:
    """Print what the user's cache holds, after all of it is deleted with `clear`.

    Raises `OutputError` if its folder cannot be used.
    """
    try:
        with Cache(folder()) as cells:
            if clear:
                cells.clear()
            cells.usage().show()
    except (OSError, sqlite3.Error) as error:
        raise OutputError(_without_cache(folder(), error)) from error


def _without_cache(folder: Path, error: Exception) -> str:
    """Say that there is no cache, and what to do."""
    return (
        f"no cache of prepared cells: {error} ({folder}); "
        f"set PLAIT_CACHE to a folder that you can write to, or to off"
    )


class Cache:
    """A store of prepared cells (`cell.Store`) that threads and other processes may use at the same time.

    `limit` bounds the bytes on disk. Above it, the least recently used packs are deleted, but none that this
    process has begun or read from. `tell` says once that the cache has failed and is not used any more.
    """

    def __init__(
        self, folder: Path, limit: float | None = None, tell: Callable[[str], None] = lambda text: None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.limit = int(limit if limit is not None else _limit(folder))
        self._tell = tell
        self._failed = False
        self._lock = threading.RLock()
        self._database = connect(folder / INDEX)
        self._packs = Packs(folder)

        # Statements are run together: a transaction left open would lock other processes out.
        self._pending: list[tuple[str, tuple[object, ...]]] = []
        self._committed = time.monotonic()

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def digest_of(self, path: str, status: os.stat_result) -> bytes | None:
        """Return the digest of a file that had the same size and time of change before, or None."""
        return self._attempt(lambda: self._digest_of(path, status), None)

    def _digest_of(self, path: str, status: os.stat_result) -> bytes | None:
        row = self._database.execute(
            "SELECT size, changed, digest, checksum FROM files WHERE path = ?", (path,)
        ).fetchone()
        if row is None:
            return None
        size, changed, digest, checksum = row
        if (size, changed) != (status.st_size, status.st_mtime_ns):
            return None
        return digest if checksum == _checksum(path, size, changed, digest) else None

    def remember(self, path: str, status: os.stat_result, digest: bytes) -> None:
        """Keep the digest of a file, with its size and time of change."""
        values = (path, status.st_size, status.st_mtime_ns, digest)
        statement = "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)"
        self._attempt(lambda: self._write(statement, (*values, _checksum(*values))), None)

    def get(self, identity: str, digest: bytes) -> Cell | None:
        """Return a prepared cell, its array a view of a pack; None if the cache does not hold it."""
        return self._attempt(lambda: self._get(identity, digest), None)

    def _get(self, identity: str, digest: bytes) -> Cell | None:
        row = self._database.execute(
            "SELECT pack, place, shape, kind, notes, checksum FROM cells WHERE identity = ? AND digest = ?",
            (identity, digest),
        ).fetchone()
        if row is None:
            return None
        pack, offset, shape, kind, notes, checksum = row
        stored = self._bytes(pack, offset, shape, kind)
        if stored is None or checksum != _checksum(identity, digest, shape, kind, notes, stored=stored):
            # The entry is damaged, or another process has deleted its pack: the cell is prepared again.
            self._write("DELETE FROM cells WHERE identity = ? AND digest = ?", (identity, digest))
            return None

        read_notes = tuple(json.loads(notes)) if notes else ()
        if pack is None:
            return Cell(None, read_notes)
        return Cell(np.frombuffer(stored, kind).reshape(json.loads(shape)), read_notes)

    def put(self, identity: str, digest: bytes, cell: Cell) -> Cell:
        """Keep a cell and return it, its array now a view of a pack; as it is if the disk has no room."""
        return self._attempt(lambda: self._put(identity, digest, cell), cell)

    def _put(self, identity: str, digest: bytes, cell: Cell) -> Cell:
        notes = json.dumps(cell.notes) if cell.notes else None
        statement = "INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        if cell.array is None:
            checksum = _checksum(identity, digest, None, None, notes)
            self._write(statement, (identity, digest, None, 0, None, None, notes, checksum))
            return cell
        array = np.ascontiguousarray(cell.array)
        appended = self._append(array)
        if appended is None:
            return cell
        pack, offset = appended
        shape, kind = json.dumps(array.shape), array.dtype.str
        stored = self._bytes(pack, offset, shape, kind)
        if stored is None:
            return cell
        checksum = _checksum(identity, digest, shape, kind, notes, stored=stored)
        self._write(statement, (identity, digest, pack, offset, shape, kind, notes, checksum))
        return Cell(np.frombuffer(stored, kind).reshape(array.shape), cell.notes)

    def close(self) -> None:
        """Write what is not written yet, and delete packs above the limit."""
        self._attempt(self._close, None)
        with self._lock:
            self._failed = True
            self._database.close()

    def _close(self) -> None:
        self._end_pack()
        self._touch()
        self._shrink()

    def _attempt(self, action: Callable[[], T], otherwise: T) -> T:
        """Do something with the cache. If that fails, now or before, return `otherwise`: the run goes on."""
        with self._lock:
            if self._failed:
                return otherwise
            try:
                return action()
            except (sqlite3.Error, OSError, ValueError, TypeError, OverflowError) as error:
                self._failed = True
                self._tell(_without_cache(self.folder, error))
                if is_damaged(error):
                    self._database.close()
                    remove(self.folder / INDEX)
                return otherwise

    def usage(self) -> Usage:
        """Count what the cache holds, and its size on disk."""
        cells, bad = self._database.execute(
            "SELECT COUNT(*), COALESCE(SUM(pack IS NULL), 0) FROM cells"
        ).fetchone()
        packs = list(self._packs.on_disk())
        size = sum(pack.size for pack in packs)
        return Usage(self.folder, size, self.limit, cells, bad, len(packs))

    def clear(self) -> None:
        """Delete everything. Runs that are reading go on: the files that they have opened stay readable."""
        with self._lock:
            self._end_pack()
            with self._database:
                for table in ("cells", "files", "packs"):
                    self._database.execute(f"DELETE FROM {table}")
            self._database.execute("VACUUM")
            for pack in self._packs.on_disk():
                self._packs.delete(pack.name)

    def _append(self, array: np.ndarray) -> tuple[str, int] | None:
        """Copy an array into this process's pack. Return the pack's name and the array's offset in bytes.

        Return None if there is no room for another pack.
        """
        if not self._packs.has_room(array.nbytes):
            self._end_pack()
            size = max(cache_packs.SIZE, array.nbytes)
            if size > self.limit:
                return None
            try:
                name = self._packs.begin(size)
            except OSError:
                return None
            self._pending.append(("INSERT INTO packs VALUES (?, ?)", (name, time.time())))
        return self._packs.append(array)

    def _end_pack(self) -> None:
        self._commit()
        self._packs.end()

    def _bytes(self, pack: str | None, offset: int, shape: str | None, kind: str | None) -> memoryview | None:
        """Return the bytes of a cell's array in its pack, none without a pack.

        Return None if another process has deleted the pack, or if the entry is damaged.
        """
        if pack is None:
            return NOTHING
        try:
            size = math.prod(json.loads(shape or "")) * np.dtype(kind).itemsize
            return self._packs.read(pack, offset, size)
        except (OSError, ValueError, TypeError, RecursionError):
            return None

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        """Keep a statement for the next commit, and commit if the last one is long ago."""
        self._pending.append((statement, values))
        if time.monotonic() - self._committed > EVERY:
            self._commit()

    def _commit(self) -> None:
        # The bytes go first: a kill between the two must not leave rows that refer to nothing.
        self._packs.flush()
        with self._database:
            for statement, values in self._pending:
                self._database.execute(statement, values)
        self._pending.clear()
        self._committed = time.monotonic()

    def _touch(self) -> None:
        """Note that the packs that this process has read or written were used now."""
        now = time.time()
        rows = [(now, name) for name in self._packs.opened]
        with self._database:
            self._database.executemany("UPDATE packs SET used = ? WHERE name = ?", rows)

    def _shrink(self) -> None:
        """Delete packs, the least recently used first, until the cache is within its limit."""
        sizes: dict[str, int] = {}
        last_used: dict[str, float] = {}
        for pack in self._packs.on_disk():
            sizes[pack.name] = pack.size
            last_used[pack.name] = pack.changed

        # The database lacks a pack that a killed process has begun: then its time of change counts.
        last_used.update(self._database.execute("SELECT name, used FROM packs").fetchall())
        total = sum(sizes.values())
        for name in sorted(sizes, key=lambda name: last_used[name]):
            if total <= self.limit:
                break
            if name in self._packs.opened:
                continue
            with self._database:
                self._database.execute("DELETE FROM cells WHERE pack = ?", (name,))
                self._database.execute("DELETE FROM packs WHERE name = ?", (name,))
            self._packs.delete(name)
            total -= sizes[name]


def _checksum(*fields: str | int | bytes | None, stored: memoryview = NOTHING) -> bytes:
    """Return a checksum of an entry: of its fields, and of the bytes in its pack."""
    text = repr(fields).encode("utf-8", "backslashreplace")
    return xxh3_128_digest(text + xxh3_128_digest(stored))


def _limit(folder: Path) -> float:
    """Return the limit in bytes: `PLAIT_CACHE_LIMIT` in gigabytes, or the default.

    Raises `PlaitError` unless the variable is a number of gigabytes.
    """
    text = os.environ.get("PLAIT_CACHE_LIMIT", "")
    if not text:
        return min(LIMIT, shutil.disk_usage(folder).free / 10)
    try:
        limit = float(text) * 1e9
    except ValueError:
        limit = math.nan
    if not (math.isfinite(limit) and limit >= 0):
        raise PlaitError(f"PLAIT_CACHE_LIMIT is '{text}'; expected a number of gigabytes, such as 20")
    return limit
