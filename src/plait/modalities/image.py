"""Pictures: any file that Pillow reads, as a path or bytes; always upright, RGB, and of one size."""

from __future__ import annotations

import hashlib
import io
import math
import warnings
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import simplejpeg
import torch
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from plait.batch import Layout, Values
from plait.components import Options
from plait.errors import BadCell
from plait.modalities.base import Loaded, Match, Modality, Source, is_list, is_text, items, load_each, read_media, sample

SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".ico", ".avif")
MAX_PIXELS = 178_956_970  # Pillow's own limit against decompression bombs: about 13,000 x 13,000
ORIENTATION = 274  # the EXIF tag
JPEG, EXIF = b"\xff\xd8", b"Exif\0\0"
GREY_TO_BYTE = {"I;16": 257.0, "I;16B": 257.0, "I;16L": 257.0, "I": 257.0}


class Config(Options):
    """`fit` says how a picture becomes square: `pad` keeps all of it, `crop` its centre, `stretch` ignores its shape.

    The others describe training's augmentation: the smallest share of the area that a random crop keeps (1: none),
    mirroring, the largest rotation in degrees, the largest change of brightness, contrast and saturation (0 to 1), and
    the probability of erasing a rectangle.
    """

    size: int = Field(96, ge=8, le=2048, description="pixels a side")
    fit: Literal["pad", "crop", "stretch"] = "pad"
    background: int = Field(255, ge=0, le=255, description="grey behind transparent pixels and around padded pictures")
    mean: float = Field(0.5, description="subtracted from pixels, which lie in 0..1")
    std: float = Field(0.25, gt=0, description="divides pixels after that")
    crop: float = Field(0.75, gt=0, le=1)
    flip: bool = True
    rotate: float = Field(10.0, ge=0, le=180)
    colour: float = Field(0.15, ge=0, le=1)
    erase: float = Field(0.0, ge=0, le=1)


