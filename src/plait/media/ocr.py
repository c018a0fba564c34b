"""Read the text in images, by RapidOCR (PaddleOCR's networks, English and Chinese, on ONNX Runtime)."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import threading
from functools import cache
from typing import ClassVar, Protocol

import numpy as np
import torch

from plait.errors import RecipeError
from plait.media.cell import Cell, Media
from plait.media.guard import Unread
from plait.media.still import decode_whole

LONGEST_SIDE = 1536  # pixels; of a page of A4, letters of 10 points keep 18 pixels
VERSION = 1  # of what is kept of an image; a new number leaves earlier ones unused
PACKAGES = {"rapidocr": "RapidOCR", "onnxruntime": "ONNX Runtime"}  # the first does not install the second
NOT_LOADED = "RapidOCR could not be loaded"
REMEDY = "pip install 'plait[ocr]'"

_one_at_a_time = threading.Lock()  # the engine keeps state, and uses all cores by itself


class _Lines(Protocol):
    """What the engine finds in an image: the text of each line; None if there is none."""

    txts: tuple[str, ...] | None


class _Reader(Protocol):
    def __call__(self, blue_first_HWC: np.ndarray) -> _Lines:
        """Read an image whose colours come in the order blue, green, red."""


class ImageText:
    """How loading reads the text in one image: as bytes of UTF-8, a line for each line in the image.

    An image without text gives a single space: a cell is never empty.
    """

    nothing: ClassVar[str] = "no text in it"
    suffixes: ClassVar[tuple[str, ...]] = ()
    ragged: ClassVar[bool] = True
    shape: tuple[int, ...] = (1,)
    dtype: torch.dtype = torch.uint8

    @property
    def identity(self) -> str:
        """The key of its cells in a store."""
        return f"text in images {VERSION} {importlib.metadata.version('rapidocr')}"

    def prepare(self, media: Media) -> Cell:
        """Read the text in an image. Raises `BadCell` if it is broken or cut short.

        Raises `Unread` if the networks cannot be loaded: then it says nothing about the image.
        """
        pixels_HWC = decode_whole(media.content, LONGEST_SIDE)
        blue_first_HWC = np.ascontiguousarray(pixels_HWC[:, :, ::-1])
        with _one_at_a_time:
            try:
                reader = _reader()
            except Exception as error:  # of ONNX Runtime, or of files that are not there
                raise Unread(f"{NOT_LOADED}: {error}") from None
            lines = reader(blue_first_HWC).txts or ()
        text = "\n".join(lines) or " "
        return Cell(np.frombuffer(text.encode(), dtype=np.uint8))


def check_installed(column: str) -> None:
    """Raise `RecipeError` if the text in the images of a column is to be read and a package is missing."""
    for package, name in PACKAGES.items():
        if importlib.util.find_spec(package) is None:
            raise RecipeError(f"column '{column}': reading the text in images needs {name}: {REMEDY}")


@cache
def _reader() -> _Reader:
    """Load the networks, which come inside the package: nothing is fetched."""
    from rapidocr import RapidOCR

    engine: _Reader = RapidOCR(params={"Global.log_level": "critical"})
    return engine
