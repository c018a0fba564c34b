"""The classic stack of convolutions, each followed by ReLU and 2x2 max pooling (after LeCun et al. 1998)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import nn
from torch.nn import functional as F

from plait.encoders.base import Encoder
from plait.errors import RecipeError, count
from plait.nn.batch import Layout, Tokens, Values
from plait.nn.layers import glorot
from plait.recipe.bounds import MAX_KERNEL, Widths
from plait.recipe.registry import Options


class Config(Options):
    """`padding` of 0 is "valid". `pool` makes one token of all positions (`flatten`), one of their `mean`,
    or one of each position (`none`).
    """

    channels: Widths = Field(
        (64, 128, 256), min_length=1, description="of the convolutions, one after the other"
    )
    kernel: int = Field(
        3, ge=1, le=MAX_KERNEL, description="width and height that a convolution sees, in pixels"
    )
    padding: int = Field(
        0,
        ge=0,
        le=MAX_KERNEL,
        description="zeros around the image; 0: none, so each convolution makes it smaller",
    )
    pool: Literal["flatten", "mean", "none"] = Field(
        "flatten", description="which tokens it makes (see above)"
    )


class CNN(Encoder):
    """Convolutions on a grid.

    Pooling comes before ReLU: that gives the same values and gradients for a quarter of the work.
    """

    options = Config
    takes = frozenset({"grid"})

    def __init__(
        self, size: tuple[int, ...], channels: tuple[int, ...], kernel: int, padding: int, pool: str
    ) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList()
        before, height, width = size
        for after in channels:
            self.convolutions.append(nn.Conv2d(before, after, kernel, padding=padding))
            before = after

            # A convolution takes kernel - 1 pixels off the padded side; pooling halves what is left.
            height = (height + 2 * padding - kernel + 1) // 2
            width = (width + 2 * padding - kernel + 1) // 2
        if min(height, width) < 1:
            raise RecipeError(
                f"cnn: images of {size[1]} x {size[2]} are too small for "
                f"{count(len(channels), 'layer')}; raise the image's size"
            )

        self.pool = pool
        self.width = channels[-1]
        if pool == "flatten":
            self.width *= height * width
        glorot(self)

    @classmethod
    def build(cls, config: Config, layout: Layout) -> CNN:
        """Build the encoder for images of a layout's size. Raises `RecipeError` if they are too small."""
        return cls(layout.size, config.channels, config.kernel, config.padding, config.pool)

    def forward(self, values: Values) -> Tokens:
        """Encode images (B, C, H, W) as tokens (B, L, width). L is 1 unless `pool` is `none`."""
        x_BCHW = values.x
        for convolution in self.convolutions:
            x_BCHW = F.max_pool2d(convolution(x_BCHW), 2)
            x_BCHW = F.relu_(x_BCHW)

        # In channels-last memory this makes no copy.
        x_BHWC = x_BCHW.permute(0, 2, 3, 1)
        x_BLD = x_BHWC.flatten(1, 2)
        if self.pool == "flatten":
            return Tokens.one_each(x_BLD.flatten(1))
        if self.pool == "mean":
            return Tokens.one_each(x_BLD.mean(1))
        return Tokens.all_valid(x_BLD)


component = CNN
