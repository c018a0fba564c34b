"""Numbers, categories, dates and vectors: one token for each column (as Gorishniy et al. 2021,
FT-Transformer).
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn

from plait.encoders.base import PlainEncoder
from plait.nn.batch import Layout, Tokens, Values
from plait.nn.layers import glorot
from plait.recipe.registry import Options


class Config(Options):
    """`periodic` frequencies for each entry of a vector (Gorishniy et al. 2022, eq. 2); 0: none, the
    entries as they are. `sigma` is the standard deviation of the frequencies at the start.
    """

    width: int = Field(32, ge=1)
    periodic: int = Field(0, ge=0)
    sigma: float = Field(0.1, gt=0)


class Tabular(PlainEncoder):
    """An embedding of an index; or two linear layers with a ReLU between over a vector."""

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
            first: nn.Module = Periodic(entries, periodic, sigma) if periodic else nn.Identity()
            wide = entries * 2 * periodic if periodic else entries
            self.net = nn.Sequential(
                first, nn.Linear(wide, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
            )
            glorot(self.net)

    @property
    def can_be_stacked(self) -> bool:
        return not any(isinstance(m, Periodic) for m in self.net.modules())

    @classmethod
    def build(cls, config: Config, layout: Layout) -> Tabular:
        return cls(layout, config.width, config.periodic, config.sigma)

    def forward(self, values: Values) -> Tokens:
        x_BD = self.net(values.x)
        return Tokens(x_BD[:, None], torch.ones(len(x_BD), 1, dtype=torch.bool, device=x_BD.device))


class Periodic(nn.Module):
    """[sin(v), cos(v)] with v = 2 pi c x and learned c (Gorishniy et al. 2022, eq. 2): x_BF -> x_B(F *
    2K).
    """

    def __init__(self, entries: int, frequencies: int, sigma: float) -> None:
        super().__init__()
        self.frequency = nn.Parameter(torch.randn(entries, frequencies) * sigma)

    def forward(self, x_BF: Tensor) -> Tensor:
        v_BFK = 2 * math.pi * self.frequency * x_BF[..., None]
        return torch.cat([v_BFK.sin(), v_BFK.cos()], -1).flatten(1)


component = Tabular
