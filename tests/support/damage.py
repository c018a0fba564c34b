"""Damage files as disks and strangers do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from plait.runs import files

POSITIONS = 200  # flipped bytes of a kind of file


def flips(path: Path, count: int = POSITIONS, seed: int = 0) -> Iterator[int]:
    """Flip one byte after the other, at random positions, and yield where. Restore the file at the end."""
    whole = path.read_bytes()
    rng = np.random.default_rng(seed)
    for position in rng.integers(0, len(whole), count).tolist():
        damaged = bytearray(whole)
        damaged[position] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        yield position
    path.write_bytes(whole)


def forge(path: Path, **entries: Any) -> None:
    """Change entries of a JSON file of a run as a stranger does: with the right checksum."""
    content = {**json.loads(path.read_text()), **entries}
    del content["checksum"]
    files.write_checked(path, content)
