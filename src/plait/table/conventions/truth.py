"""Truth values: true and false, yes and no, in several spellings and languages."""

from __future__ import annotations

from typing import Literal

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
    shown,
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
            truths = cells
            bad: dict[int, str] = {}
        elif is_text(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
            truths, bad = self._truths(cells)
        else:
            return all_bad(cells, f"expected {self.described()}, came {kind}", self._type())
        if self.true:
            truths = pc.if_else(truths, self.true, self.false)
        return Reading(truths, bad)

    def _type(self) -> pa.DataType:
        return pa.string() if self.true else pa.bool_()

    def _truths(self, cells: pa.ChunkedArray) -> tuple[pa.ChunkedArray, dict[int, str]]:
        texts = without_marks(cells if is_text(cells.type) else pc.cast(cells, pa.string()))
        distinct, row_numbers = by_distinct(texts)
        truths: list[bool | None] = []
        for text in distinct.to_pylist():
            folded = text.casefold()
            truths.append(True if folded in TRUE else False if folded in FALSE else None)
        read = pa.array(truths, pa.bool_()).take(row_numbers)

        bad = {}
        for row in pc.indices_nonzero(pc.and_(row_numbers.is_valid(), read.is_null())).to_pylist():
            bad[row] = f"expected {self.described()}, came {shown(cells[row].as_py())}"
        return pa.chunked_array([read]), bad

    @classmethod
    def recognise(cls, texts: pa.ChunkedArray, style: Style, least: float = FITS) -> Recognised | None:
        """Recognise strings that are one pair of words, in any case. Numbers stay numbers."""
        filled = without_marks(texts).drop_null()
        distinct, row_numbers = by_distinct(filled)
        if not 1 <= len(distinct) <= 50:
            return None
        counts = pc.value_counts(row_numbers)
        cells_of = dict(zip(counts.field(0).to_pylist(), counts.field(1).to_pylist(), strict=True))
        spellings: dict[str, dict[str, int]] = {}
        for number, text in enumerate(distinct.to_pylist()):
            spellings.setdefault(text.casefold(), {})[text] = cells_of[number]

        for true, false in PAIRS:
            found = sum(sum(spellings.get(word, {}).values()) for word in (true, false))
            if not all(word in spellings for word in (true, false)) and (true, false) != PAIRS[0]:
                continue
            share = found / len(filled)
            if share >= least:
                return Recognised(cls._of(true, false, spellings), share)
        return None

    @classmethod
    def _of(cls, true: str, false: str, spellings: dict[str, dict[str, int]]) -> Truth:
        """Return the convention of a pair, with the commonest spelling of each word."""
        if (true, false) == PAIRS[0]:
            return cls()
        words = []
        for word in (true, false):
            words.append(max(spellings[word], key=lambda text: spellings[word][text]))
        return cls(true=words[0], false=words[1])
