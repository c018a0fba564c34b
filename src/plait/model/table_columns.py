"""Encode many plain columns at once. B rows, M columns, E entries of a number's vector, H hidden units,
D width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plait.data.preprocessing import Preprocessing
from plait.encoders.base import Encoder, PlainEncoder
from plait.model.stand_in import StandIn
from plait.nn.batch import Tokens, Values


def together(
    preprocessing: Preprocessing, encoders: Mapping[str, Encoder], missing: str
) -> TableColumns | None:
    """Return one encoder for all plain columns whose encoders are alike; None for fewer than two of them."""
    tabular = {}
    for column, encoder in encoders.items():
        is_plain = preprocessing.inputs[column].tabular and column not in preprocessing.several
        if is_plain and isinstance(encoder, PlainEncoder) and encoder.can_be_stacked:
            tabular[column] = encoder
    if not tabular:
        return None

    ((usual_width, _),) = Counter(encoder.width for encoder in tabular.values()).most_common(1)
    alike = {column: encoder for column, encoder in tabular.items() if encoder.width == usual_width}
    return TableColumns(alike, missing) if len(alike) > 1 else None


def _linears(encoder: PlainEncoder) -> list[nn.Linear]:
    return [module for module in encoder.net.modules() if isinstance(module, nn.Linear)]


class TableColumns(nn.Module):
    """The encoders of many plain columns as one: a few large products instead of some small ones for
    each column.

    It computes the same function as an encoder for each column, and starts from their weights.
    """

    def __init__(self, encoders: Mapping[str, PlainEncoder], missing: str) -> None:
        super().__init__()
        self.numbers = [column for column, encoder in encoders.items() if not _is_embedding(encoder)]
        self.categories = [column for column in encoders if column not in self.numbers]
        self.columns = [*self.numbers, *self.categories]
        self.width = next(iter(encoders.values())).width
        if self.numbers:
            self._stack_linears([encoders[column] for column in self.numbers])
        if self.categories:
            self._stack_embeddings([encoders[column] for column in self.categories])
        self.stand_in = StandIn(len(self.columns), self.width, "zero" if missing == "zero" else "learned")

    def _stack_linears(self, encoders: list[PlainEncoder]) -> None:
        """Stack both linear layers of all numbers; shorter vectors are padded with zeros."""
        layers = [_linears(encoder) for encoder in encoders]
        entries = [first.in_features for first, _ in layers]
        first_weights, second_weights = [], []
        for first, second in layers:
            padding = (0, 0, 0, max(entries) - first.in_features)
            first_weights.append(F.pad(first.weight.detach().T, padding))
            second_weights.append(second.weight.detach().T)

        self.first_MEH = nn.Parameter(torch.stack(first_weights))
        self.second_MHD = nn.Parameter(torch.stack(second_weights))

        # Biases are kept flat: what has one dimension takes no weight decay (see `optimizer_for`).
        self.first_bias = nn.Parameter(torch.cat([first.bias.detach() for first, _ in layers]))
        self.second_bias = nn.Parameter(torch.cat([second.bias.detach() for _, second in layers]))
        self.place_ME: Tensor
        self.register_buffer("place_ME", _places(entries), persistent=False)

    def _stack_embeddings(self, encoders: list[PlainEncoder]) -> None:
        """Put the embeddings of all categories into one table, one column after the other."""
        weights = [m.weight.detach() for encoder in encoders if isinstance(m := encoder.net, nn.Embedding)]
        self.embedding = nn.Embedding.from_pretrained(torch.cat(weights), freeze=False)
        self.offset_M: Tensor
        offsets = torch.tensor([0, *map(len, weights)]).cumsum(0)[:-1]
        self.register_buffer("offset_M", offsets, persistent=False)

    def forward(
        self, values: Mapping[str, Values], present: Mapping[str, Tensor], in_table: Mapping[str, Tensor]
    ) -> dict[str, Tokens]:
        """Return one token for each column, by name."""
        tokens = []
        if self.numbers:
            # A zero at the end stands for entries that a column does not have (see `_places`).
            x_BF = F.pad(torch.cat([values[c].x for c in self.numbers], 1), (0, 1))
            x_MBE = x_BF[:, self.place_ME].transpose(0, 1)
            count = len(self.numbers)
            hidden_MBH = torch.baddbmm(self.first_bias.view(count, 1, -1), x_MBE, self.first_MEH).relu()
            x_MBD = torch.baddbmm(self.second_bias.view(count, 1, -1), hidden_MBH, self.second_MHD)
            tokens.append(x_MBD.transpose(0, 1))
        if self.categories:
            index_BM = torch.stack([values[c].x for c in self.categories], 1)
            tokens.append(self.embedding(index_BM + self.offset_M))
        return self._stand_in(torch.cat(tokens, 1), present, in_table)

    def hide(
        self, tokens: Mapping[str, Tokens], present: Mapping[str, Tensor], in_table: Mapping[str, Tensor]
    ) -> dict[str, Tokens]:
        """Put stand-in tokens into the rows in which a column is absent."""
        x_BMD = torch.cat([tokens[column].x_BLD for column in self.columns], 1)
        return self._stand_in(x_BMD, present, in_table)

    def _stacked(self, masks: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([masks[column] for column in self.columns], 1)

    def _stand_in(
        self, x_BMD: Tensor, present: Mapping[str, Tensor], in_table: Mapping[str, Tensor]
    ) -> dict[str, Tokens]:
        present_BM, in_table_BM = self._stacked(present), self._stacked(in_table)
        x_BMD = self.stand_in(x_BMD, present_BM, in_table_BM)
        pairs = zip(x_BMD.split(1, 1), present_BM.split(1, 1), strict=True)
        return {column: Tokens(*pair) for column, pair in zip(self.columns, pairs, strict=True)}


def _is_embedding(encoder: PlainEncoder) -> bool:
    return isinstance(encoder.net, nn.Embedding)


def _places(entries: list[int]) -> Tensor:
    """Return where each column's entries are when all lie side by side, (M, E).

    An entry that a column does not have lies one beyond the last.
    """
    places = torch.full((len(entries), max(entries)), sum(entries))
    start = 0
    for column, count in enumerate(entries):
        places[column, :count] = torch.arange(start, start + count)
        start += count
    return places
