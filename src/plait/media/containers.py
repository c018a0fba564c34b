"""What the headers of a file say about its end: whether all of it is there, and whether anything says so.

FFmpeg and libsndfile read many files without complaint though they are cut short. And programs that write
into a pipe do not know how much will follow: they leave a size in the header that means nothing.
"""

from __future__ import annotations

import io
import mmap
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from plait.errors import BadCell

File = str | bytes | mmap.mmap
Content = bytes | mmap.mmap

# The sizes that programs write if they do not know how much will follow: the largest of 31 or of 32 bits,
# give or take a header.
UNKNOWN_SIZES = (range(0x7FFF_F000, 0x8000_1000), range(0xFFFF_F000, 0x1_0000_0000))
UNKNOWN_SIZE_64 = 0xFFFF_FFFF_FFFF_FFFF

# an Ogg page (RFC 3533): 27 bytes of header, the lengths of its segments, the segments
OGG_HEADER, OGG_FLAGS, OGG_SUM, OGG_SEGMENT_COUNT, OGG_LAST_PAGE = 27, 5, 22, 26, 4
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))  # each byte with its bits reversed

ID3_HEADER = 10  # bytes
MP3_FRAME = 4096  # bytes; longer than the longest frame, which states the length of the others


@dataclass(frozen=True)
class Chunks:
    """How a format writes chunks: where the first one begins, and how its name and size are written.

    `samples` names the chunk of samples. A chunk begins at a multiple of `align`. The size of a chunk may
    count its name and itself (`size_counts_all`).
    """

    first: int
    samples: bytes
    order: Literal["little", "big"]
    name_bytes: int = 4
    size_bytes: int = 4
    align: int = 2
    size_counts_all: bool = False

    def walk(self, content: Content) -> Iterator[tuple[bytes, int, int]]:
        """Yield the name of each chunk, the position of what it holds, and the size that it states."""
        head = self.name_bytes + self.size_bytes
        position = self.first
        while position + head <= len(content):
            name = content[position : position + self.name_bytes]
            size = int.from_bytes(content[position + self.name_bytes : position + head], self.order)
            if self.size_counts_all:
                size -= head
            yield name, position + head, size
            position += head + max(size, 0)
            position += -position % self.align


WAVES = (b"RIFF", b"RIFX", b"RF64", b"BW64")
RIFF = Chunks(12, b"data", "little")
RIFX = Chunks(12, b"data", "big")
AIFF = Chunks(12, b"SSND", "big")
CAF = Chunks(8, b"data", "big", size_bytes=8, align=1)
WAVE64 = Chunks(
    40,
    bytes.fromhex("64617461f3acd3118cd100c04f8edb8a"),  # a GUID
    "little",
    name_bytes=16,
    size_bytes=8,
    align=8,
    size_counts_all=True,
)
WAVE64_GUID = bytes.fromhex("726966662e91cf11a5d628db04c10000")


def is_wave(file: File) -> bool:
    """Return whether a file is a WAV, or one of its kinds: big-endian (RIFX), or for more than 4 GB."""
    head = _head(file)
    return (head[:4] in WAVES and head[8:12] == b"WAVE") or head == WAVE64_GUID


def source(file: File) -> io.BytesIO | mmap.mmap | str:
    """Return a file as PyAV and soundfile take it."""
    return io.BytesIO(file) if isinstance(file, bytes) else file


def checked(file: File) -> tuple[File, bool]:
    """Return a file that readers read to its end, and whether its headers say where that is.

    A WAV file whose header lies about its size is copied and put right. Raises `BadCell` if the headers say
    that more should be there.
    """
    with _mapped(file) as content:
        kind = content[:4]
        riff_kind = content[8:12]
        if kind == b"OggS":
            return file, _ogg_states_end(content)
        if kind == b"RIFF" and riff_kind == b"AVI ":
            _check_size(content, 8, int.from_bytes(content[4:8], "little"))
        elif kind == b".snd":
            start, size = struct.unpack_from(">II", content, 4)
            return file, _check_size(content, start, size)
        elif kind == b"RIFX" and riff_kind == b"WAVE":
            return file, _check_samples(content, RIFX)
        elif is_wave(content):
            return _checked_wave(file, content)
        elif kind == b"FORM" and riff_kind in (b"AIFF", b"AIFC"):
            return file, _check_samples(content, AIFF)
        elif kind == b"caff":
            return file, _check_samples(content, CAF)
    return file, True


