"""Example cells for modalities. A modality gets those that it recognises."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from plait.modalities.base import Modality
from plait.nn.batch import Loaded
from plait.table.conventions.base import Reading
from plait.table.conventions.infer import infer_convention
from plait.table.table import Source
from support.components import component, component_names, configured
from support.media import clip, wav, wave

SMALL = {"size": 24, "frames": 4, "bands": 16}  # options that make a modality faster
SOURCE = Source("column", Path.cwd())


@dataclass(frozen=True)
class Example:
    """Eight cells. Row 2 is missing. `bad` rows are problems, `absent` ones hold nothing to read.

    A modality gets them as the convention of the good cells reads them.
    """

    cells: list[Any]
    bad: tuple[int, ...] = ()
    absent: tuple[int, ...] = (2,)

    @property
    def reading(self) -> Reading:
        cells = pa.chunked_array([pa.array(self.cells)])
        convention = infer_convention(cells.take(self._good_rows())).convention
        return convention.read(cells)

    @property
    def column(self) -> pa.ChunkedArray:
        return self.reading.cells

    @property
    def good(self) -> pa.ChunkedArray:
        """The cells that can be read."""
        return self.column.take(self._good_rows())

    def _good_rows(self) -> list[int]:
        unreadable = {*self.bad, *self.absent}
        return [row for row in range(len(self.cells)) if row not in unreadable]


@cache
def examples() -> list[Example]:
    """Return cells of each form. Add eight for a modality that recognises none of them."""
    images = [png(0), png(1), None, png(3), png(4), b"this is no image", png(6), png(7)]
    audio = [
        wav(wave(0.3, 300)),
        wav(wave(0.5, 500)),
        None,
        wav(wave(0.2), kind="FLAC"),
        wav(wave(0.4, 900)),
        b"RIFF but no more",
        wav(wave(0.1)),
        wav(wave(0.25), 8000),
    ]
    videos = [
        clip(3),
        clip(12),
        None,
        clip(1),
        clip(9, "webm", "libvpx"),
        clip(9)[:900],
        clip(24),
        clip(4, sound=wave(0.2)),
    ]
    texts = ["a red apple", "ein grüner Baum", None, "北京的天空", "مرحبا بالعالم", "", "🍎🍏 apples", "a"]
    numbers = [1.0, -2.5, None, 1e9, 0.0, float("inf"), 3.0, 4.0]
    days = ["2024-01-31", "2024-02-29", None, "2025-12-24", "2020-06-15", "yesterday"]
    vectors = [[1.0, 2.0, 3.0], [0.5, 0.1, 0.2], None, [3.0, 1.0, 4.0], [1.0, 5.0, 9.0], [1.0]]
    return [
        categories(),
        Example(images, bad=(5,)),
        Example(audio, bad=(5,)),
        Example(videos, bad=(5,)),
        Example(texts, absent=(2, 5)),
        Example(numbers, bad=(5,)),
        Example([*days, "2021-03-04", "2022-11-11"], bad=(5,)),
        Example([*vectors, [2.0, 6.0, 5.0], [3.0, 5.0, 8.0]], bad=(5,)),
    ]


def categories() -> Example:
    return Example(["a", "b", None, "a", "c", "b", "a", "b"])


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def modality_of(example: Example) -> str:
    """Return the modality that recognises these cells with the most certainty."""
    certainties = {}
    for name in component_names("modalities"):
        match = component("modalities", name).matches(example.good, SOURCE)
        certainties[name] = match.score if match else 0.0
    return max(certainties, key=lambda name: certainties[name])


@cache
def example_of(name: str) -> Example:
    """Return the cells that are taken for this modality; categories for one that recognises none."""
    for example in examples():
        if modality_of(example) == name:
            return example
    return categories()


def small_config(name: str, options: dict[str, Any] | None = None) -> Any:
    """Return the options of a modality, with settings that make it fast."""
    fields = component("modalities", name).options.model_fields
    small = {option: setting for option, setting in SMALL.items() if option in fields}
    return configured("modalities", name, {**small, **(options or {})})


def fit_modality(name: str, options: dict[str, Any] | None = None) -> Modality:
    """Return a modality that is fitted on its example."""
    cells = example_of(name).column
    modality: Modality = component("modalities", name).fit(small_config(name, options), cells)
    return modality


def load(modality: Modality, cells: pa.ChunkedArray) -> Loaded:
    return modality.load(cells, SOURCE)
