"""Images: any file that Pillow reads, as a path or bytes; always upright, RGB, and of one size."""

from __future__ import annotations

from collections import Counter
from statistics import median

import PIL
import pyarrow as pa
import simplejpeg
import torch

from plait.errors import BadCell
from plait.media.cell import Cell, Media, is_missing
from plait.media.guard import guarded, without_warnings
from plait.media.image import Framing, augment, normalise, to_float
from plait.media.kinds import are_videos, image_kind
from plait.media.still import decode, open_image
from plait.modalities.base import Match
from plait.modalities.base_media import MediaModality, recognise
from plait.nn.batch import Layout, Values
from plait.table.json import JSON
from plait.table.table import Source
from plait.table.values import is_list, items, sample

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
    ".heic",
    ".heif",
    ".jp2",
    ".mpo",
)


class Config(Framing):
    """How images become squares of numbers, and how training augments them.

    `fit` says how an image becomes square. `pad` keeps all of it, `crop` keeps its centre, `stretch` ignores
    its shape. The options from `crop` to `erase` are the augmentation.
    """


class Image(MediaModality):
    """A column of images; of an animated image only the first frame is used, with a note."""

    options = Config
    content = "image/*"
    suffixes = SUFFIXES
    encoder = "vgg"
    pretrained = "pretrained"
    may_have_text = True
    ragged = False

    def __init__(self, config: Config) -> None:
        self.config = config
        self.shape = (config.size, config.size, 3)
        self.dtype = torch.uint8
        self.layout = Layout("grid", (3, config.size, config.size))

    @classmethod
    def matches(cls, cells: pa.ChunkedArray, source: Source) -> Match | None:
        """Recognise image files, and bytes that hold images."""
        return recognise(cells, source, "images", SUFFIXES, image_kind, _count_images)

    @classmethod
    def side(cls, cells: pa.ChunkedArray, source: Source) -> int:
        """Return the median of the longer sides of a sample of images, in pixels. No pixel is decoded."""
        if is_list(cells):
            cells = items(cells)
        with without_warnings():
            sides = [_side(cell, source) for cell in sample(cells) if not is_missing(cell)]
        return int(median(side for side in sides if side)) if any(sides) else 0

    def prepares(self) -> JSON:
        """Return the options and versions that a prepared image depends on."""
        return {**self.config.prepares(), "pillow": PIL.__version__, "simplejpeg": simplejpeg.__version__}

    def prepare(self, media: Media) -> Cell:
        """Return an image as bytes (size, size, 3). Raises `BadCell`."""
        still = decode(media.content, self.config)
        return Cell(still.pixels, still.notes)

    def transform(self, values: Values, generator: torch.Generator | None) -> Values:
        """Return images as normalised floats (B, 3, H, W), augmented in training."""
        x_BCHW = to_float(values.x)
        if generator is not None and len(x_BCHW):
            x_BCHW = augment(x_BCHW, self.config, generator)
        return Values(normalise(x_BCHW, self.config), count_B=values.count_B)


component = Image


def _side(cell: object, source: Source) -> int:
    """Return the longer side of one image in pixels; 0 for a cell that cannot be read."""
    try:
        with guarded("cannot be read"):
            return max(open_image(Media(cell, source.root, suffixes=SUFFIXES).content).size)
    except BadCell:
        return 0


def _count_images(kinds: Counter[str]) -> int:
    """Count images of each kind. Animated ones are images too, unless nearly all of them are animated."""
    return kinds["image"] + (0 if are_videos(kinds) else kinds["animation"])
