"""Numbers as people write them: decimal and group marks, units, signs, thousands and millions."""

from __future__ import annotations

import unicodedata
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
    chunked,
    is_text,
    shown,
    without_marks,
)

Decimal = Literal[".", ","]
Group = Literal["", ",", ".", " ", "'", "_"]

# One cell: (1,234.50), -$5.00, $-5, 12,50 €, 5.1 kg, USD 5, 57.00K, 1.5e-3, 12 %, 5,-
CELL = (
    r"^(?P<open>\()?\s*(?P<sign>[+\-]?)\s*(?P<before>[^\d+\-.,()\s]{1,4})?\s*(?P<inner_sign>[+\-]?)\s*"
    r"(?P<digits>\d[\d.,'_ ]*|[.,]\d+)(?P<exponent>[eE][+\-]?\d{1,3})?\s*"
    r"(?P<after>[^\d\s()+\-.,][^\d()]{0,11})?(?P<minus>-)?(?P<close>\))?$"
)

# Characters that look like a minus, a space or an apostrophe, and are read as one.
LIKE_MINUS = "\u2212\u2013\u2012\ufe63\uff0d"
LIKE_SPACE = "\u00a0\u202f\u2009\u2007\u3000"
LIKE_APOSTROPHE = "\u2019\u02bc\u2032"

MULTIPLIERS = {
    "k": 1e3, "K": 1e3, "千": 1e3, "万": 1e4, "萬": 1e4, "亿": 1e8, "億": 1e8,
    "M": 1e6, "mn": 1e6, "mln": 1e6, "Mio": 1e6, "million": 1e6, "Million": 1e6,
    "B": 1e9, "bn": 1e9, "Mrd": 1e9, "billion": 1e9, "Billion": 1e9,
}  # fmt: skip

BYTES = {"KB": 1e3, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}

# Names of currencies that stand before or behind a number. Signs, such as €, are told by Unicode.
CURRENCIES = frozenset(
    """
    USD EUR GBP JPY CNY RMB CHF AUD CAD NZD SEK NOK DKK PLN CZK HUF RUB INR BRL MXN KRW ZAR SGD HKD TWD THB
    TRY ILS Rs Rp kr zł Kč Ft Fr R$ US$ A$ C$ CA$ AU$ NT$ HK$ S$
    """.split()  # noqa: SIM905 - one name a line would take forty
)

# Pairs of decimal and group marks, the likelier ones first: 1,234 alone is a thousand and some, and 12,5
# among others makes the comma a decimal mark.
MARKS: tuple[tuple[Decimal, Group], ...] = (
    (".", ""), (".", ","), (",", ""), (",", "."), (".", " "), (",", " "), (".", "'"), (",", "'"), (".", "_"),
    (",", "_"),
)  # fmt: skip

EXACT = 2**53  # float64 holds every whole number up to this one


