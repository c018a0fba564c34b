"""A tiny model of all kinds of columns, for attacks on a service."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

import plait
from support.media import clip, wav, wave
from support.tables import FAST, make_rows

MEDIA = ("photo", "call", "clip")
PLAIN = ("text", "price", "shop", "day", "place")
GOOD: dict[str, Any] = {
    "text": "there is a leaf near house number 7",
    "price": 1.1,
    "shop": "north",
    "day": "2024-02-12",
    "place": [1.0, 2.0, 0.5],
}
OPTIONS = [
    *FAST,
    "modalities.video.size=16",
    "modalities.video.frames=4",
    "modalities.audio.bands=16",
]


def train(folder: Path) -> Path:
    """Train a model on images, recordings, videos with sound, texts and plain columns. Return its folder.

    Photos and texts also share a space. There is an index of them where the package for that is installed.
    """
    rows = make_rows(folder)
    for number, row in enumerate(rows):
        kind = number % 3
        sound = wave(0.3, 300 * (1 + kind), seed=number)
        (folder / f"{number}.wav").write_bytes(wav(sound))
        grey = 40 + 70 * kind

        def draw(step: int, size: tuple[int, int], grey: int = grey) -> np.ndarray:
            return np.full((size[1], size[0], 3), grey, np.uint8)

        (folder / f"{number}.mp4").write_bytes(clip(8, sound=sound, draw=draw))
        row |= {
            "call": f"{number}.wav",
            "clip": f"{number}.mp4",
            "day": f"2024-0{1 + kind}-{10 + number % 15}",
        }
        row["place"] = [float(kind), float(number % 5), 0.5]
    run = folder / "run"
    model = plait.fit(
        rows,
        "label",
        align=["photo", "text"],
        root=folder,
        out=run,
        quality="network",
        overrides=OPTIONS,
        quiet=True,
    )
    if importlib.util.find_spec("lancedb"):
        model.index(rows, root=folder)
    return run
