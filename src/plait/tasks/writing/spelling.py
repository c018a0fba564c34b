"""Turn texts into the ids that a model writes, of characters or of subwords, and back."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import Literal

import numpy as np
from pydantic import BaseModel, JsonValue
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from plait.table.json import JSON, read_as

# The id that stands for no text: padding, CTC's blank, the end of a generated text.
NOTHING = 0
ABSENT = -1  # the first id of a row whose input is missing: its answer is null

# The piece that stands for everything that no training text has. Its id is the last one.
UNKNOWN = "\ufffd"

Units = Literal["characters", "subwords"]
Form = Literal["written", "spoken"]


def plain(text: str, form: Form) -> str:
    """Return a text in one of two forms.

    `written` composes Unicode characters (NFC) and makes all runs of blanks single. `spoken` also folds to
    lower case (after NFKC) and leaves only letters, digits, marks and apostrophes: what can be heard.
    """
    if form == "spoken":
        text = unicodedata.normalize("NFKC", text).lower()
        text = text.replace("’", "'")
        text = "".join(_audible(character) for character in text)
    else:
        text = unicodedata.normalize("NFC", text)
    single_blanks = re.sub(r"\s+", " ", text)
    return single_blanks.strip()


def _audible(character: str) -> str:
    """Return a character of a spoken text; a blank instead of a character that cannot be heard."""
    category = unicodedata.category(character)
    is_audible = character == "'" or category[0] in "LMN"  # letters, marks and numbers
    return character if is_audible else " "


class Spelling:
    """Map texts to ids from 1 on, and back.

    `pieces[i]` has the id i + 1. The last piece stands for all that is unknown. `before` is what a
    pretrained model writes before a text's first letter.
    """

    def __init__(
        self,
        units: Units | Literal["pretrained"],
        form: Form,
        pieces: list[str],
        tokenizer: Tokenizer | None = None,
        before: str = "",
    ) -> None:
        self.units = units
        self.form = form
        self.pieces = pieces
        self.tokenizer = tokenizer
        self.before = before
        self._ids = {piece: i + 1 for i, piece in enumerate(pieces)}

    def __len__(self) -> int:
        """Return the number of ids, `NOTHING` left out."""
        return len(self.pieces)

    @property
    def unknown(self) -> int | None:
        """Return the id of what no training text has; None if all texts can be spelled."""
        return None if self.units == "pretrained" else len(self.pieces)

    @classmethod
    def pretrained(cls, tokenizer: Tokenizer, form: Form, before: str = "") -> Spelling:
        """Return the spelling of a pretrained model: its own ids plus one, so that 0 is `NOTHING`."""
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return cls("pretrained", form, _pieces(tokenizer), tokenizer, before)

    @classmethod
    def fit(cls, texts: Iterable[str], units: Units, form: Form, vocabulary: int) -> Spelling:
        """Learn the characters or subwords of texts.

        Subwords are byte-pair encodings over characters (Sennrich et al. 2016), `vocabulary` of them at most.
        """
        plain_texts = [plain(text, form) for text in texts]
        letters = sorted(set("".join(plain_texts)))
        if units == "characters":
            return cls(units, form, [*letters, UNKNOWN])

        tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()

        # Room for all letters, the mark between words, and the unknown piece.
        size = max(vocabulary, len(letters) + 2)
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=[UNKNOWN],
            show_progress=False,
            min_frequency=2,
            initial_alphabet=letters,
        )
        tokenizer.train_from_iterator(plain_texts, trainer)

        # The trainer puts the unknown piece first. Here it comes last.
        pieces = _pieces(tokenizer)[1:]
        return cls(units, form, [*pieces, UNKNOWN], tokenizer)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text."""
        text = plain(text, self.form)
        if self.units == "pretrained" and self.tokenizer is not None:
            encoding = self.tokenizer.encode(self.before + text, add_special_tokens=False)
            return [network_id + 1 for network_id in encoding.ids]
        pieces = text if self.tokenizer is None else self.tokenizer.encode(text).tokens
        unknown = len(self.pieces)
        return [self._ids.get(piece, unknown) for piece in pieces]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids. `NOTHING` and negative ids are left out."""
        indices = [unit - 1 for unit in ids if unit > NOTHING]
        if self.units == "pretrained" and self.tokenizer is not None:
            return str(self.tokenizer.decode(indices)).strip()
        pieces = [self.pieces[index] for index in indices]
        if self.tokenizer is None:
            return "".join(pieces)
        return str(self.tokenizer.decoder.decode(pieces)).strip()

    def state(self) -> JSON:
        """Return what it was made from, as JSON."""
        tokenizer = None if self.tokenizer is None else json.loads(self.tokenizer.to_str())
        return {
            "units": self.units,
            "form": self.form,
            "pieces": self.pieces,
            "tokenizer": tokenizer,
            "before": self.before,
        }

    @classmethod
    def from_state(cls, state: JSON) -> Spelling:
        """Restore a spelling. States of older versions have no `before`."""
        fields = _State.model_validate(state)
        tokenizer = None
        if fields.tokenizer is not None:
            tokenizer = Tokenizer.from_str(json.dumps(fields.tokenizer))
        return cls(fields.units, fields.form, fields.pieces, tokenizer, fields.before)


class _State(BaseModel):
    """What a spelling is saved as."""

    units: Units | Literal["pretrained"]
    form: Form
    pieces: list[str]
    tokenizer: dict[str, JsonValue] | None
    before: str = ""


def _pieces(tokenizer: Tokenizer) -> list[str]:
    """Return a tokenizer's pieces in the order of their ids."""
    vocabulary = tokenizer.get_vocab()
    return sorted(vocabulary, key=vocabulary.__getitem__)


