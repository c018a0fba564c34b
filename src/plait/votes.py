"""What each column says of a target by itself, as votes beside the answer of all of them fused. B rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from plait.tasks.base import CALIBRATING, Task, fit_temperature

BEFORE = 10  # rows that are taken to have been seen already, half of them in favour of the votes


class Votes(nn.Module):
    """Answers of classes: p = (1 - s) p_fused + s p_voted, with p_voted ~ prod_c p_c^(1 / T_c) over the columns c that a row has (the linear and
    the logarithmic pool: Genest & Zidek 1986, "Combining probability distributions", sections 3 and 4).

    Fusion finds what only columns together say, but is as sure of itself as the column that it could memorise; validation rows tell how far each
    is to be trusted (T_c, see `fit_temperature`) and how much the fused answer is worth (s). Until they have, s is 0.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        super().__init__()
        self.columns = list(columns)
        self.trust_M: Tensor  # 1 / T_c; 0 where too few validation rows have the column
        self.register_buffer("trust_M", torch.ones(len(self.columns)))
        self.share: Tensor
        self.register_buffer("share", torch.zeros(()))

    def mixed(self, task: Task, fused: Tensor, own: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
        """The logits of both, from those of the fused answer and of each column's `own`. A row with one column or none keeps the former: it is
        that column's own already; and so does one that has no column to be trusted."""
        voted, several_B = self._voted(own, present)
        weights = torch.stack([1 - self.share, self.share])
        return torch.where(several_B[:, None], task.blend(torch.stack([fused, voted]), weights), fused)

    def calibrate(self, task: Task, fused: Tensor, own: Mapping[str, Tensor], present: Mapping[str, Tensor], target: Tensor) -> None:
        """Sets T_c to the temperature of the column's own answers on these rows, which were not trained on, and then s to the most
        likely share, where ten rows are taken to have said before that both are worth the same (a beta prior): few rows do not move it far."""
        for i, c in enumerate(self.columns):
            rows = present[c]
            self.trust_M[i] = 1 / fit_temperature(task, own[c][rows], target[rows]) if int(rows.sum()) >= CALIBRATING else 0.0
        voted, several_B = self._voted(own, present)
        if int(several_B.sum()) < CALIBRATING:
            self.share.fill_(0.0)
            return
        from scipy.optimize import minimize_scalar  # takes longer to import than a small model to predict

        def loss(share: float) -> float:
            blended = task.blend(torch.stack([fused, voted]), torch.tensor([1 - share, share]))
            s = torch.tensor(share)
            return float(several_B.sum() * task.loss(blended, target, several_B)) - BEFORE / 2 * float(s.log() + (1 - s).log())

        self.share.fill_(minimize_scalar(loss, bounds=(0.0, 1.0), method="bounded").x)

    def _voted(self, own: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The votes of each row's columns added up, and True where there are two columns or more, of which one at least is trusted. Logits that
        are sums stand for products of probabilities, of two classes as of many."""
        trust_M = self.trust_M.to(own[self.columns[0]].device)  # validation rows are kept on the CPU
        present_MB = torch.stack([present[c] for c in self.columns])
        votes = [trust * own[c] * present[c][:, None] for trust, c in zip(trust_M, self.columns, strict=True)]
        return torch.stack(votes).sum(0), (present_MB.sum(0) > 1) & present_MB[trust_M > 0].any(0)
