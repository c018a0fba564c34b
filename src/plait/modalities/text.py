"""Sentences: Unicode-normalised, cut into tokens by a tokenizer that is trained on the training rows."""

from __future__ import annotations

import json
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import Field
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from plait.batch import Layout, Values
from plait.components import Options
from plait.modalities.base import Loaded, Match, Modality, Source, distinct, is_text, sample, words_a_cell

PADDING, UNKNOWN = "<pad>", "<unk>"  # ids 0 and 1


class Config(Options):
    """`split` cuts texts into `subword` pieces (byte-level BPE: any script and emoji survives) or into `word`s.

    `vocabulary` counts the ids, padding and unknown included; it is the height of an encoder's embedding. Texts beyond
    `max_tokens` are cut, and the number of them is told.
    """

    vocabulary: int = Field(10_000, ge=300)
    max_tokens: int = Field(128, ge=1)
    split: Literal["subword", "word"] = "subword"
    lowercase: bool = True
    drop: float = Field(0.0, ge=0, lt=1, description="share of tokens made unknown at random in training")


class Text(Modality):
    """A column of texts in any language."""

    Config = Config
    encoder = "bag"

    def __init__(self, config: Config, tokenizer: Tokenizer) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.layout = Layout("tokens", (config.max_tokens,), config.vocabulary)

    @classmethod
    def matches(cls, cells: pa.ChunkedArray, source: Source) -> Match | None:
        if not is_text(cells):
            return None
        words, different = words_a_cell(cells), distinct(cells)
        if words >= 3 and (different > 20 or different > len(cells) / 2):
            return Match(0.8, f"{words:.0f} words a cell on average, {different:,} different texts")
        if any(c.isalpha() for t in sample(cells) for c in t):
            return Match(0.4, f"{words:.1f} words a cell on average, {different:,} different texts in {len(cells):,} cells")
        return Match(0.1, "strings")

    @classmethod
    def fit(cls, config: Config, cells: pa.ChunkedArray) -> Text:
        steps = [normalizers.NFC(), *([normalizers.Lowercase()] if config.lowercase else [])]
        special = [PADDING, UNKNOWN]
        if config.split == "word":
            tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
            tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
            trainer: Any = trainers.WordLevelTrainer(vocab_size=config.vocabulary, special_tokens=special, show_progress=False)
        else:
            tokenizer = Tokenizer(models.BPE())
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
            tokenizer.decoder = decoders.ByteLevel()
            trainer = trainers.BpeTrainer(
                vocab_size=config.vocabulary, special_tokens=special, show_progress=False, min_frequency=2,
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            )
        tokenizer.normalizer = normalizers.Sequence(steps)
        tokenizer.train_from_iterator((t for t in _strings(cells) if t), trainer)
        return cls(config, tokenizer)

    def load(self, cells: pa.ChunkedArray, source: Source) -> Loaded:
        texts = _strings(cells)
        longest = self.config.max_tokens
        encoded = self.tokenizer.encode_batch_fast([t or "" for t in texts])
        source.progress(len(texts))
        length = np.array([len(e) for e in encoded], dtype=np.int64)
        kept = np.minimum(length, longest)
        ids = np.zeros((len(texts), max(int(kept.max(initial=1)), 1)), dtype=np.int32)
        for row, one in enumerate(encoded):
            ids[row, : kept[row]] = one.ids[:longest]
        values = Values(torch.from_numpy(ids), torch.from_numpy(kept))
        return Loaded(values, torch.from_numpy(kept > 0), cut=int((length > longest).sum()))

    def transform(self, values: Values, generator: torch.Generator | None) -> Values:
        x_BL = values.x.long()
        if generator is not None and self.config.drop:
            x_BL = x_BL.masked_fill((torch.rand(x_BL.shape, generator=generator) < self.config.drop) & (x_BL > 0), 1)
        return Values(x_BL, values.length_B)

    def decode(self, ids: list[int]) -> str:
        """Text from token ids: what was encoded, up to normalisation and, in `word` mode, spaces."""
        return str(self.tokenizer.decode(ids)).removeprefix(" ")

    def state(self) -> dict[str, Any]:
        return {"tokenizer": json.loads(self.tokenizer.to_str())}

    @classmethod
    def from_state(cls, config: Config, state: dict[str, Any]) -> Text:
        return cls(config, Tokenizer.from_str(json.dumps(state["tokenizer"])))


component = Text


def _strings(cells: pa.ChunkedArray) -> list[str | None]:
    if not is_text(cells):
        cells = pc.cast(cells, pa.string())
    return cells.to_pylist()  # type: ignore[no-any-return]