class Number(Convention):
    """A column of numbers.

    `decimal` is the mark before the fraction, and `group` the mark between groups of digits; "" for none.
    `unit` is what stands beside the numbers, such as € or kg. A cell may leave it out, but may not have
    another one.
    """

    kind: Literal["number"] = "number"
    decimal: Decimal = "."
    group: Group = ""
    unit: str = ""

    def described(self) -> str:
        """Return how the column writes a number."""
        if self == Number():
            return "a number"
        example = f"1{self.group}234{self.decimal}5" if self.group else f"1234{self.decimal}5"
        return f"a number such as {example}{' ' + self.unit if self.unit else ''}"

    def read(self, cells: pa.ChunkedArray) -> Reading:
        """Return int64 if all cells are whole numbers, else float64. An infinity is bad, NaN is missing."""
        kind = cells.type
        if is_text(kind):
            return self._read_texts(cells)
        if pa.types.is_boolean(kind):
            return Reading(pc.cast(cells, pa.int64()))
        if pa.types.is_signed_integer(kind) or (pa.types.is_integer(kind) and kind.bit_width < 64):
            return Reading(pc.cast(cells, pa.int64()))
        if pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_integer(kind):
            return _finite(pc.cast(cells, pa.float64(), safe=False), cells)
        return all_bad(cells, f"expected {self.described()}, came {kind}", pa.float64())

    def _read_texts(self, cells: pa.ChunkedArray) -> Reading:
        texts = without_marks(cells)
        if self == Number():
            whole = _cast(texts, pa.int64())
            if whole is not None:
                return Reading(whole)

        distinct, row_numbers = by_distinct(texts)
        values = self._values(distinct)
        x = np.append(values, np.nan)[pc.fill_null(row_numbers, len(values)).to_numpy(zero_copy_only=False)]

        bad = {}
        is_bad = row_numbers.is_valid().to_numpy(zero_copy_only=False) & ~np.isfinite(x)
        for row in np.flatnonzero(is_bad).tolist():
            bad[row] = f"expected {self.described()}, came {shown(cells[row].as_py())}"
        # 1.0 is no whole number: a frame that holds the same cells has floats, too
        has_fractions = pc.any(pc.match_substring(distinct, self.decimal)).as_py()
        cells = chunked(pa.array(x, mask=np.isnan(x))) if has_fractions else _narrowed(x)
        return Reading(cells, bad)

    def _values(self, texts: pa.Array) -> np.ndarray:
        """Return the numbers that distinct strings write, float64; NaN for those that are no number."""
        plain = _cast(texts, pa.float64()) if self.decimal == "." else None
        if plain is not None:
            return _nan_if_infinite(plain.to_numpy(zero_copy_only=False))
        cells = _Pieces(texts)
        return np.where(cells.has_unit(self.unit), cells.values(self.decimal, self.group), np.nan)

    @classmethod
    def recognise(cls, texts: pa.ChunkedArray, style: Style, least: float = FITS) -> Recognised | None:
        """Return the marks and the unit by which most of these strings are numbers; None if there are none.

        Of several pairs of marks that read equally many cells, the first of `_marks` wins, unless the style
        says which decimal mark the table has.
        """
        filled = without_marks(texts).drop_null()
        if not len(filled):
            return None
        may_be_grouped = style.decimal == "," and pc.any(pc.match_substring(filled, ".")).as_py()
        if not may_be_grouped and _cast(filled, pa.float64()) is not None:
            return _recognised(filled, cls(), 1.0, style)

        distinct, row_numbers = by_distinct(filled)
        counts = np.bincount(row_numbers.to_numpy(), minlength=len(distinct))
        cells = _Pieces(distinct)
        unit = cells.only_unit(counts)
        if unit is None:
            return None
        fits = cells.has_unit(unit)
        best, best_share = cls(unit=unit), 0.0
        for decimal, group in _marks(style):
            is_number = fits & np.isfinite(cells.values(decimal, group))
            share = float(counts[is_number].sum() / counts.sum())
            if share > best_share:
                best, best_share = cls(decimal=decimal, group=group, unit=unit), share
        if best_share < least:
            return None

        return _recognised(filled, best, best_share, style)


def _marks(style: Style) -> list[tuple[Decimal, Group]]:
    """Return the pairs of marks, those with the style's decimal mark first."""
    return sorted(MARKS, key=lambda pair: style.decimal is not None and pair[0] != style.decimal)


