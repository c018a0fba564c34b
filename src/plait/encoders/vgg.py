"""Convolutions at full resolution, each followed by max pooling (after VGG, Simonyan & Zisserman 2015).

With batch normalisation. It learns shapes from few images if there are no pretrained weights.
"""

from __future__ import annotations

from pydantic import Field
from torch import nn
from torch.nn import functional as F

from plait.encoders.base import Encoder
from plait.nn.batch import Layout, Tokens, Values
from plait.nn.layers import BatchNorm
from plait.recipe.bounds import Widths
from plait.recipe.registry import Options


class Config(Options):
    """Each of `channels` is a 3x3 convolution that halves the grid; `dropout` of channels."""

    channels: Widths = Field(
        (16, 32, 64, 128, 256),
        min_length=1,
        max_length=8,
        description="of the convolutions, each of which halves width and height",
    )
    dropout: float = Field(
        0.1, ge=0, lt=1, description="share of the channels that are set to zero in training"
    )


class VGG(Encoder):
    """One token for each position of the last grid: nine for an image of 96 pixels a side.

    The first convolution sees every pixel. Max pooling comes before normalisation and ReLU, which then have
    a quarter of the work.
    """

    options = Config
    takes = frozenset({"grid"})

    def __init__(self, size: tuple[int, ...], channels: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList()
        self.norms = nn.ModuleList()
        before = size[0]
        for after in channels:
            self.convolutions.append(nn.Conv2d(before, after, 3, padding=1, bias=False))
            self.norms.append(BatchNorm(after))
            before = after
        self.dropout = nn.Dropout1d(dropout)
        self.width = channels[-1]

    @classmethod
    def build(cls, config: Config, layout: Layout) -> VGG:
        """Build the encoder for images of a layout's number of channels."""
        return cls(layout.size, config.channels, config.dropout)

    def forward(self, values: Values) -> Tokens:
        """Encode images (B, C, H, W) as tokens (B, L, width)."""
        x_BCHW = values.x
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x_BCHW = convolution(x_BCHW)
            if min(x_BCHW.shape[2:]) > 1:  # the grid of a small image may be one position high already
                x_BCHW = F.max_pool2d(x_BCHW, 2)
            x_BCHW = F.relu_(norm(x_BCHW))

        x_BDL = self.dropout(x_BCHW.flatten(2))
        return Tokens.all_valid(x_BDL.transpose(1, 2))


component = VGG
