"""Encode many plain columns at once. B rows, M columns, D width."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plait.data.preprocessing import Preprocessing
from plait.encoders.base import Encoder
from plait.encoders.tabular import Tabular
from plait.nn.batch import Tokens, Values


def together(preprocessing: Preprocessing, encoders: Mapping[str, Encoder], missing: str) -> Cells | None:
    """One encoder for all plain cells of a row whose own are alike; none where that is one column or none."""
    plain = {
        c: e
        for c, e in encoders.items()
        if preprocessing.inputs[c].tabular and c not in preprocessing.several
    }
    found = {c: e for c, e in plain.items() if isinstance(e, Tabular) and e.plain}
    ((usual, _),) = Counter(e.width for e in found.values()).most_common(1) or [(0, 0)]
    found = {c: e for c, e in found.items() if e.width == usual}
    return Cells(found, missing) if len(found) > 1 else None


class Cells(nn.Module):
    """The encoders of many plain columns as one, in a few products, where each column would need some
    of its own; and what stands in for cells that are not there: the column's `missing` token, and where
    a row's cell is known to be empty, `empty` besides. So an empty cell can say something, and a column
    that is not there says nothing. M columns, E entries of a number's vector, H hidden units.

    What has one dimension does not decay (see `optimizer_for`), so biases and tokens are kept flat.
    """

    def __init__(self, encoders: Mapping[str, Tabular], missing: str) -> None:
        super().__init__()
        self.numbers = [c for c, e in encoders.items() if not isinstance(e.net, nn.Embedding)]
        self.categories = [c for c in encoders if c not in self.numbers]
        self.columns = [*self.numbers, *self.categories]
        self.width = next(iter(encoders.values())).width
        if self.numbers:
            linears = [
                [m for m in encoders[c].net.modules() if isinstance(m, nn.Linear)] for c in self.numbers
            ]
            entries = [first.in_features for first, _ in linears]
            padded = [
                F.pad(first.weight.detach().T, (0, 0, 0, max(entries) - first.in_features))
                for first, _ in linears
            ]
            self.first_MEH, self.second_MHD = (
                nn.Parameter(torch.stack(w))
                for w in (padded, [second.weight.detach().T for _, second in linears])
            )
            self.first_bias, self.second_bias = (
                nn.Parameter(torch.cat([layers[i].bias.detach() for layers in linears])) for i in (0, 1)
            )
            self.place_ME: Tensor
            self.register_buffer("place_ME", _places(entries), persistent=False)
        if self.categories:
            embeddings = [
                net.weight.detach()
                for c in self.categories
                if isinstance(net := encoders[c].net, nn.Embedding)
            ]
            self.embedding = nn.Embedding.from_pretrained(torch.cat(embeddings), freeze=False)
            self.offset_M: Tensor
            self.register_buffer(
                "offset_M", torch.tensor([0, *map(len, embeddings)]).cumsum(0)[:-1], persistent=False
            )
        count = len(self.columns) * self.width
        self.missing: Tensor
        self.empty: Tensor
        for name, begin in (("missing", torch.randn(count) * 0.02), ("empty", torch.randn(count) * 0.3)):
            if missing == "learned":
                self.register_parameter(name, nn.Parameter(begin))
            else:
                self.register_buffer(name, torch.zeros(count), persistent=False)
        self.taught_M: Tensor
        self.register_buffer("taught_M", torch.zeros(len(self.columns), dtype=torch.bool))

    def teach(self, present: Mapping[str, Tensor]) -> None:
        """Tells in which training rows each column has a cell: only of columns with empty ones is it
        learned what these say.
        """
        self.taught_M.copy_(torch.stack([~present[c].all() for c in self.columns]))

    def forward(
        self, values: Mapping[str, Values], present: Mapping[str, Tensor], given: Mapping[str, Tensor]
    ) -> dict[str, Tokens]:
        """Each column's token. Cells that are not `given` are empty; those that are, and not `present`,
        are hidden, as if they were not there.
        """
        parts = []
        if self.numbers:
            x_BF = F.pad(
                torch.cat([values[c].x for c in self.numbers], 1), (0, 1)
            )  # a zero, for entries that a column does not have
            x_MBE = x_BF[:, self.place_ME].transpose(0, 1)
            count = len(self.numbers)
            hidden_MBH = torch.baddbmm(self.first_bias.view(count, 1, -1), x_MBE, self.first_MEH).relu()
            parts.append(
                torch.baddbmm(self.second_bias.view(count, 1, -1), hidden_MBH, self.second_MHD).transpose(
                    0, 1
                )
            )
        if self.categories:
            parts.append(
                self.embedding(torch.stack([values[c].x for c in self.categories], 1) + self.offset_M)
            )
        x_BMD, there_BM = torch.cat(parts, 1), torch.stack([present[c] for c in self.columns], 1)
        if not bool(there_BM.all()):
            missing_MD, empty_MD = (
                token.to(x_BMD.dtype).view(-1, self.width) for token in (self.missing, self.empty)
            )
            told_BM = self._told(there_BM, torch.stack([given[c] for c in self.columns], 1))
            x_BMD = torch.where(
                there_BM[..., None], x_BMD, torch.where(told_BM[..., None], missing_MD + empty_MD, missing_MD)
            )
        return self._tokens(x_BMD, there_BM)

    def _told(self, there_BM: Tensor, given_BM: Tensor) -> Tensor:
        """Which cells are known to be empty: those that are; but in training these are hidden as often
        as the column's others, or that a cell is not there would say that it was not empty.
        """
        empty_BM = ~given_BM & self.taught_M
        if not self.training:
            return empty_BM
        hidden_M = 1 - there_BM.sum(0) / given_BM.sum(0).clamp(min=1)
        return empty_BM & (torch.rand(empty_BM.shape, device=empty_BM.device) >= hidden_M)

    def hide(
        self,
        encoded: Mapping[str, Tokens],
        present: Mapping[str, Tensor],
        columns: Collection[str] | None = None,
    ) -> dict[str, Tokens]:
        """The tokens with cells hidden that `present` now lacks, and all of columns that are not among
        `columns`.
        """
        x_BMD, there_BM = (
            torch.cat(some, 1)
            for some in zip(*((encoded[c].x_BLD, encoded[c].mask_BL) for c in self.columns), strict=True)
        )
        present_BM = torch.stack([present[c] for c in self.columns], 1)
        absent_M = torch.tensor(
            [columns is not None and c not in columns for c in self.columns], device=x_BMD.device
        )
        hidden_BM = (there_BM & ~present_BM) | absent_M
        if bool(hidden_BM.any()):
            x_BMD = torch.where(
                hidden_BM[..., None], self.missing.to(x_BMD.dtype).view(-1, self.width), x_BMD
            )
        return self._tokens(x_BMD, there_BM & present_BM & ~absent_M)

    def knows_empty(self, columns: Collection[str]) -> bool:
        """Whether training has taught what it says that a cell of one of these columns is empty."""
        return bool(self.taught_M[[c in columns for c in self.columns]].any())

    def _tokens(self, x_BMD: Tensor, there_BM: Tensor) -> dict[str, Tokens]:
        return {
            c: Tokens(x_B1D, mask_B1)
            for c, x_B1D, mask_B1 in zip(self.columns, x_BMD.split(1, 1), there_BM.split(1, 1), strict=True)
        }


def _places(entries: list[int]) -> Tensor:
    """Where each column's entries are when all lie side by side, (M, E); what a column does not have is
    one beyond the last.
    """
    most, total = max(entries), sum(entries)
    begun = [sum(entries[:i]) for i in range(len(entries))]
    return torch.tensor(
        [
            [start + i if i < count else total for i in range(most)]
            for start, count in zip(begun, entries, strict=True)
        ]
    )
