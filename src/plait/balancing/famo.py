"""All losses fall at about the same rate, by their values alone (Liu et al. 2023, "FAMO: Fast adaptive
multitask optimization").
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from plait.balancing.base import Balancing, Share
from plait.recipe.registry import Options

LEAST = 1e-8


class Config(Options):
    """`rate` and `decay` of the weights: beta and gamma of algorithm 1."""

    rate: float = Field(0.025, gt=0)
    decay: float = Field(0.001, ge=0)


class FAMO(Balancing):
    """c sum_t z_t log L_t, z = softmax(w), c = 1 / sum_t (z_t / L_t). After the step, w falls by `rate`
    times (delta + `decay` w), where delta is the Jacobian of the softmax times how much each log L_t
    fell (algorithm 1). Targets that a batch has no label of keep their w. A batch in parts is weighed
    part by part.
    """

    options = Config
    again = True

    def __init__(self, targets: Sequence[str], rate: float, decay: float, weights: Sequence[float]) -> None:
        super().__init__()
        self.targets, self.rate, self.decay = list(targets), rate, decay
        self.w: Tensor
        self.given: Tensor
        self.register_buffer("w", torch.zeros(len(self.targets)))
        self.register_buffer("given", torch.tensor(weights), persistent=False)
        self._before: dict[str, Tensor] = {}

    @classmethod
    def build(cls, config: Config, shares: dict[str, Share]) -> FAMO:
        return cls(list(shares), config.rate, config.decay, [share.weight for share in shares.values()])

    def backward(self, losses: dict[str, Tensor], shared: Sequence[nn.Parameter]) -> None:
        at = self._places(losses)
        loss_T = torch.stack(list(losses.values())).float() + LEAST
        z_T = self.w[at].softmax(0) * self.given[at]
        c = 1 / (z_T / loss_T.detach()).sum()
        (c * (z_T * loss_T.log()).sum()).backward()
        for t, loss in losses.items():
            self._before[t] = self._before.get(t, torch.zeros_like(loss)) + loss.detach()

    @torch.no_grad()
    def after(self, losses: dict[str, Tensor]) -> None:
        known = [t for t in losses if t in self._before]
        at = self._places(known)
        fell_T = torch.stack(
            [(self._before[t].float() + LEAST).log() - (losses[t].float() + LEAST).log() for t in known]
        )
        z_T = self.w[at].softmax(0)
        delta_T = z_T * (fell_T - (z_T * fell_T).sum())  # (diag(z) - z z') fell
        self.w[at] -= self.rate * (delta_T + self.decay * self.w[at])
        self._before = {}

    def _places(self, targets: Sequence[str] | dict[str, Tensor]) -> Tensor:
        return torch.tensor([self.targets.index(t) for t in targets], device=self.w.device)


component = FAMO
