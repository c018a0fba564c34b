"""Combine the gradients of all targets into one direction, by torchjd: UPGrad, PCGrad, CAGrad, MGDA.

Each step costs a backward pass for each target.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from pydantic import Field
from scipy.optimize import nnls
from torch import Tensor, nn

from plait.balancing.base import Balancing, Share, import_torchjd
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
        self._gradients: dict[str, list[Tensor]] = {}

    @classmethod
    def build(cls, config: Config, shares: dict[str, Share]) -> Gradient:
        """Take the factor w_t / s_t of each target."""
        factors = {target: share.factor for target, share in shares.items()}
        return cls(config.method, config.c, factors)

    def backward(self, losses: dict[str, Tensor], shared: Sequence[nn.Parameter]) -> None:
        """Store each target's gradients of shared parameters, for `finish`.

        Other parameters get their gradients at once. Gradients of shared parameters that losses without
        balancing have left stay as they are.
        """
        unbalanced = [p.grad for p in shared]
        for number, (target, loss) in enumerate(losses.items()):
            for p in shared:
                p.grad = None
            (loss * self.factors[target]).backward(retain_graph=number < len(losses) - 1)

            # The gradients of micro-batches add up.
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in shared]
            if target in self._gradients:
                pairs = zip(self._gradients[target], gradients, strict=True)
                gradients = [before + gradient for before, gradient in pairs]
            self._gradients[target] = gradients
        for p, gradient in zip(shared, unbalanced, strict=True):
            p.grad = gradient

    def finish(self, shared: Sequence[nn.Parameter]) -> None:
        """Add the combined gradient to that of the shared parameters."""
        if not self._gradients:
            return
        rows = []
        for gradients in self._gradients.values():
            rows.append(torch.cat([gradient.flatten() for gradient in gradients]))

        # Make sums of means, as in the other ways of balancing.
        scale = 1 if self.adds else len(rows)
        combined_P = self.aggregator(torch.stack(rows)) * scale
        gradients_of_shared = combined_P.split([p.numel() for p in shared])
        for p, flat in zip(shared, gradients_of_shared, strict=True):
            gradient = flat.view_as(p)
            p.grad = gradient.clone() if p.grad is None else p.grad + gradient
        self._gradients = {}


component = Gradient


def _aggregator(method: str, c: float) -> Aggregator:
    """Return torchjd's aggregator. Raises `RecipeError` if it needs a package that is not installed."""
    aggregation = import_torchjd("aggregation", "gradient")
    from torchjd.linalg import DualConeProjector

    class Projector(DualConeProjector):  # type: ignore[misc, unused-ignore]
        """By scipy's non-negative least squares: v = u + z with z >= 0 and the least v' G v, G = R' R."""

        def __call__(self, U: Tensor, G: Tensor) -> Tensor:
            gram = G.double().cpu().numpy()
            gram = gram / max(np.trace(gram), 1e-30)
            values, vectors = np.linalg.eigh(gram)
            root = np.sqrt(values.clip(0))[:, None] * vectors.T
            projected = []
            for u in U.double().cpu().numpy().reshape(-1, len(gram)):
                z, _ = nnls(root, -root @ u)
                projected.append(u + z)
            return torch.as_tensor(np.array(projected), dtype=G.dtype, device=G.device).reshape(U.shape)

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