class _Pieces:
    """Strings, taken apart into sign, digits, exponent and unit. All arrays are (N,), an entry a string."""

    def __init__(self, texts: pa.Array) -> None:
        pieces = pc.extract_regex(_with_plain_marks(texts), CELL)
        self.digits = pc.utf8_rtrim_whitespace(pc.fill_null(pc.struct_field(pieces, "digits"), ""))
        # 0.png is a file, not zero of a unit
        has_unit = pc.not_equal(pc.struct_field(pieces, "after"), "")
        is_file = pc.and_(has_unit, pc.match_substring_regex(pc.struct_field(pieces, "digits"), r"[.,]$"))
        is_number = pc.and_(pieces.is_valid(), pc.invert(pc.fill_null(is_file, False)))
        self.matches = is_number.to_numpy(zero_copy_only=False)
        self.exponents = pc.fill_null(pc.struct_field(pieces, "exponent"), "")
        self.is_negative = self._is_negative(pieces)

        before = pc.fill_null(pc.struct_field(pieces, "before"), "").to_pylist()
        after = pc.fill_null(pc.struct_field(pieces, "after"), "").to_pylist()
        self.units: list[str | None] = []
        self.factors = np.ones(len(texts))
        for number, (prefix, suffix) in enumerate(zip(before, after, strict=True)):
            unit, factor = _unit_and_factor(prefix, suffix.strip())
            self.units.append(unit)
            self.factors[number] = factor

    @staticmethod
    def _is_negative(pieces: pa.StructArray) -> np.ndarray:
        minuses = []
        for name in ("sign", "inner_sign", "minus"):
            minuses.append(pc.equal(pc.struct_field(pieces, name), "-"))
        in_parentheses = pc.and_(
            pc.equal(pc.struct_field(pieces, "open"), "("), pc.equal(pc.struct_field(pieces, "close"), ")")
        )
        is_negative = pc.or_(pc.or_(minuses[0], minuses[1]), pc.or_(minuses[2], in_parentheses))
        return pc.fill_null(is_negative, False).to_numpy(zero_copy_only=False)

    def only_unit(self, counts: np.ndarray) -> str | None:
        """Return the unit of nearly all cells, which may leave it out; None if there are several.

        `counts` says how many cells each string has.
        """
        by_unit: dict[str, int] = {}
        for unit, matches, count in zip(self.units, self.matches, counts.tolist(), strict=True):
            if unit and matches:
                by_unit[unit] = by_unit.get(unit, 0) + count
        if not by_unit:
            return ""
        commonest = max(by_unit, key=lambda unit: by_unit[unit])
        others = sum(by_unit.values()) - by_unit[commonest]
        return commonest if others <= (1 - FITS) * counts.sum() else None

    def has_unit(self, unit: str) -> np.ndarray:
        """Return True for strings with this unit, or with none."""
        return self.matches & np.array([own in ("", unit) for own in self.units], dtype=bool)

    def values(self, decimal: Decimal, group: Group) -> np.ndarray:
        """Return the numbers, float64; NaN where the digits have other marks, or groups of another size."""
        fits = pc.match_substring_regex(self.digits, _digits_pattern(decimal, group))
        plain = pc.replace_substring(self.digits, group, "") if group else self.digits
        plain = pc.replace_substring(plain, decimal, ".") if decimal != "." else plain
        plain = pc.binary_join_element_wise(plain, self.exponents, "")
        plain = pc.if_else(pc.and_(fits, pa.array(self.matches)), plain, None)
        x = pc.cast(plain, pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
        return _nan_if_infinite(np.where(self.is_negative, -x, x) * self.factors)


def _digits_pattern(decimal: Decimal, group: Group) -> str:
    """Return the pattern of digits with these marks. Groups have three digits, or two as in 12,34,567."""
    point = f"\\{decimal}"
    whole = r"\d+"
    if group:
        mark = group if group == " " else f"\\{group}" if group in ".," else group
        whole = rf"(?:\d+|\d{{1,3}}(?:{mark}\d{{3}})+|\d{{1,2}}(?:{mark}\d{{2}})+{mark}\d{{3}})"
    return rf"^(?:{whole}(?:{point}\d*)?|{point}\d+)$"


def _with_plain_marks(texts: pa.Array) -> pa.Array:
    """Write every kind of minus, space and apostrophe as its ASCII sign, and full-width digits as digits.

    A dash in place of the fraction, as in the price 5,- is left out.
    """
    texts = pc.replace_substring_regex(texts, rf"[.,][\-{LIKE_MINUS}]+", "")
    if pc.all(pc.string_is_ascii(texts), skip_nulls=True).as_py() is not False:
        return texts
    plain = texts
    for likes, mark in ((LIKE_MINUS, "-"), (LIKE_SPACE, " "), (LIKE_APOSTROPHE, "'")):
        plain = pc.replace_substring_regex(plain, f"[{likes}]", mark)
    return pc.utf8_normalize(plain, form="NFKC")


def _unit_and_factor(before: str, after: str) -> tuple[str | None, float]:
    """Return the unit that stands beside a number, and what the number is to be multiplied by.

    The unit is None for words that are none: the 12 of "Room 12" counts nothing.
    """
    if before and not _is_currency(before):
        return None, 1.0
    if after in MULTIPLIERS:
        return before, MULTIPLIERS[after]
    if after in BYTES and not before:
        return "B", BYTES[after]
    for name, factor in MULTIPLIERS.items():
        rest = after.removeprefix(name)
        if rest != after and _is_currency(rest.strip()):
            return rest.strip(), factor
    if before and after:
        return None, 1.0
    return before or after, 1.0


def _is_currency(text: str) -> bool:
    return text in CURRENCIES or all(unicodedata.category(character) == "Sc" for character in text)


def _recognised(filled: pa.ChunkedArray, chosen: Number, share: float, style: Style) -> Recognised:
    """Say how the numbers of a column are written, and whether they can be read otherwise."""
    parts = [f"{share:.0%} of the cells are numbers"] if share < 1 else []
    if chosen != Number():
        parts.append(f"as in {chosen.described().removeprefix('a number such as ')}")
    reason = ", ".join(parts)

    mark = chosen.group if chosen.group in (",", ".") else chosen.decimal
    with_mark = filled.filter(pc.match_substring(filled, mark))
    if style.decimal is not None or not len(with_mark):
        return Recognised(chosen, share, reason)
    if not _is_ambiguous(with_mark, mark):
        return Recognised(chosen, share, reason, evidence=Style(decimal=chosen.decimal))

    other = Number(decimal="," if chosen.decimal == "." else ".", unit=chosen.unit)
    if not chosen.group:
        other = other.model_copy(update={"group": mark})
    cell = with_mark.slice(0, 1)
    first, second = (convention.read(cell).cells[0].as_py() for convention in (chosen, other))
    both = f"{cell[0].as_py()} is read as {first:g}, and may also be {second:g}"
    return Recognised(chosen, share, reason, f"{both}; if so, set decimal: '{other.decimal}'")


def _is_ambiguous(cells: pa.ChunkedArray, mark: str) -> bool:
    """Return whether the mark may be a decimal or a group mark in every cell.

    That is where each has one to three digits, the mark, and three digits: 1,234 is a thousand to some, and a
    little more than one to others. Two such cells may be chance.
    """
    pattern = rf"^\D*[1-9]\d{{0,2}}\{mark}\d{{3}}\D*$"
    return len(cells) >= 3 and bool(pc.all(pc.match_substring_regex(cells, pattern)).as_py())


def _cast(texts: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> pa.Array | pa.ChunkedArray | None:
    """Return strings as numbers if all of them are as a program writes numbers; else None."""
    try:
        return pc.cast(texts, kind)
    except pa.ArrowInvalid:
        return None


def _nan_if_infinite(x: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(x), x, np.nan)


def _finite(x: pa.ChunkedArray, cells: pa.ChunkedArray) -> Reading:
    """Return numbers with NaN as null, and infinities as bad cells."""
    is_finite = pc.is_finite(x)
    bad = {}
    for row in pc.indices_nonzero(pc.is_inf(x)).to_pylist():
        bad[row] = f"expected a finite number, came {shown(cells[row].as_py())}"
    return Reading(pc.if_else(is_finite, x, None), bad)


def _narrowed(x: np.ndarray) -> pa.ChunkedArray:
    """Return numbers as int64 where all are whole, else as float64; NaN becomes null."""
    is_missing = np.isnan(x)
    filled = np.where(is_missing, 0, x)
    if (np.abs(filled) < EXACT).all() and (filled == np.round(filled)).all():
        return chunked(pa.array(filled.astype(np.int64), mask=is_missing))
    return chunked(pa.array(x, mask=is_missing))
