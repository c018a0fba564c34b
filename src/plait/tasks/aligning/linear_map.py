"""Map two columns into one space by linear maps in closed form, so that cosines rank as likelihoods do.

N rows, D width of a column's vectors, R its principal directions, S dimensions of the space.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from plait.tasks.aligning import ranking

DIMENSIONS = 192  # pairs of canonical directions that a map has, at most
TOGETHER = 768  # dimensions of all maps of an alignment, at most
LEAST_DIMENSIONS = 16
LIFTS = 3  # further dimensions of a map, see `PairMap`

MAX_DIRECTIONS = 384  # principal directions of a column
MAX_CORRELATION = 0.999
RADIUS = 4.0  # mean squares of the coordinates that the squared radius of the sphere is
FILLED = 0.95  # share of the training cells that are filled up to one length, and not shortened

# Candidates for the strength of the penalty, in units of a column's mean variance in a direction.
STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
USUAL_STRENGTH = 1.0  # where there are too few rows to choose
FOLDS = 5
MIN_ROWS = 16  # with both columns that a map needs
MIN_FOLD = 8  # rows of a fold, below which nothing is chosen
TINY = 1e-9


@dataclass
class ColumnVectors:
    """Vectors of a column that training does not change, (N, D), and which rows have a cell, (N,).

    `blocks` are the places of numbers of one kind, such as an embedding or durations. What no block holds
    is not read.
    """

    x_ND: Tensor
    present_N: Tensor
    blocks: list[slice]


class PairMap(nn.Module):
    """The linear maps of two columns, and the sphere that they end on, (N, S + 3).

    Canonical correlation gives both columns coordinates u and v, of variance 1, that correlate by r in each
    dimension (Hotelling 1936). Under a normal distribution, the logarithm of how much more likely two cells
    are together than apart is a b - r (a^2 + b^2) / 2, where a = u sqrt(r / (1 - r^2)), and b of v likewise.
    Where r is near 1 it is a distance: a length tells cells apart by how near it is, not by its direction.

    Three more coordinates turn this into a cosine. The first is sqrt(M - r a^2), whose products are about
    M - r (a^2 + b^2) / 2. The other two, of which each column has one, fill all vectors up to one length.
    Vectors that are too long for the sphere are shortened.
    """

    def __init__(self, widths: tuple[int, int], dimensions: int) -> None:
        super().__init__()
        self.width = dimensions + LIFTS
        self.correlation: Tensor
        self.radius: Tensor
        self.slack: Tensor
        for side, width in enumerate(widths):
            self.register_buffer(f"weight_{side}", torch.zeros(dimensions, width))
            self.register_buffer(f"bias_{side}", torch.zeros(dimensions))
        self.register_buffer("correlation", torch.zeros(dimensions))
        self.register_buffer("radius", torch.zeros(()))
        self.register_buffer("slack", torch.zeros(()))

    @property
    def is_fitted(self) -> bool:
        """Return whether there were rows enough to fit it."""
        return bool(self.radius > 0)

    def forward(self, x_ND: Tensor, side: int) -> Tensor:
        """Return unit vectors (N, S + 3) of the column numbered `side`; zeros if nothing is fitted."""
        # Autocast would compute in half precision, in which near lengths are the same.
        with torch.autocast(x_ND.device.type, enabled=False):
            weight, bias = self.get_buffer(f"weight_{side}"), self.get_buffer(f"bias_{side}")
            a_NS = x_ND.float() @ weight.T + bias
            return self._on_sphere(a_NS, side)

    def _on_sphere(self, a_NS: Tensor, side: int) -> Tensor:
        """Lift coordinates to unit vectors, see above."""
        inner_N = (a_NS.square() * self.correlation).sum(1)
        outer_N = (a_NS.square() * (1 - self.correlation)).sum(1)
        shrink_N = torch.minimum(_ratio(self.radius, inner_N), _ratio(self.slack, outer_N)).clamp(max=1)
        a_NS = a_NS * shrink_N.sqrt()[:, None]

        height_N = (self.radius - inner_N * shrink_N).clamp(min=0).sqrt()
        filled_N = (self.slack - outer_N * shrink_N).clamp(min=0).sqrt()
        empty_N = torch.zeros_like(filled_N)
        fills = [filled_N, empty_N] if side == 0 else [empty_N, filled_N]
        vectors = torch.cat([a_NS, torch.stack([height_N, *fills], 1)], 1)
        return vectors / (self.radius + self.slack).clamp(min=TINY).sqrt()

    @torch.no_grad()
    def set(self, coordinates: tuple[Coordinates, Coordinates], correlation_S: Tensor) -> None:
        """Take over fitted coordinates, and choose the sphere by those of the training rows."""
        dimensions = len(correlation_S)
        self.correlation[:dimensions] = correlation_S
        inner, outer = [], []
        for side, fitted in enumerate(coordinates):
            self.get_buffer(f"weight_{side}")[:dimensions] = fitted.weight_SD.float()
            self.get_buffer(f"bias_{side}")[:dimensions] = fitted.bias_S.float()
            square_NS = fitted.a_NS.float().square()
            inner.append((square_NS * correlation_S).sum(1))
            outer.append((square_NS * (1 - correlation_S)).sum(1))
        self.radius.copy_(RADIUS * torch.cat(inner).mean())
        self.slack.copy_(torch.cat(outer).quantile(FILLED))


@dataclass
class Coordinates:
    """A fitted linear map of a column: weights (S, D), bias (S,), and coordinates of training rows (N, S)."""

    weight_SD: Tensor
    bias_S: Tensor
    a_NS: Tensor


@dataclass
class Principal:
    """A column in its principal directions: coordinates (N, R), directions (R, D), and the mean (D,)."""

    x_NR: Tensor
    direction_RD: Tensor
    mean_D: Tensor

    @classmethod
    def of(cls, vectors: ColumnVectors) -> Principal:
        """Find the principal directions over present rows, in which each block has a total variance of 1."""
        x_ND = vectors.x_ND.double()
        present_ND = x_ND[vectors.present_N]
        mean_D = present_ND.mean(0)
        variance_D = (present_ND - mean_D).square().mean(0)
        scale_D = torch.zeros_like(mean_D)
        for block in vectors.blocks:
            total = variance_D[block].sum()
            scale_D[block] = 1 / total.sqrt() if total > TINY else 0.0

        scaled_ND = (present_ND - mean_D) * scale_D
        values_D, direction_DD = torch.linalg.eigh(scaled_ND.T @ scaled_ND / len(scaled_ND))
        count = min(MAX_DIRECTIONS, int((values_D > TINY).sum()))
        direction_RD = direction_DD[:, len(values_D) - count :].T * scale_D
        return cls((x_ND - mean_D) @ direction_RD.T, direction_RD, mean_D)


def dimensions_of(pairs: int) -> int:
    """Return the dimensions of each map, for so many pairs of columns."""
    return min(DIMENSIONS, max(TOGETHER // max(pairs, 1), LEAST_DIMENSIONS))


def fit_pair(
    pair: PairMap, columns: tuple[Principal, Principal], both_N: Tensor, ids: np.ndarray, group: np.ndarray
) -> bool:
    """Fit the maps of two columns on the rows that have both. Return False where there are too few.

    Folds of these rows choose the strength of the penalty. `ids` (N, 2) are those of the cells; rows of one
    `group` (N,) are in one fold.
    """
    rows = both_N.nonzero()[:, 0]
    if len(rows) < MIN_ROWS or not all(column.x_NR.shape[1] for column in columns):
        return False
    x, z = (column.x_NR[rows] for column in columns)
    strength = _best_strength(x, z, ids[rows.numpy()], group[rows.numpy()], len(pair.correlation))
    maps, correlation = _canonical(x, z, strength, len(pair.correlation))
    coordinates = []
    for column, fitted in zip(columns, maps, strict=True):
        weight_SD = fitted.weight_SD @ column.direction_RD
        coordinates.append(Coordinates(weight_SD, fitted.bias_S - weight_SD @ column.mean_D, fitted.a_NS))
    pair.set((coordinates[0], coordinates[1]), correlation.float())
    return True


def _best_strength(x: Tensor, z: Tensor, ids: np.ndarray, group: np.ndarray, dimensions: int) -> float:
    """Return the strength with the best mean reciprocal rank on held-out folds, in both directions."""
    fold_N = _folds(group)
    if fold_N is None:
        return USUAL_STRENGTH

    scores = np.zeros(len(STRENGTHS))
    for fold in range(FOLDS):
        train = torch.from_numpy(fold_N != fold)
        held = torch.from_numpy(fold_N == fold)
        whitened = _Whitened(x[train], z[train])
        held_ids = ids[fold_N == fold]
        for number, strength in enumerate(STRENGTHS):
            maps, correlation = whitened.canonical(strength, dimensions)
            pair = PairMap((x.shape[1], z.shape[1]), len(correlation))
            pair.set(maps, correlation.float())
            scores[number] += mean_reciprocal_rank(pair(x[held], 0), pair(z[held], 1), held_ids)
    return STRENGTHS[int(scores.argmax())]


def mean_reciprocal_rank(first: Tensor, second: Tensor, ids: np.ndarray) -> float:
    """Return the mean of `reciprocal_ranks`."""
    return float(reciprocal_ranks(first, second, ids).mean())


def reciprocal_ranks(first: Tensor, second: Tensor, ids: np.ndarray) -> np.ndarray:
    """Return the mean of both directions for each row, (N,), from unit vectors and the ids of the cells."""
    x, z = first.numpy(), second.numpy()
    forth = ranking.ranks(x, z, ids, ids)
    back = ranking.ranks(z, x, ids, ids)
    mean_N: np.ndarray = (1 / forth + 1 / back) / 2
    return mean_N


def _folds(group: np.ndarray) -> np.ndarray | None:
    """Deal groups of rows into folds, (N,). Return None where that leaves a fold nearly empty."""
    names, number_N = np.unique(group, return_inverse=True)
    fold_of_group = np.random.default_rng(0).permutation(len(names)) % FOLDS
    fold_N = fold_of_group[number_N]
    smallest = np.bincount(fold_N, minlength=FOLDS).min()
    return fold_N if smallest >= MIN_FOLD else None


def _canonical(
    x: Tensor, z: Tensor, strength: float, dimensions: int
) -> tuple[tuple[Coordinates, Coordinates], Tensor]:
    """Return the maps of both columns to their canonical coordinates, and the correlations (S,)."""
    return _Whitened(x, z).canonical(strength, dimensions)


class _Whitened:
    """Two columns in the directions of their covariances, which any strength of the penalty shares."""

    def __init__(self, x: Tensor, z: Tensor) -> None:
        self.means = (x.mean(0), z.mean(0))
        self.x, self.z = x - self.means[0], z - self.means[1]
        self.spectra = []
        for centred in (self.x, self.z):
            values_R, vectors_RR = torch.linalg.eigh(centred.T @ centred / len(centred))
            self.spectra.append((values_R.clamp(min=0), vectors_RR))
        self.cross = self.x.T @ self.z / len(self.x)

    def canonical(self, strength: float, dimensions: int) -> tuple[tuple[Coordinates, Coordinates], Tensor]:
        """Whiten with a penalty, and take the singular vectors of what remains of the cross-covariance."""
        whitening = []
        for values_R, vectors_RR in self.spectra:
            penalty = strength * values_R.mean() + TINY
            whitening.append(vectors_RR / (values_R + penalty).sqrt())
        left, right = whitening
        u, correlation, vh = torch.linalg.svd(left.T @ self.cross @ right, full_matrices=False)
        correlation = correlation[:dimensions].clamp(max=MAX_CORRELATION)
        scale = (correlation / (1 - correlation.square())).sqrt()
        x_map = (left @ u[:, :dimensions] * scale).T
        z_map = (right @ vh[:dimensions].T * scale).T
        maps = (
            Coordinates(x_map, -x_map @ self.means[0], self.x @ x_map.T),
            Coordinates(z_map, -z_map @ self.means[1], self.z @ z_map.T),
        )
        return maps, correlation


def _ratio(limit: Tensor, square_N: Tensor) -> Tensor:
    return limit / square_N.clamp(min=TINY)
