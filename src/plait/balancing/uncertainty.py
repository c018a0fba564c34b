"""Weights learned with the model: the noise that each target is thought to have (Kendall et al. 2018,
"Multi-task learning using uncertainty to weigh losses for scene geometry and semantics").
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from plait.balancing.base import Balancing, Share
from plait.nn.layers import module_key
from plait.recipe.registry import Options


class Config(Options):
    """No options: targets have their own `weight`."""


class Uncertainty(Balancing):
    """sum_t w_t (e^(-s_t) L_t + s_t / 2), with half of e^(-s_t) for a squared error, where s_t is the
    logarithm of a variance (eq. 7 and 10); it begins at the logarithm of the loss of a guess, where
    targets weigh the same.
    """

    options = Config

    def __init__(self, shares: dict[str, Share]) -> None:
        super().__init__()
        self.shares = shares
        self.log_variance = nn.ParameterDict(
            {module_key(t): torch.tensor(share.scale).log() for t, share in shares.items()}
        )

    @classmethod
    def build(cls, config: Config, shares: dict[str, Share]) -> Uncertainty:
        return cls(shares)

    def backward(self, losses: dict[str, Tensor], shared: Sequence[nn.Parameter]) -> None:
        parts = []
        for t, loss in losses.items():
            s, share = self.log_variance[module_key(t)], self.shares[t]
            parts.append(share.weight * ((0.5 if share.squared else 1.0) * (-s).exp() * loss + s / 2))
        torch.stack(parts).sum().backward()


component = Uncertainty
