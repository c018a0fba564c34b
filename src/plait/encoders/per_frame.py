"""Encode each frame by an encoder of images, then encode the frames over time.

With an LSTM over time this is LRCN (Donahue et al. 2015).
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from plait.encoders.base import Encoder, encoders
from plait.errors import RecipeError
from plait.nn.batch import Layout, Tokens, Values
from plait.nn.layers import BiLSTM, Block, Dropout, steps_mask
from plait.recipe.bounds import MAX_HEADS, MAX_LAYERS, MAX_WIDTH
from plait.recipe.registry import Choice, Options


class Config(Options):
    """`frame` is any encoder of images, with its options. `time`: an `lstm` in both directions, `attention`
    (transformer blocks with learned positions), or the `mean` of the frames, which ignores their order.
    `width` is that of the LSTM or the attention.
    """

    frame: Choice = Field(
        Choice(name="vgg", channels=(16, 32, 64, 128)),
        description="encoder of each frame: any encoder of images",
    )
    time: Literal["lstm", "attention", "mean"] = Field(
        "lstm", description="what joins the frames (see above)"
    )
    width: int = Field(
        128, ge=2, multiple_of=2, le=MAX_WIDTH, description="of the LSTM or the attention; even"
    )
    heads: int = Field(4, ge=1, le=MAX_HEADS, description="of attention")
    layers: int = Field(1, ge=1, le=MAX_LAYERS, description="of the lstm, or blocks of attention")
    dropout: float = Field(
        0.1, ge=0, lt=1, description="share of the entries that are set to zero in training"
    )

    @field_validator("frame")
    @classmethod
    def _resolve(cls, frame: Choice) -> Choice:
        return encoders.resolve(frame)


class PerFrame(Encoder):
    """One token for each frame; what lies beyond a video's length has no part in it."""

    options = Config
    takes = frozenset({"frames"})

    def __init__(
        self, frame: Encoder, frames: int, time: str, width: int, heads: int, layers: int, dropout: float
    ) -> None:
        super().__init__()
        self.frame = frame
        self.time = time
        self.width = frame.width if time == "mean" else width
        self.dropout = Dropout(dropout)
        if time == "lstm":
            self.lstm = BiLSTM(frame.width, width // 2, layers)
        elif time == "attention":
            self.into = nn.Linear(frame.width, width)
            self.position = nn.Parameter(torch.randn(frames, width) * 0.02)
            self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
            self.norm = nn.LayerNorm(width)

    @classmethod
    def build(cls, config: Config, layout: Layout) -> PerFrame:
        """Build the encoder for frames of a layout.

        Raises `RecipeError` if `frame` does not encode images, or `width` does not fit `heads`.
        """
        frame_encoder, options = encoders.choose(config.frame)
        if "grid" not in frame_encoder.takes:
            kinds = ", ".join(sorted(frame_encoder.takes))
            raise RecipeError(
                f"per_frame: expected an encoder of images; '{config.frame.name}' takes {kinds}"
            )
        if config.time == "attention" and config.width % config.heads:
            raise RecipeError(f"per_frame: width {config.width} is not a multiple of heads {config.heads}")
        frame = frame_encoder.build(options, Layout("grid", layout.size[1:]))
        return cls(
            frame, layout.size[0], config.time, config.width, config.heads, config.layers, config.dropout
        )

    def forward(self, values: Values) -> Tokens:
        """Encode frames (B, T, C, H, W) as tokens (B, T, width)."""
        assert values.length_B is not None
        steps = values.x.shape[1]
        length_B = values.length_B.clamp(min=1)
        mask_BT = steps_mask(steps, length_B)

        x_BTD = self._encode_frames(values.x, mask_BT)

        if self.time == "lstm":
            x_BTD, _ = self.lstm(x_BTD, length_B)
        elif self.time == "attention":
            x_BTD = self.into(x_BTD) + self.position[:steps]
            for block in self.blocks:
                x_BTD = block(x_BTD, mask_BT)
            x_BTD = self.norm(x_BTD)
        return Tokens(x_BTD, mask_BT)

    def _encode_frames(self, x_BTCHW: Tensor, mask_BT: Tensor) -> Tensor:
        """Return one vector for each frame (B, T, D), zeros beyond a video's length.

        All frames are encoded as one batch of images. In training those beyond a video's length are left
        out, because they would count in the statistics of batch normalisation.
        """
        images_NCHW = x_BTCHW.flatten(0, 1)
        if self.training:
            images_NCHW = images_NCHW[mask_BT.flatten()]
        images_NCHW = images_NCHW.contiguous(memory_format=torch.channels_last)
        tokens_of_images = self.frame(Values(images_NCHW))
        vectors_ND = self.dropout(tokens_of_images.pooled_BD())
        if not self.training:
            return vectors_ND.unflatten(0, mask_BT.shape) * mask_BT[..., None]

        x_BTD = vectors_ND.new_zeros(*mask_BT.shape, vectors_ND.shape[1])
        x_BTD[mask_BT] = vectors_ND
        return x_BTD


component = PerFrame
