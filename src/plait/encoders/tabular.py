"""Encode numbers, categories, dates and vectors as one token each (Gorishniy et al. 2021, FT-Transformer)."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn

from plait.encoders.base import PlainEncoder
from plait.nn.batch import Layout, Tokens, Values
from plait.nn.layers import glorot
from plait.recipe.bounds import MAX_WEIGHT, MAX_WIDTH
from plait.recipe.registry import Options


class Config(Options):
    """`periodic` is the number of learned frequencies for each entry of a vector (Gorishniy et al. 2022, eq.
    2). With 0 the entries stay as they are. `sigma` is the frequencies' standard deviation at the start.
    """

    width: int = Field(32, ge=1, le=MAX_WIDTH, description="of the token of each column")
    periodic: int = Field(
        0, ge=0, le=MAX_WIDTH, description="learned frequencies for each entry; 0: entries stay as they are"
    )
    sigma: float = Field(
        0.1, gt=0, le=MAX_WEIGHT, description="standard deviation of the frequencies at the start"
    )


class Tabular(PlainEncoder):
    """An embedding of an index, or two linear layers over a vector with a ReLU between them."""

    options = Config
    takes = frozenset({"vector", "index"})

    def __init__(self, layout: Layout, width: int, periodic: int, sigma: float) -> None:
        super().__init__()
        self.width = width
        self.net: nn.Module
        if layout.kind == "index":
            self.net = nn.Embedding(layout.vocabulary, width)
            nn.init.normal_(self.net.weight, std=1 / math.sqrt(width))
        else:
            entries = layout.size[0]
            inputs = entries
            first: nn.Module = nn.Identity()
            if periodic:
                inputs = entries * 2 * periodic
                first = Periodic(entries, periodic, sigma)
            hidden = 2 * width
            self.net = nn.Sequential(first, nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, width))
            glorot(self.net)

    @property
    def can_be_stacked(self) -> bool:
        """Return whether this can be encoded in one step with the other plain columns (`TableColumns`)."""
        return not any(isinstance(module, Periodic) for module in self.net.modules())

    @classmethod
    def build(cls, config: Config, layout: Layout) -> Tabular:
        """Build the encoder for indices or vectors of a layout."""
        return cls(layout, config.width, config.periodic, config.sigma)

    def forward(self, values: Values) -> Tokens:
        """Encode indices (B,) or vectors (B, F) as one token for each row, (B, 1, width)."""
        x_BD = self.net(values.x)
        return Tokens.one_each(x_BD)


class Periodic(nn.Module):
    """Periodic embeddings [sin(v), cos(v)] with v = 2 pi c x and learned c (Gorishniy et al. 2022, eq. 2)."""

    def __init__(self, entries: int, frequencies: int, sigma: float) -> None:
        super().__init__()
        self.frequency = nn.Parameter(torch.randn(entries, frequencies) * sigma)

    def forward(self, x_BF: Tensor) -> Tensor:
        """(B, F) -> (B, F * 2 K), K being the number of frequencies."""
        v_BFK = 2 * math.pi * self.frequency * x_BF[..., None]
        periodic_BFK = torch.cat([v_BFK.sin(), v_BFK.cos()], -1)
        return periodic_BFK.flatten(1)


component = Tabular
