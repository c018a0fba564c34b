"""Fit a linear model on blocks of numbers, for a member and for the model that is stacked on members."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from plait.nn.eager import eager
from plait.nn.summaries import Matrix
from plait.runs.deadline import NO_LIMIT, Deadline
from plait.tasks.base_prediction import Prediction

MOST_DENSE = 2_000_000  # numbers: up to here, dense products are faster than sparse ones
MOST_ROWS = 4000  # above which a matrix of rows by rows is no longer small
STEPS = 200  # of L-BFGS, at most
SPEED = 4e10  # operations a second of one processor, in products and eigenvectors of matrices
SMALLEST = 1e-9  # of the largest eigenvalue: directions of less are rounding errors


class Space(ABC):
    """The space in which weights W are sought, for training rows X (rows, numbers).

    `width` counts the unknowns of one output.
    """

    width: int

    @abstractmethod
    def product(self, weight: Tensor) -> Tensor:
        """Return X W, in float64."""

    @abstractmethod
    def slope(self, output_slope: Tensor) -> Tensor:
        """Return the slope of the loss in W, from that in the output: X^T times it, in float64."""

    @abstractmethod
    def weights(self, weight: Tensor) -> Tensor:
        """Return the weights of the numbers themselves, (numbers, outputs)."""


def space_of(xs: list[Matrix]) -> Space:
    """Return the space with the fewest unknowns for blocks of numbers side by side."""
    width = sum(x.shape[1] for x in xs)
    rows = xs[0].shape[0]
    if rows < min(width, MOST_ROWS):
        return _AmongRows(xs)
    if any(sparse.issparse(x) for x in xs) and rows * width > MOST_DENSE:
        return _Sparse(xs)
    dense = [x.toarray() if sparse.issparse(x) else x for x in xs]
    return _Dense(np.concatenate(dense, 1, dtype=np.float32))


def space_seconds(xs: list[Matrix]) -> float:
    """Estimate the seconds of one processor that `space_of` takes."""
    width = sum(x.shape[1] for x in xs)
    rows = xs[0].shape[0]
    if rows >= min(width, MOST_ROWS):
        return 0.0
    # Products of all pairs of rows, and then their eigenvectors.
    return (2 * rows**2 * width + 9 * rows**3) / SPEED


class _Coordinates(Space):
    """A space in which the rows have the coordinates `x`, a dense matrix."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = torch.from_numpy(x)
        self.width = x.shape[1]

    def product(self, weight: Tensor) -> Tensor:
        """Return X W, in float64."""
        return (self.x @ weight.to(self.x.dtype)).double()

    def slope(self, output_slope: Tensor) -> Tensor:
        """Return X^T times the slope in the output, in float64."""
        return (self.x.T @ output_slope.to(self.x.dtype)).double()


class _Dense(_Coordinates):
    """The numbers themselves."""

    def weights(self, weight: Tensor) -> Tensor:
        """Return the weights as they are."""
        return weight


class _AmongRows(_Coordinates):
    """Weighted sums of training rows, for fewer rows than numbers.

    The best W is such a sum (Kimeldorf & Wahba 1971). So there are only as many unknowns as rows, and the
    minimum is the same.
    """

    def __init__(self, xs: list[Matrix]) -> None:
        coordinates, self._factors = _among_rows(xs)
        super().__init__(coordinates)
        self._xs = xs

    def weights(self, weight: Tensor) -> Tensor:
        """Return the sums of the training rows, by their factors."""
        factors = self._factors @ weight.numpy()
        weights = [x.T @ factors for x in self._xs]
        return torch.from_numpy(np.concatenate(weights))


class _Sparse(Space):
    """The numbers themselves, most of which are zeros in some of the blocks."""

    def __init__(self, xs: list[Matrix]) -> None:
        self._xs = xs
        self.width = sum(x.shape[1] for x in xs)

    def product(self, weight: Tensor) -> Tensor:
        """Return X W, in float64."""
        return torch.from_numpy(multiply(self._xs, weight.numpy()))

    def slope(self, output_slope: Tensor) -> Tensor:
        """Return X^T times the slope in the output, in float64."""
        # Of another precision than x, NumPy would convert x in every step.
        narrow = output_slope.float().numpy()
        slopes = [x.T @ narrow for x in self._xs]
        return torch.from_numpy(np.concatenate(slopes)).double()

    def weights(self, weight: Tensor) -> Tensor:
        """Return the weights as they are."""
        return weight


