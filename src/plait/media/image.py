"""What images and videos share: conversion to RGB, framing into a square, augmentation in training.

Shape letters: B images, C channels, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, cast

import numpy as np
import torch
from PIL import Image as Pillow
from pydantic import Field, field_validator
from torch import Tensor
from torch.nn import functional as F

from plait.errors import BadCell
from plait.media import limits
from plait.recipe.registry import Options
from plait.table.json import JSON

LARGEST = 1000  # of a mean or a standard deviation: pixels lie in 0..1


DEEP = frozenset({"I;16", "I;16B", "I;16L", "I"})  # Pillow's modes of 16 bits and more


NARROW = (8, 10, 12)  # bits that a camera may have, in files that have room for 16


class Framing(Options):
    """What images and videos share: how an image becomes a square of numbers, and how training augments it.

    `fit` says how an image becomes square. `pad` keeps all of it, `crop` keeps its centre, `stretch` ignores
    its shape. The options from `crop` to `erase` are the augmentation.
    """

    size: int = Field(96, ge=8, le=2048, description="width and height in pixels")
    fit: Literal["pad", "crop", "stretch"] = Field("pad", description="how it becomes square (see above)")
    background: int = Field(
        255, ge=0, le=255, description="grey behind transparent pixels and around padded images"
    )
    mean: float | tuple[float, float, float] = Field(
        0.5,
        description="subtracted from pixels, which lie in 0..1; one number, or one for red, green and blue",
    )
    std: float | tuple[float, float, float] = Field(
        0.25, description="divides pixels after the mean is subtracted; one number, or three"
    )
    crop: float = Field(
        1.0, gt=0, le=1, description="smallest share of the area that a random crop keeps; 1: no crop"
    )
    shift: float = Field(0.1, ge=0, le=0.5, description="largest shift, as a share of the side")
    flip: bool = Field(True, description="mirror half of the images")
    rotate: float = Field(10.0, ge=0, le=180, description="largest rotation in degrees")
    colour: float = Field(
        0.15, ge=0, le=1, description="largest change of brightness, contrast and saturation"
    )
    erase: float = Field(0.0, ge=0, le=1, description="probability that a rectangle is erased")

    @field_validator("std")
    @classmethod
    def _above_zero(cls, value: float | tuple[float, float, float]) -> float | tuple[float, float, float]:
        if np.min(value) <= 0 or np.max(value) > LARGEST:
            raise ValueError(f"expected numbers above 0, of at most {LARGEST}")
        return value

    @field_validator("mean")
    @classmethod
    def _near_pixels(cls, value: float | tuple[float, float, float]) -> float | tuple[float, float, float]:
        if np.max(np.abs(value)) > LARGEST:
            raise ValueError(f"expected numbers from -{LARGEST} to {LARGEST}")
        return value

    def prepares(self) -> JSON:
        """Return the options that a prepared image depends on; the other options act on batches."""
        return {"size": self.size, "fit": self.fit, "background": self.background}


def rgb(image: Pillow.Image, background: int, white: float = 0.0) -> Pillow.Image:
    """Convert an image to RGB, 8 bits per channel. Transparent pixels get a grey background (0 to 255).

    `white` is the value that becomes 255 in an image of more than 8 bits; 0: the one of `white_level`.
    """
    if image.mode in DEEP or image.mode == "F":  # Pillow's own conversion clips at 255
        white = white or white_level(image)[0]
        return _from_grey(np.asarray(image, dtype=np.float32) * (255 / white))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        behind = Pillow.new("RGBA", rgba.size, (background, background, background, 255))
        return Pillow.alpha_composite(behind, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def white_level(image: Pillow.Image, stated_bits: int = 0) -> tuple[float, tuple[str, ...]]:
    """Return the value that is white in an image of more than 8 bits, and notes for the user.

    `stated_bits` is how many bits the file says to be in use; 0 if it does not say. Raises `BadCell` if a
    pixel is no number.
    """
    if image.mode not in DEEP and image.mode != "F":
        return 255.0, ()
    darkest, brightest = (float(level) for level in cast("tuple[float, float]", image.getextrema()))
    if image.mode == "F":
        # a NaN compares with nothing, so extremes cannot tell whether there is one
        if not np.isfinite(np.asarray(image).sum(dtype=np.float64)):
            raise BadCell("an image with pixels that are no numbers")

        # files of floats state no range: it is 0..1 or 0..255
        white = 1.0 if brightest <= 1 else 255.0
    else:
        white = 65_535.0
        bits = _bits_in_use(brightest)
        if bits and bits == stated_bits:
            white = float(2**bits - 1)
        elif bits:
            return white, (f"nearly black: of 16 bits, at most {bits} are in use",)
    if darkest < 0 or brightest > white:
        return white, (f"out of range: values outside 0 to {white:,.0f} become black or white",)
    return white, ()


def _bits_in_use(brightest: float) -> int:
    """Return how many bits the brightest pixel takes, if a camera may have so few; otherwise 0."""
    for bits in NARROW:
        if 0 < brightest < 2**bits:
            return bits
    return 0


def _from_grey(grey_HW: np.ndarray) -> Pillow.Image:
    """Return an RGB image of floats that should lie in 0..255; others are clipped."""
    pixels_HW = grey_HW.clip(0, 255).astype(np.uint8)
    return Pillow.fromarray(pixels_HW).convert("RGB")


def fitted(size: tuple[int, int], framing: Framing) -> tuple[int, int]:
    """Return the width and height that an image is scaled to, before padding or cropping.

    `size` is the image's own width and height. Raises `BadCell` if a long strip would become absurdly large.
    """
    width, height = size
    if framing.fit == "stretch":
        return framing.size, framing.size
    fitted_side = max(size) if framing.fit == "pad" else min(size)
    scale = framing.size / fitted_side
    fitted_width, fitted_height = max(round(width * scale), 1), max(round(height * scale), 1)

    # an image of one row of pixels that is cropped to 224 rows becomes 224 times as wide, too
    if fitted_width * fitted_height > limits.current().pixels:
        raise BadCell(f"absurd shape: {width} x {height} pixels, which cannot be cropped to a square")
    return fitted_width, fitted_height


def square(pixels_HWC: np.ndarray, framing: Framing) -> np.ndarray:
    """Scale an upright RGB image, bytes (H, W, 3), to (size, size, 3)."""
    height, width = pixels_HWC.shape[:2]
    if (width, height) == (framing.size, framing.size):
        return pixels_HWC
    fitted_width, fitted_height = fitted((width, height), framing)
    resized_HWC = resize(pixels_HWC, fitted_width, fitted_height)
    return centre(resized_HWC, framing)


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
    first_row = (height - side) // 2
    first_column = (width - side) // 2
    if framing.fit == "crop":
        return pixels_HWC[first_row : first_row + side, first_column : first_column + side]

    # the image is smaller than the square, so it begins outside itself: both are at most zero
    padded_HWC = np.full((side, side, 3), framing.background, dtype=np.uint8)
    top, left = -first_row, -first_column
    padded_HWC[top : top + height, left : left + width] = pixels_HWC
    return padded_HWC


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
    """Crop, shift, mirror and rotate images, with one resampling for all four.

    The affine map leads from the new image to the old one. In both, a side reaches from -1 to 1.
    """
    scale_B = draw(framing.crop, 1.0).sqrt()  # of a side; `crop` is a share of the area
    angle_B = draw(-framing.rotate, framing.rotate) * (math.pi / 180)
    mirror_B = torch.ones(len(x_BCHW))
    if framing.flip:
        mirror_B = torch.where(draw(0, 1) < 0.5, -1.0, 1.0)

    # a crop may lie anywhere in the image; `shift` moves it beyond the edge
    largest_shift_B = 1 - scale_B + 2 * framing.shift
    shift_B2 = draw(-1, 1, 2) * largest_shift_B[:, None]
    cos_B = angle_B.cos() * scale_B
    sin_B = angle_B.sin() * scale_B
    to_x_B3 = torch.stack([cos_B * mirror_B, -sin_B, shift_B2[:, 0]], 1)
    to_y_B3 = torch.stack([sin_B * mirror_B, cos_B, shift_B2[:, 1]], 1)
    affine_B23 = torch.stack([to_x_B3, to_y_B3], 1)
    grid = F.affine_grid(affine_B23, list(x_BCHW.shape), align_corners=False)
    return F.grid_sample(x_BCHW, grid, padding_mode="border", align_corners=False)


def _change_colours(x_BCHW: Tensor, strength: float, draw: Callable[..., Tensor]) -> Tensor:
    """Multiply brightness, saturation and contrast by factors in 1 +- `strength`, in this order."""
    low, high = 1 - strength, 1 + strength
    brightness = draw(low, high, 1, 1, 1)
    contrast = draw(low, high, 1, 1, 1)
    saturation = draw(low, high, 1, 1, 1)
    x_BCHW = x_BCHW * brightness
    grey_B1HW = x_BCHW.mean(1, keepdim=True)
    x_BCHW = (x_BCHW - grey_B1HW) * saturation + grey_B1HW
    mean_B111 = grey_B1HW.mean((2, 3), keepdim=True)
    x_BCHW = (x_BCHW - mean_B111) * contrast + mean_B111
    return x_BCHW.clamp_(0, 1)


def _erase(x_BCHW: Tensor, probability: float, draw: Callable[..., Tensor]) -> Tensor:
    """Make one rectangle of an image grey, up to half as wide and as high (Zhong et al. 2020)."""
    rows_BH = _stretch(x_BCHW.shape[-1], draw)
    columns_BW = _stretch(x_BCHW.shape[-1], draw)
    is_erased_B11 = draw(0, 1, 1, 1) < probability
    erased_BHW = rows_BH[:, :, None] & columns_BW[:, None, :] & is_erased_B11
    return x_BCHW.masked_fill(erased_BHW[:, None], 0.5)


def _stretch(side: int, draw: Callable[..., Tensor]) -> Tensor:
    """Draw a stretch of 0.1 to 0.5 of a side for each image: True within it, (B, side)."""
    position = torch.arange(side)
    length_B1 = draw(0.1, 0.5, 1) * side
    start_B1 = draw(0, 1, 1) * (side - length_B1)
    return (position >= start_B1) & (position < start_B1 + length_B1)
