"""Dates as people and programs write them: ISO 8601, numeric dates in any order, and names of months."""

from __future__ import annotations

import functools
import re
from collections import Counter
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from plait.table.conventions.base import (
    FITS,
    UNKNOWN,
    Convention,
    Reading,
    Recognised,
    Style,
    all_bad,
    as_numpy,
    by_distinct,
    is_text,
    percent,
    read_by_row,
    share_of_rows,
    without_marks,
)

Order = Literal["", "dmy", "mdy", "ymd"]

PIVOT = 50  # years of two digits from here on are of the last century

# Languages whose names of months are read. No two of them give one name to different months.
LANGUAGES = ("en", "de", "fr", "es", "it", "pt", "nl", "ru", "sv", "da", "pl", "cs", "fi", "tr")

# Named time zones, in hours from UTC: those of RFC 822, and those that have one meaning. IST has three.
ZONES = {
    "UTC": 0, "GMT": 0, "UT": 0, "EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8,
    "PDT": -7, "WET": 0, "WEST": 1, "CET": 1, "CEST": 2, "EET": 2, "EEST": 3, "MSK": 3, "JST": 9, "KST": 9,
    "HKT": 8, "AEST": 10, "AEDT": 11, "NZST": 12, "NZDT": 13,
}  # fmt: skip

DAY = r"(?P<d>\d{1,2})(?:st|nd|rd|th|er|\.|º|ª)?"
NAME = r"(?P<name>\p{L}{3,12})\.?"
YEAR = r"(?P<y>\d{4}|'?\d{2})"

DATES = {
    "iso": r"(?P<y>\d{4})-(?P<m>\d{1,2})-(?P<d>\d{1,2})",
    "year first": r"(?P<y>\d{4})[/.](?P<m>\d{1,2})[/.](?P<d>\d{1,2})\.?",
    "numeric": r"(?P<a>\d{1,2})(?:[/.\-]|\. ?| )(?P<b>\d{1,2})(?:[/.\-]|\. ?| )(?P<c>\d{4}|\d{2})",
    "compact": r"(?P<y>\d{4})(?P<m>\d{2})(?P<d>\d{2})",
    "day and name": DAY + r"(?:[ \-/]*| de | of )" + NAME + r"(?: de | del |,? ?|[\-/])" + YEAR,
    "name and day": NAME + r"[ \-]*" + DAY + r"(?:, ?| |-)" + YEAR,
    "year and name": r"(?P<y>\d{4})[ \-]" + NAME + r"[ \-](?P<d>\d{1,2})",
    "name and year": NAME + r"(?: de |[ ,\-/]+)(?P<y>\d{4})",
    "month": r"(?P<y>\d{4})[\-/](?P<m>\d{1,2})",
    "year": r"(?P<y>\d{4})",
    "month first": r"(?P<m>\d{1,2})/(?P<y>\d{4})",
    "east asian": r"(?P<y>\d{4})[年년] ?(?P<m>\d{1,2})[月월](?: ?(?P<d>\d{1,2})[日号일])?",
    "week": r"(?P<y>\d{4})-?W(?P<week>\d{2})(?:-?(?P<weekday>[1-7]))?",
    "day of year": r"(?P<y>\d{4})-(?P<yearday>\d{3})",
    "quarter": r"(?P<y>\d{4})[ \-]?Q(?P<quarter>[1-4])",
    "quarter first": r"Q(?P<quarter>[1-4])[ \-/]?(?P<y>\d{4})",
}

CLOCK = (
    r"(?P<H>\d{1,2})[:.h時时시点] ?(?P<M>\d{2})[분分]?(?:[:.]? ?(?P<S>\d{2})[초秒]?(?:[.,](?P<f>\d{1,9}))?)?"
    r"(?: ?(?P<half>[AaPp]\.? ?[Mm]\.?))?"
)
COMPACT_CLOCK = r"(?P<H>\d{2})(?P<M>\d{2})(?:(?P<S>\d{2})(?:[.,](?P<f>\d{1,9}))?)?"
ZONE = r"(?: ?(?P<zone>[Zz]|[A-Z]{2,4}|(?:UTC|GMT)?[+\-]\d{2}(?::?\d{2})?))?(?:\[[\w/+\-]+\]| ?\([^)]*\))?"
BETWEEN = r"(?:[Tt_:]| ?, ?| - | at | um | à | kl\.? | )"
WEEKDAY = r"(?:\p{L}+\.?,? )?"
WEEKDAY_BEHIND = r"(?: ?(?:\(\p{L}\)|星期\p{L}|周\p{L}))?"

