"""Learn a weight for each target with the model: the variance of the target's noise, by torchjd.

See Kendall et al. 2018, "Multi-task learning using uncertainty to weigh losses for scene geometry and
semantics".
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from plait.balancing.base import Balancing, Share, import_torchjd, summed
from plait.nn.layers import module_key
from plait.recipe.registry import Options


class Config(Options):
    """No options: targets have their own `weight`."""


class Uncertainty(Balancing):
    """Minimise sum_t w_t (e^(-s_t) L_t + s_t) / 2, where s_t is the logarithm of a variance that is learned.

    This is torchjd's `UW`, one for each target, because a batch may lack the labels of some. L_t is a squared
    error (eq. 7) or twice a cross-entropy (eq. 10). s_t begins at the logarithm of the baseline's loss, where
    targets weigh the same.
    """

    options = Config

    def __init__(self, shares: dict[str, Share]) -> None:
        super().__init__()
        scalarization = import_torchjd("scalarization", "uncertainty")
        self.shares = shares

        # Targets that an earlier micro-batch of the present batch has labels of.
        self._begun: set[str] = set()

        self.scalarizers = nn.ModuleDict()
        for target, share in shares.items():
            scalarizer = scalarization.UW(())
            nn.init.constant_(scalarizer.log_var, math.log(share.scale))
            self.scalarizers[module_key(target)] = scalarizer

    @classmethod
    def build(cls, config: Config, shares: dict[str, Share]) -> Uncertainty:
        """Start each variance at the baseline's loss."""
        return cls(shares)

    def backward(self, losses: dict[str, Tensor], shared: Sequence[nn.Parameter]) -> None:
        """Add the gradients of the weighted sum of likelihoods."""
        weighted = []
        for target, loss in losses.items():
            share = self.shares[target]
            scalarizer = self.scalarizers[module_key(target)]
            likelihood = scalarizer(loss if share.squared else 2 * loss)

            # s_t counts once for a batch, however many micro-batches it has.
            if target in self._begun:
                likelihood = likelihood - scalarizer(torch.zeros_like(loss))
            self._begun.add(target)
            weighted.append((likelihood, share.weight))
        summed(weighted).backward()

    def finish(self, shared: Sequence[nn.Parameter]) -> None:
        """Forget the targets of this batch."""
        self._begun.clear()

    def discard(self) -> None:
        """Forget the targets of a batch whose step was not taken."""
        self._begun.clear()


component = Uncertainty
