"""All paths of a CTC output, counted one by one."""

from __future__ import annotations

import itertools
import math

import numpy as np


def texts_of(log_p: np.ndarray) -> dict[tuple[int, ...], float]:
    """The probability of every text: the sum over all paths that write it."""
    found: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(log_p.shape[1]), repeat=len(log_p)):
        text = tuple(i for i, before in zip(path, (0, *path), strict=False) if i not in (0, before))
        found[text] = found.get(text, 0.0) + math.exp(sum(log_p[t, i] for t, i in enumerate(path)))
    return found
