"""Scanned digits, each with a true clue: 1,797 images of 8 x 8 pixels (the UCI repository's digits).

The lower half of each image is cut off; the clue is a text such as "it is odd". The images are scikit-learn's
`load_digits`, so no network is needed. The scans are real. The clues are drawn with a fixed seed from true
statements about the digit. Half of an image and a clue together say more than either.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from plait.table.write import write

TARGET = "digit"


ABOUT = "the upper halves of scanned digits, each with a true clue in words (clues drawn at random, seed 0)"


INPUTS = {"picture": ["picture"], "clue": ["clue"]}


OVERRIDES = ("modalities.image.size=32", "modalities.image.flip=false", "columns.clue.modality=text")


CLUES = {
    "it is odd": (1, 3, 5, 7, 9),
    "it is even": (0, 2, 4, 6, 8),
    "it is greater than five": (6, 7, 8, 9),
    "it is less than four": (0, 1, 2, 3),
    "it is a prime number": (2, 3, 5, 7),
    "it is a square": (0, 1, 4, 9),
    "it can be divided by three": (0, 3, 6, 9),
    "it lies between three and seven": (4, 5, 6),
}


def fetch(cache: Path) -> Path:
    """Return the table `digits.csv` in the cache folder, with its images beside it.

    It is made on the first call.
    """
    from sklearn.datasets import load_digits

    table = cache / "digits.csv"
    if table.is_file():
        return table
    (cache / "digits").mkdir(parents=True, exist_ok=True)
    digits = load_digits()
    rng = np.random.default_rng(0)
    rows = []
    for number, (pixels, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        name = f"digits/{number:04d}.png"
        _draw_upper_half(pixels).save(cache / name)
        true_clues = [clue for clue, applies_to in CLUES.items() if digit in applies_to]
        side = ("train", "train", "train", "valid", "test")[int(rng.integers(5))]
        clue = true_clues[int(rng.integers(len(true_clues)))]
        rows.append({"picture": name, "clue": clue, "digit": str(digit), "split": side})
    write(pa.Table.from_pylist(rows), table)
    return table


def _draw_upper_half(ink: np.ndarray) -> Image.Image:
    """Draw a digit of 8 x 8 pixels, ink from 0 to 16, in grey on white. Leave its lower half blank."""
    upper = ink.copy()
    upper[4:] = 0
    grey = 255 - upper * (255 / 16)
    return Image.fromarray(grey.astype(np.uint8)).resize((32, 32), Image.Resampling.NEAREST)