def states_mp3_length(file: File) -> bool:
    """Return whether the first frame of an MP3 states how many frames there are, and nothing follows them.

    Only then is the duration that FFmpeg states no guess. Two files that were joined state the length of the
    first one.
    """
    with _mapped(file) as content:
        start = _end_of_id3(content)
        frame = content[start : start + MP3_FRAME]
        size = len(content) - start
        for name in (b"Xing", b"Info"):
            position = frame.find(name)
            if position < 0:
                continue
            (flags,) = struct.unpack_from(">I", frame, position + 4)
            if not flags & 2:
                return bool(flags & 1)
            (stated,) = struct.unpack_from(">I", frame, position + 8 + 4 * (flags & 1))
            return bool(flags & 1) and size <= stated * 17 // 16
        position = frame.find(b"VBRI")
        if position < 0:
            return False
        (stated,) = struct.unpack_from(">I", frame, position + 10)
        return bool(size <= stated * 17 // 16)


def _end_of_id3(content: Content) -> int:
    """Return where the tags before the first frame end. Their sizes have seven bits in each byte."""
    position = 0
    while content[position : position + 3] == b"ID3" and position + ID3_HEADER <= len(content):
        size = 0
        for byte in content[position + 6 : position + ID3_HEADER]:
            size = size << 7 | byte & 0x7F
        position += ID3_HEADER + size
    return position


def _checked_wave(file: File, content: Content) -> tuple[File, bool]:
    """Check a WAV file as `checked` does."""
    chunks = WAVE64 if content[:4] == b"riff" else RIFF
    stated = None  # the size of the samples if it takes 64 bits
    for name, position, size in chunks.walk(content):
        if name == b"ds64":
            (stated,) = struct.unpack_from("<Q", content, position + 8)
        if name != chunks.samples:
            continue
        behind = len(content) - position
        if stated is not None and size == 0xFFFF_FFFF:
            return file, _check_size(content, position, stated)
        if chunks is RIFF and (_is_unknown(size, behind) or _is_unfinished(content, size, behind)):
            if not behind:
                raise BadCell("audio without samples")
            return _with_size(file, position - 4, behind), False
        if size <= 0:
            raise BadCell("audio without samples")
        return file, _check_size(content, position, size)
    raise BadCell("audio without samples")


def _is_unfinished(content: Content, size: int, behind: int) -> bool:
    """Return whether a header of size 0 was never put right, though samples follow it."""
    return size == 0 and behind > 0 and int.from_bytes(content[4:8], "little") + 8 != len(content)


def _is_unknown(size: int, behind: int) -> bool:
    """Return whether a stated size only means that it was not known. `behind` bytes follow."""
    return size > behind and any(size in sizes for sizes in UNKNOWN_SIZES)


def _with_size(file: File, position: int, size: int) -> File:
    """Return a file with another size of 32 bits at a position. A file on the disk stays as it is.

    What is larger than 32 bits can say is left to FFmpeg, which reads to the end.
    """
    if size > 0xFFFF_FFFF:
        return file
    stated = size.to_bytes(4, "little")
    if isinstance(file, str):
        with open(file, "rb") as opened_file:
            copy = mmap.mmap(opened_file.fileno(), 0, access=mmap.ACCESS_COPY)
        copy[position : position + 4] = stated
        return copy
    return bytes(file[:position]) + stated + bytes(file[position + 4 :])


def _check_samples(content: Content, chunks: Chunks) -> bool:
    """Check the chunk of samples as `_check_size` does."""
    for name, position, size in chunks.walk(content):
        if name == chunks.samples:
            return _check_size(content, position, size)
    raise BadCell("audio without samples")


def _check_size(content: Content, position: int, size: int) -> bool:
    """Return whether `size` says where the file ends. Raises `BadCell` if less than that is there."""
    behind = len(content) - position
    if _is_unknown(size, behind) or size == UNKNOWN_SIZE_64:
        return False
    missing = size - behind
    if missing > 1:  # some programs forget the byte that makes a size even
        raise BadCell(f"cut short: {missing:,} of {size:,} bytes are missing")
    return True


def _ogg_states_end(content: Content) -> bool:
    """Return whether the last page is marked as the last.

    Recorders that are stopped, such as Android's, write no such mark. Raises `BadCell` if the sum of a page
    is wrong, or if the last page is not complete.
    """
    is_last = False
    page = 0
    while page >= 0:
        body = page + OGG_HEADER
        segments = content[page + OGG_SEGMENT_COUNT] if body <= len(content) else 0
        end = body + segments + sum(content[body : body + segments])
        if body > len(content) or end > len(content):
            raise BadCell("cut short: its end is missing")
        if _ogg_sum(content[page:end]) != content[page + OGG_SUM : page + OGG_SUM + 4]:
            raise BadCell("broken: a checksum in it does not match")
        is_last = bool(content[page + OGG_FLAGS] & OGG_LAST_PAGE)
        page = content.find(b"OggS", end)
    return is_last


def _ogg_sum(page: bytes) -> bytes:
    """Return the sum of a page. It is zlib's CRC with the bits of every byte in the other order."""
    page = page[:OGG_SUM] + bytes(4) + page[OGG_SUM + 4 :]
    crc = zlib.crc32(page.translate(REVERSED), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return crc.to_bytes(4, "little").translate(REVERSED)[::-1]


@contextmanager
def _mapped(file: File) -> Iterator[Content]:
    """Give the content of a file; one that is named by a path may be larger than the memory."""
    if not isinstance(file, str):
        yield file
        return
    with (
        open(file, "rb") as opened_file,
        mmap.mmap(opened_file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        yield content


def _head(file: File) -> bytes:
    with _mapped(file) as content:
        return bytes(content[:16])
