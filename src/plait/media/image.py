"""What images and videos share: conversion to RGB, framing into a square, augmentation in training.

Shape letters: B images, C channels, H height, W width.
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


# Pillow's modes of 16 bits, and what divides them to give 0..255
GREY_TO_BYTE = {"I;16": 257.0, "I;16B": 257.0, "I;16L": 257.0, "I": 257.0}


class Framing(Options):
    """`fit` says how an image becomes square: `pad` keeps all of it, `crop` keeps its centre, `stretch`
    ignores its shape.

    The other options describe the augmentation in training. `crop` is the smallest share of the area that a
    random crop keeps (1: no crop). `shift` is the largest shift as a share of the side. `flip` mirrors half
    of the images. `rotate` is the largest rotation in degrees. `colour` is the largest change of brightness,
    contrast and saturation (0 to 1). `erase` is the probability of erasing a rectangle.
    """

    size: int = Field(96, ge=8, le=2048, description="pixels a side")
    fit: Literal["pad", "crop", "stretch"] = "pad"
    background: int = Field(
        255, ge=0, le=255, description="grey behind transparent pixels and around padded images"
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
        """Return the options that a prepared image depends on; the other options act on batches."""
        return {"size": self.size, "fit": self.fit, "background": self.background}


def rgb(image: Pillow.Image, background: int) -> Pillow.Image:
    """Convert an image to RGB, 8 bits per channel. What is transparent gets a grey background (0-255)."""
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
    """Return the width and height that an image is scaled to, before padding or cropping.

    `size` is the image's own width and height.
    """
    width, height = size
    if framing.fit == "stretch":
        return framing.size, framing.size
    fitted_side = max(size) if framing.fit == "pad" else min(size)
    scale = framing.size / fitted_side
    return max(round(width * scale), 1), max(round(height * scale), 1)


def square(pixels_HWC: np.ndarray, framing: Framing) -> np.ndarray:
    """Scale an upright RGB image, bytes (H, W, 3), to (size, size, 3)."""
    height, width = pixels_HWC.shape[:2]
    if (width, height) == (framing.size, framing.size):
        return pixels_HWC
    return centre(resize(pixels_HWC, *fitted((width, height), framing)), framing)


def resize(pixels_HWC: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize an image bilinearly, with antialiasing where it shrinks.

    The values are those of Pillow, in half of its time.
    """
    contiguous_HWC = np.require(pixels_HWC, requirements=["C", "W"])
    x_1CHW = torch.from_numpy(contiguous_HWC).permute(2, 0, 1)[None]
    resized_1CHW = F.interpolate(x_1CHW, (height, width), mode="bilinear", antialias=True)
    return resized_1CHW[0].permute(1, 2, 0).numpy()


def centre(pixels_HWC: np.ndarray, framing: Framing) -> np.ndarray:
    """Crop or pad an image about its centre to (size, size, 3)."""
    height, width = pixels_HWC.shape[:2]
    side = framing.size
    if (width, height) == (side, side):
        return pixels_HWC
    first_column, first_row = (width - side) // 2, (height - side) // 2
    if framing.fit == "crop":
        return pixels_HWC[first_row : first_row + side, first_column : first_column + side]

    # the image is smaller than the square, so both are at most zero
    padded = np.full((side, side, 3), framing.background, dtype=np.uint8)
    padded[-first_row : height - first_row, -first_column : width - first_column] = pixels_HWC
    return padded


def to_float(x_BHWC: Tensor) -> Tensor:
    """Convert bytes (B, H, W, C) to floats in 0..1, shape (B, C, H, W).

    They are channels-last in memory, as the bytes already are.
    """
    x_BCHW = x_BHWC.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.channels_last)
    return x_BCHW.mul_(1 / 255)


def normalise(x_BCHW: Tensor, framing: Framing) -> Tensor:
    """Subtract the mean from pixels in 0..1 and divide them by the standard deviation, in place."""
    if not framing.mean and framing.std == 1:
        return x_BCHW
    mean_C11 = torch.tensor(framing.mean, device=x_BCHW.device).view(-1, 1, 1)
    std_C11 = torch.tensor(framing.std, device=x_BCHW.device).view(-1, 1, 1)
    return x_BCHW.sub_(mean_C11).mul_(1 / std_C11)


