"""Encode many plain columns at once.

Shape letters: B rows, M columns, E entries of one column's vector, F entries of all vectors, H hidden units,
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
from plait.model.stand_in import StandIn, start_of
from plait.nn.batch import Tokens, Values


def together(
    preprocessing: Preprocessing, encoders: Mapping[str, Encoder], missing: str
) -> TableColumns | None:
    """Return one encoder for the plain columns whose encoders are alike; None for fewer than two of them.

    Encoders are alike if they can be stacked and have the most frequent width.
    """
    stackable = _stackable(preprocessing, encoders)
    if not stackable:
        return None

    # Only encoders of one width can be stacked: take the width that most columns have.
    widths = Counter(encoder.width for encoder in stackable.values())
    usual_width, _ = widths.most_common(1)[0]
    alike = {column: encoder for column, encoder in stackable.items() if encoder.width == usual_width}
    if len(alike) < 2:
        return None
    return TableColumns(alike, missing)


def _stackable(preprocessing: Preprocessing, encoders: Mapping[str, Encoder]) -> dict[str, PlainEncoder]:
    """Return the encoders of plain columns that can be stacked. A list of cells needs its own attention."""
    stackable = {}
    for column, encoder in encoders.items():
        is_plain = preprocessing.inputs[column].plain and column not in preprocessing.several
        if is_plain and isinstance(encoder, PlainEncoder) and encoder.can_be_stacked:
            stackable[column] = encoder
    return stackable


def _linears(encoder: PlainEncoder) -> list[nn.Linear]:
    """Return both linear layers of an encoder of vectors."""
    return [module for module in encoder.net.modules() if isinstance(module, nn.Linear)]


class TableColumns(nn.Module):
    """The encoders of many plain columns as one.

    It computes the same function as one encoder for each column, and starts from their weights. A few large
    products take the place of many small ones.
    """

    def __init__(self, encoders: Mapping[str, PlainEncoder], missing: str) -> None:
        super().__init__()
        number_encoders = {}
        category_embeddings = {}
        for column, encoder in encoders.items():
            if isinstance(encoder.net, nn.Embedding):
                category_embeddings[column] = encoder.net
            else:
                number_encoders[column] = encoder

        self.numbers = list(number_encoders)
        self.categories = list(category_embeddings)
        self.columns = [*self.numbers, *self.categories]
        self.width = next(iter(encoders.values())).width
        if self.numbers:
            self._stack_linears(list(number_encoders.values()))
        if self.categories:
            self._stack_embeddings(list(category_embeddings.values()))

        self.stand_in = StandIn(len(self.columns), self.width, start_of(missing))

    def _stack_linears(self, encoders: list[PlainEncoder]) -> None:
        """Stack both linear layers of all numbers. The weights of shorter vectors are padded with zeros."""
        layers = [_linears(encoder) for encoder in encoders]
        entries = [first.in_features for first, _ in layers]

        first_weights, first_biases = [], []
        second_weights, second_biases = [], []
        for first, second in layers:
            padding = (0, 0, 0, max(entries) - first.in_features)
            weight_EH = first.weight.detach().T
            first_weights.append(F.pad(weight_EH, padding))
            first_biases.append(first.bias.detach())
            second_weights.append(second.weight.detach().T)
            second_biases.append(second.bias.detach())

        self.first_MEH = nn.Parameter(torch.stack(first_weights))
        self.second_MHD = nn.Parameter(torch.stack(second_weights))

        # Biases are flat: tensors of one dimension take no weight decay (see `optimizer_for`).
        self.first_bias = nn.Parameter(torch.cat(first_biases))
        self.second_bias = nn.Parameter(torch.cat(second_biases))
        self.place_ME: Tensor
        self.register_buffer("place_ME", _places(entries), persistent=False)

    def _stack_embeddings(self, embeddings: list[nn.Embedding]) -> None:
        """Put the embeddings of all categories into one table, one column after the other."""
        weights = [embedding.weight.detach() for embedding in embeddings]
        self.embedding = nn.Embedding.from_pretrained(torch.cat(weights), freeze=False)

        # A column's rows of the table begin where those of the columns before it end.
        heights = [len(weight) for weight in weights]
        offset_M = torch.tensor([0, *heights]).cumsum(0)[:-1]
        self.offset_M: Tensor
        self.register_buffer("offset_M", offset_M, persistent=False)

    def forward(
        self, values: Mapping[str, Values], present: Mapping[str, Tensor], in_table: Mapping[str, Tensor]
    ) -> dict[str, Tokens]:
        """Return one token for each column, by name."""
        tokens = []
        if self.numbers:
            tokens.append(self._encode_numbers(values))
        if self.categories:
            index_BM = torch.stack([values[column].x for column in self.categories], 1)
            tokens.append(self.embedding(index_BM + self.offset_M))
        x_BMD = torch.cat(tokens, 1)
        return self._stand_in(x_BMD, present, in_table)

    def _encode_numbers(self, values: Mapping[str, Values]) -> Tensor:
        """Return one vector for each column of numbers, (B, M, D)."""
        x_BF = torch.cat([values[column].x for column in self.numbers], 1)

        # A zero at the end stands for entries that a column does not have (see `_places`).
        padded_BF = F.pad(x_BF, (0, 1))
        x_MBE = padded_BF[:, self.place_ME].transpose(0, 1)

        count = len(self.numbers)
        first_bias_M1H = self.first_bias.view(count, 1, -1)
        second_bias_M1D = self.second_bias.view(count, 1, -1)
        hidden_MBH = torch.baddbmm(first_bias_M1H, x_MBE, self.first_MEH).relu()
        x_MBD = torch.baddbmm(second_bias_M1D, hidden_MBH, self.second_MHD)
        return x_MBD.transpose(0, 1)

    def hide(
        self, tokens: Mapping[str, Tokens], present: Mapping[str, Tensor], in_table: Mapping[str, Tensor]
    ) -> dict[str, Tokens]:
        """Put stand-in tokens into the rows in which a column is absent."""
        x_BMD = torch.cat([tokens[column].x_BLD for column in self.columns], 1)
        return self._stand_in(x_BMD, present, in_table)

    def _stacked(self, masks: Mapping[str, Tensor]) -> Tensor:
        """Return the masks of all columns side by side, (B, M)."""
        return torch.stack([masks[column] for column in self.columns], 1)

    def _stand_in(
        self, x_BMD: Tensor, present: Mapping[str, Tensor], in_table: Mapping[str, Tensor]
    ) -> dict[str, Tokens]:
        """Put stand-in tokens in place of absent cells, and return each column's token by name."""
        present_BM = self._stacked(present)
        in_table_BM = self._stacked(in_table)
        x_BMD = self.stand_in(x_BMD, present_BM, in_table_BM)

        # One `split` gives the views of all columns: a table may have thousands.
        vectors = x_BMD.split(1, 1)
        masks = present_BM.split(1, 1)
        tokens = {}
        for column, x_B1D, mask_B1 in zip(self.columns, vectors, masks, strict=True):
            tokens[column] = Tokens(x_B1D, mask_B1)
        return tokens


def _places(entries: list[int]) -> Tensor:
    """Return where each column's entries are when all lie side by side, (M, E).

    An entry that a column does not have lies one beyond the last.
    """
    beyond_last = sum(entries)
    place_ME = torch.full((len(entries), max(entries)), beyond_last)
    start = 0
    for column, count in enumerate(entries):
        place_ME[column, :count] = torch.arange(start, start + count)
        start += count
    return place_ME
