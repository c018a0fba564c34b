"""Spell words in tones: a tiny language to transcribe and to speak."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from support.media import wav, wave

TONES = {"a": 400, "b": 900, "c": 2000}


def tones(folder: Path, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Write recordings of two to four tones. Return rows with their letters."""
    rng = np.random.default_rng(seed)
    pause = np.zeros(960, np.float32)
    rows = []
    for i in range(count):
        letters = "".join(rng.choice(list(TONES), int(rng.integers(2, 5))))
        stretches = []
        for letter in letters:
            stretches += [wave(0.16, TONES[letter], seed=i), pause]
        file = folder / f"{seed}-{i}.wav"
        file.write_bytes(wav(np.concatenate(stretches)))
        rows.append({"sound": file.name, "said": letters})
    return rows
