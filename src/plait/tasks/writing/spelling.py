"""Texts as what a model writes: ids of characters or of pieces of words, and back."""

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

NOTHING = 0  # the id that stands for no text: padding, CTC's blank, the end of what is generated

UNKNOWN = "\ufffd"  # stands for what was not among the training texts; the last id


Units = Literal["characters", "subwords"]


Form = Literal["written", "spoken"]


def plain(text: str, form: Form) -> str:
    """A text in one of the ways to write it. `written`: as it is, but for Unicode's composed form and
    single blanks. `spoken`: what can be heard of it, lower-case letters, digits and apostrophes.
    """
    if form == "spoken":
        text = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
        text = "".join(c if c == "'" or unicodedata.category(c)[0] in "LMN" else " " for c in text)
    else:
        text = unicodedata.normalize("NFC", text)
    return re.sub(r"\s+", " ", text).strip()


class Spelling:
    """From texts to ids from 1 on, and back. `pieces[i]` has the id i + 1; the last one stands for all
    that is unknown. What a pretrained model writes before a text's first letter is `before`.
    """

    def __init__(
        self,
        units: Units | Literal["pretrained"],
        form: Form,
        pieces: list[str],
        tokenizer: Tokenizer | None = None,
        before: str = "",
    ) -> None:
        self.units, self.form, self.pieces, self.tokenizer, self.before = (
            units,
            form,
            pieces,
            tokenizer,
            before,
        )
        self._ids = {piece: i + 1 for i, piece in enumerate(pieces)}

    def __len__(self) -> int:
        """The number of ids, `NOTHING` left out."""
        return len(self.pieces)

    @property
    def unknown(self) -> int | None:
        """The id of what was not among the training texts; none where all can be spelled."""
        return None if self.units == "pretrained" else len(self.pieces)

    @classmethod
    def pretrained(cls, tokenizer: Tokenizer, form: Form, before: str = "") -> Spelling:
        """That of a pretrained model: its own ids, and one more, so that 0 is free."""
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return cls("pretrained", form, _pieces(tokenizer), tokenizer, before)

    @classmethod
    def fit(cls, texts: Iterable[str], units: Units, form: Form, vocabulary: int) -> Spelling:
        """`vocabulary` is the number of pieces of words, at most (Sennrich et al. 2016, byte-pair
        encoding over characters).
        """
        known = [plain(text, form) for text in texts]
        letters = sorted(set("".join(known)))
        if units == "characters":
            return cls(units, form, [*letters, UNKNOWN])
        tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        size = max(vocabulary, len(letters) + 2)
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=[UNKNOWN],
            show_progress=False,
            min_frequency=2,
            initial_alphabet=letters,
        )
        tokenizer.train_from_iterator(known, trainer)
        return cls(units, form, [*_pieces(tokenizer)[1:], UNKNOWN], tokenizer)

    def encode(self, text: str) -> list[int]:
        text = plain(text, self.form)
        if self.units == "pretrained" and self.tokenizer is not None:
            return [i + 1 for i in self.tokenizer.encode(self.before + text, add_special_tokens=False).ids]
        pieces = text if self.tokenizer is None else self.tokenizer.encode(text).tokens
        return [self._ids.get(piece, len(self.pieces)) for piece in pieces]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, those of `NOTHING` and below left out."""
        if self.units == "pretrained" and self.tokenizer is not None:
            return str(self.tokenizer.decode([i - 1 for i in ids if i > NOTHING])).strip()
        pieces = [self.pieces[i - 1] for i in ids if i > NOTHING]
        if self.tokenizer is None:
            return "".join(pieces)
        return str(self.tokenizer.decoder.decode(pieces)).strip()

    def state(self) -> JSON:
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
        fields = _State.model_validate(state)
        tokenizer = None if fields.tokenizer is None else Tokenizer.from_str(json.dumps(fields.tokenizer))
        return cls(fields.units, fields.form, fields.pieces, tokenizer, fields.before)


class _State(BaseModel):
    """What a spelling is saved as."""

    units: Units | Literal["pretrained"]
    form: Form
    pieces: list[str]
    tokenizer: dict[str, JsonValue] | None
    before: str = ""


def _pieces(tokenizer: Tokenizer) -> list[str]:
    return sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)


class NGrams:
    """How likely each id comes after those before it, from counts of training texts: interpolated by
    Witten and Bell (1991), as in Chen & Goodman 1998, eq. 16 and 17. A text begins after, and ends
    with, `NOTHING`.
    """

    def __init__(self, order: int, size: int, counts: dict[tuple[int, ...], dict[int, int]]) -> None:
        self.order, self.size, self.counts = order, size, counts
        self._known: dict[tuple[int, ...], np.ndarray] = {}

    @classmethod
    def fit(cls, texts: Iterable[list[int]], order: int, size: int) -> NGrams:
        """`size` is the number of ids, `NOTHING` among them."""
        counts: dict[tuple[int, ...], Counter[int]] = {}
        for ids in texts:
            whole = [NOTHING] * (order - 1) + ids + [NOTHING]
            for end in range(order - 1, len(whole)):
                for length in range(order):
                    counts.setdefault(tuple(whole[end - length : end]), Counter())[whole[end]] += 1
        return cls(order, size, {context: dict(found) for context, found in counts.items()})

    def probabilities(self, before: tuple[int, ...]) -> np.ndarray:
        """Of each id next, (size,), adding up to one, after ids of which only the last count."""
        padded = (NOTHING,) * (self.order - 1) + before
        return self._after(padded[len(padded) - self.order + 1 :])

    def _after(self, context: tuple[int, ...]) -> np.ndarray:
        """p(i | h) = (c(h i) + N(h) p(i | h')) / (c(h) + N(h)), N(h) being how many different ids
        follow h, and h' what h is without its first; at last, all ids are as likely.
        """
        if context not in self._known:
            shorter = self._after(context[1:]) if context else np.full(self.size, 1 / self.size)
            found = self.counts.get(context)
            if found is None:
                return shorter
            probability = len(found) * shorter
            probability[list(found)] += np.array(list(found.values()))
            self._known[context] = probability / (sum(found.values()) + len(found))
        return self._known[context]

    def state(self) -> JSON:
        pairs = [(context, list(counts.items())) for context, counts in self.counts.items()]
        return {"order": self.order, "size": self.size, "counts": pairs}

    @classmethod
    def from_state(cls, state: JSON) -> NGrams:
        pairs = read_as(list[tuple[list[int], list[tuple[int, int]]]], state["counts"])
        counts = {tuple(context): dict(counts) for context, counts in pairs}
        return cls(read_as(int, state["order"]), read_as(int, state["size"]), counts)
