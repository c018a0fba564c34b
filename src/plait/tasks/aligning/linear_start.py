"""Project a column's vectors into the space that columns share, starting at a fitted linear map.

N rows, D width of a column's vectors, S width of the space.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from plait.nn.layers import Dropout, glorot

# Candidates for the strength of ridge regression.
STRENGTHS = tuple(10.0**exponent for exponent in range(-3, 5))

# Share of the learning rate for a projection that starts at a fitted map.
SLOWER = 0.25

# Rows with both columns that a map needs.
MIN_ROWS = 16


class Projection(nn.Module):
    """A linear map, plus a network with one layer of `hidden` units (none if 0).

    The network's output begins at zero, so that training starts at the linear map. `first` is a frozen copy
    of the map that training started at. It is zero if no map was fitted.
    """

    def __init__(self, width: int, hidden: int, space: int, dropout: float) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.rate = 1.0
        self.linear = nn.Linear(width, space)
        self.first = nn.Linear(width, space)
        self.first.requires_grad_(False)
        for parameter in self.first.parameters():
            nn.init.zeros_(parameter)
        glorot(self.linear)

        self.hidden = None
        if hidden:
            into = nn.Linear(width, hidden)
            out = nn.Linear(hidden, space, bias=False)
            self.hidden = nn.Sequential(into, nn.GELU(), nn.LayerNorm(hidden), out)
            glorot(self.hidden)
            nn.init.zeros_(out.weight)

    def forward(self, x_BD: Tensor) -> Tensor:
        """Return vectors of the space, (B, S)."""
        x_BD = self.dropout(x_BD)
        output_BS: Tensor = self.linear(x_BD)
        if self.hidden is not None:
            output_BS = output_BS + self.hidden(x_BD)
        return output_BS

    @torch.no_grad()
    def begin(self, weight_SD: np.ndarray, bias_S: np.ndarray, start: int = 0) -> None:
        """Set the linear map of the entries from `start` on.

        A map of the whole vector is trained at a quarter of the learning rate from then on.
        """
        weight, bias = torch.from_numpy(weight_SD), torch.from_numpy(bias_S)
        self.rate = 1.0 if start else SLOWER
        for layer in (self.linear, self.first):
            layer.weight[:, start:].copy_(weight)
            layer.bias.copy_(bias)

    def rates(self) -> Iterable[tuple[Tensor, float]]:
        """Return parameters with their share of the recipe's learning rate."""
        return ((parameter, self.rate) for parameter in self.parameters())


def linear_maps(
    vectors: dict[str, np.ndarray], present: dict[str, np.ndarray], space: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return weights (S, D) and bias (S,) of a map into one space for each column.

    `vectors` holds (N, D) for each column, and `present` (N,) is True where a row has the column.

    Each column gets its own dimensions of the space. There, the column's coordinates are its principal
    components. Every other column's coordinates are the predictions of these components by ridge
    regression. So the cosine of two columns is the mean of three agreements: of each prediction with the
    true components, and of both predictions of third columns. On small tables this is hard to beat.
    """
    from sklearn.decomposition import PCA

    columns = list(vectors)
    dimensions = space // len(columns)
    maps = {}
    for column in columns:
        width = vectors[column].shape[1]
        weight_SD = np.zeros((space, width), np.float32)
        bias_S = np.zeros(space, np.float32)
        maps[column] = (weight_SD, bias_S)

    for number, target in enumerate(columns):
        target_vectors = vectors[target][present[target]]

        # N vectors, less their mean, span N - 1 dimensions at most.
        width = min(dimensions, target_vectors.shape[1], len(target_vectors) - 1)
        if width < 1:
            continue
        start = number * dimensions
        of_target = slice(start, start + width)
        pca = PCA(width, svd_solver="randomized", random_state=0).fit(target_vectors)
        for column in columns:
            both = present[column] & present[target]
            if column == target:
                weight = pca.components_
                bias = -pca.components_ @ pca.mean_
            elif both.sum() < MIN_ROWS:
                continue
            else:
                components = pca.transform(vectors[target][both])
                weight, bias = ridge(vectors[column][both], components)

            # All maps into these dimensions weigh the same in a cosine.
            mapped = vectors[column][both] @ weight.T + bias
            mean_squared_length = (mapped**2).sum(1).mean()
            length = max(np.sqrt(mean_squared_length), 1e-12)
            weight_SD, bias_S = maps[column]
            weight_SD[of_target] = weight / length
            bias_S[of_target] = bias / length
    return maps


def ridge(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit y (N, E) from x (N, D) by ridge regression. Return weights (E, D) and bias (E,).

    The strength is chosen by leave-one-out errors.
    """
    from sklearn.linear_model import RidgeCV

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = RidgeCV(STRENGTHS).fit(x, y)
    # of one column of `y`, scikit-learn returns one vector and one number
    columns = y.shape[1]
    return model.coef_.reshape(columns, -1), np.reshape(model.intercept_, columns)
