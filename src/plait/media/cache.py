"""Prepared cells on disk, by the content of the cell and the identity of what prepared it: computed
once, shared by all runs.

Arrays lie one after the other in packs, files that only the process that began them writes to; an
SQLite database says what lies where. So two processes never write to one file, and a process that is
killed leaves at most some bytes that nothing refers to. A pack is flushed to the disk before the
database speaks of it. The cache may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import json
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

import numpy as np

from plait.console import Screen
from plait.errors import PlaitError
from plait.media.cell import Cell

LIMIT = 20e9  # bytes, and never more than a tenth of what is free


WAIT = 60.0  # seconds to wait for another process that holds the database


PACK = 64 << 20  # bytes after which a process begins its next pack: what is thrown away at once


EVERY = 2.0  # seconds between two commits: the most work that a kill can cost


TABLES = """
CREATE TABLE IF NOT EXISTS packs (name TEXT PRIMARY KEY, used REAL);
CREATE TABLE IF NOT EXISTS cells (
    identity TEXT, digest BLOB, pack TEXT, place INTEGER, shape TEXT, kind TEXT, notes TEXT,
    PRIMARY KEY (identity, digest)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_pack ON cells (pack);
CREATE TABLE IF NOT EXISTS files (
    path TEXT PRIMARY KEY, size INTEGER, changed INTEGER, digest BLOB) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Usage:
    """What a cache holds: `bytes` on disk, prepared `cells`, of which `bad` could not be read, in so
    many `packs`.
    """

    folder: Path
    bytes: int
    limit: int
    cells: int
    bad: int
    packs: int

    def show(self) -> Usage:
        """Prints itself, and returns itself."""
        Screen(out=True).say(
            f"{self.folder}: {self.cells:,} prepared cells, {self.bad:,} of them unreadable, in "
            f"{self.packs:,} packs; "
            f"{self.bytes / 1e9:.2f} of at most {self.limit / 1e9:.1f} GB"
        )
        return self


def folder() -> Path:
    """Where the cache lies: `PLAIT_CACHE`, or `plait/cells` in the user's cache folder."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("PLAIT_CACHE") or base / "plait" / "cells")


def open_store(tell: Callable[[str], None] = lambda text: None) -> Cache | None:
    """The user's cache; None where `PLAIT_CACHE` is `off`, or its folder cannot be written to, which is
    said.
    """
    if os.environ.get("PLAIT_CACHE") == "off":
        return None
    try:
        return Cache(folder())
    except (OSError, sqlite3.Error) as error:
        tell(
            f"no cache of prepared cells: {error} ({folder()}); set PLAIT_CACHE to a folder that can be "
            f"written to, or to off"
        )
        return None


class Cache:
    """A store of prepared cells (`cells.Store`), safe under threads and under other processes.

    `limit` bounds the bytes on disk. When it is passed, the packs that were used the longest ago are
    thrown away, but none that this process has begun or read from.
    """

    def __init__(self, folder: Path, limit: float | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.limit = int(limit if limit is not None else _limit(folder))
        self._lock = threading.RLock()
        self._database = _connect(folder / "index.sqlite")
        self._pending: list[
            tuple[str, tuple[object, ...]]
        ] = []  # written together: a transaction left open would lock others out
        self._maps: dict[str, mmap.mmap] = {}
        self._pack: mmap.mmap | None = None
        self._name, self._size, self._committed = "", 0, time.monotonic()

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def digest_of(self, path: str, about: os.stat_result) -> bytes | None:
        with self._lock:
            row = self._database.execute(
                "SELECT size, changed, digest FROM files WHERE path = ?", (path,)
            ).fetchone()
        return row[2] if row and row[:2] == (about.st_size, about.st_mtime_ns) else None

    def remember(self, path: str, about: os.stat_result, digest: bytes) -> None:
        with self._lock:
            self._write(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)",
                (path, about.st_size, about.st_mtime_ns, digest),
            )

    def get(self, identity: str, digest: bytes) -> Cell | None:
        with self._lock:
            row = self._database.execute(
                "SELECT pack, place, shape, kind, notes FROM cells WHERE identity = ? AND digest = ?",
                (identity, digest),
            ).fetchone()
            if row is None:
                return None
            pack, place, shape, kind, notes = row
            said = tuple(json.loads(notes)) if notes else ()
            return (
                Cell(None, said) if pack is None else self._read(pack, place, json.loads(shape), kind, said)
            )

    def put(self, identity: str, digest: bytes, cell: Cell) -> Cell:
        with self._lock:
            notes = json.dumps(cell.notes) if cell.notes else None
            if cell.array is None:
                self._write(
                    "INSERT OR REPLACE INTO cells VALUES (?, ?, NULL, 0, NULL, NULL, ?)",
                    (identity, digest, notes),
                )
                return cell
            array = np.ascontiguousarray(cell.array)
            appended = self._append(array)
            if appended is None:
                return cell
            name, place = appended
            about = (identity, digest, name, place, json.dumps(array.shape), array.dtype.str, notes)
            self._write("INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?, ?, ?)", about)
            return self._read(name, place, list(array.shape), array.dtype.str, cell.notes) or cell

    def close(self) -> None:
        """Writes what is not written yet, and throws away what is too much."""
        with self._lock:
            self._end_pack()
            self._touch()
            self._shrink()
            self._database.close()

    def usage(self) -> Usage:
        count, bad = self._database.execute(
            "SELECT COUNT(*), COALESCE(SUM(pack IS NULL), 0) FROM cells"
        ).fetchone()
        files = self._files()
        return Usage(self.folder, sum(size for size, _ in files.values()), self.limit, count, bad, len(files))

    def clear(self) -> None:
        """Forgets everything. Runs that are reading go on; what they have opened stays theirs."""
        with self._lock:
            self._end_pack()
            with self._database:
                for table in ("cells", "files", "packs"):
                    self._database.execute(f"DELETE FROM {table}")
            self._database.execute("VACUUM")
            for name in self._files():
                (self.folder / name).unlink(missing_ok=True)

    def _append(self, array: np.ndarray) -> tuple[str, int] | None:
        """Copies the array into this process's pack; None where there is no room for another one."""
        if self._pack is None or self._size + array.nbytes > len(self._pack):
            self._end_pack()
            try:
                self._begin_pack(max(PACK, array.nbytes))
            except OSError:
                return None
        assert self._pack is not None
        place = self._size
        self._pack[place : place + array.nbytes] = array.tobytes()
        self._size += array.nbytes
        return self._name, place

    def _begin_pack(self, size: int) -> None:
        if size > self.limit:
            raise OSError(f"a pack of {size} bytes is more than the cache's limit")
        name = f"{uuid.uuid4().hex}.pack"
        with open(self.folder / name, "xb+") as file:
            try:
                if hasattr(
                    os, "posix_fallocate"
                ):  # a full disk must say so here: later it would be a bus error
                    os.posix_fallocate(file.fileno(), 0, size)
                else:
                    file.truncate(size)
            except OSError:
                (self.folder / name).unlink()
                raise
            self._pack = self._maps[name] = mmap.mmap(file.fileno(), size)
        self._name, self._size = name, 0
        self._pending.append(("INSERT INTO packs VALUES (?, ?)", (name, time.time())))

    def _end_pack(self) -> None:
        self._commit()
        if self._pack is not None:
            with contextlib.suppress(
                OSError
            ):  # thrown away by another process meanwhile, or still mapped (Windows)
                os.truncate(self.folder / self._name, self._size)
            self._pack = None

    def _read(
        self, pack: str, place: int, shape: list[int], kind: str, notes: tuple[str, ...]
    ) -> Cell | None:
        """None when the pack is gone, thrown away by another process."""
        if pack not in self._maps:
            try:
                with open(self.folder / pack, "rb") as file:
                    self._maps[pack] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError):
                return None
        count = int(np.prod(shape, dtype=np.int64))
        if place + count * np.dtype(kind).itemsize > len(self._maps[pack]):
            return None
        return Cell(np.frombuffer(self._maps[pack], kind, count, place).reshape(shape), notes)

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        self._pending.append((statement, values))
        if time.monotonic() - self._committed > EVERY:
            self._commit()

    def _commit(self) -> None:
        if self._pack is not None:
            self._pack.flush()
        with self._database:
            for statement, values in self._pending:
                self._database.execute(statement, values)
        self._pending.clear()
        self._committed = time.monotonic()

    def _touch(self) -> None:
        now = time.time()
        with self._database:
            self._database.executemany(
                "UPDATE packs SET used = ? WHERE name = ?", [(now, name) for name in self._maps]
            )

    def _files(self) -> dict[str, tuple[int, float]]:
        """Size and time of change of every pack that is there."""
        found = {}
        for path in self.folder.glob("*.pack"):
            try:
                about = path.stat()
                found[path.name] = (getattr(about, "st_blocks", about.st_size // 512) * 512, about.st_mtime)
            except FileNotFoundError:
                continue
        return found

    def _shrink(self) -> None:
        files = self._files()
        used = dict(self._database.execute("SELECT name, used FROM packs").fetchall())
        total = sum(size for size, _ in files.values())
        for name in sorted(files, key=lambda n: used.get(n, files[n][1])):
            if total <= self.limit:
                break
            if name in self._maps or name == self._name:
                continue
            with self._database:
                self._database.execute("DELETE FROM cells WHERE pack = ?", (name,))
                self._database.execute("DELETE FROM packs WHERE name = ?", (name,))
            (self.folder / name).unlink(missing_ok=True)
            total -= files[name][0]


def _connect(path: Path) -> sqlite3.Connection:
    """The database, in write-ahead mode. SQLite waits for other processes, but not while it changes to
    that mode: there it says "locked" at once.
    """
    database = sqlite3.connect(path, timeout=WAIT, check_same_thread=False)
    until = time.monotonic() + WAIT
    while True:
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.executescript(TABLES)
            return database
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                database.close()
                raise
            time.sleep(0.01)


def _limit(folder: Path) -> float:
    text = os.environ.get("PLAIT_CACHE_LIMIT", "")
    if not text:
        return min(LIMIT, shutil.disk_usage(folder).free / 10)
    try:
        return float(text) * 1e9
    except ValueError:
        raise PlaitError(f"PLAIT_CACHE_LIMIT is '{text}'; expected a number of gigabytes, as in 20") from None
