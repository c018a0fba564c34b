"""All losses fall at about the same rate, by their values alone (Liu et al. 2023, "FAMO: Fast adaptive
multitask optimization"). Not torchjd's: see docs/decisions/0001-own-famo.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from plait.balancing.base import Balancing, Share
from plait.recipe.registry import Options

EPSILON = 1e-8  # keeps the logarithm of a loss of 0 finite


class Config(Options):
    """`rate` and `decay` of the weights: beta and gamma of algorithm 1."""

    rate: float = Field(0.025, gt=0, description="learning rate of the weights (beta of algorithm 1)")
    decay: float = Field(0.001, ge=0, description="of the weights (gamma of algorithm 1)")


class FAMO(Balancing):
    """Minimise c sum_t z_t log L_t, where z = softmax(w) and c = 1 / sum_t (z_t / L_t).

    After the step, w falls by `rate` times (delta + `decay` w), where delta is the Jacobian of the softmax
    times how much each log L_t fell (algorithm 1). z_t is multiplied by the target's `weight`. A target that
    a batch has no label of keeps its w. A batch in micro-batches is weighed one by one.
    """

    options = Config
    again = True

    def __init__(self, targets: Sequence[str], rate: float, decay: float, weights: Sequence[float]) -> None:
        super().__init__()
        self.targets, self.rate, self.decay = list(targets), rate, decay
        self.w: Tensor
        self.weights: Tensor
        self.register_buffer("w", torch.zeros(len(self.targets)))
        self.register_buffer("weights", torch.tensor(weights), persistent=False)
        self._before: dict[str, Tensor] = {}

    @classmethod
    def build(cls, config: Config, shares: dict[str, Share]) -> FAMO:
        """Take the weights that the recipe gives the targets."""
        return cls(list(shares), config.rate, config.decay, [share.weight for share in shares.values()])

    def backward(self, losses: dict[str, Tensor], shared: Sequence[nn.Parameter]) -> None:
        """Add the gradients of c sum_t z_t log L_t."""
        indices_T = self._indices(losses)
        loss_T = torch.stack(list(losses.values())).float() + EPSILON
        z_T = self.w[indices_T].softmax(0) * self.weights[indices_T]
        c = 1 / (z_T / loss_T.detach()).sum()
        (c * (z_T * loss_T.log()).sum()).backward()

        # The losses of micro-batches add up to that of the batch, which `after` compares with.
        for target, loss in losses.items():
            self._before[target] = self._before.get(target, torch.zeros_like(loss)) + loss.detach()

    @torch.no_grad()
    def after(self, losses: dict[str, Tensor]) -> None:
        """Update w by how much each loss fell in the step."""
        targets = [target for target in losses if target in self._before]
        before_T = torch.stack([self._before[target] for target in targets]).float() + EPSILON
        after_T = torch.stack([losses[target] for target in targets]).float() + EPSILON
        fall_T = before_T.log() - after_T.log()

        indices_T = self._indices(targets)
        z_T = self.w[indices_T].softmax(0)
        delta_T = z_T * (fall_T - (z_T * fall_T).sum())  # (diag(z) - z z') fall
        self.w[indices_T] -= self.rate * (delta_T + self.decay * self.w[indices_T])
        self._before = {}

    def _indices(self, targets: Iterable[str]) -> Tensor:
        return torch.tensor([self.targets.index(target) for target in targets], device=self.w.device)


component = FAMO
