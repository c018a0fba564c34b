"""What each part of a row says of a target by itself, as votes beside the answer of all of them fused.
B rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from plait.tasks.base import CALIBRATING, Task, fit_temperature

BEFORE = 10  # rows that are taken to have been seen already, half of them in favour of the votes


class Votes(nn.Module):
    """Answers of classes: p = (1 - s) p_fused + s p_voted, with p_voted ~ prod_c p_c^(1 / T_c) over the
    parts c that a row has (the linear and the logarithmic pool: Genest & Zidek 1986, "Combining
    probability distributions", sections 3 and 4).

    Fusion finds what only parts together say, but is as sure of itself as the part that it could
    memorise; validation rows tell how far each is to be trusted (T_c, see `fit_temperature`) and how
    much the fused answer is worth (s). Until they have, s is 0.
    """

    def __init__(self, parts: Sequence[str]) -> None:
        super().__init__()
        self.parts = list(parts)
        self.trust_P: Tensor  # 1 / T_c; 0 where too few validation rows have the part
        self.register_buffer("trust_P", torch.ones(len(self.parts)))
        self.share: Tensor
        self.register_buffer("share", torch.zeros(()))

    def mixed(
        self, task: Task, fused: Tensor, own: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> Tensor:
        """The logits of both, from those of the fused answer and of each part's `own`. A row with one
        part or none keeps the former: it is that part's own already; and so does one that has no part
        to be trusted.
        """
        voted, several_B = self._voted(own, present)
        weights = torch.stack([1 - self.share, self.share])
        return torch.where(several_B[:, None], task.blend(torch.stack([fused, voted]), weights), fused)

    def calibrate(
        self,
        task: Task,
        fused: Tensor,
        own: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
        target: Tensor,
    ) -> None:
        """Sets T_c to the temperature of the part's own answers on these rows, which were not trained
        on, and then s to the most likely share, where ten rows are taken to have said before that both
        are worth the same (a beta prior): few rows do not move it far.
        """
        for i, p in enumerate(self.parts):
            rows = present[p]
            self.trust_P[i] = (
                1 / fit_temperature(task, own[p][rows], target[rows])
                if int(rows.sum()) >= CALIBRATING
                else 0.0
            )
        voted, several_B = self._voted(own, present)
        if int(several_B.sum()) < CALIBRATING:
            self.share.fill_(0.0)
            return
        from scipy.optimize import minimize_scalar  # takes longer to import than a small model to predict

        def loss(share: float) -> float:
            blended = task.blend(torch.stack([fused, voted]), torch.tensor([1 - share, share]))
            s = torch.tensor(share)
            return float(several_B.sum() * task.loss(blended, target, several_B)) - BEFORE / 2 * float(
                s.log() + (1 - s).log()
            )

        self.share.fill_(minimize_scalar(loss, bounds=(0.0, 1.0), method="bounded").x)

    def _voted(self, own: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The votes of each row's parts added up, and True where there are two parts or more, of which
        one at least is trusted. Logits that are sums stand for products of probabilities, of two
        classes as of many.
        """
        trust_P = self.trust_P.to(own[self.parts[0]].device)  # validation rows are kept on the CPU
        present_PB = torch.stack([present[p] for p in self.parts])
        votes = [trust * own[p] * present[p][:, None] for trust, p in zip(trust_P, self.parts, strict=True)]
        return torch.stack(votes).sum(0), (present_PB.sum(0) > 1) & present_PB[trust_P > 0].any(0)
