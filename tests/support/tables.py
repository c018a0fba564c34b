"""Make tiny tables from a seed."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from plait.data.arguments import recipe_from
from plait.data.plan import Plan
from plait.table.conventions.infer import infer_convention
from plait.table.read import read
from plait.table.typed import read_cells

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
    """Return rows of an image of one colour, a text, a number and a shop; the label is the colour.

    The images are written into `folder`.
    """
    rng = np.random.default_rng(seed)
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(count):
        number = i % 3
        colour = list(COLOURS)[number]
        noise = rng.normal(0, 12, (20, 20, 3))
        pixels = np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8)
        photo = f"photos/{seed}-{i}.png"
        Image.fromarray(pixels).save(folder / photo)

        word = {"red": "cherry", "green": "leaf", "blue": "sky"}[colour]
        rows.append(
            {
                "photo": photo,
                "text": f"there is a {word} near house number {int(rng.integers(1000))}",
                "price": round(float(rng.normal(number, 0.5)), 3),
                "shop": ["north", "south"][int(rng.integers(2))],
                "label": colour,
            }
        )
    return rows


def typed_cells(source: object) -> dict[str, list[Any]]:
    """Read a source, and each column by the convention of its cells."""
    table = read(source)
    conventions = {}
    for name in table.data.column_names:
        conventions[name] = infer_convention(table.data.column(name)).convention
    typed = read_cells(table, conventions)
    return {name: typed.data.column(name).to_pylist() for name in table.data.column_names}


def planned_cells(source: object, column: str, **arguments: Any) -> list[Any]:
    """Return a column of a table as a model that predicts its column `label` reads it."""
    table = read(source)
    plan = Plan.make(table, recipe_from(None, **arguments), "label")
    cells: list[Any] = plan.read(table).data.column(column).to_pylist()
    return cells
