"""Fit a linear model on blocks of numbers, for a member and for the model that is stacked on members."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from plait.nn.summaries import Matrix
from plait.tasks.base_prediction import Prediction

MOST_ROWS = 4000  # above which a matrix of rows by rows is no longer small


class Space:
    """The space in which weights are sought. The best W is a sum of training rows (Kimeldorf & Wahba
    1971), so where there are fewer rows than numbers in each, it is sought among those: as many
    unknowns as rows, the same minimum.
    """

    def __init__(self, xs: list[Matrix]) -> None:
        self._xs = xs
        rows, width = xs[0].shape[0], sum(x.shape[1] for x in xs)
        self._back: np.ndarray | None = None
        if rows < min(width, MOST_ROWS):
            gram = sum(
                (
                    np.asarray((x @ x.T).todense() if sparse.issparse(x) else x @ x.T, dtype=np.float64)
                    for x in xs
                ),
                np.zeros((rows, rows)),
            )
            value, vector = np.linalg.eigh(gram)
            kept = value > value[-1] * 1e-9
            self._back = vector[:, kept] / np.sqrt(value[kept])
            self.x: Tensor | None = torch.from_numpy(vector[:, kept] * np.sqrt(value[kept]))
        else:
            dense = not any(sparse.issparse(x) for x in xs)
            self.x = torch.from_numpy(np.concatenate(xs, 1)) if dense else None
        self.width = int(self.x.shape[1]) if self.x is not None else width

    def product(self, weight: Tensor) -> Tensor:
        """X W, in float64."""
        if self.x is not None:
            return (self.x @ weight.to(self.x.dtype)).double()
        return torch.from_numpy(multiply(self._xs, weight.numpy()))

    def slope(self, slope: Tensor) -> Tensor:
        """X^T of the slope at the output."""
        if self.x is not None:
            return (self.x.T @ slope.to(self.x.dtype)).double()
        narrow = slope.float().numpy()  # of another precision than x, NumPy would convert x in every step
        return torch.from_numpy(np.concatenate([x.T @ narrow for x in self._xs])).double()

    def weights(self, weight: Tensor) -> Tensor:
        """The weights of the numbers themselves."""
        if self._back is None:
            return weight
        among = self._back @ weight.numpy()
        return torch.from_numpy(np.concatenate([x.T @ among for x in self._xs]))


def solve(
    space: Space, task: Prediction, y: Tensor, strength: float, weight: Tensor, bias: Tensor, steps: int = 200
) -> tuple[Tensor, Tensor]:
    """Minimise the task's mean loss + strength / 2 * |W|^2 over W and b, from initial values."""
    weight, bias = weight.clone(), bias.clone()
    everywhere = torch.ones(len(y), dtype=torch.bool)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=steps,
        tolerance_grad=1e-6,
        tolerance_change=1e-8,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        w, b = weight.detach(), bias.detach()
        product = space.product(w)
        output = ((product if bias.ndim else product[:, 0]) + b).requires_grad_()
        loss = task.loss(output, y, everywhere)
        (slope,) = torch.autograd.grad(loss, output)
        weight.grad = space.slope(slope.reshape(len(slope), -1)) + strength * w
        bias.grad = slope.sum(0)
        return loss.detach() + strength / 2 * (w**2).sum()

    with torch.no_grad():
        weight.requires_grad_()
        bias.requires_grad_()
        optimizer.step(torch.enable_grad()(closure))
    return weight.detach(), bias.detach()


def multiply(xs: list[Matrix], weight: np.ndarray) -> np.ndarray:
    """Return the product of blocks side by side (rows, width) and weights (width, outputs)."""
    total, first = np.zeros((xs[0].shape[0], weight.shape[1])), 0
    for x in xs:
        part = weight[first : first + x.shape[1]]
        total += x @ part.astype(np.float32)
        first += x.shape[1]
    return total
