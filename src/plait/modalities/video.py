"""Videos: any file that PyAV reads, GIF and animated WebP, as frames spread evenly over their time."""

from __future__ import annotations

from collections import Counter

import av
import PIL
import pyarrow as pa
import torch
from pydantic import Field

from plait.errors import BadCell
from plait.media.cell import Cell, Media, is_missing
from plait.media.guard import guarded
from plait.media.image import Framing, augment, normalise, to_float
from plait.media.kinds import are_videos, image_or_video
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


BLACK = 16  # of 255: black in digital video; a frame without a brighter pixel counts as black


class Config(Framing):
    """How many frames of a video are read, and how each becomes a square of numbers.

    `fit` says how a frame becomes square. `pad` keeps all of it, `crop` keeps its centre, `stretch` ignores
    its shape. The options from `crop` to `erase` are the augmentation. All frames of a video are augmented in
    the same way. They are not mirrored by default: what moves left would move right.
    """

    frames: int = Field(8, ge=1, le=256, description="frames of each video, spread evenly over its time")
    size: int = Field(64, ge=8, le=1024, description="width and height in pixels")
    background: int = Field(0, ge=0, le=255, description="grey around padded frames")
    flip: bool = Field(False, description="mirror half of the videos")
    rotate: float = Field(5.0, ge=0, le=180, description="largest rotation in degrees")


class Video(MediaModality):
    """A column of videos."""

    options = Config
    content = "video/*"
    suffixes = SUFFIXES
    encoder = "conv3d"
    pretrained = "pretrained"
    may_have_sound = True
    ragged = True

    def __init__(self, config: Config) -> None:
        self.config = config
        self.shape = (0, config.size, config.size, 3)
        self.dtype = torch.uint8
        self.layout = Layout("frames", (config.frames, 3, config.size, config.size))

    @classmethod
    def matches(cls, cells: pa.ChunkedArray, source: Source) -> Match | None:
        """Recognise video files, animated images, and bytes that hold them."""
        return recognise(cells, source, "videos", SUFFIXES, image_or_video, _count_videos)

    @classmethod
    def hears(cls, cells: pa.ChunkedArray, source: Source) -> tuple[int, int]:
        """Return how many cells of a sample have audio, and the size of the sample."""
        if is_list(cells):
            cells = items(cells)
        sampled = [cell for cell in sample(cells) if not is_missing(cell)]
        with_audio = sum(_has_audio(cell, source) for cell in sampled)
        return with_audio, len(sampled)

    def prepares(self) -> JSON:
        """Return the options and versions that prepared frames depend on."""
        return {
            **self.config.prepares(),
            "frames": self.config.frames,
            "av": av.__version__,
            "pillow": PIL.__version__,
        }

    def prepare(self, media: Media) -> Cell:
        """Return the frames of a video as bytes (T, size, size, 3). Raises `BadCell`."""
        pixels = media.video.frames(self.config.frames, self.config).pixels

        # such videos can be read but say nothing: the user is told
        if pixels.max() <= BLACK:
            return Cell(pixels, ("black in every frame looked at",))
        if len(pixels) > 1 and (pixels == pixels[0]).all():
            return Cell(pixels, ("the same image in every frame looked at",))
        return Cell(pixels)

    def transform(self, values: Values, generator: torch.Generator | None) -> Values:
        """Return frames as normalised floats (B, T, 3, H, W), augmented in training."""
        # images and frames share their code: a batch of frames is a batch of images
        count, steps = values.x.shape[:2]
        x_BCHW = to_float(values.x.flatten(0, 1))
        if generator is not None and count:
            x_BCHW = augment(x_BCHW, self.config, generator, together=steps)
        x_BTCHW = normalise(x_BCHW, self.config).unflatten(0, (count, steps))
        return Values(x_BTCHW, values.length_B, values.count_B)


component = Video


def _count_videos(kinds: Counter[str]) -> int:
    """Count videos of each kind; animated images only if nearly all images are animated."""
    return kinds["video"] + (kinds["animation"] if are_videos(kinds) else 0)


def _has_audio(cell: object, source: Source) -> bool:
    """Return whether a cell is a video with audio; a cell that cannot be read has none."""
    try:
        with guarded("cannot be read"):
            return Media(cell, source.root, suffixes=SUFFIXES).video.has_audio
    except BadCell:
        return False
