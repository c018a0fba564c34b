"""Tiny tables made on the spot, from a seed."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COLOURS = {"red": (220, 40, 40), "green": (40, 180, 40), "blue": (40, 40, 220)}
FAST = [
    "training.epochs=3",
    "training.precision=fp32",
    "modalities.image.size=16",
    "columns.photo.encoder={name: cnn, channels: [4, 8], pool: mean}",
]


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def make_rows(folder: Path, count: int = 48, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of a picture of one colour, a sentence, a number and a shop; the label is the colour.
    Pictures are written.
    """
    rng = np.random.default_rng(seed)
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(count):
        colour = list(COLOURS)[i % 3]
        pixels = np.clip(np.array(COLOURS[colour]) + rng.normal(0, 12, (20, 20, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{seed}-{i}.png")
        word = {"red": "cherry", "green": "leaf", "blue": "sky"}[colour]
        rows.append(
            {
                "photo": f"photos/{seed}-{i}.png",
                "text": f"there is a {word} near house number {int(rng.integers(1000))}",
                "price": round(float(rng.normal(list(COLOURS).index(colour), 0.5)), 3),
                "shop": ["north", "south"][int(rng.integers(2))],
                "label": colour,
            }
        )
    return rows
