"""Times of day and durations, read as seconds."""

from __future__ import annotations

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
    is_text,
    read_by_row,
    share_of_rows,
    without_marks,
)

HOUR = 3600  # seconds

# 05:14:54, 12:30, 4:12.08, 1:02:03.5, 1:02:03,5, 3:45 PM, 2 days 03:00:00, -00:30, 13h28, 11:38 Uhr, 11时38分
CELL = (
    r"^(?P<sign>-)?(?:(?P<days>\d+) ?(?:d|days?),? )?"
    r"(?P<first>\d{1,3})(?P<mark>:| ?[hH時时시] ?)(?P<second>\d{2})[分분]?(?::(?P<third>\d{2}))?"
    r"(?P<fraction>[.,]\d{1,9})?(?: ?(?P<half>[AaPp])\.?[Mm]\.?)?(?: Uhr)?$"
)


class Clock(Convention):
    """A column of times of day or durations.

    `minutes` is True where cells of two parts are minutes and seconds, as 4:12.08 is, not hours and minutes.
    """

    kind: Literal["clock"] = "clock"
    minutes: bool = False

    def described(self) -> str:
        """Return an example of how the column writes a time."""
        return f"a time such as {'4:12.08' if self.minutes else '13:45:00'}"

    def read(self, cells: pa.ChunkedArray) -> Reading:
        """Return seconds, float64: since midnight for times of day."""
        kind = cells.type
        if pa.types.is_time(kind) or pa.types.is_duration(kind):
            unit = pa.time64("us") if pa.types.is_time(kind) else pa.duration("us")
            times = pc.cast(cells, unit, safe=False)
            microseconds = pc.cast(pc.cast(times, pa.int64()), pa.float64())
            return Reading(pc.divide(microseconds, 1e6))
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            return Reading(pc.cast(cells, pa.float64()))
        if not is_text(kind):
            return all_bad(cells, f"expected {self.described()}, came {kind}", pa.float64())

        distinct, row_numbers = by_distinct(without_marks(cells))
        seconds = self._seconds(distinct)
        values = pa.array(seconds, mask=np.isnan(seconds))
        return read_by_row(values, row_numbers, cells, self.described())

    def _seconds(self, texts: pa.Array) -> np.ndarray:
        """Return the seconds that strings write, float64; NaN for those that are no time."""
        fields = pc.extract_regex(texts, CELL)
        first = _numbers(fields, "first")
        second = _numbers(fields, "second")
        third = _numbers(fields, "third")
        seconds = first * HOUR + second * 60 + np.nan_to_num(third)
        if self.minutes:
            has_two = np.isnan(third) & (_texts(fields, "mark") == ":")
            seconds = np.where(has_two, first * 60 + second, seconds)
        days = np.nan_to_num(_numbers(fields, "days"))
        seconds += np.nan_to_num(_numbers(fields, "fraction")) + days * 24 * HOUR

        # 12 AM is midnight, and 12 PM is noon.
        half = _texts(fields, "half")
        is_pm = np.isin(half, ["P", "p"]) & (first < 12)
        is_am = np.isin(half, ["A", "a"]) & (first == 12)
        seconds += 12 * HOUR * (is_pm.astype(np.float64) - is_am)

        is_negative = _texts(fields, "sign") == "-"
        seconds = np.where(is_negative, -seconds, seconds)
        is_time = (second < 60) & ~(third >= 60)
        return np.where(is_time, seconds, np.nan)

    @classmethod
    def recognise(cls, texts: pa.ChunkedArray, style: Style, least: float = FITS) -> Recognised | None:
        """Recognise strings of which most are times with colons.

        Two parts are hours and minutes, as clocks show, unless one has a fraction of seconds or a first part
        of 24 or more.
        """
        filled = without_marks(texts).drop_null()
        if not len(filled):
            return None
        distinct, row_numbers = by_distinct(filled)
        fields = pc.extract_regex(distinct, CELL)
        if fields.null_count == len(fields):
            return None
        # 36h20 says itself that it begins with hours.
        has_two = np.isnan(_numbers(fields, "third")) & (_texts(fields, "mark") == ":")
        has_fraction = np.isfinite(_numbers(fields, "fraction"))
        is_no_hour = _numbers(fields, "first") >= 24
        are_minutes = has_two & (has_fraction | is_no_hour)

        convention = cls(minutes=bool(are_minutes.any()))
        is_time = np.isfinite(convention._seconds(distinct))
        share = share_of_rows(is_time, row_numbers)
        if share < least:
            return None
        return Recognised(convention, share, f"times in seconds, as in {filled[0].as_py()}")


def _texts(fields: pa.StructArray, name: str) -> np.ndarray:
    """Return a field as strings, "" where a string has none."""
    return as_numpy(pc.fill_null(pc.struct_field(fields, name), ""))


def _numbers(fields: pa.StructArray, name: str) -> np.ndarray:
    """Return a field as float64, NaN where a string has none."""
    texts = pc.struct_field(fields, name)
    texts = pc.if_else(pc.equal(texts, ""), None, texts)
    numbers = pc.cast(pc.replace_substring(texts, ",", "."), pa.float64())
    return as_numpy(numbers).astype(np.float64)
