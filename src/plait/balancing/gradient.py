"""Combine the gradients of all targets into one direction, by torchjd: UPGrad, PCGrad, CAGrad, MGDA.

Each step costs a backward pass for each target. T targets, P entries of all shared parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from pydantic import Field
from scipy.optimize import nnls
from torch import Tensor, nn

from plait.balancing.base import Balancing, Share, factors, import_torchjd
from plait.errors import RecipeError
from plait.recipe.registry import Options

if TYPE_CHECKING:
    from torchjd.aggregation import Aggregator


class Config(Options):
    """`upgrad` is the mean of the gradients, each projected to where no target's loss grows (Quinton & Rey
    2024, "Jacobian descent for multi-objective optimization"). `pcgrad` removes from each gradient what
    conflicts with another one (Yu et al. 2020). `cagrad` is the direction in a ball of radius `c` around
    the mean along which the worst loss falls most (Liu et al. 2021). `mgda` is the shortest convex
    combination (Sener & Koltun 2018). Losses are in units of the baseline's loss, times their weight.
    """

    method: Literal["upgrad", "pcgrad", "cagrad", "mgda"] = Field(
        "upgrad", description="how the gradients of the targets are joined (see above)"
    )
    c: float = Field(0.5, ge=0, lt=1, description="cagrad: radius of the ball around the mean gradient")


class Gradient(Balancing):
    """Combine the gradients of shared parameters.

    A parameter that only one target depends on gets that target's gradient.
    """

    options = Config

    def __init__(self, method: str, c: float, factors: dict[str, float]) -> None:
        super().__init__()
        self.aggregator = _aggregator(method, c)
        self.adds = method == "pcgrad"  # the others return means
        self.factors = factors

        # Each target's gradients of the shared parameters, for the present batch.
        self._gradients: dict[str, list[Tensor]] = {}

    @classmethod
    def build(cls, config: Config, shares: dict[str, Share]) -> Gradient:
        """Take the factor w_t / s_t of each target."""
        return cls(config.method, config.c, factors(shares))

    def backward(self, losses: dict[str, Tensor], shared: Sequence[nn.Parameter]) -> None:
        """Store each target's gradients of shared parameters, for `finish`.

        Other parameters get their gradients at once. Gradients of shared parameters that losses without
        balancing have left stay as they are.
        """
        unbalanced = [p.grad for p in shared]
        last_target = next(reversed(losses), None)
        for target, loss in losses.items():
            for p in shared:
                p.grad = None
            scaled_loss = loss * self.factors[target]
            scaled_loss.backward(retain_graph=target != last_target)
            self._add(target, shared)
        for p, gradient in zip(shared, unbalanced, strict=True):
            p.grad = gradient

    def _add(self, target: str, shared: Sequence[nn.Parameter]) -> None:
        """Add the gradients of shared parameters to those that a target has from earlier micro-batches."""
        earlier = self._gradients.get(target)
        gradients = []
        for index, p in enumerate(shared):
            gradient = torch.zeros_like(p) if p.grad is None else p.grad
            if earlier is not None:
                gradient = earlier[index] + gradient
            gradients.append(gradient)
        self._gradients[target] = gradients

    def finish(self, shared: Sequence[nn.Parameter]) -> None:
        """Add the combined gradient to that of the shared parameters."""
        if not self._gradients:
            return
        flat_gradients = []
        for gradients in self._gradients.values():
            flat_P = torch.cat([gradient.flatten() for gradient in gradients])
            flat_gradients.append(flat_P)
        jacobian_TP = torch.stack(flat_gradients)

        # Make sums of means, as in the other ways of balancing.
        scale = 1 if self.adds else len(jacobian_TP)
        combined_P = self.aggregator(jacobian_TP) * scale

        sizes = [p.numel() for p in shared]
        for p, flat in zip(shared, combined_P.split(sizes), strict=True):
            gradient = flat.view_as(p)
            p.grad = gradient.clone() if p.grad is None else p.grad + gradient
        self._gradients = {}

    def discard(self) -> None:
        """Forget the gradients of a batch whose step was not taken."""
        self._gradients = {}


component = Gradient


def _aggregator(method: str, c: float) -> Aggregator:
    """Return torchjd's aggregator. Raises `RecipeError` if it needs a package that is not installed."""
    aggregation = import_torchjd("aggregation", "gradient")
    from torchjd.linalg import DualConeProjector

    class Projector(DualConeProjector):  # type: ignore[misc, unused-ignore]
        """Project by scipy's non-negative least squares: v = u + z, z >= 0, least v' G v, G = R' R."""

        def __call__(self, U: Tensor, G: Tensor) -> Tensor:
            """Return the projections of weights U (..., T), for gradients with the Gram matrix G (T, T)."""
            # A trace of 1 keeps the least squares well scaled, however small gradients are.
            gram_TT = G.double().cpu().numpy()
            gram_TT = gram_TT / max(np.trace(gram_TT), 1e-30)
            values, vectors = np.linalg.eigh(gram_TT)
            root_TT = np.sqrt(values.clip(0))[:, None] * vectors.T

            projected = []
            for u_T in U.double().cpu().numpy().reshape(-1, len(gram_TT)):
                z_T, _ = nnls(root_TT, -root_TT @ u_T)
                projected.append(u_T + z_T)
            weights = torch.as_tensor(np.array(projected), dtype=G.dtype, device=G.device)
            return weights.reshape(U.shape)

    try:
        if method == "cagrad":
            return aggregation.CAGrad(c=c)
        if method == "upgrad":
            return aggregation.UPGrad(projector=Projector())
        return {"pcgrad": aggregation.PCGrad, "mgda": aggregation.MGDA}[method]()
    except ImportError as error:
        raise RecipeError(
            f"balancing '{method}' needs more of torchjd: pip install 'plait[balancing]' ({error})"
        ) from None