# Sun Feb  5 13:28:59 2023, as C and Unix write it: the year comes last
C_TIME = r"^\p{L}{2,9}\.?,? (?P<name>\p{L}{3,9}) +(?P<d>\d{1,2}) " + CLOCK + ZONE + r" (?P<y>\d{4})$"

# Shapes that mean one thing, whatever the column: any column of dates accepts them.
CLEAR = ("iso", "year first", "day and name", "name and day", "year and name", "east asian", "week", "C")

# Shapes that numbers and codes have as well. They are dates if their years are of our time.
LOOSE = (
    "compact",
    "month",
    "month first",
    "day of year",
    "quarter",
    "quarter first",
    "name and year",
    "year",
)
OUR_TIME = (1800, 2200)

SAMPLE = 300  # distinct cells that decide which shapes a column may have
LARGEST = 1e15  # a whole number from here on is no date, and may not fit into int64
LONGEST = 60  # characters of a date in words with its time


class Date(Convention):
    """A column of dates or times, read as timestamps in microseconds. Where a zone is given, they are UTC.

    `shapes` are the keys of `DATES` that training cells have. `order` is that of day, month and year in
    numeric dates such as 05/06/2023; "" if the column has none. `format` is a format of the user's, as for
    `strptime`; cells of this format are read first.
    """

    kind: Literal["date"] = "date"
    shapes: tuple[str, ...] = ()
    order: Order = ""
    format: str = ""

    def described(self) -> str:
        """Return an example of how the column writes a date."""
        if self.format:
            return f"a date like {self.format}"
        examples = []
        for shape in self.shapes[:2] or ("iso",):
            examples.append(_numeric_example(self.order) if shape == "numeric" else EXAMPLES[shape])
        return f"a date such as {' or '.join(examples)}"

    def read(self, cells: pa.ChunkedArray) -> Reading:
        """Return timestamps of microseconds without a zone."""
        kind = cells.type
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            return Reading(pc.cast(cells, pa.timestamp("us"), safe=False))
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            return self._read_texts(_integers_as_texts(cells), cells)
        if is_text(kind):
            return self._read_texts(without_marks(cells), cells)
        return all_bad(cells, f"expected {self.described()}, came {kind}", pa.timestamp("us"))

    def _read_texts(self, texts: pa.ChunkedArray, cells: pa.ChunkedArray) -> Reading:
        distinct, row_numbers = by_distinct(texts)
        times = pa.array(self._times(distinct), pa.timestamp("us"))
        return read_by_row(times, row_numbers, cells, self.described())

    def _times(self, texts: pa.Array) -> np.ndarray:
        """Return the times that distinct strings write, datetime64[us]; NaT for those that are no date."""
        times = np.full(len(texts), np.datetime64("NaT", "us"), dtype="datetime64[us]")
        if self.format:
            times = _by_format(texts, self.format)
        elif self.shapes[:1] == ("iso",):
            times_by_cast = _by_cast(texts)
            if times_by_cast is not None:
                return times_by_cast

        # The column's own shapes come first. Later tables may have clear dates of other shapes.
        for shape in dict.fromkeys((*self.shapes, *CLEAR, "compact")):
            unread = np.flatnonzero(np.isnat(times))
            if not len(unread):
                break
            unread_texts = texts.take(pa.array(unread))
            if len(unread) <= SAMPLE and not _occurs(shape, unread_texts.to_pylist()):
                continue
            fields = _Fields(unread_texts, shape)
            times[unread] = fields.times(self.order)
        return times

    @classmethod
    def recognise(cls, texts: pa.ChunkedArray, style: Style, least: float = FITS) -> Recognised | None:
        """Return the shapes and the order by which most of these strings are dates; None if there are none.

        Where day and month can be exchanged in every cell, the style decides, and without one the day
        comes first.
        """
        filled = without_marks(texts).drop_null()
        if not len(filled) or pc.approximate_median(pc.utf8_length(filled)).as_py() > LONGEST:
            return None
        distinct, row_numbers = by_distinct(filled)
        shapes = _shapes_of(distinct, least)
        if shapes is None:
            return None
        order: Order = ""
        second: Order = ""
        if "numeric" in shapes:
            order, second = _order_of(distinct, style)
        convention = cls(shapes=shapes, order=order)
        is_date = ~np.isnat(convention._times(distinct))
        share = share_of_rows(is_date, row_numbers)
        if share < least:
            return None
        example = f"as in {filled[0].as_py()}"
        reason = example if share == 1 else f"{percent(share)} of the cells are dates, {example}"
        if second:
            return Recognised(convention, share, reason, _both_readings(filled, order, second))
        evidence = Style(day_first=order == "dmy") if order in ("dmy", "mdy") else UNKNOWN
        return Recognised(convention, share, reason, evidence=evidence)


