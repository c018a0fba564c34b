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
from plait.table.conventions.date import Date
from plait.table.json import JSON, read_as
from plait.table.table import Source

DAY = 86_400.0  # seconds
FAR = 10.0  # a date farther away than so many times the span of nine tenths of all is none of them


class Config(Options):
    """`cycles` adds sine and cosine of the position in the year, the month, the week and the day."""

    cycles: bool = Field(
        True, description="add where in the year, the month, the week and the day a date lies"
    )


class Datetime(ValueModality):
    """A column of dates or times.

    Features: the position in the training rows' span (0 at its middle, -1 and 1 at its ends, bounded to
    +-3). With `cycles`, sine and cosine of the position in the year, month, week and day follow. Times of day
    are UTC where a zone is given.
    """

    options = Config
    encoder = "tabular"
    plain = True
    conventions = (Date,)

    def __init__(self, config: Config, first: float, last: float) -> None:
        self.config, self.first, self.last = config, first, last
        self.layout = Layout("vector", (9 if config.cycles else 1,))

    @classmethod
    def matches(cls, cells: pa.ChunkedArray, source: Source) -> Match | None:
        """Recognise times."""
        return Match(1.0, "dates") if pa.types.is_timestamp(cells.type) else None

    @classmethod
    def fit(cls, config: Config, cells: pa.ChunkedArray) -> Datetime:
        """Learn the span of the training rows.

        It leaves out dates far from all others, such as 9999-12-31 for "never": beside them, all others would
        be one moment.
        """
        seconds = _seconds(cells)
        seconds = seconds[np.isfinite(seconds)]
        if not len(seconds):
            return cls(config, 0.0, 1.0)
        low, high = np.quantile(seconds, [0.05, 0.95])
        margin = FAR * max(high - low, DAY)
        usual = seconds[(seconds >= low - margin) & (seconds <= high + margin)]
        return cls(config, float(usual.min()), float(usual.max()))

    def load(self, cells: pa.ChunkedArray, source: Source) -> Loaded:
        """Return the features of each cell, float32 (B, 9), or (B, 1) without `cycles`."""
        source.progress(len(cells))
        seconds = _seconds(cells)
        present = np.isfinite(seconds)
        seconds = np.where(present, seconds, self.first)
        features = _features(seconds, self.first, self.last, self.config.cycles)
        return Loaded(Values(torch.from_numpy(features)), torch.from_numpy(present))

    def cell_schema(self) -> JSON:
        """Return the schema of a date. It may be written as in the table, or by ISO 8601."""
        first, last = _iso(self.first), _iso(self.last)
        return {"type": ["string", "number"], "x-training": {"low": first, "high": last}}

    def state(self) -> JSON:
        """Return what `fit` has learned, as JSON."""
        return {"first": self.first, "last": self.last}

    @classmethod
    def from_state(cls, config: Config, state: JSON) -> Datetime:
        """Build the fitted modality from what `state` returned."""
        return cls(config, read_as(float, state["first"]), read_as(float, state["last"]))


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


def _iso(seconds: float) -> str:
    """Return a time as ISO 8601; the date alone if it is midnight."""
    text = str(np.datetime64(round(seconds), "s"))
    return text.removesuffix("T00:00:00")


def _seconds(cells: pa.ChunkedArray) -> np.ndarray:
    """Return seconds since 1970 as float64 (B,); NaN where a cell is missing."""
    microseconds = pc.cast(pc.cast(cells, pa.timestamp("us"), safe=False), pa.int64())
    return pc.divide(pc.cast(microseconds, pa.float64(), safe=False), 1e6).to_numpy(zero_copy_only=False)
