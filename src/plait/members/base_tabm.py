"""The networks of TabM, for several folds at once.

Gorishniy, Kotelnikov & Babenko 2025, "TabM: Advancing tabular deep learning with parameter-efficient
ensembling", arXiv 2410.24210. A step of one small network costs mostly what surrounds its products. So the
networks of all folds are stacked, and take each step together. Shape letters: F folds, K members of a
network, B rows, D width, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class AdaptedLinear(nn.Module):
    """K linear layers that share a weight W: y_k = ((x_k * r_k) W) * s_k + b_k (BatchEnsemble, Wen et al.
    2020, eq. 5; the bias is TabM's).

    `first` says that it is a network's first layer. Only there members begin apart, because only there `r` is
    random. All numbers of one block of the inputs begin with the same factor: `chunks` has their counts.
    """

    def __init__(self, folds: int, members: int, chunks: Sequence[int], width: int, first: bool) -> None:
        super().__init__()
        inputs = sum(chunks)
        bound = max(inputs, 1) ** -0.5
        self.weight = nn.Parameter(torch.empty(folds, inputs, width).uniform_(-bound, bound))
        r = torch.ones(folds, members, 1, inputs)
        if first:
            by_chunk = torch.randn(folds, members, 1, len(chunks))
            r = by_chunk.repeat_interleave(torch.tensor(chunks), -1, output_size=inputs)
        self.r = nn.Parameter(r)
        self.s = nn.Parameter(torch.ones(folds, members, 1, width))

        # Members begin with the same bias.
        bias = torch.empty(folds, 1, 1, width).uniform_(-bound, bound)
        self.bias = nn.Parameter(bias.repeat(1, members, 1, 1))

    def forward(self, x_FKBD: Tensor) -> Tensor:
        """Return the layer's outputs, in the precision of the inputs. Their K may be 1, as if all agreed."""
        kind = x_FKBD.dtype
        adapted = x_FKBD * self.r.to(kind)
        members_and_rows = adapted.shape[1:3]
        product = torch.bmm(adapted.flatten(1, 2), self.weight.to(kind))
        return torch.addcmul(self.bias.to(kind), product.unflatten(1, members_and_rows), self.s.to(kind))


class StackedTabM(nn.Module):
    """TabM of each fold: adapted layers with ReLU, and a head for each member.

    Dropout leaves out the same units of all members: drawing numbers for each takes longer than the layer.
    """

    def __init__(
        self,
        folds: int,
        members: int,
        chunks: Sequence[int],
        width: int,
        depth: int,
        baseline_FO: Tensor,
        dropout: float,
    ) -> None:
        """Draw the weights, and let each fold's head begin at its baseline."""
        super().__init__()
        layers = [AdaptedLinear(folds, members, chunks, width, first=True)]
        for _ in range(depth - 1):
            layers.append(AdaptedLinear(folds, members, [width], width, first=False))
        self.layers = nn.ModuleList(layers)
        bound = width**-0.5
        outputs = baseline_FO.shape[1]
        self.head = nn.Parameter(torch.empty(folds, members, width, outputs).uniform_(-bound, bound))
        head_bias = baseline_FO[:, None, None].repeat(1, members, 1, 1)
        self.head_bias = nn.Parameter(head_bias.clone())
        self.dropout = dropout

    def forward(self, x_FBD: Tensor) -> Tensor:
        """Return the outputs of every member, float32 (F, K, B, O)."""
        hidden = x_FBD[:, None]
        for layer in self.layers:
            hidden = F.relu(layer(hidden))
            if self.training and self.dropout:
                hidden = hidden * self._kept(hidden)
        output: Tensor = torch.matmul(hidden, self.head.to(hidden.dtype)).float() + self.head_bias
        return output

    def _kept(self, hidden: Tensor) -> Tensor:
        """Return 0 for units that are left out, and for others what makes up for them: (F, 1, B, D)."""
        folds, _, rows, width = hidden.shape
        draw = torch.rand(folds, 1, rows, width, dtype=torch.float32, device=hidden.device)
        return ((draw >= self.dropout) / (1 - self.dropout)).to(hidden.dtype)

    def of_fold(self, fold: int) -> dict[str, Tensor]:
        """Return a copy of the weights of one fold, with F = 1."""
        weights = {}
        for name, parameter in self.named_parameters():
            weights[name] = parameter.detach()[fold : fold + 1].float().cpu().clone()
        return weights