EXAMPLES = {
    "iso": "2023-02-05",
    "year first": "2023/02/05",
    "compact": "20230205",
    "day and name": "5 Feb 2023",
    "name and day": "Feb 5, 2023",
    "year and name": "2023 Feb 5",
    "name and year": "Feb 2023",
    "month": "2023-02",
    "year": "2023",
    "month first": "02/2023",
    "east asian": "2023年2月5日",
    "week": "2023-W06",
    "day of year": "2023-036",
    "quarter": "2023-Q1",
    "quarter first": "Q1 2023",
    "C": "Sun Feb  5 13:28:59 2023",
}


def _numeric_example(order: Order) -> str:
    return {"dmy": "31/12/2023", "mdy": "12/31/2023", "ymd": "23-12-31", "": "31/12/2023"}[order]


def _patterns() -> dict[str, str]:
    """Return the pattern of a whole cell for each shape."""
    patterns = {"C": C_TIME}
    for shape, date in DATES.items():
        clock = COMPACT_CLOCK if shape == "compact" else CLOCK
        between = f"{BETWEEN}?" if shape in ("compact", "east asian") else BETWEEN
        patterns[shape] = f"^{WEEKDAY}{date}{WEEKDAY_BEHIND}(?:{between}{clock}{ZONE})?$"
    return patterns


PATTERNS = _patterns()


@functools.cache
def _python_pattern(shape: str) -> re.Pattern[str]:
    """Return the pattern of a shape for Python, which may match a few more strings than Arrow's does."""
    return re.compile(PATTERNS[shape].replace(r"\d", "[0-9]").replace(r"\p{L}", r"[^\W\d_]"))


def _occurs(shape: str, texts: list[str]) -> bool:
    """Return whether one of a few strings may have a shape.

    Arrow compiles a pattern anew for each array, which takes 7 ms: longer than Python needs for 300 strings.
    """
    matches = _python_pattern(shape).match
    return any(matches(text) for text in texts)


