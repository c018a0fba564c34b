"""One direction from the targets' own gradients, by torchjd: UPGrad, PCGrad, CAGrad, MGDA. Each step
costs a backward pass per target.
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
    """`upgrad`: the mean of the gradients, each projected to where no target's loss grows (Quinton &
    Rey 2024, "Jacobian descent for multi-objective optimization"). `pcgrad`: each less what is against
    another one (Yu et al. 2020). `cagrad`: the direction in a ball of radius `c` around their mean
    along which the worst falls most (Liu et al. 2021). `mgda`: their shortest convex combination (Sener
    & Koltun 2018). Losses are taken in units of the guess that sees no input, times their weight.
    """

    method: Literal["upgrad", "pcgrad", "cagrad", "mgda"] = "upgrad"
    c: float = Field(0.5, ge=0, lt=1)


class Gradient(Balancing):
    """Parameters that only one target depends on get its own gradient."""

    options = Config

    def __init__(self, method: str, c: float, factors: dict[str, float]) -> None:
        super().__init__()
        self.aggregator, self.adds, self.factors = _aggregator(method, c), method == "pcgrad", factors
        self._gradients: dict[str, list[Tensor]] = {}

    @classmethod
    def build(cls, config: Config, shares: dict[str, Share]) -> Gradient:
        return cls(config.method, config.c, {t: share.factor for t, share in shares.items()})

    def backward(self, losses: dict[str, Tensor], shared: Sequence[nn.Parameter]) -> None:
        unbalanced = [p.grad for p in shared]  # of losses that are not balanced
        for number, (target, loss) in enumerate(losses.items()):
            for p in shared:
                p.grad = None
            (loss * self.factors[target]).backward(retain_graph=number < len(losses) - 1)

            # the parts of a batch add up
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in shared]
            if target in self._gradients:
                pairs = zip(self._gradients[target], gradients, strict=True)
                gradients = [before + gradient for before, gradient in pairs]
            self._gradients[target] = gradients
        for p, gradient in zip(shared, unbalanced, strict=True):
            p.grad = gradient

    def finish(self, shared: Sequence[nn.Parameter]) -> None:
        if not self._gradients:
            return
        rows = []
        for gradients in self._gradients.values():
            rows.append(torch.cat([gradient.flatten() for gradient in gradients]))

        # means become sums, as in other ways of balancing
        combined_P = self.aggregator(torch.stack(rows)) * (1 if self.adds else len(rows))
        for p, gradient in zip(shared, combined_P.split([p.numel() for p in shared]), strict=True):
            p.grad = gradient.view_as(p).clone() if p.grad is None else p.grad + gradient.view_as(p)
        self._gradients = {}


component = Gradient


def _aggregator(method: str, c: float) -> Aggregator:
    aggregation = import_torchjd("aggregation", "gradient")
    from torchjd.linalg import DualConeProjector

    class Projector(DualConeProjector):  # type: ignore[misc, unused-ignore]
        """By scipy's non-negative least squares: v = u + z with z >= 0 and the least v' G v, G = R' R."""

        def __call__(self, U: Tensor, G: Tensor) -> Tensor:
            gram = G.double().cpu().numpy()
            gram = gram / max(np.trace(gram), 1e-30)
            values, vectors = np.linalg.eigh(gram)
            root = np.sqrt(values.clip(0))[:, None] * vectors.T
            rows = [u + nnls(root, -root @ u)[0] for u in U.double().cpu().numpy().reshape(-1, len(gram))]
            return torch.as_tensor(np.array(rows), dtype=G.dtype, device=G.device).reshape(U.shape)

    try:
        if method == "cagrad":
            return aggregation.CAGrad(c=c)
        return {
            "upgrad": lambda: aggregation.UPGrad(projector=Projector()),
            "pcgrad": aggregation.PCGrad,
            "mgda": aggregation.MGDA,
        }[method]()
    except ImportError as error:
        raise RecipeError(
            f"balancing '{method}' needs more of torchjd: pip install 'plait[balancing]' ({error})"
        ) from None
