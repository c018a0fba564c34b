"""A bag of hashed n-grams (Joulin et al. 2016, "Bag of Tricks"): fast, and hard to beat on short texts."""

from __future__ import annotations

from pydantic import Field
from torch import nn
from torch.nn import functional as F

from plait.encoders.base import Encoder
from plait.nn.batch import Layout, Tokens, Values
from plait.recipe.bounds import MAX_WIDTH
from plait.recipe.registry import Options
from plait.table.json import JSON


class Config(Options):
    """`dropout` leaves out whole n-grams in training."""

    width: int = Field(128, ge=1, le=MAX_WIDTH, description="of the vector that it makes")
    dropout: float = Field(0.3, ge=0, lt=1, description="share of the n-grams that are left out in training")


class Bag(Encoder):
    """One token: the mean of the embeddings of a text's n-grams (eq. 1 of the paper, before the classifier).

    Embeddings begin near zero, so that an n-gram that training never saw says nothing.
    """

    options = Config
    takes = frozenset({"bag", "tokens"})

    def __init__(self, vocabulary: int, width: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.dropout = dropout
        self.width = width
        nn.init.normal_(self.embedding.weight, std=0.01)

    @classmethod
    def asks(cls, config: Config, modality: str) -> JSON:
        """Ask for texts as hashed n-grams."""
        return {"split": "ngrams", "vocabulary": 32_768, "max_tokens": 2048}

    @classmethod
    def build(cls, config: Config, layout: Layout) -> Bag:
        """Build the encoder for a layout's vocabulary."""
        return cls(layout.vocabulary, config.width, config.dropout)

    def forward(self, values: Values) -> Tokens:
        """Encode ids (B, L) as one token for each text, (B, 1, width)."""
        mask_BL = values.mask_BL()
        weight_BL = mask_BL.to(self.embedding.weight.dtype)
        if self.training and self.dropout:
            weight_BL = F.dropout(weight_BL, self.dropout)

        # The mean is a weighted sum, because torch's own "mean" takes no mask.
        total_BD = F.embedding_bag(values.x, self.embedding.weight, per_sample_weights=weight_BL, mode="sum")
        count_B1 = mask_BL.sum(1, keepdim=True).clamp(min=1)
        return Tokens.one_each(total_BD / count_B1)


component = Bag
