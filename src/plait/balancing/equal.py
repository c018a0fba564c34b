"""Add up the losses, each in units of the baseline's loss, times its weight.

Tuned weights of this kind are hard to beat (Xin et al. 2022, "Do current multi-task optimization
methods in deep learning even help?"; Kurin et al. 2022, "In defense of the unitary scalarization for
deep multi-task learning"), so this is the default.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from plait.balancing.base import Balancing, Share, factors, summed
from plait.recipe.registry import Options


class Config(Options):
    """No options: targets have their own `weight`."""


class Equal(Balancing):
    """Minimise sum_t w_t L_t / s_t, where s_t is the baseline's loss."""

    options = Config

    def __init__(self, factors: dict[str, float]) -> None:
        super().__init__()
        self.factors = factors

    @classmethod
    def build(cls, config: Config, shares: dict[str, Share]) -> Equal:
        """Take the factor w_t / s_t of each target."""
        return cls(factors(shares))

    def backward(self, losses: dict[str, Tensor], shared: Sequence[nn.Parameter]) -> None:
        """Add the gradients of the weighted sum."""
        weighted = []
        for target, loss in losses.items():
            weighted.append((loss, self.factors[target]))
        summed(weighted).backward()


component = Equal
