"""Sentences: Unicode-normalised, then cut into tokens by a tokenizer that is trained on the training
rows, or into hashed n-grams, which need no training.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import Field
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from plait.errors import RecipeError
from plait.modalities.base import Match, Modality
from plait.nn.batch import Layout, Loaded, Values
from plait.pretrained import files
from plait.recipe.registry import Options
from plait.table.json import JSON
from plait.table.table import Source
from plait.table.values import distinct, is_text, sample, words_a_cell

PADDING, UNKNOWN = "<pad>", "<unk>"  # ids 0 and 1


SPACE = ord(" ")


PRIME = np.uint64(0x9E3779B97F4A7C15)


class Config(Options):
    """`split` cuts texts into `subword` pieces (byte-level BPE: any script and emoji survives), into
    `word`s, into `character`s, into a bag of hashed `ngrams` of words and characters, as fastText does
    (Bojanowski et al. 2017), or as the `tokenizer` of a `pretrained` model does (a folder, a hub's
    name, or a package's, see `files.find`).

    `vocabulary` counts the ids, padding and unknown included; it is the height of an encoder's
    embedding. Texts beyond `max_tokens` tokens (or n-grams) are cut, and the number of them is told.
    """

    vocabulary: int = Field(10_000, ge=300)
    max_tokens: int = Field(128, ge=1)
    split: Literal["subword", "word", "character", "ngrams", "pretrained"] = "subword"
    tokenizer: str = ""
    words: int = Field(2, ge=1, le=4, description="ngrams: up to so many words")
    characters: int = Field(
        5, ge=0, le=8, description="ngrams: from 2 up to so many characters within a word; 0: none"
    )
    lowercase: bool = True
    drop: float = Field(0.0, ge=0, lt=1, description="share of tokens made unknown at random in training")


class Text(Modality):
    """A column of texts in any language."""

    options = Config
    encoder = "bag"
    words = "bag"
    is_text = True
    may_be_id = True

    def __init__(self, config: Config, tokenizer: Tokenizer | None) -> None:
        self.config = config
        self.tokenizer = tokenizer
        if tokenizer:
            tokenizer.encode_special_tokens = (
                True  # "<unk>" in a cell is text like any other; not kept by `to_str`
            )
        height = (
            tokenizer.get_vocab_size() if tokenizer and config.split == "pretrained" else config.vocabulary
        )
        self.layout = Layout("tokens" if tokenizer else "bag", (config.max_tokens,), height)

    @classmethod
    def matches(cls, cells: pa.ChunkedArray, source: Source) -> Match | None:
        if not is_text(cells):
            return None
        words, different = words_a_cell(cells), distinct(cells)
        if words >= 3 and (different > 20 or different > len(cells) / 2):
            return Match(0.8, f"{words:.0f} words a cell on average, {different:,} different texts")
        if any(c.isalpha() for t in sample(cells) for c in t):
            return Match(
                0.4,
                f"{words:.1f} words a cell on average, {different:,} different texts in {len(cells):,} cells",
            )
        return Match(0.1, "strings")

    @classmethod
    def fit(cls, config: Config, cells: pa.ChunkedArray) -> Text:
        if config.split == "ngrams":
            return cls(config, None)
        if config.split == "pretrained":
            return cls(config, _pretrained(config.tokenizer))
        steps = [normalizers.NFC(), *([normalizers.Lowercase()] if config.lowercase else [])]
        special = [PADDING, UNKNOWN]
        if config.split in ("word", "character"):
            tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
            each = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
            tokenizer.pre_tokenizer = pre_tokenizers.Whitespace() if config.split == "word" else each
            tokenizer.decoder = None if config.split == "word" else decoders.Fuse()
            trainer: trainers.Trainer = trainers.WordLevelTrainer(
                vocab_size=config.vocabulary, special_tokens=special, show_progress=False
            )
        else:
            tokenizer = Tokenizer(models.BPE())
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
            tokenizer.decoder = decoders.ByteLevel()
            trainer = trainers.BpeTrainer(
                vocab_size=config.vocabulary,
                special_tokens=special,
                show_progress=False,
                min_frequency=2,
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            )
        tokenizer.normalizer = normalizers.Sequence(steps)
        tokenizer.train_from_iterator((t for t in _strings(cells) if t), trainer)
        return cls(config, tokenizer)

    def load(self, cells: pa.ChunkedArray, source: Source) -> Loaded:
        texts = [t or "" for t in _strings(cells)]
        if self.tokenizer is None:
            found = hashed_ngrams(texts, self.config)
        else:
            found = [np.array(e.ids, dtype=np.int32) for e in self.tokenizer.encode_batch_fast(texts)]
        source.progress(len(texts))
        longest = self.config.max_tokens
        length = np.array([len(ids) for ids in found], dtype=np.int64)
        if self.config.split == "pretrained":  # its tokens that mark begin and end are no text
            length[[not t.strip() for t in texts]] = 0
        kept = np.minimum(length, longest)
        ids = np.zeros((len(texts), max(int(kept.max(initial=1)), 1)), dtype=np.int32)
        for row, one in enumerate(found):
            ids[row, : kept[row]] = one[: kept[row]]
            if self.config.split == "pretrained" and length[row] > longest:
                ids[row, longest - 1] = one[-1]  # the end is marked all the same
        values = Values(torch.from_numpy(ids), torch.from_numpy(kept))
        notes = {
            f"longer than max_tokens ({longest}), and cut there": np.flatnonzero(length > longest).tolist()
        }
        return Loaded(
            values, torch.from_numpy(kept > 0), notes={note: rows for note, rows in notes.items() if rows}
        )

    def transform(self, values: Values, generator: torch.Generator | None) -> Values:
        x_BL = values.x.long()
        if generator is not None and self.config.drop:
            x_BL = x_BL.masked_fill(
                (torch.rand(x_BL.shape, generator=generator) < self.config.drop) & (x_BL > 0), 1
            )
        return Values(x_BL, values.length_B)

    def decode(self, ids: list[int]) -> str:
        """Text from token ids: what was encoded, up to normalisation and, in `word` mode, spaces."""
        assert self.tokenizer is not None, "n-grams cannot be turned back into text"
        return str(self.tokenizer.decode(ids)).removeprefix(" ")

    def state(self) -> JSON:
        return {"tokenizer": json.loads(self.tokenizer.to_str()) if self.tokenizer else None}

    @classmethod
    def from_state(cls, config: Config, state: JSON) -> Text:
        return cls(config, Tokenizer.from_str(json.dumps(state["tokenizer"])) if state["tokenizer"] else None)


component = Text


def _pretrained(name: str) -> Tokenizer:
    """A model's own tokenizer, as it is but for padding and cutting, which are done here."""
    file = files.find(name) / "tokenizer.json"
    if not file.is_file():
        raise RecipeError(
            f"'{name}' has no tokenizer.json in {file.parent}; save it there with "
            f"AutoTokenizer.from_pretrained(...).save_pretrained"
        )
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _strings(cells: pa.ChunkedArray) -> list[str | None]:
    if not is_text(cells):
        cells = pc.cast(cells, pa.string())
    return cells.to_pylist()


def hashed_ngrams(texts: list[str], config: Config) -> list[np.ndarray]:
    """For each text the ids (from 2) of its n-grams: first words, then runs of words, then characters
    within words with a space at both ends. The whole column is hashed at once, as one long array of
    code points.

    Marks of punctuation and emoji are words of their own.
    """
    spaced = []
    for text in texts:
        text = unicodedata.normalize("NFC", text)
        text = re.sub(r"([^\w\s])", r" \1 ", text.lower() if config.lowercase else text)
        spaced.append(f" {' '.join(text.split())} ")
    code = np.frombuffer("".join(spaced).encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    owner = np.repeat(np.arange(len(texts)), [len(t) for t in spaced])
    ids, owners = [], []

    def add(mixed: np.ndarray, of: np.ndarray) -> None:
        mixed = (mixed ^ (mixed >> np.uint64(29))) * PRIME
        ids.append(2 + ((mixed >> np.uint64(32)) % np.uint64(config.vocabulary - 2)).astype(np.int32))
        owners.append(of)

    starts = (
        np.flatnonzero((code[:-1] == SPACE) & (code[1:] != SPACE)) + 1
        if len(code)
        else np.zeros(0, dtype=int)
    )
    word = _word_hashes(code, starts)
    run, of = word, owner[starts]
    for n in range(1, config.words + 1):
        add(run + np.uint64(n), of)
        run, of = run[:-1] * PRIME + word[n:], np.where(of[:-1] == of[1:], of[:-1], -1)
    for n in range(2, config.characters + 1):
        if len(code) < n:
            break
        windows = np.lib.stride_tricks.sliding_window_view(code, n)
        inside = (
            (windows[:, 1:-1] != SPACE).all(1)
            & (owner[: len(windows)] == owner[n - 1 :])
            & (windows[:, :2] != SPACE).any(1)
        )
        mixed = np.zeros(int(inside.sum()), dtype=np.uint64)
        for column in windows[inside].T:
            mixed = (mixed ^ column) * PRIME
        add(mixed, owner[: len(windows)][inside])
    every, of = np.concatenate(ids), np.concatenate(owners)
    order = np.argsort(of, kind="stable")
    order = order[
        np.searchsorted(of[order], 0) :
    ]  # runs of words that cross from one text to the next belong to none
    return (
        np.split(every[order], np.cumsum(np.bincount(of[order], minlength=len(texts)))[:-1]) if texts else []
    )


def _word_hashes(code: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """One hash for each word: the sum of its letters, each mixed with its place."""
    if not len(starts):
        return np.zeros(0, dtype=np.uint64)
    place = np.zeros(len(code), dtype=np.int64)
    place[starts] = starts
    place = np.arange(len(code)) - np.maximum.accumulate(place)
    mixed = np.where(
        code == SPACE,
        np.uint64(0),
        (code + np.uint64(1)) * (PRIME ^ (place.astype(np.uint64) * np.uint64(0x2545F4914F6CDD1D))),
    )
    return np.add.reduceat(mixed ^ (mixed >> np.uint64(31)), starts)
