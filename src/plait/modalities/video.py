"""Clips: any file that PyAV reads, GIF and animated WebP, as frames spread evenly over their time."""

from __future__ import annotations

import av
import PIL
import pyarrow as pa
import torch
from pydantic import Field

from plait.errors import BadCell
from plait.media.cell import Cell, Media
from plait.media.image import Framing, augment, normalise, to_float
from plait.modalities.base import Match
from plait.modalities.base_media import MediaModality, recognise
from plait.nn.batch import Layout, Values
from plait.table.json import JSON
from plait.table.table import Source
from plait.table.values import is_list, items, sample

SUFFIXES = (
    ".mp4",
    ".mkv",
    ".webm",
    ".avi",
    ".mov",
    ".m4v",
    ".mpg",
    ".mpeg",
    ".ts",
    ".flv",
    ".wmv",
    ".3gp",
    ".ogv",
    ".gif",
)


BLACK = 16  # of 255: the brightest pixel of what is called black, as digital video has it


class Config(Framing):
    """`frames` of a clip, each as a picture. All frames of a clip are augmented in one way. They are
    not mirrored unless asked: what moves left would move right.
    """

    frames: int = Field(8, ge=1, le=256)
    size: int = Field(64, ge=8, le=1024, description="pixels a side")
    background: int = Field(0, ge=0, le=255, description="grey around padded frames")
    flip: bool = False
    rotate: float = Field(5.0, ge=0, le=180)


class Video(MediaModality):
    """A column of clips."""

    options = Config
    encoder = "conv3d"
    may_have_sound = True
    ragged = True

    def __init__(self, config: Config) -> None:
        self.config = config
        self.shape, self.dtype = (0, config.size, config.size, 3), torch.uint8
        self.layout = Layout("frames", (config.frames, 3, config.size, config.size))

    @classmethod
    def matches(cls, cells: pa.ChunkedArray, source: Source) -> Match | None:
        return recognise(cells, source, "clips", SUFFIXES, _moves)

    @classmethod
    def hears(cls, cells: pa.ChunkedArray, source: Source) -> tuple[int, int]:
        looked = sample(items(cells) if is_list(cells) else cells)
        return sum(_has_sound(c, source) for c in looked), len(looked)

    def prepares(self) -> JSON:
        return {
            **self.config.prepares(),
            "frames": self.config.frames,
            "av": av.__version__,
            "pillow": PIL.__version__,
        }

    def prepare(self, media: Media) -> Cell:
        found = media.clip.frames(self.config.frames, self.config)
        notes = []
        if found.pixels.max() <= BLACK:
            notes.append("black in every frame looked at")
        elif len(found.pixels) > 1 and (found.pixels == found.pixels[0]).all():
            notes.append("the same picture in every frame looked at")
        return Cell(found.pixels, tuple(notes))

    def transform(self, values: Values, generator: torch.Generator | None) -> Values:
        count, steps = values.x.shape[:2]
        x_BCHW = to_float(values.x.flatten(0, 1))
        if generator is not None and count:
            x_BCHW = augment(x_BCHW, self.config, generator, together=steps)
        x_BTCHW = normalise(x_BCHW, self.config).unflatten(0, (count, steps))
        return Values(x_BTCHW, values.length_B, values.count_B)


component = Video


def _moves(media: Media) -> bool:
    return media.clip.moves


def _has_sound(cell: object, source: Source) -> bool:
    try:
        return Media(cell, source.root).clip.has_sound
    except BadCell:
        return False
