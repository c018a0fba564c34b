"""Dates and times: their position in the span of training, and in the year, month, week and day."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import Field

from plait.modalities.base import Match, ValueModality
from plait.nn.batch import Layout, Loaded, Values
from plait.recipe.registry import Options
from plait.table.json import JSON, read_as
from plait.table.problems import Problem
from plait.table.table import Source
from plait.table.values import is_text, sample

FORMATS = (
    "%Y-%m-%d",
    "%Y/%m/%d",
    "%d.%m.%Y",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d-%m-%Y",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%dT%H:%M:%SZ",
    "%Y/%m/%d %H:%M:%S",
    "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M",
    "%d %b %Y",
    "%b %d, %Y",
    "%B %d, %Y",
    "%d/%m/%y",
    "%m/%d/%y",
    "%d.%m.%y",
    "%d-%m-%y",
    "%y-%m-%d",
    "%d-%b-%y",
)


PIVOT = 2050  # years of two digits are the hundred years before


class Config(Options):
    """`cycles` adds sine and cosine of the position in the year, the month, the week and the day. `format`
    says how to read strings, as in `%d/%m/%Y`; without it the format that fits most cells is used. Years of
    two digits (`%y`) are those from 1950 to 2049.
    """

    cycles: bool = Field(
        True, description="add where in the year, the month, the week and the day a date lies"
    )
    format: str = Field(
        "", description="how strings are read, as in %d/%m/%Y; if empty, the format that fits most cells"
    )


class Datetime(ValueModality):
    """A column of dates or times, as Arrow dates and timestamps or as strings of one format.

    Features: the position in the training rows' span (0 at its middle, -1 and 1 at its ends, bounded to
    +-3). With `cycles`, sine and cosine of the position in the year, month, week and day follow. Times of day
    are UTC where a zone is given.
    """

    options = Config
    encoder = "tabular"
    plain = True

    def __init__(self, config: Config, first: float, last: float, form: str) -> None:
        self.config, self.first, self.last, self.form = config, first, last, form
        self.layout = Layout("vector", (9 if config.cycles else 1,))

    @classmethod
    def matches(cls, cells: pa.ChunkedArray, source: Source) -> Match | None:
        """Recognise dates, timestamps, and strings of which 95 % have one of `FORMATS`."""
        kind = cells.type
        if pa.types.is_temporal(kind) and not pa.types.is_time(kind) and not pa.types.is_duration(kind):
            return Match(1.0, f"dates ({kind})")
        if not is_text(cells):
            return None
        form, share = _form(cells)
        if share < 0.95:
            return None
        reason = f"{share:.0%} of the strings are dates like {form}"
        for other in FORMATS:
            if other != form and _share(cells, other) == share:
                return Match(0.9, f"{reason} (or {other}: then say so with the option format)")
        return Match(0.9, reason)

    @classmethod
    def fit(cls, config: Config, cells: pa.ChunkedArray) -> Datetime:
        """Learn the format of strings, and the first and last time of the training rows."""
        form = config.format or _form_of_strings(cells)
        seconds = _seconds(cells, form)
        seconds = seconds[np.isfinite(seconds)]
        if not len(seconds):
            return cls(config, 0.0, 1.0, form)
        return cls(config, float(seconds.min()), float(seconds.max()), form)

    def load(self, cells: pa.ChunkedArray, source: Source) -> Loaded:
        """Return the features of each cell, float32 (B, 9), or (B, 1) without `cycles`."""
        source.progress(len(cells))
        form = self.form or _form_of_strings(cells)  # training may have seen timestamps, and these be strings
        seconds = _seconds(cells, form)
        present = np.isfinite(seconds)
        is_filled = pc.is_valid(cells).to_numpy(zero_copy_only=False)
        problems = []
        for row in np.flatnonzero(is_filled & ~present).tolist():
            shown = str(cells[row].as_py())[:40]
            problems.append(Problem(row, source.column, "", f"not a date like {form}: {shown!r}"))
        seconds = np.where(present, seconds, self.first)
        features = _features(seconds, self.first, self.last, self.config.cycles)
        return Loaded(Values(torch.from_numpy(features)), torch.from_numpy(present), problems)

    def state(self) -> JSON:
        """Return what `fit` has learned, as JSON."""
        return {"first": self.first, "last": self.last, "form": self.form}

    @classmethod
    def from_state(cls, config: Config, state: JSON) -> Datetime:
        """Build the fitted modality from what `state` returned."""
        first, last = read_as(float, state["first"]), read_as(float, state["last"])
        return cls(config, first, last, read_as(str, state["form"]))


component = Datetime


def _features(seconds: np.ndarray, first: float, last: float, cycles: bool) -> np.ndarray:
    """Return the features of times, float32 (B, 9), or (B, 1) without `cycles`; all in seconds since 1970."""
    half = (last - first) / 2 or 1.0  # a single date has no span
    features = [((seconds - first - half) / half).clip(-3, 3)]
    if cycles:
        for position in _positions(seconds):
            features += [np.sin(2 * np.pi * position), np.cos(2 * np.pi * position)]
    return np.stack(features, 1).astype(np.float32)


def _positions(seconds: np.ndarray) -> list[np.ndarray]:
    """Return the positions in the year, month, week and day, each in 0..1."""
    days = np.floor(seconds / 86400).astype("datetime64[D]")
    months, years = days.astype("datetime64[M]"), days.astype("datetime64[Y]")
    return [
        (days - years).astype(float) / 365.25,
        (days - months).astype(float) / 31,
        ((days.astype(int) + 3) % 7) / 7,  # 1970-01-01 was a Thursday; the week begins on Monday
        (seconds % 86400) / 86400,
    ]


def _parse(cells: pa.ChunkedArray, form: str) -> pa.ChunkedArray:
    """Parse strings as times; null where they do not have this format.

    Arrow also reads 63 as a year `%Y`, and 63 as `%y` as 2063. Both are corrected here.
    """
    times = pc.strptime(cells, format=form, unit="s", error_is_null=True)
    if "%Y" in form:
        return pc.if_else(pc.greater_equal(pc.year(times), 1000), times, None)
    if "%y" not in form or not len(times):
        return times
    time_B = times.to_numpy()
    month_B = time_B.astype("datetime64[M]")
    earlier_B = (month_B - 1200) + (time_B - month_B)
    return pa.chunked_array([pa.array(np.where(time_B >= np.datetime64(f"{PIVOT}"), earlier_B, time_B))])


def _share(cells: pa.ChunkedArray, form: str) -> float:
    """Return the share of a sample of the cells that a format fits."""
    sampled = pa.chunked_array([pa.array(sample(cells, 500), pa.string())])
    if not len(sampled):
        return 0.0
    return 1 - _parse(sampled, form).null_count / len(sampled)


def _form(cells: pa.ChunkedArray) -> tuple[str, float]:
    """Return the format that fits most cells of a sample, and the share that it fits.

    Of formats that fit equally well the first of `FORMATS` wins.
    """
    shares = [_share(cells, form) for form in FORMATS]
    best = int(np.argmax(shares))
    return FORMATS[best], shares[best]


def _form_of_strings(cells: pa.ChunkedArray) -> str:
    """Return the format of strings; "" for dates and timestamps."""
    return _form(cells.drop_null())[0] if is_text(cells) else ""


def _seconds(cells: pa.ChunkedArray, form: str) -> np.ndarray:
    """Return seconds since 1970 as float64; NaN where a cell is missing or no date."""
    if is_text(cells):
        cells = _parse(cells, form or FORMATS[0])
    stamps = pc.cast(pc.cast(cells, pa.timestamp("us"), safe=False), pa.int64())
    return pc.divide(pc.cast(stamps, pa.float64()), 1e6).to_numpy(zero_copy_only=False)
