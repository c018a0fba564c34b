"""Scanned digits with a true clue about each: 1,797 pictures of 8 x 8 pixels (scikit-learn's
`load_digits`, from the UCI repository), the lower half of each torn off, beside a sentence such as "it
is odd". Comes with scikit-learn: no network.

The scans are real. The clues are drawn with a fixed seed from true statements about the digit; half of
a picture and a clue together say more than either.
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
    """The table `digits.csv` in the cache folder, with its pictures beside it, made on the first call."""
    from sklearn.datasets import load_digits

    table = cache / "digits.csv"
    if table.is_file():
        return table
    (cache / "digits").mkdir(parents=True, exist_ok=True)
    data = load_digits()
    rng = np.random.default_rng(0)
    rows = []
    for i, (pixels, digit) in enumerate(zip(data.images, data.target, strict=True)):
        upper = pixels.copy()
        upper[4:] = 0
        name = f"digits/{i:04d}.png"
        Image.fromarray((255 - upper * 15.9375).astype(np.uint8)).resize(
            (32, 32), Image.Resampling.NEAREST
        ).save(cache / name)
        true = [clue for clue, digits in CLUES.items() if digit in digits]
        side = ("train", "train", "train", "valid", "test")[int(rng.integers(5))]
        rows.append(
            {"picture": name, "clue": true[int(rng.integers(len(true)))], "digit": str(digit), "split": side}
        )
    write(pa.Table.from_pylist(rows), table)
    return table
