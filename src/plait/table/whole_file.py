"""Write a file whole: a reader sees the old file or the new one, never a part, even after a crash."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from plait.errors import TableError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give the path of a new file beside `path`, which takes its place when the block ends.

    Two writers never share that file, and no link is followed. It is on the disk before it takes the place;
    after an error it is gone. Raises `TableError` when the disk does not take it.
    """
    draft = path.with_name(f"{path.stem}.{secrets.token_hex(4)}.part{path.suffix}")
    # Windows has no such flag: links are rare there.
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0)
    try:
        os.close(os.open(draft, flags, 0o666))
        yield draft
        _flush(draft)
        os.replace(draft, path)
    except OSError as error:
        raise TableError(f"cannot write '{path}': {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Wait until a file is on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def check_writable(path: Path) -> None:
    """Make the folder of a file, and raise `TableError` if no file can be written there."""
    if path.is_dir():
        raise TableError(f"cannot write '{path}': it is a folder; give the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TableError(
            f"cannot write '{path}': the folder '{path.parent}' cannot be made: {error.strerror or error}"
        ) from error
    # Only a trial tells: permissions, a full disk and a read-only file system each say no in their own way.
    probe = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise TableError(f"cannot write '{path}': {error.strerror or error}") from error
