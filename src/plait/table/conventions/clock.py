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
    by_distinct,
    chunked,
    is_text,
    shown,
    without_marks,
)

# 05:14:54, 12:30, 4:12.08, 1:02:03.5, 3:45 PM, 2 days 03:00:00, -00:30
CELL = (
    r"^(?P<sign>-)?(?:(?P<days>\d+) ?(?:d|days?),? )?"
    r"(?P<first>\d{1,3}):(?P<second>\d{2})(?::(?P<third>\d{2}))?"
    r"(?P<fraction>\.\d{1,9})?(?: ?(?P<half>[AaPp])\.?[Mm]\.?)?$"
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
            microseconds = pc.cast(pc.cast(cells, unit, safe=False), pa.int64())
            return Reading(pc.divide(pc.cast(microseconds, pa.float64()), 1e6))
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            return Reading(pc.cast(cells, pa.float64()))
        if not is_text(kind):
            return all_bad(cells, f"expected {self.described()}, came {kind}", pa.float64())

        distinct, row_numbers = by_distinct(without_marks(cells))
        seconds = np.append(self._seconds(distinct), np.nan)
        x_B = seconds[pc.fill_null(row_numbers, len(distinct)).to_numpy(zero_copy_only=False)]
        bad = {}
        is_bad = row_numbers.is_valid().to_numpy(zero_copy_only=False) & np.isnan(x_B)
        for row in np.flatnonzero(is_bad).tolist():
            bad[row] = f"expected {self.described()}, came {shown(cells[row].as_py())}"
        return Reading(chunked(pa.array(x_B, mask=np.isnan(x_B))), bad)

    def _seconds(self, texts: pa.Array) -> np.ndarray:
        """Return the seconds that strings write, float64; NaN for those that are no time."""
        parts = pc.extract_regex(texts, CELL)
        first, second, third = (_numbers(parts, name) for name in ("first", "second", "third"))
        has_three = np.isfinite(third)
        if self.minutes:
            seconds = np.where(
                has_three, first * 3600 + second * 60 + np.nan_to_num(third), first * 60 + second
            )
        else:
            seconds = first * 3600 + second * 60 + np.nan_to_num(third)
        seconds += np.nan_to_num(_numbers(parts, "fraction")) + np.nan_to_num(_numbers(parts, "days")) * 86400

        half = pc.fill_null(pc.struct_field(parts, "half"), "").to_numpy(zero_copy_only=False)
        is_pm, is_am = np.isin(half, ["P", "p"]), np.isin(half, ["A", "a"])
        seconds += np.where(is_pm & (first < 12), 43200, 0) - np.where(is_am & (first == 12), 43200, 0)
        is_negative = pc.fill_null(pc.equal(pc.struct_field(parts, "sign"), "-"), False).to_numpy(
            zero_copy_only=False
        )
        is_time = (second < 60) & ~(third >= 60)
        return np.where(is_time, np.where(is_negative, -seconds, seconds), np.nan)

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
        parts = pc.extract_regex(distinct, CELL)
        if parts.null_count == len(parts):
            return None
        first, third = _numbers(parts, "first"), _numbers(parts, "third")
        has_fraction = np.isfinite(_numbers(parts, "fraction"))
        has_two = np.isnan(third)
        convention = cls(minutes=bool((has_two & (has_fraction | (first >= 24))).any()))
        share = float(np.isfinite(convention._seconds(distinct))[row_numbers.to_numpy()].mean())
        if share < least:
            return None
        return Recognised(convention, share, f"times in seconds, as in {filled[0].as_py()}")


def _numbers(parts: pa.StructArray, name: str) -> np.ndarray:
    """Return a part as float64, NaN where a string has none."""
    texts = pc.struct_field(parts, name)
    texts = pc.if_else(pc.equal(texts, ""), None, texts)
    return pc.cast(texts, pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