def augment(x_BCHW: Tensor, framing: Framing, generator: torch.Generator, together: int = 1) -> Tensor:
    """Crop, shift, mirror and rotate images, change their colours, and erase a rectangle.

    Each image is changed in its own way. With `together`, each run of so many images (the frames of a
    video) is changed in the same way. Pixels lie in 0..1 before and after.
    """
    count = len(x_BCHW) // together

    def draw(low: float, high: float, *shape: int) -> Tensor:
        """Draw numbers of this shape for each image, uniformly between two bounds."""
        drawn = torch.rand(count, *shape, generator=generator) * (high - low) + low
        return drawn if together == 1 else drawn.repeat_interleave(together, 0)

    if framing.crop < 1 or framing.shift or framing.flip or framing.rotate:
        x_BCHW = _move(x_BCHW, framing, draw)
    if framing.colour:
        x_BCHW = _change_colours(x_BCHW, framing.colour, draw)
    if framing.erase:
        x_BCHW = _erase(x_BCHW, framing.erase, draw)
    return x_BCHW


def _move(x_BCHW: Tensor, framing: Framing, draw: Callable[..., Tensor]) -> Tensor:
    """Crop, shift, mirror and rotate images, with one resampling for all four."""
    scale = draw(framing.crop, 1.0).sqrt()
    angle = draw(-framing.rotate, framing.rotate) * (math.pi / 180)
    mirror = torch.ones(len(x_BCHW))
    if framing.flip:
        mirror = torch.where(draw(0, 1) < 0.5, -1.0, 1.0)
    shift = draw(-1, 1, 2) * (1 - scale + 2 * framing.shift)[:, None]
    cos, sin = angle.cos() * scale, angle.sin() * scale
    row_x = torch.stack([cos * mirror, -sin, shift[:, 0]], 1)
    row_y = torch.stack([sin * mirror, cos, shift[:, 1]], 1)
    theta = torch.stack([row_x, row_y], 1)
    grid = F.affine_grid(theta, list(x_BCHW.shape), align_corners=False)
    return F.grid_sample(x_BCHW, grid, padding_mode="border", align_corners=False)


def _change_colours(x_BCHW: Tensor, strength: float, draw: Callable[..., Tensor]) -> Tensor:
    """Multiply brightness, saturation and contrast by factors in 1 +- `strength`, in this order."""
    low, high = 1 - strength, 1 + strength
    brightness = draw(low, high, 1, 1, 1)
    contrast = draw(low, high, 1, 1, 1)
    saturation = draw(low, high, 1, 1, 1)
    x_BCHW = x_BCHW * brightness
    grey = x_BCHW.mean(1, keepdim=True)
    x_BCHW = (x_BCHW - grey) * saturation + grey
    middle = grey.mean((2, 3), keepdim=True)
    return ((x_BCHW - middle) * contrast + middle).clamp_(0, 1)


def _erase(x_BCHW: Tensor, probability: float, draw: Callable[..., Tensor]) -> Tensor:
    """Erase one rectangle of an image, up to half as wide and as high (Zhong et al. 2020)."""
    rows_BH = _stretch(x_BCHW.shape[-1], draw)
    columns_BW = _stretch(x_BCHW.shape[-1], draw)
    is_erased_B11 = draw(0, 1, 1, 1) < probability
    erased_BHW = rows_BH[:, :, None] & columns_BW[:, None, :] & is_erased_B11
    return x_BCHW.masked_fill(erased_BHW[:, None], 0.5)


def _stretch(side: int, draw: Callable[..., Tensor]) -> Tensor:
    """Draw a stretch of 0.1 to 0.5 of a side for each image: True within it, (B, side)."""
    steps = torch.arange(side)
    length = draw(0.1, 0.5, 1) * side
    start = draw(0, 1, 1) * (side - length)
    return (steps >= start) & (steps < start + length)
