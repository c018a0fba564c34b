"""Convolutions and attention over a spectrogram, for recordings of speech (Gulati et al. 2020, "Conformer").

Shape letters: B rows, T steps, M mel bands, C channels, H heads, E width of a head, R distances, D width.
"""

from __future__ import annotations

import math
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from plait.encoders.base import Encoder
from plait.nn.batch import Layout, Tokens, Values
from plait.nn.layers import Dropout, MaskedBatchNorm, steps_mask
from plait.recipe.bounds import MAX_HEADS, MAX_KERNEL, MAX_LAYERS, MAX_WIDTH
from plait.recipe.registry import Options


class Config(Options):
    """`layers` blocks of `width`, whose convolutions each see `kernel` steps. A step is four spectra long."""

    width: int = Field(144, ge=4, le=MAX_WIDTH, description="of the tokens; even, and a multiple of heads")
    heads: int = Field(4, ge=1, le=MAX_HEADS, description="attention heads in each block")
    layers: int = Field(4, ge=1, le=MAX_LAYERS, description="blocks")
    kernel: int = Field(15, ge=3, le=MAX_KERNEL, description="steps that a convolution sees; odd")
    channels: int = Field(32, ge=1, le=MAX_WIDTH, description="of the two convolutions that come first")
    dropout: float = Field(
        0.1, ge=0, lt=1, description="share of the entries that are set to zero in training"
    )

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.width % self.heads or self.width % 2 or self.kernel % 2 == 0:
            raise ValueError(
                f"expected a width ({self.width}) that is a multiple of heads ({self.heads}) and of 2, and "
                f"an odd kernel ({self.kernel})"
            )
        return self


