"""A bag of hashed n-grams of tokens (Joulin et al. 2016, "Bag of Tricks"): fast, and hard to beat on short texts."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from plait.batch import Layout, Tokens, Values
from plait.components import Options
from plait.encoders.base import Encoder

PRIMES = (2654435761, 2246822519, 3266489917, 668265263, 374761393)


class Config(Options):
    """N-grams of 1 up to `ngrams` tokens, hashed into `buckets`; `dropout` leaves out whole n-grams."""

    width: int = Field(128, ge=1)
    ngrams: int = Field(2, ge=1, le=5)
    buckets: int = Field(16_384, ge=2)
    dropout: float = Field(0.3, ge=0, lt=1)


class Bag(Encoder):
    """One token: the mean of the embeddings of a text's n-grams, normalised."""

    Config = Config
    takes = frozenset({"tokens"})

    def __init__(self, width: int, ngrams: int, buckets: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(buckets, width)
        self.norm = nn.LayerNorm(width)
        self.ngrams, self.buckets, self.dropout, self.width = ngrams, buckets, dropout, width
        nn.init.normal_(self.embedding.weight, std=0.1)

    @classmethod
    def build(cls, config: Config, layout: Layout) -> Bag:
        return cls(config.width, config.ngrams, config.buckets, config.dropout)

    def forward(self, values: Values) -> Tokens:
        assert values.length_B is not None
        bucket_BN, mask_BN = hashed(values.x, values.length_B, self.ngrams, self.buckets)
        weight_BN = mask_BN.to(self.embedding.weight.dtype)
        if self.training and self.dropout:
            weight_BN = F.dropout(weight_BN, self.dropout)
        # 'sum' weighted by hand: 'mean' knows no mask
        total_BD = F.embedding_bag(bucket_BN, self.embedding.weight, per_sample_weights=weight_BN, mode="sum")
        x_BD = self.norm(total_BD / mask_BN.sum(1, keepdim=True).clamp(min=1).sqrt())
        return Tokens(x_BD[:, None], torch.ones(len(x_BD), 1, dtype=torch.bool, device=x_BD.device))


component = Bag


def hashed(ids_BL: Tensor, length_B: Tensor, ngrams: int, buckets: int) -> tuple[Tensor, Tensor]:
    """The bucket of each n-gram, and True where it lies within the row's length."""
    found, masks = [], []
    place_L = torch.arange(ids_BL.shape[1], device=ids_BL.device)
    code_BL = torch.zeros_like(ids_BL)
    for n in range(1, min(ngrams, ids_BL.shape[1]) + 1):
        count = ids_BL.shape[1] - n + 1
        code_BL = code_BL[:, :count] * PRIMES[0] + ids_BL[:, n - 1 :] + PRIMES[n - 1]
        mixed = code_BL ^ (code_BL >> 17)
        found.append((mixed * PRIMES[4]).remainder(buckets))
        masks.append(place_L[n - 1 :] < length_B[:, None])
    return torch.cat(found, 1), torch.cat(masks, 1)
