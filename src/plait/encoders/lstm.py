"""An LSTM over token embeddings (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import nn

from plait.encoders.base import Encoder
from plait.nn.batch import Layout, Tokens, Values
from plait.nn.layers import BiLSTM, Dropout
from plait.recipe.bounds import MAX_WIDTH
from plait.recipe.registry import Options


class Config(Options):
    """The embedding has a row for each id of the text's `vocabulary`, which is 10,000 by default. `tokens`:
    the `last` state, or `all` states.
    """

    embedding: int = Field(
        64, ge=1, le=MAX_WIDTH, description="width of the vector of each token of the text"
    )
    width: int = Field(64, ge=1, le=MAX_WIDTH, description="of the LSTM's state")
    bidirectional: bool = Field(False, description="read the text in both directions")
    tokens: Literal["last", "all"] = Field("last", description="the last state, or all states")
    dropout: float = Field(0.0, ge=0, lt=1, description="of embedded tokens")


class LSTM(Encoder):
    """An LSTM that reads up to each text's own last token; padding behind it has no effect.

    PyTorch gives an LSTM two bias vectors, of which only the sum counts. The second one stays zero and is not
    trained, so that the parameters are those of the equations (and of Keras).
    """

    options = Config
    takes = frozenset({"tokens"})

    def __init__(
        self, vocabulary: int, embedding: int, width: int, bidirectional: bool, tokens: str, dropout: float
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.lstm: nn.Module
        if bidirectional:
            self.lstm = BiLSTM(embedding, width)
            self.width = 2 * width
        else:
            self.lstm = nn.LSTM(embedding, width, batch_first=True)
            self.width = width
        self.dropout = Dropout(dropout)
        self.tokens = tokens

        nn.init.uniform_(self.embedding.weight, -0.05, 0.05)
        for name, parameter in self.lstm.named_parameters():
            _initialise(name, parameter, width)

    @classmethod
    def build(cls, config: Config, layout: Layout) -> LSTM:
        """Build the encoder for a layout's vocabulary."""
        return cls(
            vocabulary=layout.vocabulary,
            embedding=config.embedding,
            width=config.width,
            bidirectional=config.bidirectional,
            tokens=config.tokens,
            dropout=config.dropout,
        )

    def forward(self, values: Values) -> Tokens:
        """Encode ids (B, L) as tokens (B, L, width), or (B, 1, width) with `last`."""
        assert values.length_B is not None
        x_BLD = self.dropout(self.embedding(values.x))
        length_B = values.length_B.clamp(min=1)
        if isinstance(self.lstm, BiLSTM):
            y_BLD, last_BD = self.lstm(x_BLD, length_B)
        else:
            y_BLD, _ = self.lstm(x_BLD)
            row_B = torch.arange(len(y_BLD), device=y_BLD.device)
            last_BD = y_BLD[row_B, length_B - 1]

        if self.tokens == "last":
            return Tokens.one_each(last_BD)
        return Tokens(y_BLD, values.mask_BL())


component = LSTM


def _initialise(name: str, parameter: nn.Parameter, width: int) -> None:
    """Set a parameter of an LSTM to its start values, by its name in torch."""
    kind = name.rsplit(".", 1)[-1]
    if kind.startswith("weight_ih"):
        nn.init.xavier_uniform_(parameter)
    elif kind.startswith("weight_hh"):
        # The matrices of the four gates lie one below the other.
        for gate in parameter.data.chunk(4):
            nn.init.orthogonal_(gate)
    elif kind.startswith("bias_hh"):
        nn.init.zeros_(parameter)
        parameter.requires_grad_(False)
    else:
        # The forget gate, the second of four, begins open (Jozefowicz et al. 2015).
        nn.init.zeros_(parameter)
        parameter.data[width : 2 * width] = 1.0