class _Fields:
    """The fields of strings that have one shape. All arrays are (N,), an entry a string."""

    def __init__(self, texts: pa.Array, shape: str) -> None:
        self.shape = shape
        self.fields = pc.extract_regex(texts, PATTERNS[shape])
        self.names = frozenset(field.name for field in self.fields.type)
        self.matches = as_numpy(self.fields.is_valid())

    def __len__(self) -> int:
        return len(self.matches)

    def texts(self, name: str) -> pa.Array:
        """Return a field as strings, "" where a string has none."""
        return pc.fill_null(pc.struct_field(self.fields, name), "")

    def numbers(self, name: str, default: int) -> np.ndarray:
        """Return a field as int64, `default` where a string has none."""
        if name not in self.names:
            return np.full(len(self), default)
        return _integers(self.texts(name), default)

    def plausible(self) -> int:
        """Count the strings that are dates of this shape, in whatever order."""
        if not self.matches.any():
            return 0
        orders: tuple[Order, ...] = ("dmy", "mdy", "ymd") if self.shape == "numeric" else ("",)
        return max(map(self.count, orders))

    def count(self, order: Order) -> int:
        """Count the strings that are dates in this order."""
        return int(np.count_nonzero(~np.isnat(self.times(order))))

    def times(self, order: Order) -> np.ndarray:
        """Return the times, datetime64[us]; NaT for strings of another shape, or that are no date."""
        year, month, day = self._calendar(order)
        is_date = self.matches & (month >= 1) & (month <= 12) & (day >= 1) & (year >= 1)
        if self.shape in LOOSE:
            is_date &= (year >= OUR_TIME[0]) & (year <= OUR_TIME[1])
        year = np.where(is_date, year, 1970)
        month = np.where(is_date, month, 1)
        day = np.where(is_date, day, 1)

        month_M = _first_of_year(year).astype("datetime64[M]") + (month - 1).astype("timedelta64[M]")
        day_D = month_M.astype("datetime64[D]") + (day - 1).astype("timedelta64[D]")
        # 31 February would be in March. Days of a year are all counted from January.
        if self.shape != "day of year":
            is_date &= day_D.astype("datetime64[M]") == month_M
        day_D = self._within_week(day_D, year, is_date)

        microseconds, is_time = self._time_of_day()
        times = day_D.astype("datetime64[us]") + microseconds.astype("timedelta64[us]")
        return np.where(is_date & is_time, times, np.datetime64("NaT", "us"))

    def _calendar(self, order: Order) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return year, month and day; a field that the shape lacks is 1, or 0 if no order gives it."""
        if self.shape == "numeric":
            return self._numeric(order)
        year = self.numbers("y", 0) if self.shape not in WORDED else self._worded_years()
        month = self.numbers("m", 1)
        day = self.numbers("d", 1)
        if "name" in self.names:
            number_of = month_names()
            months = [number_of.get(name.casefold(), 0) for name in self.texts("name").to_pylist()]
            month = np.array(months, dtype=np.int64)
        if "quarter" in self.names:
            month = self.numbers("quarter", 1) * 3 - 2
        if "yearday" in self.names:
            day = self.numbers("yearday", 1)
            day = np.where(day <= 366, day, 0)
        return year, month, day

    def _numeric(self, order: Order) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return year, month and day of three numbers. 23/12/2023 is no date if the year comes first."""
        first = self.numbers("a", 0)
        second = self.numbers("b", 0)
        third = self.numbers("c", 0)
        has_long_year = as_numpy(pc.utf8_length(self.texts("c"))) == 4
        if order == "ymd":
            return _full_years(first), np.where(has_long_year, 0, second), third
        year = np.where(has_long_year, third, _full_years(third))
        return (year, first, second) if order == "mdy" else (year, second, first)

    def _worded_years(self) -> np.ndarray:
        """Return years beside a month's name, which may lack their century: '23."""
        digits = pc.utf8_ltrim(self.texts("y"), "'")
        years = _integers(digits, 0)
        is_short = as_numpy(pc.utf8_length(digits)) == 2
        return np.where(is_short, _full_years(years), years)

    def _within_week(self, day_D: np.ndarray, year: np.ndarray, is_date: np.ndarray) -> np.ndarray:
        """Move to the day that an ISO week and weekday name. Week 1 has the year's first Thursday."""
        if self.shape != "week":
            return day_D
        week, weekday = self.numbers("week", 1), self.numbers("weekday", 1)
        is_date &= (week >= 1) & (week <= 53)
        fourth = _first_of_year(year).astype("datetime64[D]").astype(np.int64) + 3  # days since 1970
        monday = fourth - (fourth + 3) % 7  # 1970-01-01 was a Thursday
        return (monday + (week - 1) * 7 + (weekday - 1)).astype("datetime64[D]")

    def _time_of_day(self) -> tuple[np.ndarray, np.ndarray]:
        """Return microseconds since midnight, UTC where a zone is given, and True where they are a time."""
        hour, is_hour = self._hours()
        minute, second = self.numbers("M", 0), self.numbers("S", 0)
        # 24:00 is the end of a day, and second 60 a leap second.
        is_midnight = (hour == 24) & (minute == 0) & (second == 0)
        is_time = is_hour & ((hour < 24) | is_midnight) & (minute < 60) & (second <= 60)

        # Digits of the fraction, of which microseconds are six: .5 is half a second.
        digits = pc.utf8_rpad(self.texts("f"), 6, "0")
        fraction = _integers(pc.utf8_slice_codeunits(digits, 0, 6), 0)

        offsets = list(map(_offset, self.texts("zone").to_pylist()))
        offset = np.array(offsets, dtype=np.float64)  # NaN for a name that is no zone
        is_time &= ~np.isnan(offset)
        minutes = hour * 60 + minute - np.nan_to_num(offset).astype(np.int64)
        return (minutes * 60 + second) * 1_000_000 + fraction, is_time

    def _hours(self) -> tuple[np.ndarray, np.ndarray]:
        """Return hours of a day of 24, and True where they may be hours: with AM and PM, from 1 to 12."""
        hour = self.numbers("H", 0)
        if "half" not in self.names:
            return hour, np.ones(len(self), dtype=bool)
        half = as_numpy(pc.utf8_slice_codeunits(self.texts("half"), 0, 1))
        is_pm = np.isin(half, ["P", "p"])
        has_half = is_pm | np.isin(half, ["A", "a"])
        is_hour = ~has_half | ((hour >= 1) & (hour <= 12))
        return np.where(has_half, hour % 12 + 12 * is_pm, hour), is_hour


