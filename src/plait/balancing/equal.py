"""The sum of the losses, each in units of the loss of the guess that sees no input, times its weight.

Tuned weights of this kind are hard to beat (Xin et al. 2022, "Do current multi-task optimization
methods in deep learning even help?"; Kurin et al. 2022, "In defense of the unitary scalarization for
deep multi-task learning"): the default.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from plait.balancing.base import Balancing, Share, summed
from plait.recipe.registry import Options


class Config(Options):
    """No options: targets have their own `weight`."""


class Equal(Balancing):
    """sum_t w_t L_t / s_t."""

    options = Config

    def __init__(self, factors: dict[str, float]) -> None:
        super().__init__()
        self.factors = factors

    @classmethod
    def build(cls, config: Config, shares: dict[str, Share]) -> Equal:
        return cls({t: share.factor for t, share in shares.items()})

    def backward(self, losses: dict[str, Tensor], shared: Sequence[nn.Parameter]) -> None:
        summed([(loss, self.factors[t]) for t, loss in losses.items()]).backward()


component = Equal
