"""Keep prepared cells on disk: computed once, shared by all runs.

Cells are found by their content and by the identity of what prepared them. Arrays lie one after the other in
packs; an SQLite database says what lies where. Only the process that began a pack writes to it. So two
processes never write to one file, and a process that is killed leaves at most some bytes that nothing refers
to. A pack is flushed to the disk before the database refers to it. The cache may be deleted at any time.

Every entry carries a checksum: a damaged one is dropped, and its cell is prepared again. Whatever goes wrong
with the cache ends the cache, for this run, and never the run.
"""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import os
import shutil
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from xxhash import xxh3_128_digest

from plait.console import Screen
from plait.errors import OutputError, PlaitError, count
from plait.media.cell import Cell

INDEX = "index.sqlite"  # the database in the cache's folder


NOTHING = memoryview(b"")  # the bytes of a cell without an array


LIMIT = 20e9  # bytes on disk; less where a tenth of the free space is less


WAIT = 60.0  # seconds to wait for another process that holds the database


PACK = 64 << 20  # bytes after which a process begins its next pack; a pack is deleted as one


EVERY = 2.0  # seconds between two commits: a kill costs no more work than that


VERSION = 2  # of the tables


T = TypeVar("T")


# `used` is the time of the last run that read or wrote a pack; a cell without a pack is bad
TABLES = """
CREATE TABLE IF NOT EXISTS packs (name TEXT PRIMARY KEY, used REAL);
CREATE TABLE IF NOT EXISTS cells (
    identity TEXT, digest BLOB, pack TEXT, place INTEGER, shape TEXT, kind TEXT, notes TEXT, checksum BLOB,
    PRIMARY KEY (identity, digest)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_pack ON cells (pack);
CREATE TABLE IF NOT EXISTS files (
    path TEXT PRIMARY KEY, size INTEGER, changed INTEGER, digest BLOB, checksum BLOB) WITHOUT ROWID;
"""