WORDED = ("day and name", "name and day")

DOTTED = r"\d\. ?\d{1,2}\. ?\d"

NUMERIC_PARTS = re.compile(
    r"\d{1,2}(?P<mark>[/.\-]|\. ?| )\d{1,2}(?P<second_mark>[/.\-]|\. ?| )(?P<year>\d{4}|\d{2})(?P<time>.*)"
)

# The times that programs write behind a numeric date, and how `strptime` reads them.
FORMS_OF_TIMES = (
    (r"", ""),
    (r" \d{1,2}:\d\d", " %H:%M"),
    (r" \d{1,2}:\d\d:\d\d", " %H:%M:%S"),
    (r" \d{1,2}:\d\d [AaPp][Mm]", " %I:%M %p"),
    (r" \d{1,2}:\d\d:\d\d [AaPp][Mm]", " %I:%M:%S %p"),
)


def _integers(digits: pa.Array, default: int) -> np.ndarray:
    """Return strings of digits as int64, `default` for an empty one."""
    digits = pc.if_else(pc.equal(digits, ""), None, digits)
    integers = pc.cast(digits, pa.int64())
    return as_numpy(pc.fill_null(integers, default))


def _first_of_year(years: np.ndarray) -> np.ndarray:
    """Return years as datetime64[Y], which counts them from 1970."""
    return (years - 1970).astype("datetime64[Y]")


def _full_years(years: np.ndarray) -> np.ndarray:
    """Return years of two digits with their century."""
    return np.where(years < PIVOT, 2000 + years, 1900 + years)


def _offset(zone: str) -> int | None:
    """Return a zone's minutes from UTC; None for a name that is no zone of RFC 822."""
    zone = zone.upper()
    if zone in ("", "Z"):
        return 0
    if zone in ZONES:
        return ZONES[zone] * 60
    digits = re.fullmatch(r"(?:UTC|GMT)?([+-])(\d\d):?(\d\d)?", zone)
    if not digits:
        return None
    sign = -1 if digits[1] == "-" else 1
    return sign * (int(digits[2]) * 60 + int(digits[3] or 0))


@functools.cache
def month_names() -> dict[str, int]:
    """Return the number of each month's name, folded, in all of `LANGUAGES` (names by Unicode's CLDR)."""
    from babel.dates import get_month_names  # needed for few tables, and slow to import

    names = {"sept": 9}
    for language in LANGUAGES:
        for width in ("wide", "abbreviated"):
            # Slavic languages have a genitive beside a day, and a nominative without one.
            for context in ("format", "stand-alone"):
                for number, name in get_month_names(width, context, language).items():
                    names[name.rstrip(".").casefold()] = int(number)
    return names


# --- shapes and orders -----------------------------------------------------------------------------------


def _shapes_of(distinct: pa.Array, least: float) -> tuple[str, ...] | None:
    """Return the shapes that strings have, the commonest first; None if too few of them are dates."""
    rows = np.linspace(0, len(distinct) - 1, SAMPLE).astype(int)
    sampled = distinct.take(pa.array(rows)).unique()
    texts = sampled.to_pylist()
    counts: Counter[str] = Counter()
    for shape in PATTERNS:
        counts[shape] = _Fields(sampled, shape).plausible() if _occurs(shape, texts) else 0
    if counts.total() < least * len(sampled):
        return None

    # Years alone are numbers. Among dates they are those of which no more is known.
    if counts["year"] > counts.total() / 2:
        return None
    return tuple(shape for shape, count in counts.most_common() if count)


