"""Blocks of networks that several components share. Shape letters: B rows, L tokens, D width, H heads."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LOTS = 2**16  # how many different lots an entry can draw in dropout


def module_key(name: str) -> str:
    """A column's or target's name as a key of `nn.ModuleDict`, which allows no dots and no names of its
    own methods.
    """
    return "of_" + name.replace("%", "%25").replace(".", "%2E")


def glorot(module: nn.Module) -> nn.Module:
    """Glorot-uniform weights and zero biases (Glorot & Bengio 2010, eq. 16) for every linear and
    convolution inside.
    """
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Conv2d)):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    return module


class Dropout(nn.Dropout):
    """Dropout (Srivastava et al. 2014, section 4, scaled while training). On a CPU the lots of four
    entries are one random number of 64 bits, since torch draws one of them for each, which took longer
    than the products behind it; so p is rounded to 1/65,536.
    """

    def forward(self, x: Tensor) -> Tensor:
        if (
            not self.training
            or self.p in (0.0, 1.0)
            or x.device.type != "cpu"
            or torch.compiler.is_compiling()
        ):
            return super().forward(x)
        dropped = min(round(self.p * LOTS), LOTS - 1)
        lots = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        kept = lots[: x.numel()].view(x.shape) >= dropped - LOTS // 2
        return x * kept.to(x.dtype).mul_(LOTS / (LOTS - dropped))


class MLP(nn.Sequential):
    """Linear layers with a ReLU, and dropout where asked, after each: x_BD -> x_BD'."""

    def __init__(self, width: int, hidden: Sequence[int], dropout: float = 0.0) -> None:
        parts: list[nn.Module] = []
        for before, after in zip([width, *hidden], hidden, strict=False):
            parts += [nn.Linear(before, after), nn.ReLU()]
            if dropout:
                parts.append(Dropout(dropout))
        super().__init__(*parts)
        glorot(self)


class Attention(nn.Module):
    """Multi-head attention, softmax(Q K^T / sqrt(d)) V (Vaswani et al. 2017, eq. 1), from `x` onto `onto`.

    `mask_BL` is True where a token of `onto` may be attended to; each row needs at least one.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        glorot(self)

    def forward(self, x_BLD: Tensor, onto_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        query = self._split(self.query(x_BLD))
        key, value = (self._split(part) for part in self.key_value(onto_BLD).chunk(2, dim=-1))
        y = F.scaled_dot_product_attention(query, key, value, attn_mask=mask_BL[:, None, None, :])
        return self.out(y.transpose(1, 2).flatten(2))

    def _split(self, x_BLD: Tensor) -> Tensor:
        return x_BLD.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """A pre-norm transformer block: attention, then a two-layer perceptron, each added to what came in."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0, across: bool = False) -> None:
        super().__init__()
        self.across = across
        self.norm = nn.LayerNorm(width)
        self.norm_onto = nn.LayerNorm(width) if across else None
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.GELU(),
            Dropout(dropout),
            nn.Linear(2 * width, width),
        )
        self.dropout = Dropout(dropout)

    def forward(self, x_BLD: Tensor, mask_BL: Tensor, onto_BLD: Tensor | None = None) -> Tensor:
        """Attends to `onto_BLD` when built with `across`, to `x_BLD` itself otherwise; `mask_BL` is
        that one's mask.
        """
        normed = self.norm(x_BLD)
        onto = normed if self.norm_onto is None or onto_BLD is None else self.norm_onto(onto_BLD)
        x_BLD = x_BLD + self.dropout(self.attention(normed, onto, mask_BL))
        return x_BLD + self.dropout(self.mlp(x_BLD))


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that falls back on its running statistics where a batch holds a single value
    per channel.

    Encoders see only the rows in which a column is present, and in one batch that may be one row.
    """

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if self.training and x_BCHW.numel() == x_BCHW.shape[1]:
            return F.batch_norm(
                x_BCHW, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(x_BCHW)


def masked_mean(x_BLD: Tensor, mask_BL: Tensor) -> Tensor:
    """The mean of the tokens where the mask is True; of all tokens in a row where it is True nowhere."""
    if x_BLD.shape[1] == 1:
        return x_BLD[:, 0]
    weight_BL = (mask_BL | ~mask_BL.any(1, keepdim=True)).to(x_BLD.dtype)
    total_BD = torch.einsum("bld,bl->bd", x_BLD, weight_BL)
    return total_BD / weight_BL.sum(1, keepdim=True)


class MaskedBatchNorm(nn.Module):
    """Batch normalisation (Ioffe & Szegedy 2015) of the valid steps of (B, C, T, ...); what lies beyond
    a row's length has no part in the statistics, and comes out as zero.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = BatchNorm(channels)

    def forward(self, x: Tensor, mask_BT: Tensor) -> Tensor:
        x_BTRC = x.flatten(3).permute(0, 2, 3, 1) if x.ndim > 3 else x.transpose(1, 2)[:, :, None]
        steps, valid = x_BTRC.flatten(0, 1), mask_BT.flatten().nonzero()[:, 0]
        every = len(valid) == len(steps)
        some_NRC = steps if every else steps.index_select(0, valid)
        # One picture: many, of one row each, take several times as long. Contiguous: of a picture whose
        # stride over the batch is not its
        # size, torch 2.13 computes wrong gradients on a CPU, without a word.
        steps = self.norm(some_NRC.permute(2, 0, 1).contiguous()[None])[0].permute(1, 2, 0)
        if not every:
            steps = steps.new_zeros(mask_BT.numel(), *steps.shape[1:]).index_copy(0, valid, steps)
        return steps.unflatten(0, mask_BT.shape).permute(0, 3, 1, 2).reshape(x.shape)


