"""Truth values: true and false, yes and no, in several spellings and languages."""

from __future__ import annotations

from collections import Counter
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from plait.table.conventions.base import (
    FITS,
    Convention,
    Reading,
    Recognised,
    Style,
    all_bad,
    by_distinct,
    is_text,
    read_by_row,
    without_marks,
)

# Spellings of true and of false, folded. A column has one pair; a later cell may have another one.
PAIRS = (
    ("true", "false"), ("yes", "no"), ("t", "f"), ("y", "n"), ("on", "off"), ("wahr", "falsch"),
    ("ja", "nein"), ("ja", "nee"), ("ja", "nej"), ("vrai", "faux"), ("oui", "non"),
    ("verdadero", "falso"), ("sí", "no"), ("si", "no"), ("vero", "falso"), ("sim", "não"), ("да", "нет"),
    ("是", "否"), ("真", "假"), ("有", "无"), ("有", "無"),
)  # fmt: skip

TRUE = frozenset(pair[0] for pair in PAIRS) | {"1", "1.0"}
FALSE = frozenset(pair[1] for pair in PAIRS) | {"0", "0.0"}

MOST_SPELLINGS = 50  # distinct strings; a column with more of them has words


class Truth(Convention):
    """A column of truth values.

    `true` and `false` are their spellings in training, so that answers are written as labels were. They are
    empty where training had truth values, or the words true and false: those are read as truth values.
    """

    kind: Literal["truth"] = "truth"
    true: str = ""
    false: str = ""

    def described(self) -> str:
        """Return the two values."""
        return f"{self.true or 'true'} or {self.false or 'false'}"

    def read(self, cells: pa.ChunkedArray) -> Reading:
        """Return truth values, or strings where training has other words for them."""
        kind = cells.type
        if pa.types.is_boolean(kind):
            reading = Reading(cells)
        elif is_text(kind):
            reading = self._read_texts(cells, cells)
        elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
            reading = self._read_texts(pc.cast(cells, pa.string()), cells)
        else:
            answer_type = pa.string() if self.true else pa.bool_()
            return all_bad(cells, f"expected {self.described()}, came {kind}", answer_type)
        if not self.true:
            return reading
        words = pc.if_else(reading.cells, self.true, self.false)
        return Reading(words, reading.bad)

    def _read_texts(self, texts: pa.ChunkedArray, cells: pa.ChunkedArray) -> Reading:
        distinct, row_numbers = by_distinct(without_marks(texts))
        truths = pa.array(map(_truth, distinct.to_pylist()), pa.bool_())
        return read_by_row(truths, row_numbers, cells, self.described())

    @classmethod
    def recognise(cls, texts: pa.ChunkedArray, style: Style, least: float = FITS) -> Recognised | None:
        """Recognise strings that are one pair of words, in any case. Numbers stay numbers."""
        filled = without_marks(texts).drop_null()
        distinct, row_numbers = by_distinct(filled)
        if not 1 <= len(distinct) <= MOST_SPELLINGS:
            return None
        counts = np.bincount(row_numbers.to_numpy(), minlength=len(distinct))
        spellings: dict[str, Counter[str]] = {}
        for text, count in zip(distinct.to_pylist(), counts.tolist(), strict=True):
            spellings.setdefault(text.casefold(), Counter())[text] = count

        for true, false in PAIRS:
            # A column of nothing but "true" has truth values; one of nothing but "no" may have words.
            has_both = true in spellings and false in spellings
            if not has_both and (true, false) != PAIRS[0]:
                continue
            cell_count = 0
            for word in (true, false):
                cell_count += spellings.get(word, Counter()).total()
            share = cell_count / len(filled)
            if share >= least:
                return Recognised(cls._of(true, false, spellings), share)
        return None

    @classmethod
    def _of(cls, true: str, false: str, spellings: dict[str, Counter[str]]) -> Truth:
        """Return the convention of a pair, with the commonest spelling of each word."""
        if (true, false) == PAIRS[0]:
            return cls()
        commonest_true = spellings[true].most_common(1)[0][0]
        commonest_false = spellings[false].most_common(1)[0][0]
        return cls(true=commonest_true, false=commonest_false)


def _truth(text: str) -> bool | None:
    """Return what a word says, in any case; None for another word."""
    folded = text.casefold()
    if folded in TRUE:
        return True
    return False if folded in FALSE else None
