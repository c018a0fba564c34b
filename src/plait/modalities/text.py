"""Texts: Unicode-normalised, then cut into tokens, or into hashed n-grams. A list of words is a text too.

A tokenizer is trained on the training rows; n-grams need no training.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import nn

from plait.errors import count
from plait.modalities.base import Match, ValueModality
from plait.nn.batch import Layout, Loaded, Values
from plait.nn.measures import TEXT_NUMBERS, measure_texts
from plait.nn.traits import Traits, TraitsLayout
from plait.pretrained import files
from plait.pretrained.tokenizer import load_tokenizer
from plait.recipe.bounds import MAX_IDS, MAX_TOKENS
from plait.recipe.registry import Options
from plait.table.conventions.listing import Listing
from plait.table.conventions.plain import Plain
from plait.table.json import JSON
from plait.table.table import Source
from plait.table.values import distinct, is_list, is_text, items, joined_texts, sample, words_a_cell

PADDING, UNKNOWN = "<pad>", "<unk>"  # ids 0 and 1


SPACE = ord(" ")


PRIME = np.uint64(0x9E3779B97F4A7C15)  # 2 ** 64 over the golden ratio, as Fibonacci hashing has it


class Config(Options):
    """How texts are cut into tokens or n-grams.

    `split` says how. `subword` cuts into pieces of words (byte-level BPE: any script and emoji survives).
    `word` and `character` cut into these. `ngrams` makes a bag of hashed runs of words and characters, as
    fastText does (Bojanowski et al. 2017). `pretrained` uses the tokenizer of a pretrained model.
    """

    vocabulary: int = Field(
        10000, ge=300, le=MAX_IDS, description="number of ids, with those of padding and unknown"
    )
    max_tokens: int = Field(
        128, ge=1, le=MAX_TOKENS, description="longer texts are cut after so many tokens or n-grams"
    )
    split: Literal["subword", "word", "character", "ngrams", "pretrained"] = Field(
        "subword", description="what a text is cut into (see above)"
    )
    tokenizer: str = Field(
        "", description="pretrained: the model's folder, its Hugging Face name, or the name of a package"
    )
    chunk: int = Field(
        0,
        ge=0,
        le=MAX_TOKENS,
        description="pretrained: tokens that the network reads at once; longer texts are read in chunks of "
        "equal length; 0: as many as max_tokens",
    )
    words: int = Field(2, ge=1, le=4, description="ngrams: runs of up to so many words")
    characters: int = Field(
        5, ge=0, le=8, description="ngrams: runs of 2 up to so many characters within a word; 0: none"
    )
    lowercase: bool = Field(True, description="read capital letters as small ones")
    drop: float = Field(0.0, ge=0, lt=1, description="share of tokens made unknown at random in training")


NGRAMS = Config(split="ngrams", vocabulary=16_384, max_tokens=2048)  # those of traits


class Text(ValueModality):
    """A column of texts in any language."""

    options = Config
    encoder = "bag"
    pretrained = "pretrained"
    words = "bag"
    is_text = True
    may_be_id = True
    conventions = (Plain, Listing)

    def __init__(self, config: Config, tokenizer: Tokenizer | None) -> None:
        self.config = config
        self.tokenizer = tokenizer
        if tokenizer is None:
            self.layout = Layout("bag", (config.max_tokens,), config.vocabulary)
            return

        # "<unk>" in a cell is plain text; `to_str` does not save this
        tokenizer.encode_special_tokens = True
        height = tokenizer.get_vocab_size() if config.split == "pretrained" else config.vocabulary
        self.layout = Layout("tokens", (config.max_tokens,), height)

    @classmethod
    def matches(cls, cells: pa.ChunkedArray, source: Source) -> Match | None:
        """Recognise strings; the more words a cell has, the surer. Recognise lists of them, such as tags."""
        if is_list(cells) and pa.types.is_string(cells.type.value_type):
            return Match(0.2, f"lists of words, {distinct(items(cells)):,} different")
        if not is_text(cells):
            return None
        # few different strings of few words are more likely names of classes
        words = words_a_cell(cells)
        different = distinct(cells)
        if words >= 3 and (different > 20 or different > len(cells) / 2):
            return Match(0.8, f"{words:.0f} words a cell on average, {count(different, 'different text')}")

        # strings without letters are rather codes than texts
        has_letters = any(map(str.isalpha, "".join(sample(cells))))
        texts = f"{count(different, 'different text')} in {count(len(cells), 'cell')}"
        return Match(0.4 if has_letters else 0.1, f"{words:.1f} words a cell on average, {texts}")

    @classmethod
    def fit(cls, config: Config, cells: pa.ChunkedArray) -> Text:
        """Train the tokenizer on the training rows, or load a pretrained one."""
        if config.split == "ngrams":
            return cls(config, None)
        if config.split == "pretrained":
            tokenizer = load_tokenizer(config.tokenizer)
            _prepend(tokenizer, files.prefix(config.tokenizer))
            return cls(config, tokenizer)
        tokenizer, trainer = _subwords(config) if config.split == "subword" else _words(config)
        normalisations: list[normalizers.Normalizer] = [normalizers.NFC()]
        if config.lowercase:
            normalisations.append(normalizers.Lowercase())
        tokenizer.normalizer = normalizers.Sequence(normalisations)
        filled = (text for text in joined_texts(cells) if text)
        tokenizer.train_from_iterator(filled, trainer)
        return cls(config, tokenizer)

    def load(self, cells: pa.ChunkedArray, source: Source) -> Loaded:
        """Return the ids of each text's tokens, int32 (B, L), 0 being padding. Cut texts get a note."""
        texts = [text or "" for text in joined_texts(cells)]
        ids_of_texts = self._encode(texts)
        source.progress(len(texts))
        max_tokens = self.config.max_tokens
        is_pretrained = self.config.split == "pretrained"
        length = np.array([len(ids) for ids in ids_of_texts], dtype=np.int64)
        if is_pretrained:  # a blank text has tokens that mark begin and end, but says nothing
            is_blank = [not text.strip() for text in texts]
            length[is_blank] = 0
        cut_length = np.minimum(length, max_tokens)

        width = max(int(cut_length.max(initial=1)), 1)
        x = np.zeros((len(texts), width), dtype=np.int32)
        for row, ids in enumerate(ids_of_texts):
            x[row, : cut_length[row]] = ids[: cut_length[row]]
            if is_pretrained and length[row] > max_tokens:
                x[row, max_tokens - 1] = ids[-1]  # a cut text, too, ends with the mark of the end

        notes = {}
        cut_rows = np.flatnonzero(length > max_tokens).tolist()
        if cut_rows:
            notes[f"longer than max_tokens ({max_tokens}), and cut there"] = cut_rows
        values = Values(torch.from_numpy(x), torch.from_numpy(cut_length))
        return Loaded(values, torch.from_numpy(cut_length > 0), notes=notes)

    def _encode(self, texts: list[str]) -> list[np.ndarray]:
        """Return the ids of each text's tokens or n-grams, not cut."""
        if self.tokenizer is None:
            return hashed_ngrams(texts, self.config)
        encodings = self.tokenizer.encode_batch_fast(texts)
        return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]

    def transform(self, values: Values, generator: torch.Generator | None) -> Values:
        """Return ids as int64 (B, L). In training, make a share `drop` of the tokens unknown.

        Texts of a pretrained tokenizer that are longer than a chunk become several, row after row.
        """
        x_BL = values.x.long()
        if generator is not None and self.config.drop:
            is_drawn_BL = torch.rand(x_BL.shape, generator=generator) < self.config.drop
            is_token_BL = x_BL > 0
            x_BL = x_BL.masked_fill(is_drawn_BL & is_token_BL, 1)
        if self.config.chunk and x_BL.shape[1] > self.config.chunk:
            return self._chunks(x_BL, values)
        return Values(x_BL, values.length_B)

    def _chunks(self, x_BL: torch.Tensor, values: Values) -> Values:
        """Cut each text into as few chunks as it needs, of about the same length, between its marks."""
        assert values.length_B is not None
        assert self.tokenizer is not None
        before, after = _marks(self.tokenizer)
        room = max(self.config.chunk - before - after, 1)

        chunks, count = [], []
        for ids, length in zip(x_BL, values.length_B.tolist(), strict=True):
            inner = ids[before : max(length - after, before)]
            number = max(-(-len(inner) // room), 1)
            count.append(number)
            for piece in inner.tensor_split(number):
                chunks.append(torch.cat([ids[:before], piece, ids[length - after : length]]))

        length_N = torch.tensor([len(chunk) for chunk in chunks])
        x_NL = nn.utils.rnn.pad_sequence(chunks, batch_first=True)
        return Values(x_NL, length_N, torch.tensor(count))

    def traits_layout(self) -> TraitsLayout:
        """Return the form of the traits: lengths, and hashed n-grams whatever the text is cut into."""
        return TraitsLayout((TEXT_NUMBERS,), NGRAMS.vocabulary)

    def traits(self, cells: pa.ChunkedArray, values: Values) -> Traits:
        """Measure the lengths of texts, and hash their n-grams."""
        texts = [text or "" for text in joined_texts(cells)]
        ids_of_texts = [ids[: NGRAMS.max_tokens] for ids in hashed_ngrams(texts, NGRAMS)]
        count_B = torch.tensor([len(ids) for ids in ids_of_texts], dtype=torch.long)
        ids_T = torch.from_numpy(np.concatenate([*ids_of_texts, np.zeros(0, np.int32)]))
        return Traits(measure_texts(texts), ids_T, count_B)

    def decode(self, ids: list[int]) -> str:
        """Return the text of token ids: what was encoded, up to normalisation and, with `word`, spaces."""
        assert self.tokenizer is not None, "n-grams cannot be turned back into text"
        return str(self.tokenizer.decode(ids)).removeprefix(" ")

    def cell_schema(self) -> JSON:
        """Return the schema of a text, or of a list of texts, such as tags. Numbers are texts too."""
        return {"type": ["string", "number", "boolean", "array"]}

    def state(self) -> JSON:
        """Return the tokenizer as JSON."""
        if self.tokenizer is None:
            return {"tokenizer": None}
        return {"tokenizer": json.loads(self.tokenizer.to_str())}

    @classmethod
    def from_state(cls, config: Config, state: JSON) -> Text:
        """Build the fitted modality from what `state` returned."""
        if not state["tokenizer"]:
            return cls(config, None)
        return cls(config, Tokenizer.from_str(json.dumps(state["tokenizer"])))


component = Text


def _marks(tokenizer: Tokenizer) -> tuple[int, int]:
    """Return how many tokens a tokenizer puts before each text, and how many after it."""
    is_mark = tokenizer.encode("a").special_tokens_mask
    before = is_mark.index(0)
    after = is_mark[::-1].index(0)
    return before, after


def _prepend(tokenizer: Tokenizer, prefix: str) -> None:
    """Let a tokenizer read every text with a prefix, as some networks were trained. It is saved with it."""
    if not prefix:
        return
    steps: list[normalizers.Normalizer] = [normalizers.Prepend(prefix)]
    if tokenizer.normalizer is not None:
        steps.append(tokenizer.normalizer)
    tokenizer.normalizer = normalizers.Sequence(steps)


def _words(config: Config) -> tuple[Tokenizer, trainers.Trainer]:
    """Return a tokenizer that splits into words or characters, not trained yet, and its trainer."""
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    if config.split == "word":
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        tokenizer.decoder = decoders.Fuse()
    trainer = trainers.WordLevelTrainer(
        vocab_size=config.vocabulary, special_tokens=[PADDING, UNKNOWN], show_progress=False
    )
    return tokenizer, trainer


def _subwords(config: Config) -> tuple[Tokenizer, trainers.Trainer]:
    """Return a tokenizer of byte-level BPE, not trained yet, and its trainer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocabulary,
        special_tokens=[PADDING, UNKNOWN],
        show_progress=False,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    return tokenizer, trainer


def hashed_ngrams(texts: list[str], config: Config) -> list[np.ndarray]:
    """Return the ids (from 2) of each text's n-grams.

    First come words, then runs of words, then characters within words with a space at both ends. Punctuation
    marks and emoji are words of their own. The complete column is hashed at once, as one long array of code
    points.
    """
    if not texts:
        return []
    spaced = [_spaced(text, config.lowercase) for text in texts]
    encoded = "".join(spaced).encode("utf-32-le")
    code = np.frombuffer(encoded, dtype=np.uint32).astype(np.uint64)
    owner = np.repeat(np.arange(len(texts)), [len(text) for text in spaced])  # the text of each code point

    hashes, owners = _word_ngrams(code, owner, config.words)
    for n in range(2, min(config.characters, len(code)) + 1):
        hashed, text_of_ngram = _character_ngrams(code, owner, n)
        hashes.append(hashed)
        owners.append(text_of_ngram)
    ids = np.concatenate([_ids(hashed, config.vocabulary) for hashed in hashes])
    text_of_id = np.concatenate(owners)

    # sort by text; runs of words that cross two texts (-1) come first and are cut off
    order = np.argsort(text_of_id, kind="stable")
    first_of_a_text = np.searchsorted(text_of_id[order], 0)
    order = order[first_of_a_text:]
    counts = np.bincount(text_of_id[order], minlength=len(texts))
    ends = np.cumsum(counts)
    return np.split(ids[order], ends[:-1])


def _spaced(text: str, lowercase: bool) -> str:
    """Normalise a text and put one space around each word and punctuation mark."""
    text = unicodedata.normalize("NFC", text)
    if lowercase:
        text = text.lower()
    text = re.sub(r"([^\w\s])", r" \1 ", text)
    return f" {' '.join(text.split())} "


def _ids(hashed: np.ndarray, vocabulary: int) -> np.ndarray:
    """Mix hashes once more and map them to ids from 2 to `vocabulary` - 1."""
    mixed = (hashed ^ (hashed >> np.uint64(29))) * PRIME
    high_bits = mixed >> np.uint64(32)  # the low bits of a product are mixed the least
    return 2 + (high_bits % np.uint64(vocabulary - 2)).astype(np.int32)


def _word_ngrams(
    code: np.ndarray, owner: np.ndarray, longest: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Hash runs of 1 to `longest` words. Returns, for each length, hashes and the text of each run.

    The text of a run that crosses two texts is -1.
    """
    begins_word = (code[:-1] == SPACE) & (code[1:] != SPACE)
    starts = np.flatnonzero(begins_word) + 1
    word = _word_hashes(code, starts)
    run = word
    text = owner[starts]
    hashes = []
    owners = []
    for n in range(1, longest + 1):
        # the length keeps a run apart from a longer or shorter one with the same hash
        hashes.append(run + np.uint64(n))
        owners.append(text)
        run = run[:-1] * PRIME + word[n:]
        text = np.where(text[:-1] == text[1:], text[:-1], -1)
    return hashes, owners


def _character_ngrams(code: np.ndarray, owner: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Hash runs of `n` characters within words. Returns the hashes, and the text of each run."""
    windows = np.lib.stride_tricks.sliding_window_view(code, n)
    first_owner = owner[: len(windows)]

    # a space may only stand at either end; where two texts meet, a window may hold nothing but spaces
    is_in_one_word = (windows[:, 1:-1] != SPACE).all(1)
    is_in_one_text = first_owner == owner[n - 1 :]
    has_letter = (windows[:, :2] != SPACE).any(1)
    is_ngram = is_in_one_word & is_in_one_text & has_letter
    hashed = np.zeros(int(is_ngram.sum()), dtype=np.uint64)
    for column in windows[is_ngram].T:
        hashed = (hashed ^ column) * PRIME
    return hashed, first_owner[is_ngram]


def _word_hashes(code: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return one hash for each word: the sum of its letters, each mixed with its position in the word."""
    if not len(starts):
        return np.zeros(0, dtype=np.uint64)
    start = np.zeros(len(code), dtype=np.int64)
    start[starts] = starts
    start_of_word = np.maximum.accumulate(start)  # of the word that each code point is in
    position = np.arange(len(code)) - start_of_word

    # the constant is that of xorshift64* (Vigna 2016): odd, with its bits well mixed
    factor = PRIME ^ (position.astype(np.uint64) * np.uint64(0x2545F4914F6CDD1D))
    mixed = np.where(code == SPACE, np.uint64(0), (code + np.uint64(1)) * factor)
    mixed = mixed ^ (mixed >> np.uint64(31))
    return np.add.reduceat(mixed, starts)
