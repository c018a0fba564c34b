"""Convolutions over a spectrogram (after Hershey et al. 2017, at the size of a small table)."""

from __future__ import annotations

from pydantic import Field
from torch import nn
from torch.nn import functional as F

from plait.encoders.base import Encoder
from plait.nn.batch import Layout, Tokens, Values
from plait.nn.layers import Dropout, SpectrumStages, glorot, steps_mask
from plait.recipe.bounds import MAX_WIDTH, Widths
from plait.recipe.registry import Options


class Config(Options):
    """Each of `channels` is a convolution that halves time and bands. The bands that remain make one vector
    of `width`.
    """

    channels: Widths = Field(
        (16, 32, 64, 128), min_length=1, max_length=6, description="of the convolutions, one after the other"
    )
    width: int = Field(128, ge=1, le=MAX_WIDTH, description="of the vector that it makes")
    dropout: float = Field(
        0.2, ge=0, lt=1, description="share of the channels that are set to zero in training"
    )


class AudioCNN(Encoder):
    """One token for each 2^n steps of time, n being the number of convolutions.

    Bands are not averaged, so a token says how high a tone is.
    """

    options = Config
    takes = frozenset({"spectrogram"})

    def __init__(self, bands: int, channels: tuple[int, ...], width: int, dropout: float) -> None:
        super().__init__()
        pools = [(2, 2)] * len(channels)
        self.stages = SpectrumStages(bands, channels, pools)
        self.dropout = Dropout(dropout)
        self.out = glorot(nn.Linear(self.stages.width, width))
        self.width = width

    @classmethod
    def build(cls, config: Config, layout: Layout) -> AudioCNN:
        """Build the encoder for spectrograms of a layout's number of bands."""
        return cls(layout.size[1], config.channels, config.width, config.dropout)

    def forward(self, values: Values) -> Tokens:
        """Encode spectrograms (B, T, bands) as tokens (B, T / 2^n, width)."""
        assert values.length_B is not None
        x_BLD, length_B = self.stages(values.x, values.length_B)
        x_BLD = self.out(self.dropout(x_BLD))
        mask_BL = steps_mask(x_BLD.shape[1], length_B)
        return Tokens(F.relu(x_BLD), mask_BL)


component = AudioCNN
