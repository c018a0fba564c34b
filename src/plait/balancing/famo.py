"""Make all losses fall at about the same rate, by their values alone.

This is FAMO (Liu et al. 2023, "FAMO: Fast adaptive multitask optimization"). Why it is not torchjd's:
see docs/decisions/0001-own-famo.md. T targets that a batch has labels of.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from plait.balancing.base import Balancing, Share
from plait.recipe.bounds import MAX_RATE
from plait.recipe.registry import Options

EPSILON = 1e-8  # keeps the logarithm of a loss of 0 finite


class Config(Options):
    """`rate` and `decay` of the weights: beta and gamma of algorithm 1."""

    rate: float = Field(
        0.025, gt=0, le=MAX_RATE, description="learning rate of the weights (beta of algorithm 1)"
    )
    decay: float = Field(0.001, ge=0, le=MAX_RATE, description="of the weights (gamma of algorithm 1)")


class FAMO(Balancing):
    """Minimise c sum_t z_t log L_t, where z = softmax(w) and c = 1 / sum_t (z_t / L_t).

    After the step, w falls by `rate` times (delta + `decay` w), where delta is the Jacobian of the softmax
    times how much each log L_t fell (algorithm 1). z_t is multiplied by the target's `weight`. A target that
    a batch has no label of keeps its w.
    """

    options = Config
    again = True

    def __init__(self, targets: Sequence[str], rate: float, decay: float, weights: Sequence[float]) -> None:
        super().__init__()
        self.targets = list(targets)
        self.rate = rate
        self.decay = decay
        self.w: Tensor
        self.register_buffer("w", torch.zeros(len(self.targets)))

        # The recipe has them, so they need not be saved.
        self.weights: Tensor
        self.register_buffer("weights", torch.tensor(weights), persistent=False)

        # Each target's loss of the present batch, before the step.
        self._before: dict[str, Tensor] = {}

    @classmethod
    def build(cls, config: Config, shares: dict[str, Share]) -> FAMO:
        """Take the weights that the recipe gives the targets."""
        weights = [share.weight for share in shares.values()]
        return cls(list(shares), config.rate, config.decay, weights)

    def backward(self, losses: dict[str, Tensor], shared: Sequence[nn.Parameter]) -> None:
        """Add the gradients of c sum_t z_t log L_t, of which a micro-batch has its share of L_t only."""
        if not self._before:
            self._before = {target: loss.detach() for target, loss in losses.items()}
        indices_T = self._indices(self._before)

        # The value is the batch's, and the gradient that of these rows.
        of_batch = []
        for target, loss in self._before.items():
            if target in losses:
                loss = loss + (losses[target] - losses[target].detach())
            of_batch.append(loss)
        loss_T = torch.stack(of_batch).float() + EPSILON
        z_T = self.w[indices_T].softmax(0) * self.weights[indices_T]
        c = 1 / (z_T / loss_T.detach()).sum()
        weighted_sum = (z_T * loss_T.log()).sum()
        (c * weighted_sum).backward()

    def before(self, losses: dict[str, Tensor]) -> None:
        """Remember the losses of the batch, of which `backward` gets shares."""
        self._before = losses

    def discard(self) -> None:
        """Forget the losses of a batch whose step was not taken."""
        self._before = {}

    @torch.no_grad()
    def after(self, losses: dict[str, Tensor]) -> None:
        """Update w by how much each loss fell in the step."""
        targets, losses_before, losses_after = [], [], []
        for target, loss in losses.items():
            if target in self._before:
                targets.append(target)
                losses_before.append(self._before[target])
                losses_after.append(loss)
        if not targets:  # no row of the batch has a label
            return
        before_T = torch.stack(losses_before).float() + EPSILON
        after_T = torch.stack(losses_after).float() + EPSILON
        fall_T = before_T.log() - after_T.log()

        # (diag(z) - z z') times the fall.
        indices_T = self._indices(targets)
        w_T = self.w[indices_T]
        z_T = w_T.softmax(0)
        delta_T = z_T * (fall_T - (z_T * fall_T).sum())
        self.w[indices_T] -= self.rate * (delta_T + self.decay * w_T)
        self._before = {}

    def _indices(self, targets: Iterable[str]) -> Tensor:
        """Return the index of each target in `w`."""
        indices = [self.targets.index(target) for target in targets]
        return torch.tensor(indices).to(self.w.device, non_blocking=True)


component = FAMO