class NGrams:
    """A language model: how likely each id comes after the ids before it.

    Counts of training texts are interpolated by Witten and Bell (1991), as in Chen & Goodman 1998, eq. 16
    and 17. A text begins after `NOTHING`, and ends with it.
    """

    def __init__(self, order: int, size: int, counts: dict[tuple[int, ...], dict[int, int]]) -> None:
        self.order = order
        self.size = size
        self.counts = counts
        self._cache: dict[tuple[int, ...], np.ndarray] = {}

    @classmethod
    def fit(cls, texts: Iterable[list[int]], order: int, size: int) -> NGrams:
        """Count the ids after each context of up to `order` - 1 ids. `size` counts `NOTHING` too."""
        counters: dict[tuple[int, ...], Counter[int]] = {}
        before_text = [NOTHING] * (order - 1)
        for ids in texts:
            sequence = [*before_text, *ids, NOTHING]
            for end in range(order - 1, len(sequence)):
                # Shorter contexts are counted too, because probabilities are interpolated with theirs.
                for length in range(order):
                    context = tuple(sequence[end - length : end])
                    counters.setdefault(context, Counter())[sequence[end]] += 1
        counts = {context: dict(counter) for context, counter in counters.items()}
        return cls(order, size, counts)

    def probabilities(self, before: tuple[int, ...]) -> np.ndarray:
        """Return the probability of each id after these ids, of which the last `order` - 1 count, (size,)."""
        length = self.order - 1
        padded = (NOTHING,) * length + before
        return self._after(padded[len(padded) - length :])

    def _after(self, context: tuple[int, ...]) -> np.ndarray:
        """Return p(i | h) = (c(h i) + N(h) p(i | h')) / (c(h) + N(h)).

        N(h) is the number of different ids that follow h, and h' is h without its first id. After the
        empty context, all ids are interpolated with equal probabilities.
        """
        if context in self._cache:
            return self._cache[context]
        if context:
            shorter_p_V = self._after(context[1:])
        else:
            shorter_p_V = np.full(self.size, 1 / self.size)
        counts = self.counts.get(context)
        if counts is None:
            return shorter_p_V

        different = len(counts)
        total = sum(counts.values())
        weighted_V = different * shorter_p_V
        weighted_V[list(counts)] += np.array(list(counts.values()))
        p_V = weighted_V / (total + different)
        self._cache[context] = p_V
        return p_V

    def state(self) -> JSON:
        """Return the counts as JSON, which has no tuples as keys."""
        pairs = []
        for context, counts in self.counts.items():
            pairs.append((context, list(counts.items())))
        return {"order": self.order, "size": self.size, "counts": pairs}

    @classmethod
    def from_state(cls, state: JSON) -> NGrams:
        """Restore the counts."""
        order = read_as(int, state["order"])
        size = read_as(int, state["size"])
        pairs = read_as(list[tuple[list[int], list[tuple[int, int]]]], state["counts"])
        counts = {tuple(context): dict(next_counts) for context, next_counts in pairs}
        return cls(order, size, counts)
