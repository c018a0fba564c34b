"""Convolutions over a spectrogram, then a bidirectional LSTM over time (Cakir et al. 2017, CRNN)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from plait.encoders.base import Encoder
from plait.nn.batch import Layout, Tokens, Values
from plait.nn.layers import BiLSTM, Dropout, SpectrumStages, steps_mask
from plait.recipe.bounds import MAX_LAYERS, MAX_WIDTH, Widths
from plait.recipe.registry import Options


class Config(Options):
    """`channels` of the convolutions. Each halves the bands; the first two also halve time. `width` is that
    of each direction of the LSTM, which has `layers` layers. `tokens`: `all` states, or the two `last` ones,
    joined.
    """

    channels: Widths = Field(
        (16, 32, 64), min_length=1, max_length=6, description="of the convolutions, one after the other"
    )
    width: int = Field(64, ge=1, le=MAX_WIDTH, description="of each direction of the LSTM")
    layers: int = Field(1, ge=1, le=MAX_LAYERS, description="of the LSTM")
    tokens: Literal["last", "all"] = Field(
        "all", description="the last state of both directions, or all states"
    )
    dropout: float = Field(
        0.2, ge=0, lt=1, description="share of the entries that are set to zero in training"
    )


class CRNN(Encoder):
    """Convolutions, then an LSTM that reads each row up to its own end, in both directions."""

    options = Config
    takes = frozenset({"spectrogram"})

    def __init__(
        self, bands: int, channels: tuple[int, ...], width: int, layers: int, tokens: str, dropout: float
    ) -> None:
        super().__init__()
        # Four spectra make one step of the LSTM; bands are halved in every stage.
        pools = []
        for stage in range(len(channels)):
            time_pool = 2 if stage < 2 else 1
            pools.append((time_pool, 2))
        self.stages = SpectrumStages(bands, channels, pools)
        self.dropout = Dropout(dropout)
        self.lstm = BiLSTM(self.stages.width, width, layers, dropout)
        self.tokens = tokens
        self.width = 2 * width

    @classmethod
    def build(cls, config: Config, layout: Layout) -> CRNN:
        """Build the encoder for spectrograms of a layout's number of bands."""
        return cls(
            layout.size[1], config.channels, config.width, config.layers, config.tokens, config.dropout
        )

    def forward(self, values: Values) -> Tokens:
        """Encode spectrograms (B, T, bands) as tokens (B, T / 4, 2 width), or (B, 1, 2 width) with `last`."""
        assert values.length_B is not None
        x_BTD, length_B = self.stages(values.x, values.length_B)
        x_BTD = self.dropout(x_BTD)
        x_BLD, last_BD = self.lstm(x_BTD, length_B)
        if self.tokens == "last":
            return Tokens.one_each(last_BD)
        mask_BL = steps_mask(x_BLD.shape[1], length_B)
        return Tokens(x_BLD, mask_BL)


component = CRNN