def _order_of(distinct: pa.Array, style: Style) -> tuple[Order, Order]:
    """Return the order in which numeric dates are valid most often, and another one that fits as well.

    The second is "" if there is none, or if the style decides.
    """
    fields = _Fields(distinct, "numeric")
    orders: tuple[Order, ...] = ("dmy", "mdy", "ymd")
    if style.day_first is False:
        orders = ("mdy", "dmy", "ymd")
    counts = list(map(fields.count, orders))
    best = orders[counts.index(max(counts))]
    # Only day and month are mixed up: where the first order wins, the second may fit as well.
    if best != orders[0] or counts[1] < counts[0] or style.day_first is not None:
        return best, ""
    # Nobody writes 12.31.2023: in no locale of Unicode's CLDR does a month stand before a dot and a day.
    if pc.all(pc.match_substring_regex(distinct.filter(pa.array(fields.matches)), DOTTED)).as_py():
        return best, ""
    differ = fields.times(best) != fields.times(orders[1])
    return best, orders[1] if differ.any() else ""


def _both_readings(filled: pa.ChunkedArray, order: Order, second: Order) -> str:
    """Return a cell that has two readings, both of them, and how to have the second."""
    distinct, _ = by_distinct(filled)
    fields = _Fields(distinct, "numeric")
    first_times, second_times = fields.times(order), fields.times(second)
    has_both = ~np.isnat(first_times) & ~np.isnat(second_times)
    number = int(np.flatnonzero(has_both & (first_times != second_times))[0])
    first_day = str(first_times[number])[:10]
    second_day = str(second_times[number])[:10]
    cell = distinct[number].as_py()
    form = _format_of(cell, second)
    locale = "en_GB" if second == "dmy" else "en_US"
    remedy = f"set format: '{form}'" if form else f"set locale: '{locale}'"
    return f"{cell} is read as {first_day}, and may also be {second_day}; if so, {remedy}"


def _format_of(cell: str, order: Order) -> str:
    """Return the format of `strptime` that reads a numeric date in this order; "" if none is known."""
    parts = NUMERIC_PARTS.fullmatch(cell)
    if parts is None:
        return ""
    first, second = ("%d", "%m") if order == "dmy" else ("%m", "%d")
    year = "%Y" if len(parts["year"]) == 4 else "%y"
    for pattern, form_of_time in FORMS_OF_TIMES:
        if re.fullmatch(pattern, parts["time"]):
            return f"{first}{parts['mark']}{second}{parts['second_mark']}{year}{form_of_time}"
    return ""


def _by_format(texts: pa.Array, form: str) -> np.ndarray:
    """Parse strings by a format of `strptime`, datetime64[us]; NaT where they do not have it.

    Arrow also reads 63 as a year `%Y`, and 63 as `%y` as 2063. Both are corrected here.
    """
    times = as_numpy(pc.strptime(texts, format=form, unit="us", error_is_null=True))
    years = times.astype("datetime64[Y]").astype(np.int64) + 1970
    if "%Y" in form:
        return np.where(years >= 1000, times, np.datetime64("NaT", "us"))
    if "%y" in form:
        month_M = times.astype("datetime64[M]")
        within_month = times - month_M.astype("datetime64[us]")
        earlier = (month_M - np.timedelta64(1200, "M")).astype("datetime64[us]") + within_month
        return np.where(years >= 2000 + PIVOT, earlier, times)
    return times


def _by_cast(texts: pa.Array) -> np.ndarray | None:
    """Return the times of ISO strings that Arrow reads all at once; None if one is written otherwise."""
    for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            return as_numpy(pc.cast(texts, kind)).astype("datetime64[us]")
        except pa.ArrowInvalid:
            continue
    return None


def _integers_as_texts(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return whole numbers as strings, such as 20230205; other numbers as "", which is no date."""
    numbers = cells
    if pa.types.is_floating(cells.type):
        is_integer = pc.and_(pc.equal(pc.round(cells), cells), pc.less(pc.abs(cells), LARGEST))
        numbers = pc.if_else(is_integer, cells, None)
    texts = pc.cast(pc.cast(numbers, pa.int64(), safe=False), pa.string())
    return pc.if_else(cells.is_valid(), pc.fill_null(texts, ""), None)
