"""Convolutions over a spectrogram, then a bidirectional LSTM over time (Cakir et al. 2017, CRNN)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from plait.batch import Layout, Tokens, Values
from plait.components import Options
from plait.encoders.base import Encoder
from plait.layers import SpectrumStages, steps_mask


class Config(Options):
    """`channels` of the convolutions, the first two of which halve time; each halves the bands. `width` of each direction of
    the LSTM. `tokens`: `all` states, or the two `last` ones, joined."""

    channels: tuple[int, ...] = Field((16, 32, 64), min_length=1, max_length=6)
    width: int = Field(64, ge=1)
    tokens: Literal["last", "all"] = "all"
    dropout: float = Field(0.2, ge=0, lt=1)


class CRNN(Encoder):
    """The LSTM reads each row up to its own end, in both directions."""

    options = Config
    takes = frozenset({"spectrogram"})

    def __init__(self, bands: int, channels: tuple[int, ...], width: int, tokens: str, dropout: float) -> None:
        super().__init__()
        self.stages = SpectrumStages(bands, channels, [(2 if i < 2 else 1, 2) for i in range(len(channels))])
        self.dropout = nn.Dropout(dropout)
        self.lstm = nn.LSTM(self.stages.width, width, batch_first=True, bidirectional=True)
        self.tokens, self.width = tokens, 2 * width

    @classmethod
    def build(cls, config: Config, layout: Layout) -> CRNN:
        return cls(layout.size[1], config.channels, config.width, config.tokens, config.dropout)

    def forward(self, values: Values) -> Tokens:
        assert values.length_B is not None
        x_BTD, length_B = self.stages(values.x, values.length_B)
        x_BTD = self.dropout(x_BTD)
        packed = pack_padded_sequence(x_BTD, length_B.cpu(), batch_first=True, enforce_sorted=False)
        states, (last, _) = self.lstm(packed)
        if self.tokens == "last":
            x_B1D = last.transpose(0, 1).flatten(1)[:, None]
            return Tokens(x_B1D, torch.ones(x_B1D.shape[:2], dtype=torch.bool, device=x_B1D.device))
        x_BLD = pad_packed_sequence(states, batch_first=True, total_length=x_BTD.shape[1])[0]
        return Tokens(x_BLD, steps_mask(x_BLD.shape[1], length_B))


component = CRNN
