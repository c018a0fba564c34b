"""Decode still images to RGB: any file that Pillow reads, upright, complete, within a bound of memory."""

from __future__ import annotations

import io
import os
import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import simplejpeg
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from plait.errors import BadCell
from plait.media import limits
from plait.media.allowed import IMAGES, READ_IMAGES, format_of
from plait.media.guard import guarded
from plait.media.image import Framing, fitted, resize, rgb, square, white_level
from plait.media.memory import budget, check_bomb

ORIENTATION = 274  # the EXIF tag


# how a JPEG file begins, and how EXIF data in it does
JPEG, EXIF = b"\xff\xd8", b"Exif\0\0"


PNG = b"\x89PNG\r\n\x1a\n"


# Markers of JPEG's frame headers. The frames that are not sequential keep 16 bits of every coefficient.
FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
SEQUENTIAL = frozenset({0xC0, 0xC1, 0xC3, 0xC9, 0xCB})


# brands of HEIF files (ISO 23008-12) with images that need pi-heif
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


ANIMATED = frozenset({"GIF", "WEBP", "PNG", "AVIF"})  # other formats have pages, or layers


# Bytes that Pillow takes for each pixel, by the format. These decoders hold several copies of an image.
BYTES_BY_FORMAT = {
    "AVIF": 12, "GIF": 12, "HEIF": 12, "JPEG2000": 16, "TIFF": 8, "WEBP": 16,
}  # fmt: skip


BYTES_BY_MODE = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}  # 4 for others


# Images of more pixels than `LARGE` are first reduced to at least 4 times their final size, in strips of
# `STRIP` pixels. So only the decoded image itself is ever complete in the memory.
LARGE, STRIP = 4_000_000, 500_000


DARK = 16  # of 255; an image without a brighter pixel is as good as black


@dataclass(frozen=True)
class Still:
    """A decoded image, bytes (size, size, 3), and notes for the user."""

    pixels: np.ndarray
    notes: tuple[str, ...] = ()


def decode(file: bytes | str, framing: Framing) -> Still:
    """Decode an image file to RGB, upright and square. Raises `BadCell` if it is broken or cut short.

    A JPEG is decoded at the smallest of its eight scales that is large enough. Pixels then differ by 1 to 2
    of 255 from those of a full decoding, the same in training and in use.
    """
    with guarded("broken or cut short"):
        pixels, notes = _decode(file, framing)
        pixels = square(pixels, framing)

        # such an image can be read but says nothing: the user is told
        if (pixels == pixels[0, 0]).all():
            notes = (*notes, "of one colour only")
        elif pixels.max() <= DARK and not notes:
            notes = ("nearly black",)
        return Still(pixels, notes)


def decode_whole(file: bytes | str, longest: int) -> np.ndarray:
    """Decode an image file to RGB, upright, bytes (H, W, 3), and in its own shape.

    Sides longer than `longest` pixels are reduced to it; nothing is enlarged. Raises `BadCell` if it is
    broken or cut short.
    """
    framing = Framing(size=longest, fit="pad")
    with guarded("broken or cut short"):
        pixels, _ = _decode(file, framing)
        height, width = pixels.shape[:2]
        if max(height, width) <= longest:
            return pixels
        return resize(pixels, *fitted((width, height), framing))


def open_image(file: bytes | str) -> Pillow.Image:
    """Open an image file without decoding it. Raises `BadCell` if it is none, or absurdly large."""
    with guarded("not an image that can be read: broken or cut short"):
        if is_heif(file):
            _read_heif()
        try:
            image = Pillow.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=_formats())
        except UnidentifiedImageError:
            raise _no_image(_head(file)) from None
        except Pillow.DecompressionBombError:
            raise BadCell(f"absurd size: more than {limits.current().pixels:,} pixels") from None
        check_size(image.size)
        return image


def _formats() -> list[str]:
    """Return the formats that Pillow may try, of those that are installed."""
    Pillow.init()
    return [name for name in IMAGES if name in Pillow.OPEN]


