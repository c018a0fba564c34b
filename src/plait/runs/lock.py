"""Keep two trainings out of one folder: they would write over each other's checkpoints and weights."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from plait.disk.whole import explained
from plait.errors import RecipeError

LOCK = "lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)  # of a disk without locks, as some network disks


@contextmanager
def locked(folder: Path, other: str = "another training is running") -> Iterator[None]:
    """Hold the lock of a folder that exists. `other` says what goes on if somebody else holds it.

    The operating system drops the lock when the process ends, even after kill -9. The empty file stays.
    A thread that holds the lock may take it once more: `tune` keeps its folder while it calls `fit`.
    On a disk without locks nothing is held.

    Raises `RecipeError` if another process or thread holds the lock, and `OutputError` if the folder cannot
    be written to.
    """
    lock = FileLock(folder / LOCK, is_singleton=True)
    with explained(folder / LOCK):
        _acquire(lock, f"{other} in '{folder}'; wait until it ends, stop it, or choose another out=")
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, in_use: str) -> None:
    """Take a lock; on a disk without locks, take none.

    Raises `RecipeError` with the message `in_use` if somebody else holds it, and `OSError` if its file cannot
    be written.
    """
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise RecipeError(in_use) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
