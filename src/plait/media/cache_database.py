"""Open the database of the cache, and begin a new one in place of one that is damaged."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path

WAIT = 60.0  # seconds to wait for another process that holds the database
VERSION = 2  # of the tables

# `used` is the time of the last run that read or wrote a pack. A cell without a pack is bad.
TABLES = """
CREATE TABLE IF NOT EXISTS packs (name TEXT PRIMARY KEY, used REAL);
CREATE TABLE IF NOT EXISTS cells (
    identity TEXT, digest BLOB, pack TEXT, place INTEGER, shape TEXT, kind TEXT, notes TEXT, checksum BLOB,
    PRIMARY KEY (identity, digest)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_pack ON cells (pack);
CREATE TABLE IF NOT EXISTS files (
    path TEXT PRIMARY KEY, size INTEGER, changed INTEGER, digest BLOB, checksum BLOB) WITHOUT ROWID;
"""

# Tables of another version are dropped. Their packs are the oldest then, and go first.
DROP_TABLES = "DROP TABLE IF EXISTS cells; DROP TABLE IF EXISTS packs; DROP TABLE IF EXISTS files;"


def connect(path: Path) -> sqlite3.Connection:
    """Open the database, with its tables. Begin a new one in place of one that is damaged.

    Raises `sqlite3.Error` if it cannot be opened.
    """
    try:
        return _connect(path)
    except sqlite3.DatabaseError as error:
        if not is_damaged(error):
            raise
        remove(path)
        return _connect(path)


def is_damaged(error: Exception) -> bool:
    """Return whether SQLite cannot read its file. Other errors are of the disk, or of other processes."""
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)


def remove(path: Path) -> None:
    """Remove a damaged database. Its packs are the oldest then, and go first."""
    for ending in ("", "-wal", "-shm"):
        with contextlib.suppress(OSError):
            path.with_name(path.name + ending).unlink()


def _connect(path: Path) -> sqlite3.Connection:
    """Open the database in write-ahead mode.

    SQLite waits for other processes, but not while it changes to that mode: there it says "locked" at once.
    So this tries again until `WAIT` seconds have passed.
    """
    # Threads share the connection: they take turns by the cache's lock.
    database = sqlite3.connect(path, timeout=WAIT, check_same_thread=False)
    until = time.monotonic() + WAIT
    while True:
        try:
            database.execute("PRAGMA journal_mode=WAL")
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version != VERSION:
                database.executescript(f"{DROP_TABLES} PRAGMA user_version = {VERSION};")
            database.executescript(TABLES)
            return database
        except sqlite3.Error as error:
            if "locked" not in str(error) or time.monotonic() > until:
                database.close()
                raise
            time.sleep(0.01)
