"""Convolutions over space and time at once (Tran et al. 2015, C3D, at the size of a small table)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from plait.encoders.base import Encoder
from plait.nn.batch import Layout, Tokens, Values
from plait.nn.layers import Dropout, MaskedBatchNorm, steps_mask
from plait.recipe.bounds import Widths
from plait.recipe.registry import Options


class Config(Options):
    """Each of `channels` is a 3x3x3 convolution that halves height and width; time keeps its length.
    `dropout` of the tokens' entries.
    """

    channels: Widths = Field(
        (16, 32, 64, 128), min_length=1, max_length=6, description="of the convolutions, one after the other"
    )
    dropout: float = Field(
        0.2, ge=0, lt=1, description="share of the tokens' entries that are set to zero in training"
    )


class Conv3D(Encoder):
    """One token for each frame and what moves around it: the mean over the frame's positions."""

    options = Config
    takes = frozenset({"frames"})

    def __init__(self, size: tuple[int, ...], channels: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        before = size[1]
        for after in channels:
            self.stages.append(Stage(before, after))
            before = after
        self.dropout = Dropout(dropout)
        self.width = channels[-1]

    @classmethod
    def build(cls, config: Config, layout: Layout) -> Conv3D:
        """Build the encoder for frames of a layout's number of channels."""
        return cls(layout.size, config.channels, config.dropout)

    def forward(self, values: Values) -> Tokens:
        """Encode frames (B, T, C, H, W) as tokens (B, T, width)."""
        assert values.length_B is not None
        mask_BT = steps_mask(values.x.shape[1], values.length_B)
        mask_B1T11 = mask_BT[:, None, :, None, None]
        x_BCTHW = values.x.transpose(1, 2) * mask_B1T11
        for stage in self.stages:
            x_BCTHW = stage(x_BCTHW, mask_BT)

        x_BCT = x_BCTHW.mean((3, 4))
        x_BTD = self.dropout(x_BCT.transpose(1, 2))
        return Tokens(x_BTD, mask_BT)


class Stage(nn.Module):
    """A convolution with max pooling over space, normalisation and ReLU.

    Frames beyond a video's length are zero before and after, so a video does not depend on the others.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.convolution = nn.Conv3d(before, after, 3, padding=1, bias=False)
        self.norm = MaskedBatchNorm(after)

    def forward(self, x_BCTHW: Tensor, mask_BT: Tensor) -> Tensor:
        """(B, before, T, H, W) -> (B, after, T, H / 2, W / 2)."""
        x_BCTHW = self.convolution(x_BCTHW)
        x_BCTHW = F.max_pool3d(x_BCTHW, (1, 2, 2), ceil_mode=True)
        return F.relu_(self.norm(x_BCTHW, mask_BT))


component = Conv3D