class Image(Modality):
    """A column of pictures. It learns nothing from the rows; its state is empty."""

    options = Config
    encoder = "resnet"
    media = True

    def __init__(self, config: Config) -> None:
        self.config = config
        self.layout = Layout("grid", (3, config.size, config.size))

    @classmethod
    def matches(cls, cells: pa.ChunkedArray, source: Source) -> Match | None:
        if is_list(cells):
            cells = items(cells)
        if not len(cells) or not (is_text(cells) or _is_bytes(cells.type)):
            return None
        looked = sample(cells)
        named = sum(isinstance(c, str) and c.lower().endswith(SUFFIXES) for c in looked)
        if is_text(cells) and not named and not any(len(c) < 1000 and (source.root / c).is_file() for c in looked[:4]):
            return None
        opened = sum(_is_picture(c, source) for c in looked)
        if opened >= len(looked) / 2:
            return Match(1.0, f"{opened} of {len(looked)} cells looked at are pictures by their content")
        if named >= len(looked) / 2:
            missing = len(looked) - opened
            return Match(0.9, f"names end like those of pictures, but {missing} of {len(looked)} looked at cannot be opened under {source.root}")
        return None

    @classmethod
    def fit(cls, config: Config, cells: pa.ChunkedArray) -> Image:
        return cls(config)

    def load(self, cells: pa.ChunkedArray, source: Source) -> Loaded:
        size = self.config.size

        def one(cell: Any) -> tuple[np.ndarray, bytes]:
            data, file = read_media(cell, source.root)
            try:
                return decode(data, self.config), hashlib.blake2b(data, digest_size=12).digest()
            except BadCell as bad:
                raise BadCell(bad.reason, file) from None

        return load_each(cells, source, (size, size, 3), one)

    def transform(self, values: Values, generator: torch.Generator | None) -> Values:
        x_BCHW = values.x.permute(0, 3, 1, 2)  # bytes lie as rows of RGB: this view is channels-last already
        x_BCHW = x_BCHW.to(torch.float32, memory_format=torch.channels_last).mul_(1 / 255)
        if generator is not None and len(x_BCHW):
            x_BCHW = augment(x_BCHW, self.config, generator)
        if self.config.mean or self.config.std != 1:
            x_BCHW = x_BCHW.sub_(self.config.mean).mul_(1 / self.config.std)
        return Values(x_BCHW, count_B=values.count_B)

    def state(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_state(cls, config: Config, state: dict[str, Any]) -> Image:
        return cls(config)


component = Image


def _is_bytes(kind: pa.DataType) -> bool:
    """Bytes, or the pair of bytes and path that Hugging Face datasets has."""
    pair = pa.types.is_struct(kind) and {f.name for f in kind} == {"bytes", "path"}
    return bool(pair or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_picture(cell: Any, source: Source) -> bool:
    try:
        _open(read_media(cell, source.root)[0])
    except BadCell:
        return False
    return True


def _open(data: bytes) -> Pillow.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Pillow.open(io.BytesIO(data))
    except UnidentifiedImageError:
        raise BadCell(f"not a picture (it begins with {data[:8]!r})") from None
    except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError) as error:
        raise BadCell(f"not a picture that can be read: {error}") from None
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise BadCell(f"absurd size: {width} x {height} pixels, more than {MAX_PIXELS:,} in all")
    return image


def decode(data: bytes, config: Config) -> np.ndarray:
    """A picture file as bytes of shape (size, size, 3), RGB. Raises `BadCell` when it is broken or cut short.

    JPEG is decoded at the smallest of its eight scales that is at least as large as needed. That differs from decoding
    all of it by 1 to 2 of 255, the same in training and in use.
    """
    try:
        image = _open_jpeg(data, config) if data.startswith(JPEG) else None
        if image is None:
            image = _open(data)
            image.load()
        return np.asarray(_square(_rgb(ImageOps.exif_transpose(image), config.background), config))
    except (OSError, ValueError, SyntaxError, IndexError, EOFError, MemoryError) as error:
        raise BadCell(f"broken or cut short: {str(error) or type(error).__name__}") from None


def _open_jpeg(data: bytes, config: Config) -> Pillow.Image | None:
    """A colour or grey JPEG, decoded small; None for what Pillow should open (CMYK, or no JPEG after all)."""
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    if space not in ("YCbCr", "RGB", "Gray") or width * height > MAX_PIXELS:
        return None
    small = _fitting((width, height), config, covering=True)
    pixels = simplejpeg.decode_jpeg(data, "RGB", fastdct=True, fastupsample=True, min_height=small[1], min_width=small[0])
    image = Pillow.fromarray(pixels)
    if EXIF in data[:65_536]:  # Pillow reads the orientation; without the tag it need not look
        image.getexif()[ORIENTATION] = _open(data).getexif().get(ORIENTATION, 1)
    return image


def _rgb(image: Pillow.Image, background: int) -> Pillow.Image:
    if image.mode in GREY_TO_BYTE:  # 16 bits: Pillow's own conversion clips at 255
        grey = np.asarray(image, dtype=np.float32) / GREY_TO_BYTE[image.mode]
        return Pillow.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        grey = np.nan_to_num(np.asarray(image, dtype=np.float32))
        scale = 255.0 if grey.max(initial=0) <= 1 else 1.0
        return Pillow.fromarray((grey * scale).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        behind = Pillow.new("RGBA", rgba.size, (background, background, background, 255))
        return Pillow.alpha_composite(behind, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _fitting(size: tuple[int, int], config: Config, covering: bool = False) -> tuple[int, int]:
    """Width and height after scaling. Rotated pictures are scaled before they are turned, hence `covering`."""
    width, height = size
    if config.fit == "stretch":
        return config.size, config.size
    scale = config.size / (max(size) if config.fit == "pad" else min(size))
    fitted = max(round(width * scale), 1), max(round(height * scale), 1)
    return (min(fitted[0], width), min(fitted[1], height)) if covering else fitted


def _square(image: Pillow.Image, config: Config) -> Pillow.Image:
    if image.size == (config.size, config.size):
        return image
    filter_ = Pillow.Resampling.BOX if min(image.size) >= 2 * config.size else Pillow.Resampling.BILINEAR
    image = image.resize(_fitting(image.size, config), filter_)
    if image.size == (config.size, config.size):
        return image
    left, top = (image.width - config.size) // 2, (image.height - config.size) // 2
    if config.fit == "crop":
        return image.crop((left, top, left + config.size, top + config.size))
    padded = Pillow.new("RGB", (config.size, config.size), (config.background,) * 3)
    padded.paste(image, (-left, -top))
    return padded


def augment(x_BCHW: Tensor, config: Config, generator: torch.Generator) -> Tensor:
    """Crop, mirror, rotate (one resampling for all three), change colours, erase: each picture in its own way.

    Pixels lie in 0..1 before and after.
    """
    count = len(x_BCHW)

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator) * (high - low) + low

    if config.crop < 1 or config.flip or config.rotate:
        scale = draw(config.crop, 1.0).sqrt()
        angle = draw(-config.rotate, config.rotate) * (math.pi / 180)
        mirror = torch.where(draw(0, 1) < 0.5, -1.0, 1.0) if config.flip else torch.ones(count)
        shift = draw(-1, 1, 2) * (1 - scale)[:, None]
        cos, sin = angle.cos() * scale, angle.sin() * scale
        theta = torch.stack([torch.stack([cos * mirror, -sin, shift[:, 0]], 1), torch.stack([sin * mirror, cos, shift[:, 1]], 1)], 1)
        grid = F.affine_grid(theta, list(x_BCHW.shape), align_corners=False)
        x_BCHW = F.grid_sample(x_BCHW, grid, padding_mode="border", align_corners=False)
    if config.colour:
        brightness, contrast, saturation = (draw(1 - config.colour, 1 + config.colour, 1, 1, 1) for _ in range(3))
        x_BCHW = x_BCHW * brightness
        grey = x_BCHW.mean(1, keepdim=True)
        x_BCHW = (x_BCHW - grey) * saturation + grey
        middle = grey.mean((2, 3), keepdim=True)
        x_BCHW = ((x_BCHW - middle) * contrast + middle).clamp_(0, 1)
    if config.erase:
        x_BCHW = _erase(x_BCHW, config.erase, draw)
    return x_BCHW


def _erase(x_BCHW: Tensor, probability: float, draw: Any) -> Tensor:
    """Random erasing (Zhong et al. 2020) of one rectangle, up to half as wide and as high as the picture."""
    side = x_BCHW.shape[-1]
    steps = torch.arange(side)
    inside = []
    for _ in range(2):
        length = draw(0.1, 0.5, 1) * side
        start = draw(0, 1, 1) * (side - length)
        inside.append((steps >= start) & (steps < start + length))
    erased = inside[0][:, :, None] & inside[1][:, None, :] & (draw(0, 1, 1, 1) < probability)
    return x_BCHW.masked_fill(erased[:, None], 0.5)