def _among_rows(xs: list[Matrix]) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows in the space that they span, and the matrix that leads back to factors of the rows.

    With X X^T = V diag(s) V^T, rows have the coordinates V sqrt(s), and a weight w has the factors
    V / sqrt(s) w. |W|^2 is |w|^2, so the penalty stays the same.
    """
    rows = xs[0].shape[0]
    gram = np.zeros((rows, rows))
    for x in xs:
        products = x @ x.T
        if sparse.issparse(x):
            products = products.todense()
        gram = gram + np.asarray(products, dtype=np.float64)

    eigenvalues, eigenvectors = np.linalg.eigh(gram)  # in ascending order
    is_large = eigenvalues > eigenvalues[-1] * SMALLEST
    directions = eigenvectors[:, is_large]
    lengths = np.sqrt(eigenvalues[is_large])
    return directions * lengths, directions / lengths


def solve(
    space: Space,
    task: Prediction,
    y: Tensor,
    strength: float,
    weight: Tensor,
    bias: Tensor,
    deadline: Deadline = NO_LIMIT,
) -> tuple[Tensor, Tensor]:
    """Minimise the task's mean loss + strength / 2 * |W|^2 over W and b, from initial values.

    Return W (numbers of the space, outputs) and b. It takes up to `STEPS` steps of L-BFGS, or those until the
    deadline: then W and b are the best so far.
    """
    weight = weight.clone()
    bias = bias.clone()
    everywhere = torch.ones(len(y), dtype=torch.bool)
    optimizer = eager(torch.optim.LBFGS)(
        [weight, bias],
        max_iter=STEPS,
        tolerance_grad=1e-6,
        tolerance_change=1e-7,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        """Return the loss, and write the gradients of W and b."""
        w = weight.detach()
        product = space.product(w)
        if not bias.ndim:  # a task of one number has outputs (B,)
            product = product[:, 0]
        output = (product + bias.detach()).requires_grad_()
        loss = task.loss(output, y, everywhere)

        # Autograd stops at the output: x may be sparse, which it does not know.
        (slope,) = torch.autograd.grad(loss, output)
        slope_BO = slope.reshape(len(slope), -1)
        weight.grad = space.slope(slope_BO) + strength * w
        bias.grad = slope.sum(0)
        penalty = strength / 2 * (w**2).sum()
        total = loss.detach() + penalty
        best.see(float(total), w, bias.detach())
        return total

    best = _Best(deadline, weight, bias)
    with torch.no_grad():
        weight.requires_grad_()
        bias.requires_grad_()
        try:
            optimizer.step(torch.enable_grad()(closure))
        except _Over:
            return best.weight, best.bias
    return weight.detach(), bias.detach()


class _Over(Exception):
    """No time is left for another step."""


class _Best:
    """The weight and the bias of the least loss so far. Nothing is kept without a deadline."""

    def __init__(self, deadline: Deadline, weight: Tensor, bias: Tensor) -> None:
        self.deadline = deadline
        self.weight, self.bias = weight.detach().clone(), bias.detach().clone()
        self.loss = float("inf")

    def see(self, loss: float, weight: Tensor, bias: Tensor) -> None:
        """Keep what is better than all before. Raises `_Over` at the deadline."""
        if not self.deadline.is_set:
            return
        if loss < self.loss:
            self.loss = loss
            self.weight, self.bias = weight.clone(), bias.clone()
        if self.deadline.is_over:
            raise _Over


def multiply(xs: list[Matrix], weight: np.ndarray) -> np.ndarray:
    """Return the product of blocks side by side (rows, width) and weights (width, outputs)."""
    total = np.zeros((xs[0].shape[0], weight.shape[1]))
    first = 0
    for x in xs:
        last = first + x.shape[1]
        total += x @ weight[first:last].astype(np.float32)
        first = last
    return total
