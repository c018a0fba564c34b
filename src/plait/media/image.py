"""What pictures and clips share: from any Pillow mode to RGB, into a square, and the augmentation of
training.

Shape letters: B pictures, C channels, H high, W wide.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np
import torch
from PIL import Image as Pillow
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from plait.recipe.registry import Options
from plait.table.json import JSON

MAX_PIXELS = 178_956_970  # Pillow's own limit against decompression bombs: about 13,000 x 13,000


Spread = Annotated[float, Field(gt=0)]


GREY_TO_BYTE = {"I;16": 257.0, "I;16B": 257.0, "I;16L": 257.0, "I": 257.0}


class Framing(Options):
    """`fit` says how a picture becomes square: `pad` keeps all of it, `crop` its centre, `stretch`
    ignores its shape.

    The others describe training's augmentation: the smallest share of the area that a random crop keeps
    (1: none), the largest shift as a share of the side, mirroring, the largest rotation in degrees, the
    largest change of brightness, contrast and saturation (0 to 1), and the probability of erasing a
    rectangle.
    """

    size: int = Field(96, ge=8, le=2048, description="pixels a side")
    fit: Literal["pad", "crop", "stretch"] = "pad"
    background: int = Field(
        255, ge=0, le=255, description="grey behind transparent pixels and around padded pictures"
    )
    mean: float | tuple[float, float, float] = Field(
        0.5, description="subtracted from pixels, which lie in 0..1; one, or one for red, green, blue"
    )
    std: Spread | tuple[Spread, Spread, Spread] = Field(0.25, description="divides pixels after that")
    crop: float = Field(1.0, gt=0, le=1)
    shift: float = Field(0.1, ge=0, le=0.5)
    flip: bool = True
    rotate: float = Field(10.0, ge=0, le=180)
    colour: float = Field(0.15, ge=0, le=1)
    erase: float = Field(0.0, ge=0, le=1)

    def prepares(self) -> JSON:
        """The options that decide what a prepared picture is; the others act on batches."""
        return {"size": self.size, "fit": self.fit, "background": self.background}


def rgb(image: Pillow.Image, background: int) -> Pillow.Image:
    """The picture in RGB, 8 bits a channel, on a grey background where it is transparent."""
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


def fitted(size: tuple[int, int], framing: Framing) -> tuple[int, int]:
    """Width and height to scale a picture of this width and height to, before padding or cropping."""
    width, height = size
    if framing.fit == "stretch":
        return framing.size, framing.size
    scale = framing.size / (max(size) if framing.fit == "pad" else min(size))
    return max(round(width * scale), 1), max(round(height * scale), 1)


def square(pixels_HWC: np.ndarray, framing: Framing) -> np.ndarray:
    """An upright RGB picture, bytes, as (size, size, 3)."""
    height, width = pixels_HWC.shape[:2]
    if (width, height) == (framing.size, framing.size):
        return pixels_HWC
    return centre(resize(pixels_HWC, *fitted((width, height), framing)), framing)


def resize(pixels_HWC: np.ndarray, width: int, height: int) -> np.ndarray:
    """Bilinear, with antialiasing where it shrinks: Pillow's own values, in half of its time."""
    x_1CHW = torch.from_numpy(np.require(pixels_HWC, requirements=["C", "W"])).permute(2, 0, 1)[None]
    return F.interpolate(x_1CHW, (height, width), mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()


def centre(pixels_HWC: np.ndarray, framing: Framing) -> np.ndarray:
    """Cropped or padded about its centre to (size, size, 3)."""
    height, width = pixels_HWC.shape[:2]
    side = framing.size
    if (width, height) == (side, side):
        return pixels_HWC
    left, top = (width - side) // 2, (height - side) // 2
    if framing.fit == "crop":
        return pixels_HWC[top : top + side, left : left + side]
    padded = np.full((side, side, 3), framing.background, dtype=np.uint8)
    padded[-top : height - top, -left : width - left] = pixels_HWC
    return padded


def to_float(x_BHWC: Tensor) -> Tensor:
    """Bytes as floats in 0..1, shaped (B, C, H, W) and channels-last in memory, as the bytes already lie."""
    return x_BHWC.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.channels_last).mul_(1 / 255)


def normalise(x_BCHW: Tensor, framing: Framing) -> Tensor:
    if framing.mean or framing.std != 1:
        mean, std = (
            torch.tensor(v, device=x_BCHW.device).view(-1, 1, 1) for v in (framing.mean, framing.std)
        )
        x_BCHW = x_BCHW.sub_(mean).mul_(1 / std)
    return x_BCHW


def augment(x_BCHW: Tensor, framing: Framing, generator: torch.Generator, together: int = 1) -> Tensor:
    """Crop, shift, mirror, rotate (one resampling for all four), change colours, erase: each picture in
    its own way, or, with `together`, each run of so many pictures (the frames of a clip) in one way.

    Pixels lie in 0..1 before and after.
    """
    count = len(x_BCHW) // together

    def draw(low: float, high: float, *shape: int) -> Tensor:
        drawn = torch.rand(count, *shape, generator=generator) * (high - low) + low
        return drawn if together == 1 else drawn.repeat_interleave(together, 0)

    if framing.crop < 1 or framing.shift or framing.flip or framing.rotate:
        scale = draw(framing.crop, 1.0).sqrt()
        angle = draw(-framing.rotate, framing.rotate) * (math.pi / 180)
        mirror = torch.where(draw(0, 1) < 0.5, -1.0, 1.0) if framing.flip else torch.ones(len(x_BCHW))
        shift = draw(-1, 1, 2) * (1 - scale + 2 * framing.shift)[:, None]
        cos, sin = angle.cos() * scale, angle.sin() * scale
        theta = torch.stack(
            [
                torch.stack([cos * mirror, -sin, shift[:, 0]], 1),
                torch.stack([sin * mirror, cos, shift[:, 1]], 1),
            ],
            1,
        )
        grid = F.affine_grid(theta, list(x_BCHW.shape), align_corners=False)
        x_BCHW = F.grid_sample(x_BCHW, grid, padding_mode="border", align_corners=False)
    if framing.colour:
        brightness, contrast, saturation = (
            draw(1 - framing.colour, 1 + framing.colour, 1, 1, 1) for _ in range(3)
        )
        x_BCHW = x_BCHW * brightness
        grey = x_BCHW.mean(1, keepdim=True)
        x_BCHW = (x_BCHW - grey) * saturation + grey
        middle = grey.mean((2, 3), keepdim=True)
        x_BCHW = ((x_BCHW - middle) * contrast + middle).clamp_(0, 1)
    if framing.erase:
        x_BCHW = _erase(x_BCHW, framing.erase, draw)
    return x_BCHW


def _erase(x_BCHW: Tensor, probability: float, draw: Callable[..., Tensor]) -> Tensor:
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
