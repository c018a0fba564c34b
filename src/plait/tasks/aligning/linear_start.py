"""From a column's own vectors into a space that columns share. N rows, D width of a column's vectors, S
width of the space.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from plait.nn.layers import Dropout, glorot

STRENGTHS = tuple(10.0**k for k in range(-3, 5))


SLOWER = 0.25  # of the learning rate, where a fitted map is gone on with


LEAST = 16  # rows that have both columns, below which no map is fitted


class Projection(nn.Module):
    """A linear map, and beside it a layer of `hidden` units (none if 0) whose part begins at zero, so
    that what the map begins with is where training begins. `first` keeps that map as it was: zeros
    where none was fitted.
    """

    def __init__(self, width: int, hidden: int, space: int, dropout: float) -> None:
        super().__init__()
        self.dropout, self.rate = Dropout(dropout), 1.0
        self.linear, self.first = nn.Linear(width, space), nn.Linear(width, space)
        self.first.requires_grad_(False)
        for p in self.first.parameters():
            nn.init.zeros_(p)
        glorot(self.linear)
        self.hidden = None
        if hidden:
            first, last = nn.Linear(width, hidden), nn.Linear(hidden, space, bias=False)
            self.hidden = nn.Sequential(first, nn.GELU(), nn.LayerNorm(hidden), last)
            glorot(self.hidden)
            nn.init.zeros_(last.weight)

    def forward(self, x_BD: Tensor) -> Tensor:
        x_BD = self.dropout(x_BD)
        found: Tensor = self.linear(x_BD)
        return found if self.hidden is None else found + self.hidden(x_BD)

    @torch.no_grad()
    def begin(self, weight_SD: np.ndarray, bias_S: np.ndarray, start: int = 0) -> None:
        """Sets the linear map of the vector from `start` on. A map of all of it is trained more slowly
        from then on.
        """
        self.rate = 1.0 if start else SLOWER
        for map_ in (self.linear, self.first):
            map_.weight[:, start:].copy_(torch.from_numpy(weight_SD))
            map_.bias.copy_(torch.from_numpy(bias_S))

    def rates(self) -> Iterable[tuple[Tensor, float]]:
        """Parameters, and the share of the learning rate that they take."""
        return ((p, self.rate) for p in self.parameters())


def linear_maps(
    known: dict[str, np.ndarray], have: dict[str, np.ndarray], space: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For each column weights (S, D) and bias (S,) of a map into one space, from vectors (N, D) in the
    rows that `have` it.

    The space has a part for each column. There that column has its own main directions, and each other
    one what ridge regression makes of it there. So the cosine of two columns is the mean of both
    predictions' agreement with what is there, and of their predictions of third columns with each
    other; on small tables that is hard to beat, and training can only begin there.
    """
    from sklearn.decomposition import PCA

    names, part = list(known), space // len(known)
    maps = {c: (np.zeros((space, known[c].shape[1]), np.float32), np.zeros(space, np.float32)) for c in names}
    for number, to in enumerate(names):
        own = known[to][have[to]]
        width = min(part, own.shape[1], len(own) - 1)
        if width < 1:
            continue
        rows = slice(number * part, number * part + width)
        main = PCA(width, svd_solver="randomized", random_state=0).fit(own)
        for c in names:
            weight, bias = main.components_, -main.components_ @ main.mean_
            both = have[c] & have[to]
            if c != to:
                if both.sum() < LEAST:
                    continue
                weight, bias = ridge(known[c][both], main.transform(known[to][both]))
            length = np.sqrt(((known[c][both] @ weight.T + bias) ** 2).sum(1).mean())
            maps[c][0][rows], maps[c][1][rows] = weight / max(length, 1e-12), bias / max(length, 1e-12)
    return maps


def ridge(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights (of y, of x) and bias of ridge regression; the strength by leave-one-out."""
    from sklearn.linear_model import RidgeCV

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = RidgeCV(STRENGTHS).fit(x, y)
    return fitted.coef_, fitted.intercept_
