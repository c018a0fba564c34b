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
BZIP2_BLOCK = b"1AY&SY"  # behind the size of blocks; a name of a column may be BZh
TAR = b"ustar"  # from byte 257 of an archive on

# Members of the archives that XLSX and ODS are.
OFFICE_MEMBERS = frozenset({"[Content_Types].xml", "mimetype"})

# What zipfile raises for an archive that is damaged, encrypted or packed in a way that it does not know.
DAMAGES = (
    zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError, zlib.error,
)  # fmt: skip


@dataclass(frozen=True)
class FileTable:
    """The table that a file holds, and what the user should know of how it was read."""

    data: pa.Table
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Content:
    """The bytes of a file, or where they lie.

    `name` ends in what tells the format, without the ending of a compression. `label` is the file in
    messages. `sheet` is the sheet of a workbook that is asked for.
    """

    name: str
    label: str
    path: Path | None = None
    held: bytes = b""
    sheet: str = ""

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
        return arrow_reader(self.held) if self.path is None else pa.OSFile(str(self.path))


def arrow_reader(data: bytes | memoryview) -> pa.BufferReader:
    """Return a reader of a copy of the bytes that is Arrow's own.

    Threads of Arrow let go of what they read a moment after the table is there. If it were Python's, they
    would wait for the interpreter then, and end the process with SIGABRT if it is about to exit.
    """
    buffer = pa.allocate_buffer(len(data))
    pa.FixedSizeBufferWriter(buffer).write(data)
    return pa.BufferReader(buffer)


def open_content(path: Path, sheet: str = "") -> Content:
    """Return the content of a file, decompressed. Raises `TableError` for an empty or damaged one."""
    content = Content(path.name, str(path), path, sheet=sheet)
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
            held = _read(stream, content.label)
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise TableError(f"'{content.label}' is damaged and cannot be decompressed: {error}") from error
    if not held:
        raise TableError(f"'{content.label}' holds an empty file")
    if held[257:262] == TAR:
        raise TableError(f"'{content.label}' is an archive of files; unpack it, and give one of them")
    return Content(_inner_name(content.name), content.label, held=held, sheet=content.sheet)


def _opener(head: bytes) -> Callable[[IO[bytes]], IO[bytes]] | None:
    """Return what opens a compressed file that begins like this; None for other files."""
    if head.startswith(GZIP):
        return lambda file: cast("IO[bytes]", gzip.open(file))
    if head.startswith(BZIP2) and head[4:10] == BZIP2_BLOCK:
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
            if not OFFICE_MEMBERS.isdisjoint(archive.namelist()):
                return content
            member = _only_file(archive, content.label)
            with archive.open(member) as stream:
                held = _read(stream, content.label)
    except DAMAGES as error:
        raise TableError(f"'{content.label}' cannot be read as ZIP: {error}") from error
    if not held:
        raise TableError(f"'{content.label}' holds an empty file")
    return Content(PurePath(member.filename).name, content.label, held=held, sheet=content.sheet)


def _only_file(archive: zipfile.ZipFile, label: str) -> zipfile.ZipInfo:
    """Return the one file in an archive. Raises `TableError` if there are several, or none."""
    members = list(filter(_is_file, archive.infolist()))
    if len(members) != 1:
        shown = ", ".join(member.filename for member in members[:10]) or "none"
        raise TableError(
            f"'{label}': expected an archive of one file, came {len(members)}: {shown}; unpack it, and give "
            f"one of them"
        )
    return members[0]


def _is_file(member: zipfile.ZipInfo) -> bool:
    """Return whether a member is a file of the user's, not one that macOS adds."""
    name = PurePath(member.filename)
    return not member.is_dir() and "__MACOSX" not in name.parts and not name.name.startswith(".")


def _inner_name(name: str) -> str:
    """Return the name of what a compressed file holds: data.csv for data.csv.gz."""
    path = PurePath(name)
    if path.suffix.lower() in COMPRESSIONS:
        return path.stem
    return f"{path.stem}.csv" if path.suffix.lower() == ".tgz" else name
