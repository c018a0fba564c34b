"""Layers that several components share.

Shape letters: B rows, L tokens, D width, H heads, E width of a head, T steps, C channels, M bands, K items of
a set or chosen steps, N steps of all rows, R what follows the steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DRAWS = 2**16  # dropout draws one of so many numbers, 16 random bits, for each entry


def module_key(name: str) -> str:
    """Turn the name of a column or target into a key of `nn.ModuleDict`.

    Such a key may have no dot, and may not be the name of a method of `nn.ModuleDict`.
    """
    return "of_" + name.replace("%", "%25").replace(".", "%2E")


def glorot(module: nn.Module) -> nn.Module:
    """Initialise every linear layer and convolution inside, and return the module.

    Weights are Glorot-uniform, biases zero (Glorot & Bengio 2010, eq. 16).
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module


class Dropout(nn.Dropout):
    """Dropout (Srivastava et al. 2014, section 4, scaled while training).

    On a CPU torch draws 64 random bits for each entry, which takes longer than the products that follow. Here
    four entries share 64 bits, so p is rounded to a multiple of 1/65,536.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Set entries to zero with probability p in training, and scale the others by 1 / (1 - p)."""
        drops = self.training and self.p not in (0.0, 1.0)
        if not drops or x.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(x)

        entries = x.numel()
        bits = torch.empty((entries + 3) // 4, dtype=torch.int64)
        bits.random_(-(2**63), None)
        drawn = bits.view(torch.int16)[:entries].view(x.shape)

        # The numbers begin at -DRAWS / 2. An entry is dropped if its number is one of the `dropped` lowest.
        dropped = min(round(self.p * DRAWS), DRAWS - 1)
        stays = drawn >= dropped - DRAWS // 2
        scale = DRAWS / (DRAWS - dropped)
        return x * stays.to(x.dtype).mul_(scale)


class MLP(nn.Sequential):
    """Linear layers, each followed by a ReLU, and by dropout if that is above 0: (B, D) -> (B, D')."""

    def __init__(self, width: int, hidden: Sequence[int], dropout: float = 0.0) -> None:
        layers: list[nn.Module] = []
        before = width
        for after in hidden:
            layers += [nn.Linear(before, after), nn.ReLU()]
            if dropout:
                layers.append(Dropout(dropout))
            before = after
        super().__init__(*layers)
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
        """Attend from x_BLD onto onto_BLD, whose number of tokens may differ; (B, L, D)."""
        query_BLD = self.query(x_BLD)
        key_BLD, value_BLD = self.key_value(onto_BLD).chunk(2, dim=-1)

        query_BHLE = self._split(query_BLD)
        key_BHLE = self._split(key_BLD)
        value_BHLE = self._split(value_BLD)
        mask_B11L = mask_BL[:, None, None, :]
        y_BHLE = F.scaled_dot_product_attention(query_BHLE, key_BHLE, value_BHLE, attn_mask=mask_B11L)

        y_BLD = y_BHLE.transpose(1, 2).flatten(2)
        return self.out(y_BLD)

    def _split(self, x_BLD: Tensor) -> Tensor:
        """Split the width into heads: (B, L, D) -> (B, H, L, D / H)."""
        x_BLHE = x_BLD.unflatten(-1, (self.heads, -1))
        return x_BLHE.transpose(1, 2)


class Block(nn.Module):
    """A pre-norm transformer block: attention, then a two-layer perceptron, each added to its input."""

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
        """Attend to `onto_BLD` if built with `across`, else to `x_BLD` itself.

        `mask_BL` is the mask of the one that is attended to.
        """
        normed_BLD = self.norm(x_BLD)
        normed_onto_BLD = normed_BLD
        if self.norm_onto is not None and onto_BLD is not None:
            normed_onto_BLD = self.norm_onto(onto_BLD)

        attended_BLD = self.attention(normed_BLD, normed_onto_BLD, mask_BL)
        x_BLD = x_BLD + self.dropout(attended_BLD)
        return x_BLD + self.dropout(self.mlp(x_BLD))


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that uses its running statistics if a batch holds a single value per channel.

    Encoders see only the rows in which a column is present, and in one batch that may be one row.
    """

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Normalise each channel of (B, C, H, W)."""
        if self.training and x_BCHW.numel() == x_BCHW.shape[1]:
            return F.batch_norm(
                x_BCHW, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(x_BCHW)


def parameter_count(model: nn.Module) -> int:
    """Return the number of parameters that are trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def masked_mean(x_BLD: Tensor, mask_BL: Tensor) -> Tensor:
    """Return the mean of each row's tokens where the mask is True, (B, D).

    In a row where it is True nowhere, that is the mean of all tokens.
    """
    if x_BLD.shape[1] == 1:
        return x_BLD[:, 0]
    has_none_B1 = ~mask_BL.any(1, keepdim=True)
    weight_BL = (mask_BL | has_none_B1).to(x_BLD.dtype)
    total_BD = torch.einsum("bld,bl->bd", x_BLD, weight_BL)
    return total_BD / weight_BL.sum(1, keepdim=True)


class MaskedBatchNorm(nn.Module):
    """Batch normalisation (Ioffe & Szegedy 2015) of the valid steps of (B, C, T, ...).

    What lies beyond a row's length does not count in the statistics, and is zero in the output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = BatchNorm(channels)

    def forward(self, x: Tensor, mask_BT: Tensor) -> Tensor:
        """Normalise (B, C, T, ...); `mask_BT` is True at the valid steps."""
        if x.ndim > 3:
            x_BTRC = x.flatten(3).permute(0, 2, 3, 1)
        else:
            x_BTRC = x.transpose(1, 2)[:, :, None]

        if self.training:
            normed_BTRC = self._normed_valid(x_BTRC, mask_BT)
        else:
            # Running statistics do not depend on the steps, so those beyond a row's length do no harm.
            normed_NRC = self._normed(x_BTRC.flatten(0, 1))
            normed_BTRC = normed_NRC.unflatten(0, mask_BT.shape)
            normed_BTRC = normed_BTRC.masked_fill(~mask_BT[..., None, None], 0.0)
        return normed_BTRC.permute(0, 3, 1, 2).reshape(x.shape)

    def _normed_valid(self, x_BTRC: Tensor, mask_BT: Tensor) -> Tensor:
        """Normalise the valid steps by their own statistics, with zeros at the others."""
        steps_NRC = x_BTRC.flatten(0, 1)
        valid = mask_BT.flatten().nonzero()[:, 0]
        all_valid = len(valid) == len(steps_NRC)
        if all_valid:
            return self._normed(steps_NRC).unflatten(0, mask_BT.shape)

        normed_NRC = self._normed(steps_NRC.index_select(0, valid))
        zeros_NRC = normed_NRC.new_zeros(mask_BT.numel(), *normed_NRC.shape[1:])
        return zeros_NRC.index_copy(0, valid, normed_NRC).unflatten(0, mask_BT.shape)

    def _normed(self, steps_NRC: Tensor) -> Tensor:
        """Normalise steps, each of which counts in the statistics."""
        # One image of N rows, because N images of one row each take several times as long. It must be
        # contiguous: torch 2.13 on a CPU silently computes wrong gradients if an image's stride over the
        # batch is not its size.
        image_1CNR = steps_NRC.permute(2, 0, 1).contiguous()[None]
        normed_1CNR = self.norm(image_1CNR)
        return normed_1CNR[0].permute(1, 2, 0)


class SpectrumStages(nn.Module):
    """3x3 convolutions over time and bands, each followed by max pooling, normalisation and ReLU.

    `pools` has the sizes of pooling, (time, bands), for each stage. Each row is padded with zeros, which are
    the mean of each band after the first normalisation, to a multiple of the product of the pools over time.
    Beyond that everything is zero in every stage, so a row does not depend on the others.
    """

    def __init__(self, bands: int, channels: Sequence[int], pools: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.norm = MaskedBatchNorm(bands)
        self.convolutions = nn.ModuleList()
        self.norms = nn.ModuleList()
        before = 1
        for after in channels:
            self.convolutions.append(nn.Conv2d(before, after, 3, padding=1, bias=False))
            self.norms.append(MaskedBatchNorm(after))
            before = after

        self.pools = list(pools)
        self.steps = math.prod(pool for pool, _ in pools)
        for _, pool in pools:
            bands = -(-bands // pool)  # rounded up, as pooling does with `ceil_mode`
        self.width = channels[-1] * bands

    def forward(self, x_BTM: Tensor, length_B: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, bands) -> (B, T', width), and the new lengths; T' is T / `steps`, rounded up."""
        mask_BT = steps_mask(x_BTM.shape[1], length_B)
        x_BTM = self.norm(x_BTM.transpose(1, 2), mask_BT).transpose(1, 2)

        # Round lengths, and the steps of the batch, up to a multiple of the pools.
        length_B = -(-length_B.clamp(min=1) // self.steps) * self.steps
        padding = -x_BTM.shape[1] % self.steps
        x_BTM = F.pad(x_BTM, (0, 0, 0, padding))

        # Channels are last in memory, which `[:, None]` would leave open.
        x_BCTM = x_BTM[..., None].permute(0, 3, 1, 2)
        for convolution, norm, pool in zip(self.convolutions, self.norms, self.pools, strict=True):
            x_BCTM = convolution(x_BCTM)
            x_BCTM = F.max_pool2d(x_BCTM, pool, ceil_mode=True)
            length_B = length_B // pool[0]
            mask_BT = steps_mask(x_BCTM.shape[2], length_B)
            x_BCTM = F.relu_(norm(x_BCTM, mask_BT))

        x_BTMC = x_BCTM.permute(0, 2, 3, 1)
        return x_BTMC.flatten(2), length_B


class SetAttention(nn.Module):
    """One vector for a set of any size, whatever the order of its items.

    It is the mean weighted by softmax_k(w' tanh(V h_k)) (Ilse et al. 2018, eq. 7 and 8).
    """

    def __init__(self, width: int, hidden: int = 64) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, 1))

    def forward(self, x_BKD: Tensor, mask_BK: Tensor) -> Tensor:
        """(B, K, D) -> (B, D); in a row where the mask is True nowhere, all items have the same weight."""
        score_BK = self.score(x_BKD)[..., 0].float()
        score_BK = score_BK.masked_fill(~mask_BK, -torch.inf)

        # The softmax of a row in which all is -inf would be nan.
        has_none_B1 = ~mask_BK.any(1, keepdim=True)
        score_BK = score_BK.masked_fill(has_none_B1, 0.0)

        weight_BK = score_BK.softmax(1).to(x_BKD.dtype)
        return torch.einsum("bk,bkd->bd", weight_BK, x_BKD)


class BiLSTM(nn.Module):
    """LSTMs in both directions, layer on layer; each row is read up to its own end.

    It computes what a packed `nn.LSTM` with `bidirectional` does. But the backward pass of packed sequences
    takes several times as long on a CPU (benchmarks/lstm.py). So the second direction reads each row reversed
    instead, with its padding still at the end.
    """

    def __init__(self, width_in: int, width: int, layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        widths_in = [width_in] + [2 * width] * (layers - 1)
        self.ahead = _lstms(widths_in, width)
        self.back = _lstms(widths_in, width)
        self.dropout = Dropout(dropout)

    def forward(self, x_BLD: Tensor, length_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return all states (B, L, 2 width), and the last states of the top layer (B, 2 width).

        The last states are those of both directions, joined.
        """
        # Reverse the valid steps of each row. Its padding stays where it is.
        step_L = torch.arange(x_BLD.shape[1], device=x_BLD.device)
        last_B1 = length_B.clamp(min=1)[:, None] - 1
        reversed_BL = torch.where(step_L <= last_B1, last_B1 - step_L, step_L)

        last_BD = x_BLD[:, 0]
        for layer, (ahead, back) in enumerate(zip(self.ahead, self.back, strict=True)):
            if layer > 0:
                x_BLD = self.dropout(x_BLD)
            ahead_BLD, _ = ahead(x_BLD)
            back_BLD, _ = back(_steps(x_BLD, reversed_BL))

            # Both directions end at the step `last_B1`: the second one has read it from the row's end.
            last_ahead_B1D = _steps(ahead_BLD, last_B1)
            last_back_B1D = _steps(back_BLD, last_B1)
            last_BD = torch.cat([last_ahead_B1D[:, 0], last_back_B1D[:, 0]], 1)
            x_BLD = torch.cat([ahead_BLD, _steps(back_BLD, reversed_BL)], 2)
        return x_BLD, last_BD


def _lstms(widths_in: list[int], width: int) -> nn.ModuleList:
    """Make one LSTM for each layer, of one direction."""
    return nn.ModuleList(nn.LSTM(width_in, width, batch_first=True) for width_in in widths_in)


def _steps(x_BLD: Tensor, step_BK: Tensor) -> Tensor:
    """Return these steps of each row, (B, K, D)."""
    step_BKD = step_BK[..., None].expand(-1, -1, x_BLD.shape[2])
    return x_BLD.gather(1, step_BKD)


def steps_mask(steps: int, length_B: Tensor) -> Tensor:
    """Return a mask that is True at the steps before each row's length, (B, steps)."""
    step_T = torch.arange(steps, device=length_B.device)
    return step_T < length_B[:, None]
