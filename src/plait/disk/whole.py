"""Write files whole, and see before the work whether they can be written.

A reader sees the old file or the new one, never a part. What the operating system refuses is said in plait's
words, with what to do.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from plait.errors import OutputError

UNFINISHED = ".plait-*.part"  # the names of files that are not finished

# A name that is new, and no link: a stranger's folder cannot lead the writer to another file.
NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)

REASONS = {
    errno.ENOSPC: "the disk is full; free some space, or choose a place on another disk",
    errno.EDQUOT: "your quota of this disk is used up; free some space, or choose a place on another disk",
    errno.EFBIG: "it would be larger than this system allows a file to be (see ulimit -f)",
    errno.EROFS: "the disk is read-only; choose another place",
    errno.EACCES: "you may not write there; choose another place, or ask its owner",
    errno.EPERM: "you may not write there; choose another place, or ask its owner",
    errno.EISDIR: "a folder of this name is in the way; choose another name",
    errno.ENOTDIR: "a file is in the way of its folder; choose another place",
    errno.EEXIST: "a file is in the way of a folder of this name; choose another name",
    errno.ENOENT: "its folder is not there; make it first",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.ELOOP: "a link is in its place, which is not followed; remove the link",
}


@contextmanager
def writing(path: Path, flush: bool = True) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` once the block ends well.

    Until then it has a name of its own in the same folder, so two writers never share it. A link in the
    place of `path` is replaced, not followed. The file and its folder are flushed to the disk, unless
    `flush` is False: for a file that is written often and that nobody needs after a power failure.

    Raises `OutputError` if it cannot be written.
    """
    with explained(path):
        if path.is_dir() and not path.is_symlink():
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))

        # A rename is atomic only within one disk, so the unfinished file lies in the same folder.
        unfinished = path.with_name(UNFINISHED.replace("*", secrets.token_hex(8)))
        descriptor = os.open(unfinished, NEW, 0o666)
        try:
            with open(descriptor, "w+b") as file:
                yield file
                file.flush()
                if flush:
                    os.fsync(descriptor)
            os.replace(unfinished, path)
        except BaseException:
            with contextlib.suppress(OSError):
                unfinished.unlink()
            raise

        # A rename is a change of the folder: without this a power failure may undo it.
        if flush:
            _flush_folder(path.parent)


def write_bytes(path: Path, content: bytes, flush: bool = True) -> None:
    """Write bytes. A crash leaves the old file or the new one, never a part."""
    with writing(path, flush) as file:
        file.write(content)


def write_text(path: Path, text: str, flush: bool = True) -> None:
    """Write a text in UTF-8. A crash leaves the old file or the new one, never a part."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"), flush)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes have left in a folder that nobody else writes to."""
    for path in folder.glob(UNFINISHED):
        with contextlib.suppress(OSError):
            path.unlink()


def make_folder(folder: Path) -> Path:
    """Make a folder and those above it, and return it. Raises `OutputError` if it cannot be made."""
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def make_inner_folder(folder: Path, *names: str) -> Path:
    """Make a folder within a run's folder, and return it.

    Raises `OutputError` if a link stands in the place of one: it may lead out of the run's folder.
    """
    for name in names:
        folder = folder / name
        with explained(folder):
            if folder.is_symlink():
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            folder.mkdir(exist_ok=True)
    return folder


def check_file(path: Path) -> None:
    """Raise `OutputError` if a file cannot be written to `path`. To be called before the work."""
    if not path.name:
        raise OutputError(f"'{path}' is no name of a file")
    with explained(path):
        if path.is_dir():
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        _check_writable(path.parent)


def check_folder(folder: Path) -> None:
    """Raise `OutputError` if nothing can be written into a folder, which need not exist yet."""
    with explained(folder):
        _check_writable(folder)


def check_space(folder: Path, size: int) -> None:
    """Raise `OutputError` if the disk of a folder that exists has no room for so many bytes."""
    with explained(folder):
        free = shutil.disk_usage(folder).free
    if size > free:
        raise OutputError(
            f"'{folder}' needs about {size / 1e6:,.0f} MB, and its disk has {free / 1e6:,.0f} MB left; free "
            f"some space, or choose a place on another disk"
        )


def _check_writable(folder: Path) -> None:
    """Write a file that has no name into a folder, or into the nearest one above it that exists."""
    absolute = folder.absolute()
    if "\0" in str(absolute):  # to Python, no such place exists
        raise ValueError("embedded null byte")
    for ancestor in (absolute, *absolute.parents):
        if os.path.lexists(ancestor):
            with tempfile.TemporaryFile(dir=ancestor):
                return


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Raise `OutputError` in place of what the operating system raises for a file that is written."""
    try:
        yield
    except OSError as error:
        reason = REASONS.get(error.errno or 0) or f"{error.strerror or error}; choose another place"
        raise OutputError(f"cannot write '{path}': {reason}") from error
    except ValueError as error:  # a NUL in the name
        if "null" not in str(error):
            raise
        raise OutputError(f"{str(path)!r} cannot be written: no name holds a NUL character") from error


def _flush_folder(folder: Path) -> None:
    """Flush the names in a folder, where the system can do that: Windows opens no folders."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