# of another version: their packs are the oldest, and go first
OLD_TABLES = "".join(f"DROP TABLE IF EXISTS {table};" for table in ("cells", "packs", "files"))


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
        self._database = _connect_anew(folder / INDEX)
        # statements are run together: a transaction left open would lock other processes out
        self._pending: list[tuple[str, tuple[object, ...]]] = []
        self._committed = time.monotonic()
        self._maps: dict[str, mmap.mmap] = {}  # packs that this process has opened, by their names

        # the pack that this process writes to, its name, and the bytes written to it
        self._pack: mmap.mmap | None = None
        self._name = ""
        self._size = 0

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
            # damaged, or another process has deleted its pack: it is prepared again
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
                if _is_damaged(error):
                    self._database.close()
                    _remove(self.folder / INDEX)
                return otherwise

    def usage(self) -> Usage:
        """Count what the cache holds, and its size on disk."""
        count, bad = self._database.execute(
            "SELECT COUNT(*), COALESCE(SUM(pack IS NULL), 0) FROM cells"
        ).fetchone()
        packs = self._packs()
        size = sum(size for size, _ in packs.values())
        return Usage(self.folder, size, self.limit, count, bad, len(packs))

    def clear(self) -> None:
        """Delete everything. Runs that are reading go on: the files that they have opened stay readable."""
        with self._lock:
            self._end_pack()
            with self._database:
                for table in ("cells", "files", "packs"):
                    self._database.execute(f"DELETE FROM {table}")
            self._database.execute("VACUUM")
            for name in self._packs():
                (self.folder / name).unlink(missing_ok=True)

    def _append(self, array: np.ndarray) -> tuple[str, int] | None:
        """Copy an array into this process's pack. Returns the pack's name and the array's offset in bytes.

        Returns None if there is no room for another pack.
        """
        if self._pack is None or self._size + array.nbytes > len(self._pack):
            self._end_pack()
            try:
                self._begin_pack(max(PACK, array.nbytes))
            except OSError:
                return None
        assert self._pack is not None
        offset = self._size
        self._pack[offset : offset + array.nbytes] = array.tobytes()
        self._size += array.nbytes
        return self._name, offset

    def _begin_pack(self, size: int) -> None:
        if size > self.limit:
            raise OSError(f"a pack of {size} bytes is more than the cache's limit")
        name = f"{uuid.uuid4().hex}.pack"
        with open(self.folder / name, "xb+") as file:
            try:
                # reserve the bytes now: writing to a map on a full disk would kill the process (SIGBUS)
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
        self._pending.append(("INSERT INTO packs VALUES (?, ?)", (name, time.time())))

    def _end_pack(self) -> None:
        """Commit, and give the bytes that this process has not used back to the disk."""
        self._commit()
        if self._pack is not None:
            # another process may have deleted it meanwhile; on Windows it may still be mapped
            with contextlib.suppress(OSError):
                os.truncate(self.folder / self._name, self._size)
            self._pack = None

    def _bytes(self, pack: str | None, offset: int, shape: str | None, kind: str | None) -> memoryview | None:
        """Return the bytes of a cell's array in its pack, none without a pack.

        Return None if another process has deleted the pack, or if the entry is damaged.
        """
        if pack is None:
            return NOTHING
        try:
            if pack not in self._maps:
                with open(self.folder / Path(pack).name, "rb") as file:
                    self._maps[pack] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            size = math.prod(json.loads(shape or "")) * np.dtype(kind).itemsize
            end = offset + size
        except (OSError, ValueError, TypeError, RecursionError):
            return None
        content = self._maps[pack]
        return memoryview(content)[offset:end] if 0 <= offset <= end <= len(content) else None

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        """Keep a statement for the next commit, and commit if the last one is long ago."""
        self._pending.append((statement, values))
        if time.monotonic() - self._committed > EVERY:
            self._commit()

    def _commit(self) -> None:
        # the bytes go first: a kill between the two must not leave rows that refer to nothing
        if self._pack is not None:
            self._pack.flush()
        with self._database:
            for statement, values in self._pending:
                self._database.execute(statement, values)
        self._pending.clear()
        self._committed = time.monotonic()

    def _touch(self) -> None:
        """Note that the packs that this process has read or written were used now."""
        now = time.time()
        rows = [(now, name) for name in self._maps]
        with self._database:
            self._database.executemany("UPDATE packs SET used = ? WHERE name = ?", rows)

    def _packs(self) -> dict[str, tuple[int, float]]:
        """Return the size on disk and the time of change of every pack, by its name."""
        packs = {}
        for path in self.folder.glob("*.pack"):
            try:
                status = path.stat()
            except FileNotFoundError:  # another process has deleted it meanwhile
                continue
            # a pack's last part may be reserved, not used; POSIX counts blocks of 512 bytes
            blocks = getattr(status, "st_blocks", status.st_size // 512)
            packs[path.name] = (blocks * 512, status.st_mtime)
        return packs

    def _shrink(self) -> None:
        """Delete packs, the least recently used first, until the cache is within its limit."""
        packs = self._packs()

        # the database lacks a pack that a killed process has begun: then its time of change counts
        last_used = {name: changed for name, (_, changed) in packs.items()}
        last_used.update(self._database.execute("SELECT name, used FROM packs").fetchall())
        total = sum(size for size, _ in packs.values())
        for name in sorted(packs, key=lambda pack: last_used[pack]):
            if total <= self.limit:
                break
            if name in self._maps or name == self._name:
                continue
            with self._database:
                self._database.execute("DELETE FROM cells WHERE pack = ?", (name,))
                self._database.execute("DELETE FROM packs WHERE name = ?", (name,))
            (self.folder / name).unlink(missing_ok=True)
            total -= packs[name][0]


def _checksum(*fields: str | int | bytes | None, stored: memoryview = NOTHING) -> bytes:
    """Return a checksum of an entry: of its fields, and of the bytes in its pack."""
    text = repr(fields).encode("utf-8", "backslashreplace")
    return xxh3_128_digest(text + xxh3_128_digest(stored))


def _is_damaged(error: Exception) -> bool:
    """Return whether SQLite cannot read its file. Other errors are of the disk, or of other processes."""
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)


def _remove(path: Path) -> None:
    """Remove a damaged database. Its packs are the oldest then, and go first."""
    for ending in ("", "-wal", "-shm"):
        with contextlib.suppress(OSError):
            path.with_name(path.name + ending).unlink()


def _connect_anew(path: Path) -> sqlite3.Connection:
    """Open the database. Begin a new one in place of one that is damaged."""
    try:
        return _connect(path)
    except sqlite3.DatabaseError as error:
        if not _is_damaged(error):
            raise
        _remove(path)
        return _connect(path)


def _connect(path: Path) -> sqlite3.Connection:
    """Open the database in write-ahead mode.

    SQLite waits for other processes, but not while it changes to that mode: there it says "locked" at once.
    So this tries again until `WAIT` seconds have passed.
    """
    # threads share the connection: they take turns by the cache's lock
    database = sqlite3.connect(path, timeout=WAIT, check_same_thread=False)
    until = time.monotonic() + WAIT
    while True:
        try:
            database.execute("PRAGMA journal_mode=WAL")
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version != VERSION:
                database.executescript(f"{OLD_TABLES} PRAGMA user_version = {VERSION};")
            database.executescript(TABLES)
            return database
        except sqlite3.Error as error:
            if "locked" not in str(error) or time.monotonic() > until:
                database.close()
                raise
            time.sleep(0.01)


def _limit(folder: Path) -> float:
    """Return the limit in bytes: `PLAIT_CACHE_LIMIT` in gigabytes, or the default."""
    text = os.environ.get("PLAIT_CACHE_LIMIT", "")
    if not text:
        return min(LIMIT, shutil.disk_usage(folder).free / 10)
    try:
        return float(text) * 1e9
    except ValueError:
        raise PlaitError(
            f"PLAIT_CACHE_LIMIT is '{text}'; expected a number of gigabytes, such as 20"
        ) from None