def _no_image(head: bytes) -> BadCell:
    """Return the error for a file that begins like this, which is no image that plait reads."""
    refused = format_of(head)
    if refused:
        return BadCell(f"not an image that plait reads: {refused}; it reads {READ_IMAGES}")
    return BadCell(f"not an image: {_beginning(head)}")


def _beginning(head: bytes) -> str:
    """Say in words what a file begins with: its text if it is one, else its bytes in hexadecimal."""
    text = head.decode("utf-8", "ignore")
    if text.isprintable() and len(text) >= len(head) - 4:
        return f"it begins with the text '{text}'"
    return f"its first bytes are {head[:8].hex(' ')}"


def is_heif(file: bytes | str) -> bool:
    """Return whether a file is an image of phones that Pillow cannot read by itself."""
    head = _head(file)
    return head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS


def is_animation(image: Pillow.Image) -> bool:
    """Return whether an image has several frames. Pages, layers and a phone's second image are none."""
    return image.format in ANIMATED and bool(getattr(image, "is_animated", False))


def check_size(size: tuple[int, int]) -> None:
    """Raise `BadCell` for an image that is absurdly large."""
    width, height = size
    most = limits.current().pixels
    if width * height > most:
        raise BadCell(f"absurd size: {width} x {height} pixels, more than {most:,} in all")


def memory_of(image: Pillow.Image, file_size: int) -> int:
    """Return how many bytes decoding an image takes. Raises `BadCell` for a decompression bomb."""
    width, height = image.size
    each = BYTES_BY_FORMAT.get(image.format or "", BYTES_BY_MODE.get(image.mode, 4))
    memory = each * width * height
    check_bomb(memory, file_size, f"{width} x {height} pixels")
    return memory


def size_of(file: bytes | str) -> int:
    """Return the size of a file in bytes."""
    return len(file) if isinstance(file, bytes) else os.path.getsize(file)


def _head(file: bytes | str) -> bytes:
    if isinstance(file, bytes):
        return file[:24]
    with open(file, "rb") as opened_file:
        return opened_file.read(24)


def _read_heif() -> None:
    """Teach Pillow to read HEIF. Raises `BadCell` if the package for it is not installed."""
    try:
        import pi_heif
    except ImportError:
        raise BadCell("a HEIF image (.heic), which needs pi-heif: pip install 'plait[heif]'") from None
    pi_heif.register_heif_opener()


def _decode(file: bytes | str, framing: Framing) -> tuple[np.ndarray, tuple[str, ...]]:
    """Decode an image to RGB, upright, as large as `framing` needs or larger. Return notes too."""
    pixels = _decode_jpeg(file, framing) if isinstance(file, bytes) and file.startswith(JPEG) else None
    if pixels is not None:
        return pixels, ()
    return _decode_any(file, framing)


def _decode_jpeg(data: bytes, framing: Framing) -> np.ndarray | None:
    """Decode a colour or grey JPEG at a small scale.

    Returns None for what Pillow should open: CMYK, or a file that is no JPEG after all.
    """
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    if space not in ("YCbCr", "RGB", "Gray") or width * height > limits.current().pixels:
        return None

    # The decoder picks the smallest of its scales that has at least these sides. Its fast arithmetic differs
    # by less than the scales do.
    min_width, min_height = fitted((width, height), framing)
    memory = 4 * min(4 * min_width * min_height, width * height) + _coefficients(data, width * height)
    check_bomb(memory, len(data), f"{width} x {height} pixels")
    with budget().take(memory):
        pixels = simplejpeg.decode_jpeg(
            data,
            "RGB",
            fastdct=True,
            fastupsample=True,
            min_height=min(min_height, height),
            min_width=min(min_width, width),
        )

    # EXIF data may say that the image lies on its side; a long colour profile may stand before it
    if EXIF not in data:
        return pixels
    return _upright(pixels, _orientation(open_image(data)))


