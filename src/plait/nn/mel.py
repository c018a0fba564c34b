"""The mel scale, and the triangles that weigh frequencies into its bands."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


@lru_cache(8)
def mel_triangles(rate: int, width: int, bands: int, lowest: float, highest: float) -> Tensor:
    """Return the triangles that weigh the frequencies of a spectrum into bands, (width // 2 + 1, bands).

    `width` is the number of samples in a spectrum; `lowest` and `highest` are in Hz. Mel scale and triangles
    are Slaney's (Auditory Toolbox, 1998), each triangle of area one.
    """
    # each band rises from one edge to the next and falls to the one after that
    edges = _hertz(np.linspace(_mel(lowest), _mel(highest), bands + 2))
    frequencies = np.arange(width // 2 + 1) * rate / width
    distances = np.diff(edges)
    rising = (frequencies[:, None] - edges[:-2]) / distances[:-1]
    falling = (edges[2:] - frequencies[:, None]) / distances[1:]
    height = 2 / (edges[2:] - edges[:-2])  # gives each triangle an area of one
    triangles = np.minimum(rising, falling).clip(0) * height
    return torch.from_numpy(triangles.astype(np.float32))


def _mel(hertz: float) -> float:
    """Convert Hz to Slaney's mel scale, linear up to 1000 Hz and logarithmic above."""
    if hertz < 1000:
        return hertz * 3 / 200
    return 15 + float(np.log(hertz / 1000)) * 27 / float(np.log(6.4))


def _hertz(mel: np.ndarray) -> np.ndarray:
    """Convert Slaney's mel scale to Hz: the inverse of `_mel`."""
    linear = mel * 200 / 3
    logarithmic = 1000 * np.exp((mel - 15) * np.log(6.4) / 27)
    return np.where(mel < 15, linear, logarithmic)