class Conformer(Encoder):
    """Two convolutions that halve time and bands, then Conformer blocks (ib., sec. 2).

    A block is a half feed-forward network, attention with relative positions, a convolution over time, and
    another half feed-forward network. Each row is read up to its own end.
    """

    options = Config
    takes = frozenset({"spectrogram"})

    def __init__(
        self, bands: int, width: int, heads: int, layers: int, kernel: int, channels: int, dropout: float
    ) -> None:
        super().__init__()
        self.norm = MaskedBatchNorm(bands)
        self.convolutions = nn.ModuleList()
        for before in (1, channels):
            self.convolutions.append(nn.Conv2d(before, channels, 3, stride=2, padding=1))
        quarter_of_bands = -(-bands // 4)
        self.into = nn.Linear(channels * quarter_of_bands, width)
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(ConformerBlock(width, heads, kernel, dropout) for _ in range(layers))
        self.width = width

    @classmethod
    def build(cls, config: Config, layout: Layout) -> Conformer:
        """Build the encoder for spectrograms of a layout's number of bands."""
        return cls(
            bands=layout.size[1],
            width=config.width,
            heads=config.heads,
            layers=config.layers,
            kernel=config.kernel,
            channels=config.channels,
            dropout=config.dropout,
        )

    def forward(self, values: Values) -> Tokens:
        """Encode spectrograms (B, T, M) as tokens (B, T / 4, D)."""
        assert values.length_B is not None
        length_B = values.length_B.clamp(min=1)
        mask_BT = steps_mask(values.x.shape[1], length_B)
        x_BMT = self.norm(values.x.transpose(1, 2), mask_BT)

        # Channels are last in memory, which convolutions are fastest with.
        x_BTM1 = x_BMT.transpose(1, 2)[..., None]
        x_BCTM = x_BTM1.permute(0, 3, 1, 2)
        for convolution in self.convolutions:
            length_B = -(-length_B // 2)
            x_BCTM = F.relu(convolution(x_BCTM))

            # Zeros beyond a row's end: its tokens do not depend on the rows beside it.
            mask_BT = steps_mask(x_BCTM.shape[2], length_B)
            x_BCTM = x_BCTM * mask_BT[:, None, :, None]

        x_BTMC = x_BCTM.permute(0, 2, 3, 1)
        x_BTD = self.dropout(self.into(x_BTMC.flatten(2)))
        for block in self.blocks:
            x_BTD = block(x_BTD, mask_BT)
        return Tokens(x_BTD, mask_BT)


component = Conformer


class ConformerBlock(nn.Module):
    """Add FF / 2, attention, convolution and FF / 2 to the input, and normalise the sum (ib., eq. 1)."""

    def __init__(self, width: int, heads: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.feeds = nn.ModuleList(_feed(width, dropout) for _ in range(2))
        self.attention = RelativeAttention(width, heads, dropout)
        self.convolution = ConvolutionModule(width, kernel, dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D); `mask_BT` is True at the valid steps."""
        x_BTD = x_BTD + 0.5 * self.feeds[0](x_BTD)
        x_BTD = x_BTD + self.attention(x_BTD, mask_BT)
        x_BTD = x_BTD + self.convolution(x_BTD, mask_BT)
        return self.norm(x_BTD + 0.5 * self.feeds[1](x_BTD))


def _feed(width: int, dropout: float) -> nn.Module:
    """Return a feed-forward network (ib., fig. 4)."""
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, 4 * width),
        nn.SiLU(),
        Dropout(dropout),
        nn.Linear(4 * width, width),
        Dropout(dropout),
    )


class ConvolutionModule(nn.Module):
    """A gate, a convolution over time of each channel, batch normalisation, and Swish (ib., fig. 2)."""

    def __init__(self, width: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gate = nn.Linear(width, 2 * width)
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.batch_norm = MaskedBatchNorm(width)
        self.out = nn.Linear(width, width)
        self.dropout = Dropout(dropout)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D); steps that are not valid are zero before the convolution."""
        gated_BTD = F.glu(self.gate(self.norm(x_BTD)), -1)
        gated_BTD = gated_BTD * mask_BT[..., None]
        x_BDT = self.depthwise(gated_BTD.transpose(1, 2))
        x_BDT = F.silu(self.batch_norm(x_BDT, mask_BT))
        return self.dropout(self.out(x_BDT.transpose(1, 2)))


class RelativeAttention(nn.Module):
    """Attention whose scores are (q + u) k + (q + v) W r (Dai et al. 2019, "Transformer-XL", sec. 3.3).

    r are sines and cosines of the distance between two steps.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.distance = nn.Linear(width, width, bias=False)
        self.u_HE = nn.Parameter(torch.zeros(heads, width // heads))
        self.v_HE = nn.Parameter(torch.zeros(heads, width // heads))
        self.out = nn.Linear(width, width)
        self.dropout = Dropout(dropout)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D); `mask_BT` is True at the steps that may be attended to."""
        joined_BTF = self.query_key_value(self.norm(x_BTD))
        query_BTD, key_BTD, value_BTD = joined_BTF.chunk(3, -1)
        query_BHTE = self._split(query_BTD).transpose(1, 2)
        key_BHTE = self._split(key_BTD).transpose(1, 2)
        value_BHTE = self._split(value_BTD).transpose(1, 2)

        # torch computes (q + u) k. The scores of distances, (q + v) W r, go in as a bias beside the mask.
        bias_BHTT = self._distance_scores(query_BHTE, x_BTD) + self._mask_bias(mask_BT, query_BHTE.dtype)
        dropout = self.dropout.p if self.training else 0.0
        y_BHTE = F.scaled_dot_product_attention(
            query_BHTE + self.u_HE[:, None],
            key_BHTE,
            value_BHTE,
            attn_mask=bias_BHTT.to(query_BHTE.dtype),
            dropout_p=dropout,
        )
        y_BTD = y_BHTE.transpose(1, 2).flatten(2)
        return self.dropout(self.out(y_BTD))

    def _distance_scores(self, query_BHTE: Tensor, x_BTD: Tensor) -> Tensor:
        """Return (q + v) W r / sqrt(E) for each pair of steps, (B, H, T, T)."""
        steps, width = x_BTD.shape[1:]
        r_RD = distances(steps, width, x_BTD.device).to(x_BTD.dtype)
        r_RHE = self._split(self.distance(r_RD)).to(query_BHTE.dtype)
        by_distance_BHTR = torch.einsum("bhte,rhe->bhtr", query_BHTE + self.v_HE[:, None], r_RHE)
        return shifted(by_distance_BHTR) / math.sqrt(query_BHTE.shape[-1])

    @staticmethod
    def _mask_bias(mask_BT: Tensor, dtype: torch.dtype) -> Tensor:
        """Return a bias of 0 for the steps that may be attended to and -inf for the others, (B, 1, 1, T)."""
        zeros_BT = torch.zeros_like(mask_BT, dtype=dtype)
        bias_BT = zeros_BT.masked_fill(~mask_BT, -torch.inf)
        return bias_BT[:, None, None]

    def _split(self, x: Tensor) -> Tensor:
        """Split the last dimension into heads."""
        return x.unflatten(-1, (self.heads, -1))


def distances(steps: int, width: int, device: torch.device) -> Tensor:
    """Return sines and cosines of distances from `steps` - 1 down to 1 - `steps`, (2 steps - 1, width)."""
    distance_R1 = torch.arange(steps - 1, -steps, -1, device=device)[:, None]

    # Frequencies from 1 down to 1 / 10,000 (Vaswani et al. 2017, sec. 3.5).
    even = torch.arange(0, width, 2, device=device)
    frequency = torch.exp(even * (-math.log(10_000.0) / width))
    angle = distance_R1 * frequency
    return torch.cat([angle.sin(), angle.cos()], 1)


def shifted(x_BHTR: Tensor) -> Tensor:
    """Turn scores by distance (B, H, T, 2 T - 1) into scores by position (B, H, T, T).

    At (t, s) is the score of the distance t - s (Dai et al. 2019, app. B).
    """
    rows, heads, steps, _ = x_BHTR.shape

    # With a zero in front, a line has 2 T entries. All lines as one list, without its first T entries, are
    # then cut into lines of 2 T - 1 entries: each is shifted by one more than the line before.
    padded = F.pad(x_BHTR, (1, 0)).flatten(2)
    stretches = padded.view(rows, heads, -1, steps)
    without_first = stretches[:, :, 1:].flatten(2)
    lines = without_first.view(rows, heads, steps, -1)
    return lines[..., :steps]
