"""The content of a file: decompressed if it is compressed, and what messages call it."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import IO, cast

import pyarrow as pa

from plait.errors import TableError

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst", ".zip")

LARGEST = 16 << 30  # bytes that a compressed file may grow to
PIECE = 1 << 24  # bytes that are decompressed at once

# How a compressed file begins.
GZIP, BZIP2, XZ, ZSTD, ZIP = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"PK\x03\x04"


@dataclass(frozen=True)
class FileTable:
    """The table that a file holds, and what the user should know of how it was read."""

    data: pa.Table
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Content:
    """The bytes of a file, or where they lie.

    `name` ends in what tells the format, without the ending of a compression. `label` is the file in
    messages. `part` is the sheet of a workbook that is asked for.
    """

    name: str
    label: str
    path: Path | None = None
    held: bytes = b""
    part: str = ""

    @property
    def suffix(self) -> str:
        """The ending of the name, in lower case."""
        return PurePath(self.name).suffix.lower()

    @cached_property
    def data(self) -> bytes:
        """All bytes."""
        return self.held if self.path is None else self.path.read_bytes()

    @cached_property
    def head(self) -> bytes:
        """The first bytes, of which formats tell what they are."""
        if self.path is None:
            return self.held[:4096]
        with self.path.open("rb") as file:
            return file.read(4096)

    def arrow_file(self) -> pa.NativeFile:
        """Return the content as Arrow reads files: not all at once."""
        return pa.BufferReader(self.held) if self.path is None else pa.OSFile(str(self.path))


def open_content(path: Path, part: str = "") -> Content:
    """Return the content of a file, decompressed. Raises `TableError` for an empty or damaged one."""
    content = Content(path.name, str(path), path, part=part)
    return decompressed(content)


def decompressed(content: Content) -> Content:
    """Return what a compressed file holds, whatever its name says; other files as they are.

    Raises `TableError` for an empty or damaged file, and for an archive of several files.
    """
    if not content.head:
        raise TableError(f"'{content.label}' is an empty file")
    if content.head.startswith(ZIP):
        return _unzipped(content)
    opener = _opener(content.head)
    if opener is None:
        return content
    try:
        with _binary(content) as file, opener(file) as stream:
            data = _read(stream, content.label)
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise TableError(f"'{content.label}' is damaged and cannot be decompressed: {error}") from error
    inner = Content(_inner_name(content.name), content.label, held=data, part=content.part)
    if not data:
        raise TableError(f"'{content.label}' holds an empty file")
    if data[257:262] == b"ustar":
        raise TableError(f"'{content.label}' is an archive of files; unpack it, and give one of them")
    return inner


def _opener(head: bytes) -> Callable[[IO[bytes]], IO[bytes]] | None:
    """Return what opens a compressed file that begins like this; None for other files."""
    if head.startswith(GZIP):
        return lambda file: cast("IO[bytes]", gzip.open(file))
    if head.startswith(BZIP2) and head[4:10] == b"1AY&SY":
        return lambda file: bz2.open(file)
    if head.startswith(XZ):
        return lambda file: lzma.open(file)
    if head.startswith(ZSTD):
        return lambda file: pa.CompressedInputStream(pa.PythonFile(file), "zstd")
    return None


def _binary(content: Content) -> IO[bytes]:
    return io.BytesIO(content.held) if content.path is None else content.path.open("rb")


def _read(stream: IO[bytes], label: str) -> bytes:
    """Return all bytes of a stream. Raises `TableError` when there are too many, as in a bomb."""
    pieces = []
    total = 0
    while piece := stream.read(PIECE):
        pieces.append(piece)
        total += len(piece)
        if total > LARGEST:
            raise TableError(
                f"'{label}' holds more than {LARGEST >> 30} GiB; decompress it, and save it as Parquet"
            )
    return b"".join(pieces)


def _unzipped(content: Content) -> Content:
    """Return the one file in a ZIP archive. Workbooks are such archives too, and stay as they are."""
    try:
        with _binary(content) as file, zipfile.ZipFile(file) as archive:
            members = [member for member in archive.infolist() if _is_file(member)]
            names = [member.filename for member in archive.infolist()]
            if "[Content_Types].xml" in names or "mimetype" in names:
                return content
            if len(members) != 1:
                shown = ", ".join(member.filename for member in members[:10]) or "none"
                raise TableError(
                    f"'{content.label}': expected an archive of one file, came {len(members)}: {shown}; "
                    f"unpack it, and give one of them"
                )
            with archive.open(members[0]) as stream:
                data = _read(stream, content.label)
    except (
        zipfile.BadZipFile,
        OSError,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,
        zlib.error,
    ) as error:
        raise TableError(f"'{content.label}' cannot be read as ZIP: {error}") from error
    if not data:
        raise TableError(f"'{content.label}' holds an empty file")
    return Content(PurePath(members[0].filename).name, content.label, held=data, part=content.part)


def _is_file(member: zipfile.ZipInfo) -> bool:
    """Return whether a member is a file of the user's, not one that macOS adds."""
    name = PurePath(member.filename)
    return not member.is_dir() and "__MACOSX" not in name.parts and not name.name.startswith(".")


def _inner_name(name: str) -> str:
    path = PurePath(name)
    if path.suffix.lower() in COMPRESSIONS:
        return path.stem
    return f"{path.stem}.csv" if path.suffix.lower() == ".tgz" else name
