"""A small residual network (He et al. 2016), for images if there are no pretrained weights."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from plait.encoders.base import Encoder
from plait.nn.batch import Layout, Tokens, Values
from plait.nn.layers import BatchNorm
from plait.recipe.bounds import MAX_LAYERS, MAX_WIDTH
from plait.recipe.registry import Options


class Config(Options):
    """`width` channels in the first stage, doubled in each of `stages`, which halve the grid; `dropout`
    of channels.
    """

    width: int = Field(
        32, ge=1, le=MAX_WIDTH, description="channels of the first stage; each stage doubles them"
    )
    stages: int = Field(4, ge=1, le=6, description="stages, each of which halves width and height")
    blocks: int = Field(1, ge=1, le=MAX_LAYERS, description="residual blocks in a stage")
    dropout: float = Field(
        0.1, ge=0, lt=1, description="share of the channels that are set to zero in training"
    )


class ResNet(Encoder):
    """One token for each position of the last grid: nine for an image of 96 pixels a side and four stages."""

    options = Config
    takes = frozenset({"grid"})

    def __init__(self, size: tuple[int, ...], width: int, stages: int, blocks: int, dropout: float) -> None:
        super().__init__()
        self.stem = nn.Conv2d(size[0], width, 3, stride=2, padding=1, bias=False)
        self.norm = BatchNorm(width)

        residuals: list[nn.Module] = []
        before = width
        side = -(-min(size[1:]) // 4)  # of the grid after the stem and its pooling, which halve it twice
        for stage in range(stages):
            after = width * 2**stage
            for block in range(blocks):
                # A grid of one position is not halved. There is nothing to halve, and oneDNN's bf16 gradient
                # of such a convolution is uninitialised memory (torch 2.13).
                halves = block == 0 and stage > 0 and side > 1
                stride = 2 if halves else 1
                residuals.append(Residual(before, after, stride))
                before = after
                side = -(-side // stride)
        self.stages = nn.Sequential(*residuals)
        self.dropout = nn.Dropout1d(dropout)
        self.width = before

    @classmethod
    def build(cls, config: Config, layout: Layout) -> ResNet:
        """Build the encoder for images of a layout's size."""
        return cls(layout.size, config.width, config.stages, config.blocks, config.dropout)

    def forward(self, values: Values) -> Tokens:
        """Encode images (B, C, H, W) as tokens (B, L, width)."""
        x_BCHW = self.norm(self.stem(values.x))
        x_BCHW = F.relu_(x_BCHW)
        x_BCHW = F.max_pool2d(x_BCHW, 3, stride=2, padding=1)
        x_BCHW = self.stages(x_BCHW)

        x_BDL = self.dropout(x_BCHW.flatten(2))
        return Tokens.all_valid(x_BDL.transpose(1, 2))


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al. 2016, eq. 1 and 2, the basic block)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.convolution1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.norm1 = BatchNorm(after)
        self.convolution2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = BatchNorm(after)
        nn.init.zeros_(self.norm2.weight)  # each block begins as its shortcut (Goyal et al. 2017, 5.1)
        self.shortcut: nn.Module = nn.Identity()
        if before != after or stride > 1:
            projection = nn.Conv2d(before, after, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, BatchNorm(after))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, before, H, W) -> (B, after, H / stride, W / stride)."""
        y_BCHW = self.norm1(self.convolution1(x_BCHW))
        y_BCHW = F.relu_(y_BCHW)
        y_BCHW = self.norm2(self.convolution2(y_BCHW))
        return F.relu_(y_BCHW + self.shortcut(x_BCHW))


component = ResNet