class SpectrumStages(nn.Module):
    """3x3 convolutions over time and bands, each with the maximum over its `pools` (time, bands),
    normalisation and ReLU: (B, T, bands) -> (B, T', width), and the lengths T'.

    Each row is made up with zeros, which after the first normalisation are the mean of each band, to a
    whole number of its last steps; beyond that everything is zero in every stage, as if the row stood
    alone.
    """

    def __init__(self, bands: int, channels: Sequence[int], pools: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.norm = MaskedBatchNorm(bands)
        pairs = list(zip((1, *channels), channels, strict=False))
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1, bias=False) for before, after in pairs
        )
        self.norms = nn.ModuleList(MaskedBatchNorm(after) for after in channels)
        self.pools = list(pools)
        for _, pool in pools:
            bands = -(-bands // pool)
        self.steps, self.width = math.prod(pool for pool, _ in pools), channels[-1] * bands

    def forward(self, x_BTM: Tensor, length_B: Tensor) -> tuple[Tensor, Tensor]:
        x_BTM = self.norm(x_BTM.transpose(1, 2), steps_mask(x_BTM.shape[1], length_B)).transpose(1, 2)
        length_B = -(-length_B.clamp(min=1) // self.steps) * self.steps
        x_BTM = F.pad(x_BTM, (0, 0, 0, -x_BTM.shape[1] % self.steps))
        x_BCTM = x_BTM[..., None].permute(
            0, 3, 1, 2
        )  # channels last in its strides, which `[:, None]` would leave open
        for convolution, norm, pool in zip(self.convolutions, self.norms, self.pools, strict=True):
            x_BCTM, length_B = F.max_pool2d(convolution(x_BCTM), pool, ceil_mode=True), length_B // pool[0]
            x_BCTM = F.relu_(norm(x_BCTM, steps_mask(x_BCTM.shape[2], length_B)))
        return x_BCTM.permute(0, 2, 3, 1).flatten(2), length_B


class SetAttention(nn.Module):
    """One vector for a set of any size: the mean weighed by softmax_k(w' tanh(V h_k)), in whatever
    order they come (Ilse et al. 2018, eq. 7 and 8).
    """

    def __init__(self, width: int, hidden: int = 64) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, 1))

    def forward(self, x_BKD: Tensor, mask_BK: Tensor) -> Tensor:
        score_BK = self.score(x_BKD)[..., 0].float().masked_fill(~mask_BK, -torch.inf)
        score_BK = score_BK.masked_fill(~mask_BK.any(1, keepdim=True), 0.0)
        return torch.einsum("bk,bkd->bd", score_BK.softmax(1).to(x_BKD.dtype), x_BKD)


class BiLSTM(nn.Module):
    """Long short-term memories in both directions, layer on layer, each row read up to its own end: (B,
    L, D) -> (B, L, 2 width), and the last states of both directions, joined, of the top layer (B, 2
    width).

    What a packed `nn.LSTM` with `bidirectional` computes; but the backward pass of packed sequences
    takes several times as long on a CPU (benchmarks/lstm.py), so the second direction reads rows that
    are turned round instead, padding behind them.
    """

    def __init__(self, width_in: int, width: int, layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.ahead = nn.ModuleList(
            nn.LSTM(2 * width if i else width_in, width, batch_first=True) for i in range(layers)
        )
        self.back = nn.ModuleList(
            nn.LSTM(2 * width if i else width_in, width, batch_first=True) for i in range(layers)
        )
        self.dropout = Dropout(dropout)

    def forward(self, x_BLD: Tensor, length_B: Tensor) -> tuple[Tensor, Tensor]:
        step_L = torch.arange(x_BLD.shape[1], device=x_BLD.device)
        last_B = length_B.clamp(min=1) - 1
        turned_BL = torch.where(step_L <= last_B[:, None], last_B[:, None] - step_L, step_L)
        last_BD = x_BLD[:, 0]
        for number, (ahead, back) in enumerate(zip(self.ahead, self.back, strict=True)):
            x_BLD = self.dropout(x_BLD) if number else x_BLD
            forth_BLD = ahead(x_BLD)[0]
            turned_BLD = back(_picked(x_BLD, turned_BL))[0]
            last_BD = torch.cat([_picked(part, last_B[:, None])[:, 0] for part in (forth_BLD, turned_BLD)], 1)
            x_BLD = torch.cat([forth_BLD, _picked(turned_BLD, turned_BL)], 2)
        return x_BLD, last_BD


def _picked(x_BLD: Tensor, at_BK: Tensor) -> Tensor:
    return x_BLD.gather(1, at_BK[..., None].expand(-1, -1, x_BLD.shape[2]))


def steps_mask(steps: int, length_B: Tensor) -> Tensor:
    """True at the steps before each row's length, (B, steps)."""
    return torch.arange(steps, device=length_B.device) < length_B[:, None]
