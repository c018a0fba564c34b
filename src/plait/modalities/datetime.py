"""Dates and times: where in the span of training, and where in the year, month, week and day."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from plait.modalities.base import Match, Modality
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


PIVOT = 2050  # years of two digits are those before


class Config(Options):
    """`cycles` adds sine and cosine of the place in the year, the month, the week and the day. `format`
    says how strings are to be read, as in `%d/%m/%Y`; it is found from the cells if left out. Years of
    two digits (`%y`) are those from 1950 to 2049.
    """

    cycles: bool = True
    format: str = ""


class Datetime(Modality):
    """A column of dates or times, as Arrow dates and timestamps or as strings of one known format.

    Features: the place in the training rows' span (0 at its middle, -1 and 1 at its ends, bounded to
    +-3), then, with `cycles`, sine and cosine of the place in the year, month, week and day. Times of
    day are UTC where a zone is given.
    """

    options = Config
    encoder = "tabular"
    tabular = True

    def __init__(self, config: Config, first: float, last: float, form: str) -> None:
        self.config, self.first, self.last, self.form = config, first, last, form
        self.layout = Layout("vector", (9 if config.cycles else 1,))

    @classmethod
    def matches(cls, cells: pa.ChunkedArray, source: Source) -> Match | None:
        if (
            pa.types.is_temporal(cells.type)
            and not pa.types.is_time(cells.type)
            and not pa.types.is_duration(cells.type)
        ):
            return Match(1.0, f"dates ({cells.type})")
        if is_text(cells):
            form, parsed = _form(cells)
            if parsed >= 0.95:
                other = next((f for f in FORMATS if f != form and _share(cells, f) == parsed), "")
                doubt = f" (or {other}: then say so with the option format)" if other else ""
                return Match(0.9, f"{parsed:.0%} of the strings are dates like {form}{doubt}")
        return None

    @classmethod
    def fit(cls, config: Config, cells: pa.ChunkedArray) -> Datetime:
        form = config.format or (_form(cells.drop_null())[0] if is_text(cells) else "")
        seconds = _seconds(cells, form)
        seconds = seconds[np.isfinite(seconds)]
        return cls(
            config, *((float(seconds.min()), float(seconds.max())) if len(seconds) else (0.0, 1.0)), form
        )

    def load(self, cells: pa.ChunkedArray, source: Source) -> Loaded:
        source.progress(len(cells))
        form = self.form or (
            _form(cells.drop_null())[0] if is_text(cells) else ""
        )  # timestamps in training, strings here
        seconds = _seconds(cells, form)
        present = np.isfinite(seconds)
        given = pc.is_valid(cells).to_numpy(zero_copy_only=False)
        problems = [
            Problem(
                int(row), source.column, "", f"not a date like {form}: {str(cells[int(row)].as_py())[:40]!r}"
            )
            for row in np.flatnonzero(given & ~present)
        ]
        seconds = np.where(present, seconds, self.first)
        features = _features(seconds, self.first, self.last, self.config.cycles)
        return Loaded(Values(torch.from_numpy(features)), torch.from_numpy(present), problems)

    def state(self) -> JSON:
        return {"first": self.first, "last": self.last, "form": self.form}

    @classmethod
    def from_state(cls, config: Config, state: JSON) -> Datetime:
        first, last = read_as(float, state["first"]), read_as(float, state["last"])
        return cls(config, first, last, read_as(str, state["form"]))


component = Datetime


def _features(seconds: np.ndarray, first: float, last: float, cycles: bool) -> np.ndarray:
    half = (last - first) / 2 or 1.0
    parts = [((seconds - first - half) / half).clip(-3, 3)]
    if cycles:
        days = np.floor(seconds / 86400).astype("datetime64[D]")
        months, years = days.astype("datetime64[M]"), days.astype("datetime64[Y]")
        places = [
            (days - years).astype(float) / 365.25,
            (days - months).astype(float) / 31,
            ((days.astype(int) + 3) % 7) / 7,  # 1970-01-01 was a Thursday; the week begins on Monday
            (seconds % 86400) / 86400,
        ]
        parts += [wave(2 * np.pi * place) for place in places for wave in (np.sin, np.cos)]
    return np.stack(parts, 1).astype(np.float32)


def _parse(cells: pa.ChunkedArray, form: str) -> pa.ChunkedArray:
    """Strings as times, null where they are none of this format. To Arrow 63 is a year `%Y` too, and
    `%y` of 63 is 2063.
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
    """The share of a sample of the cells that a format fits."""
    looked = pa.chunked_array([pa.array(sample(cells, 500), pa.string())])
    return 1 - _parse(looked, form).null_count / len(looked) if len(looked) else 0.0


def _form(cells: pa.ChunkedArray) -> tuple[str, float]:
    """The format that fits most cells of a sample, and the share that it fits. Of equals the first
    listed wins.
    """
    shares = [_share(cells, form) for form in FORMATS]
    best = int(np.argmax(shares))
    return FORMATS[best], shares[best]


def _seconds(cells: pa.ChunkedArray, form: str) -> np.ndarray:
    """Seconds since 1970 as float64; NaN where missing or no date."""
    if is_text(cells):
        cells = _parse(cells, form or FORMATS[0])
    stamps = pc.cast(pc.cast(cells, pa.timestamp("us"), safe=False), pa.int64())
    return pc.divide(pc.cast(stamps, pa.float64()), 1e6).to_numpy(zero_copy_only=False)
