"""Numbers as people write them: decimal and group marks, units, signs, thousands and millions."""

from __future__ import annotations

import re
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
    as_numpy,
    by_distinct,
    described_bad,
    is_text,
    percent,
    read_by_row,
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
ARABIC_DECIMAL, ARABIC_GROUP = "\u066b", "\u066c"
LIKE_APOSTROPHE = "\u2019\u02bc\u2032"

MULTIPLIERS = {
    "k": 1e3, "K": 1e3, "千": 1e3, "万": 1e4, "萬": 1e4, "亿": 1e8, "億": 1e8,
    "M": 1e6, "mn": 1e6, "mln": 1e6, "Mio": 1e6, "million": 1e6, "Million": 1e6,
    "B": 1e9, "bn": 1e9, "Mrd": 1e9, "billion": 1e9, "Billion": 1e9,
}  # fmt: skip

BYTES = {"KB": 1e3, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}

# Units of one dimension. A column has the unit of most of its cells, and others are converted to it.
DIMENSIONS = (
    {"\u03bcg": 1e-6, "mg": 1e-3, "g": 1.0, "kg": 1e3},
    {"\u03bcl": 1e-6, "ml": 1e-3, "mL": 1e-3, "cl": 1e-2, "dl": 0.1, "l": 1.0, "L": 1.0},
    {"nm": 1e-9, "\u03bcm": 1e-6, "mm": 1e-3, "cm": 1e-2, "km": 1e3},  # a single m may be minutes
    {"Hz": 1.0, "kHz": 1e3, "MHz": 1e6, "GHz": 1e9},
)

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
    `unit` is what stands beside the numbers, such as € or kg. A cell may leave it out. It may have another
    one only of the same dimension: 500 g are 0.5 kg.
    """

    kind: Literal["number"] = "number"
    decimal: Decimal = "."
    group: Group = ""
    unit: str = ""

    def described(self) -> str:
        """Return how the column writes a number."""
        if self == Number():
            return "a number"
        example = f"1{self.group}234{self.decimal}5 {self.unit}"
        return f"a number such as {example.rstrip()}"

    def read(self, cells: pa.ChunkedArray) -> Reading:
        """Return int64 if all cells are whole numbers, else float64. An infinity is bad, NaN is missing."""
        kind = cells.type
        if is_text(kind):
            return self._read_texts(cells)
        # An unsigned number of 64 bits may be too large for int64.
        is_integer = pa.types.is_integer(kind) and not pa.types.is_uint64(kind)
        if is_integer or pa.types.is_boolean(kind):
            return Reading(pc.cast(cells, pa.int64()))
        if pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_uint64(kind):
            return _finite(pc.cast(cells, pa.float64(), safe=False), cells)
        return all_bad(cells, f"expected {self.described()}, came {kind}", pa.float64())

    def _read_texts(self, cells: pa.ChunkedArray) -> Reading:
        texts = without_marks(cells)
        if self == Number():
            integers = _cast(texts, pa.int64())
            if integers is not None:
                return Reading(integers)

        distinct, row_numbers = by_distinct(texts)
        x = self._numbers(distinct)
        # 1.0 is no whole number: a frame that holds the same cells has floats, too.
        has_fractions = pc.any(pc.match_substring(distinct, self.decimal)).as_py()
        values = pa.array(x, mask=np.isnan(x)) if has_fractions else _narrowed(x)
        return read_by_row(values, row_numbers, cells, self.described())

    def _numbers(self, texts: pa.Array) -> np.ndarray:
        """Return the numbers that distinct strings write, float64; NaN for those that are no number."""
        plain = _cast(texts, pa.float64()) if self.decimal == "." else None
        if plain is not None:
            return _nan_if_infinite(as_numpy(plain))
        pieces = _Pieces(texts)
        return pieces.numbers(self.decimal, self.group) * pieces.factors_to(self.unit)

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
        pieces = _Pieces(distinct)
        unit = pieces.only_unit(counts)
        if unit is None:
            return None
        has_unit = np.isfinite(pieces.factors_to(unit))
        best, best_share = cls(unit=unit), 0.0
        for decimal, group in _marks(style):
            is_number = has_unit & np.isfinite(pieces.numbers(decimal, group))
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
        fields = pc.extract_regex(_with_plain_marks(texts), CELL)
        self.digits = pc.utf8_rtrim_whitespace(_field(fields, "digits"))
        # 0.png is a file, not zero of a unit.
        has_unit = pc.not_equal(_field(fields, "after"), "")
        ends_in_mark = pc.match_substring_regex(_field(fields, "digits"), r"[.,]$")
        is_file = pc.and_(has_unit, ends_in_mark)
        self.matches = as_numpy(pc.and_not(fields.is_valid(), is_file))
        self.exponents = _field(fields, "exponent")
        self.is_negative = _is_negative(fields)

        before = _field(fields, "before").to_pylist()
        after = _field(fields, "after").to_pylist()
        self.units: list[str | None] = []
        self.factors = np.ones(len(texts))
        for number, (prefix, suffix) in enumerate(zip(before, after, strict=True)):
            unit, factor = _unit_and_factor(prefix, suffix.strip())
            self.units.append(unit)
            self.factors[number] = factor

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
        convertible = _factors(commonest)
        with_another = sum(number for unit, number in by_unit.items() if unit not in convertible)
        return commonest if with_another <= (1 - FITS) * counts.sum() else None

    def factors_to(self, unit: str) -> np.ndarray:
        """Return what each number is multiplied by to have this unit; NaN where it has no such unit.

        A string without a unit has this one.
        """
        factors = _factors(unit)
        by_string = [np.nan if own is None else factors.get(own, np.nan) for own in self.units]
        return np.where(self.matches, np.array(by_string, dtype=np.float64), np.nan)

    def numbers(self, decimal: Decimal, group: Group) -> np.ndarray:
        """Return the numbers, float64; NaN where the digits have other marks, or groups of another size."""
        fits = pc.match_substring_regex(self.digits, _digits_pattern(decimal, group))
        plain = pc.replace_substring(self.digits, group, "") if group else self.digits
        plain = pc.replace_substring(plain, decimal, ".") if decimal != "." else plain
        no_separator = pa.scalar("", plain.type)  # a column of more than 2 GB has wide strings
        plain = pc.binary_join_element_wise(plain, self.exponents, no_separator)
        is_number = pc.and_(fits, pa.array(self.matches))
        numbers = pc.cast(pc.if_else(is_number, plain, None), pa.float64())
        x = as_numpy(numbers).astype(np.float64)
        signed = np.where(self.is_negative, -x, x)
        return _nan_if_infinite(signed * self.factors)


def _field(fields: pa.StructArray, name: str) -> pa.Array:
    """Return one field of `CELL`, "" where a string lacks it."""
    return pc.fill_null(pc.struct_field(fields, name), "")


def _is_negative(fields: pa.StructArray) -> np.ndarray:
    """Return True for strings with a minus, wherever it stands, and for those in parentheses.

    Accountants write a debit of 5 as (5.00). SAP writes the minus behind the number.
    """
    is_open = pc.equal(_field(fields, "open"), "(")
    is_negative = pc.and_(is_open, pc.equal(_field(fields, "close"), ")"))
    for name in ("sign", "inner_sign", "minus"):
        has_minus = pc.equal(_field(fields, name), "-")
        is_negative = pc.or_(is_negative, has_minus)
    return as_numpy(is_negative)


def _digits_pattern(decimal: Decimal, group: Group) -> str:
    """Return the pattern of digits with these marks. Groups have three digits, or two as in 12,34,567."""
    point = re.escape(decimal)
    integer = r"\d+"
    if group:
        mark = re.escape(group)
        integer = rf"(?:\d+|\d{{1,3}}(?:{mark}\d{{3}})+|\d{{1,2}}(?:{mark}\d{{2}})+{mark}\d{{3}})"
    return rf"^(?:{integer}(?:{point}\d*)?|{point}\d+)$"


def _with_plain_marks(texts: pa.Array) -> pa.Array:
    """Write every kind of minus, space and apostrophe as its ASCII sign, and full-width digits as digits.

    A dash in place of the fraction, as in the price 5,- is left out.
    """
    texts = pc.replace_substring_regex(texts, rf"[.,][\-{LIKE_MINUS}]+", "")
    is_ascii = pc.string_is_ascii(texts)
    if pc.all(is_ascii, skip_nulls=True).as_py():
        return texts
    plain = texts
    for likes, mark in ((LIKE_MINUS, "-"), (LIKE_SPACE, " "), (LIKE_APOSTROPHE, "'")):
        plain = pc.replace_substring_regex(plain, f"[{likes}]", mark)
    texts = pc.utf8_normalize(plain, form="NFKC").to_pylist()
    return pa.array([text and _with_ascii_digits(text) for text in texts], pa.string())


def _with_ascii_digits(text: str) -> str:
    """Write the digits of other scripts, such as Arabic or Hindi, and Arabic marks, as those of ASCII."""
    if text.isascii():
        return text
    plain = [str(unicodedata.digit(sign)) if sign.isdecimal() else sign for sign in text]
    return "".join(plain).replace(ARABIC_DECIMAL, ".").replace(ARABIC_GROUP, ",")


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
    currency_and_factor = _multiplied_currency(after)
    if currency_and_factor is not None:
        return currency_and_factor
    return (None if before and after else before or after), 1.0


def _factors(unit: str) -> dict[str, float]:
    """Return the units that can stand for a unit, with the factor of each, and "" for no unit."""
    for units in DIMENSIONS:
        if unit in units:
            return {"": 1.0, **{name: scale / units[unit] for name, scale in units.items()}}
    return {"": 1.0, unit: 1.0}


def _multiplied_currency(text: str) -> tuple[str, float] | None:
    """Return the currency and the factor of 5M€ or 5 Mio EUR, in which both stand behind the number."""
    for name, factor in MULTIPLIERS.items():
        currency = text.removeprefix(name)
        if currency != text and _is_currency(currency.strip()):
            return currency.strip(), factor
    return None


def _is_currency(text: str) -> bool:
    return text in CURRENCIES or set(map(unicodedata.category, text)) <= {"Sc"}


# --- ambiguous marks -------------------------------------------------------------------------------------


def _recognised(filled: pa.ChunkedArray, number: Number, share: float, style: Style) -> Recognised:
    """Say how the numbers of a column are written, and whether they can be read otherwise."""
    reasons = []
    if share < 1:
        reasons.append(f"{percent(share)} of the cells are numbers")
    if number != Number():
        reasons.append(f"as in {number.described().removeprefix('a number such as ')}")
    reason = ", ".join(reasons)

    mark = number.group if number.group in (",", ".") else number.decimal
    with_mark = filled.filter(pc.match_substring(filled, mark))
    if style.decimal is not None or not len(with_mark):
        return Recognised(number, share, reason)
    if not _is_ambiguous(with_mark, mark):
        return Recognised(number, share, reason, evidence=Style(decimal=number.decimal))
    return Recognised(number, share, reason, _both_readings(with_mark.slice(0, 1), number, mark))


def _both_readings(cell: pa.ChunkedArray, number: Number, mark: str) -> str:
    """Return how a column of one cell is read, how else it may be, and how to have that.

    `mark` is the one that may be a decimal or a group mark.
    """
    decimal: Decimal = "," if number.decimal == "." else "."
    second = Number(decimal=decimal, unit=number.unit)
    if not number.group:
        second = second.model_copy(update={"group": mark})
    first_reading = number.read(cell).cells[0].as_py()
    second_reading = second.read(cell).cells[0].as_py()
    both = f"{cell[0].as_py()} is read as {first_reading:g}, and may also be {second_reading:g}"
    return f"{both}; if so, set decimal: '{decimal}'"


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
    infinite_rows = pc.indices_nonzero(pc.is_inf(x)).to_pylist()
    finite = pc.if_else(pc.is_finite(x), x, None)
    return Reading(finite, described_bad(infinite_rows, cells, "a finite number"))


def _narrowed(x: np.ndarray) -> pa.Array:
    """Return numbers as int64 if all are whole, else as float64; NaN becomes null."""
    is_missing = np.isnan(x)
    filled = np.where(is_missing, 0, x)
    are_whole = filled == np.round(filled)
    are_exact = np.abs(filled) < EXACT
    if are_whole.all() and are_exact.all():
        return pa.array(filled.astype(np.int64), mask=is_missing)
    return pa.array(x, mask=is_missing)
