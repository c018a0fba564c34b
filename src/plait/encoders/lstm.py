"""A long short-term memory over token embeddings (Hochreiter & Schmidhuber 1997, with the forget gate
of Gers 2000).
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import nn

from plait.encoders.base import Encoder
from plait.nn.batch import Layout, Tokens, Values
from plait.nn.layers import BiLSTM, Dropout
from plait.recipe.registry import Options


class Config(Options):
    """The height of the embedding is the text's `vocabulary`, 10,000 unless said otherwise. `tokens`:
    the `last` state alone, or `all` states.
    """

    embedding: int = Field(64, ge=1)
    width: int = Field(64, ge=1)
    bidirectional: bool = False
    tokens: Literal["last", "all"] = "last"
    dropout: float = Field(0.0, ge=0, lt=1, description="of embedded tokens")


class LSTM(Encoder):
    """Reads up to each text's own last token; padding behind it has no effect.

    PyTorch gives an LSTM two bias vectors that only ever add up. The second is held at zero and not
    trained, so that the parameters are those of the equations (and of Keras).
    """

    options = Config
    takes = frozenset({"tokens"})

    def __init__(
        self, vocabulary: int, embedding: int, width: int, bidirectional: bool, tokens: str, dropout: float
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.lstm = BiLSTM(embedding, width) if bidirectional else nn.LSTM(embedding, width, batch_first=True)
        self.dropout = Dropout(dropout)
        self.tokens = tokens
        self.width = width * (2 if bidirectional else 1)
        nn.init.uniform_(self.embedding.weight, -0.05, 0.05)
        for name, parameter in self.lstm.named_parameters():
            kind = name.rsplit(".", 1)[-1]
            if kind.startswith("weight_ih"):
                nn.init.xavier_uniform_(parameter)
            elif kind.startswith("weight_hh"):
                for gate in parameter.data.chunk(4):
                    nn.init.orthogonal_(gate)
            else:
                nn.init.zeros_(parameter)
                if kind.startswith("bias_hh"):
                    parameter.requires_grad_(False)
                else:
                    parameter.data[width : 2 * width] = (
                        1.0  # the forget gate begins open (Jozefowicz et al. 2015)
                    )

    @classmethod
    def build(cls, config: Config, layout: Layout) -> LSTM:
        return cls(
            layout.vocabulary,
            config.embedding,
            config.width,
            config.bidirectional,
            config.tokens,
            config.dropout,
        )

    def forward(self, values: Values) -> Tokens:
        assert values.length_B is not None
        x_BLD = self.dropout(self.embedding(values.x))
        length_B = values.length_B.clamp(min=1)
        if isinstance(self.lstm, BiLSTM):
            y_BLD, last_BD = self.lstm(x_BLD, length_B)
        else:
            y_BLD = self.lstm(x_BLD)[0]
            last_BD = y_BLD[torch.arange(len(y_BLD), device=y_BLD.device), length_B - 1]
        if self.tokens == "all":
            return Tokens(y_BLD, values.mask_BL())
        return Tokens(last_BD[:, None], torch.ones(len(last_BD), 1, dtype=torch.bool, device=last_BD.device))


component = LSTM
