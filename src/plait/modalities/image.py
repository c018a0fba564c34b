"""Images: any file that Pillow reads, as a path or bytes; always upright, RGB, and of one size."""

from __future__ import annotations

import io
import warnings

import numpy as np
import PIL
import pyarrow as pa
import simplejpeg
import torch
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from plait.errors import BadCell
from plait.media.cell import Cell, Media
from plait.media.image import MAX_PIXELS, Framing, augment, fitted, normalise, rgb, square, to_float
from plait.modalities.base import Match
from plait.modalities.base_media import MediaModality, recognise
from plait.nn.batch import Layout, Values
from plait.table.json import JSON
from plait.table.table import Source

SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".gif",
    ".bmp",
    ".webp",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
    ".ico",
    ".avif",
)


ORIENTATION = 274  # the EXIF tag


# how a JPEG file begins, and how EXIF data in it does
JPEG, EXIF = b"\xff\xd8", b"Exif\0\0"


class Config(Framing):
    """How images become squares of numbers, and how training augments them.

    `fit` says how an image becomes square. `pad` keeps all of it, `crop` keeps its centre, `stretch` ignores
    its shape. The options from `crop` to `erase` are the augmentation.
    """


class Image(MediaModality):
    """A column of images; of an animated image only the first frame is used."""

    options = Config
    encoder = "vgg"
    ragged = False

    def __init__(self, config: Config) -> None:
        self.config = config
        self.shape = (config.size, config.size, 3)
        self.dtype = torch.uint8
        self.layout = Layout("grid", (3, config.size, config.size))

    @classmethod
    def matches(cls, cells: pa.ChunkedArray, source: Source) -> Match | None:
        """Recognise image files, and bytes that hold images."""
        return recognise(cells, source, "images", SUFFIXES, _is_still)

    def prepares(self) -> JSON:
        """Return the options and versions that a prepared image depends on."""
        return {**self.config.prepares(), "pillow": PIL.__version__, "simplejpeg": simplejpeg.__version__}

    def prepare(self, media: Media) -> Cell:
        """Return an image as bytes (size, size, 3). Raises `BadCell`."""
        pixels = decode(media.data, self.config)

        # such an image can be read but says nothing: the user is told
        is_plain = (pixels == pixels[0, 0]).all()
        return Cell(pixels, ("of one colour only",) if is_plain else ())

    def transform(self, values: Values, generator: torch.Generator | None) -> Values:
        """Return images as normalised floats (B, 3, H, W), augmented in training."""
        x_BCHW = to_float(values.x)
        if generator is not None and len(x_BCHW):
            x_BCHW = augment(x_BCHW, self.config, generator)
        return Values(normalise(x_BCHW, self.config), count_B=values.count_B)


component = Image


def _is_still(media: Media) -> bool:
    """Return whether a cell is an image that is not animated; animated images are videos."""
    return getattr(_open(media.data), "n_frames", 1) == 1


def _open(data: bytes) -> Pillow.Image:
    """Open an image file without decoding it. Raises `BadCell` if it is none, or absurdly large."""
    try:
        # Pillow warns of large images; those above its limit are refused below
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Pillow.open(io.BytesIO(data))
    except UnidentifiedImageError:
        raise BadCell(f"not an image: {_beginning(data)}") from None
    except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError) as error:
        raise BadCell(f"not an image that can be read: {error}") from None
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise BadCell(f"absurd size: {width} x {height} pixels, more than {MAX_PIXELS:,} in all")
    return image


def _beginning(data: bytes) -> str:
    """Say in words what a file begins with: its text if it is one, else its bytes in hexadecimal."""
    text = data[:24].decode("utf-8", "ignore")
    if text.isprintable() and len(text) >= min(len(data), 20):
        return f"it begins with the text '{text}'"
    return f"its first bytes are {data[:8].hex(' ')}"


def decode(data: bytes, config: Framing) -> np.ndarray:
    """Decode an image file to RGB, bytes (size, size, 3). Raises `BadCell` if it is broken or cut short.

    A JPEG is decoded at the smallest of its eight scales that is large enough. Pixels then differ by 1 to 2
    of 255 from those of a full decoding, the same in training and in use.
    """
    try:
        pixels = _decode_jpeg(data, config) if data.startswith(JPEG) else None
        if pixels is None:
            pixels = _decode_any(data, config)
        return square(pixels, config)
    except (OSError, ValueError, SyntaxError, IndexError, EOFError) as error:
        raise BadCell(f"broken or cut short: {str(error) or type(error).__name__}") from None


def _decode_jpeg(data: bytes, config: Framing) -> np.ndarray | None:
    """Decode a colour or grey JPEG at a small scale.

    Returns None for what Pillow should open: CMYK, or a file that is no JPEG after all.
    """
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    if space not in ("YCbCr", "RGB", "Gray") or width * height > MAX_PIXELS:
        return None

    # The decoder picks the smallest of its scales that has at least these sides. Its fast arithmetic differs
    # by less than the scales do.
    min_width, min_height = fitted((width, height), config)
    pixels = simplejpeg.decode_jpeg(
        data,
        "RGB",
        fastdct=True,
        fastupsample=True,
        min_height=min(min_height, height),
        min_width=min(min_width, width),
    )

    # EXIF data, which may say that the image lies on its side, stands at the beginning
    if EXIF not in data[:65_536]:
        return pixels
    image = Pillow.fromarray(pixels)
    image.getexif()[ORIENTATION] = _open(data).getexif().get(ORIENTATION, 1)
    return np.asarray(ImageOps.exif_transpose(image))


def _decode_any(data: bytes, config: Framing) -> np.ndarray:
    """Decode any image that Pillow reads to RGB, upright, bytes (H, W, 3)."""
    image = _open(data)
    image.load()
    upright = ImageOps.exif_transpose(image)
    return np.asarray(rgb(upright, config.background))
