"""Count all paths of a CTC output, one by one."""

from __future__ import annotations

import itertools
import math

import numpy as np


def texts_of(log_p: np.ndarray) -> dict[tuple[int, ...], float]:
    """Return the probability of every text: the sum over all paths that write it."""
    steps, symbols = log_p.shape
    probabilities: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(symbols), repeat=steps):
        # A symbol is written unless it is the blank, 0, or the same as the one before.
        text = tuple(i for i, before in zip(path, (0, *path), strict=False) if i not in (0, before))
        log_probability = sum(log_p[t, i] for t, i in enumerate(path))
        probabilities[text] = probabilities.get(text, 0.0) + math.exp(log_probability)
    return probabilities
