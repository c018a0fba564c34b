"""Make odd and damaged files, and let `plait.inspect` say what it takes them for."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

import plait
from plait.data.inspect import Inspection
from support.media import RATE, encoded, wav, wave


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return an image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo(seed: int = 0, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """Draw a smooth image that differs by its seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def animation(kind: str = "GIF", seed: int = 0, frames: int = 4, **options: Any) -> bytes:
    """Return an animated image."""
    images = [photo(seed + 100 * number) for number in range(frames)]
    return saved(images[0], kind, save_all=True, append_images=images[1:], duration=50, **options)


def inspected(cells: Sequence[Any], root: Path = Path(), **options: Any) -> Inspection:
    """Inspect a column `cell`, beside a label."""
    labels = ["ab"[row % 2] for row in range(len(cells))]
    return plait.inspect(pa.table({"cell": cells, "label": labels}), "label", root=root, **options)


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def black_png(width: int, height: int) -> bytes:
    """Return a black RGB PNG of any size, without ever holding its pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    compress = zlib.compressobj(9)
    row = bytes(1 + 3 * width)
    rows = b"".join(compress.compress(row) for _ in range(height)) + compress.flush()
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def with_png_chunk(png: bytes, name: bytes, content: bytes) -> bytes:
    """Put a chunk behind the header of a PNG."""
    behind_header = 8 + 25
    return png[:behind_header] + png_chunk(name, content) + png[behind_header:]


def unmarked_ogg(ogg: bytes) -> bytes:
    """Take the mark of the last page from an Ogg file, and put its sum right, as recorders leave it."""
    page = ogg.rindex(b"OggS")
    content = bytearray(ogg[page:])
    content[5] &= ~4
    content[22:26] = bytes(4)
    content[22:26] = struct.pack("<I", _ogg_crc(content))
    return ogg[:page] + bytes(content)


def _ogg_crc(content: bytes | bytearray) -> int:
    """Compute the sum of RFC 3533 bit by bit."""
    crc = 0
    for byte in content:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1) ^ 0x04C1_1DB7 if crc & 0x8000_0000 else crc << 1
            crc &= 0xFFFF_FFFF
    return crc


def piped_wav(size: int, samples: np.ndarray, kind: str = "PCM_16") -> bytes:
    """Return a WAV file whose header states `size` for its samples and itself, as one written into a pipe."""
    content = bytearray(wav(samples, subtype=kind))
    data = content.index(b"data")
    content[4:8] = struct.pack("<I", min(size + 36, 0xFFFF_FFFF) if size else 0)
    content[data + 4 : data + 8] = struct.pack("<I", size)
    return bytes(content)


def plain_mp3(samples: np.ndarray, bit_rate: int = 0) -> bytes:
    """Return an MP3 without the frame that states how long it is; of a variable bit rate by default."""
    content = encoded(samples, "mp3", "libmp3lame", options={"write_xing": "0"}, bit_rate=bit_rate)
    assert b"Xing" not in content
    assert b"Info" not in content
    return content


def speech_then_noise(seconds: float) -> np.ndarray:
    """Return silence with clicks, then noise: a variable bit rate is low first, and high later."""
    count = int(seconds * RATE) // 2
    noise = np.random.default_rng(0).normal(0, 0.3, count).clip(-1, 1)
    return np.concatenate([wave(seconds / 2) * 0.001, noise]).astype(np.float32)
