"""Words spelled in tones: a tiny language to transcribe and to speak."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from support.media import wav, wave

TONES = {"a": 400, "b": 900, "c": 2000}


def tones(folder: Path, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Recordings of two to four tones, and their letters."""
    rng, rows = np.random.default_rng(seed), []
    for i in range(count):
        letters = "".join(rng.choice(list(TONES), int(rng.integers(2, 5))))
        parts = [np.concatenate([wave(0.16, TONES[x], seed=i), np.zeros(960, np.float32)]) for x in letters]
        (folder / f"{seed}-{i}.wav").write_bytes(wav(np.concatenate(parts)))
        rows.append({"sound": f"{seed}-{i}.wav", "said": letters})
    return rows
