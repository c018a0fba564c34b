"""Mel scales, and the triangles that weigh frequencies into their bands."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Scale = Literal["slaney", "htk"]


@lru_cache(8)
def mel_triangles(
    rate: int, width: int, bands: int, lowest: float, highest: float, scale: Scale = "slaney"
) -> Tensor:
    """Return the triangles that weigh the frequencies of a spectrum into bands, (width // 2 + 1, bands).

    `width` is the number of samples in a spectrum; `lowest` and `highest` are in Hz. With `slaney`, mel scale
    and triangles are those of Slaney's Auditory Toolbox (1998), each triangle of area one. With `htk` they
    are those of the Hidden Markov Model Toolkit, each triangle of height one.
    """
    # each band rises from one edge to the next and falls to the one after that
    if scale == "htk":
        edges = _hertz_of_htk(np.linspace(_mel_of_htk(lowest), _mel_of_htk(highest), bands + 2))
    else:
        edges = _hertz(np.linspace(_mel(lowest), _mel(highest), bands + 2))
    frequencies = np.arange(width // 2 + 1) * rate / width
    distances = np.diff(edges)
    rising = (frequencies[:, None] - edges[:-2]) / distances[:-1]
    falling = (edges[2:] - frequencies[:, None]) / distances[1:]
    triangles = np.minimum(rising, falling).clip(0)
    if scale == "slaney":
        triangles *= 2 / (edges[2:] - edges[:-2])  # gives each triangle an area of one
    return torch.from_numpy(triangles.astype(np.float32))


def _mel_of_htk(hertz: float) -> float:
    """Convert Hz to the mel scale of HTK."""
    return 2595 * float(np.log10(1 + hertz / 700))


def _hertz_of_htk(mel: np.ndarray) -> np.ndarray:
    """Convert the mel scale of HTK to Hz."""
    return 700 * (10 ** (mel / 2595) - 1)


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