def _coefficients(data: bytes, pixels: int) -> int:
    """Return how many bytes libjpeg takes besides for a JPEG that it cannot decode line by line."""
    position = 2
    while position + 10 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker in FRAME_HEADERS:
            channels = data[position + 9]
            return 0 if marker in SEQUENTIAL else 2 * channels * pixels
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return 0


def _decode_any(file: bytes | str, framing: Framing) -> tuple[np.ndarray, tuple[str, ...]]:
    """Decode any image that Pillow reads to RGB, upright, bytes (H, W, 3). Return notes for the user too."""
    image = open_image(file)
    notes = []
    if is_animation(image):
        notes.append("animated: only the first frame is read")
    elif image.format == "TIFF" and getattr(image, "is_animated", False):
        notes.append("of several pages: only the first is read")

    memory = 0
    if image.format in ("JPEG", "MPO"):
        if isinstance(file, bytes):
            memory = _coefficients(file, image.width * image.height)
        image.draft(None, fitted(image.size, framing))
    memory += memory_of(image, size_of(file))
    check_sums(file)
    with budget().take(memory):
        image.load()
        white, note = white_level(image, _stated_bits(file))
        upright = _upright(_reduced(image, framing, white), _orientation(image))
        image.close()  # it must be gone before another thread takes its place
    return upright, (*notes, *note)


def _reduced(image: Pillow.Image, framing: Framing, white: float) -> np.ndarray:
    """Convert an image to RGB, bytes (H, W, 3), a large one reduced to at least 4 times its final size."""
    width, height = image.size
    final_width, final_height = fitted(image.size, framing)
    factor = min(width // (4 * final_width), height // (4 * final_height))
    if width * height <= LARGE or factor < 2:
        return np.asarray(rgb(image, framing.background, white))

    rows = max(STRIP // width // factor, 1) * factor
    strips = []
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        strips.append(np.asarray(rgb(strip, framing.background, white).reduce(factor)))
    return np.concatenate(strips)


def _orientation(image: Pillow.Image) -> int:
    """Return how EXIF says that an image lies; upright if it does not say, or is damaged.

    Pillow decodes a PNG to find out, since EXIF data may stand behind the pixels.
    """
    with suppress(Exception):
        return int(image.getexif().get(ORIENTATION, 1))
    return 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    if not 2 <= orientation <= 8:
        return pixels
    image = Pillow.fromarray(pixels)
    image.getexif()[ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


def check_sums(file: bytes | str) -> None:
    """Check the sum of every chunk of a PNG; Pillow skips those of pixels. Raises `BadCell`.

    Other images have no checksums, or their decoders check them (deflate in TIFF).
    """
    if not _head(file).startswith(PNG):
        return
    if isinstance(file, bytes):
        _check_png(io.BytesIO(file))
        return
    with open(file, "rb") as opened_file:
        _check_png(opened_file)


def _check_png(file: io.BufferedIOBase) -> None:
    """Read chunks of length, name, content and sum (PNG, section 5.3) up to the last one."""
    file.seek(len(PNG))
    name = b""
    while name != b"IEND":
        head = file.read(8)
        if len(head) < 8:
            raise BadCell("broken or cut short: its end is missing")
        size, name = struct.unpack(">I4s", head)
        expected = zlib.crc32(name)
        while size:
            # a damaged size may be larger than the memory
            content = file.read(min(size, 1 << 20))
            if not content:
                raise BadCell("broken or cut short: its end is missing")
            expected = zlib.crc32(content, expected)
            size -= len(content)
        if file.read(4) != expected.to_bytes(4, "big"):
            raise BadCell("broken: a checksum in it does not match")


def _stated_bits(file: bytes | str) -> int:
    """Return how many bits of a PNG's samples mean something (sBIT, which stands before the pixels); or 0."""
    if not isinstance(file, bytes) or not file.startswith(PNG):
        return 0
    position = file.find(b"sBIT", 0, 4096)
    return file[position + 4] if position > 0 else 0
