"""Numbers: robustly scaled, smoothly bounded, and spread over quantile bins."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import Field

from plait.batch import Layout, Values
from plait.components import Options
from plait.modalities.base import Loaded, Match, Modality, Problem, Source, distinct, is_text, sample

MOST = 0.95  # the share of numbers from which strings are taken for numbers


class Config(Options):
    """`quantile` adds a piecewise-linear encoding over `bins` (Gorishniy et al. 2022, eq. 1) beside the scaled number.
    For learned periodic embeddings see the option `periodic` of the encoder `tabular`."""

    embedding: Literal["quantile", "none"] = "quantile"
    bins: int = Field(16, ge=2, le=256)


class Number(Modality):
    """A column of numbers, (x - median) / spread, then bounded to (-3, 3) by x / sqrt(1 + (x/3)^2) as RealMLP does
    (Holzmueller et al. 2024), so that one outlier cannot drown the rest.

    The spread is the interquartile range as a standard deviation, or what is not zero of: the standard deviation, 1.
    NaN is missing. An infinity, or a string that is no number, is a problem and missing.
    """

    options = Config
    encoder = "tabular"
    tabular = True

    def __init__(self, config: Config, median: float, spread: float, edges: list[float]) -> None:
        self.config, self.median, self.spread, self.edges = config, median, spread, edges
        self.layout = Layout("vector", (1 + max(len(edges) - 1, 0),))

    @classmethod
    def matches(cls, cells: pa.ChunkedArray, source: Source) -> Match | None:
        kind = cells.type
        if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind):
            return Match(0.7, f"numbers, {distinct(cells):,} different")
        if is_text(cells):
            share = share_of_numbers(cells)
            if share >= MOST:  # else the fit would refuse what was only guessed
                return Match(0.6, f"strings of which {share:.0%} are numbers")
        return None

    @classmethod
    def fit(cls, config: Config, cells: pa.ChunkedArray) -> Number:
        x, _ = numbers(cells)
        x = x[np.isfinite(x)]
        if not len(x):
            return cls(config, 0.0, 1.0, [])
        low, median, high = (float(q) for q in np.quantile(x, [0.25, 0.5, 0.75]))
        spread = (high - low) / 1.349 or float(x.std()) or 1.0
        edges = np.unique(np.quantile(x, np.linspace(0, 1, config.bins + 1))).tolist() if config.embedding == "quantile" else []
        return cls(config, median, spread, edges if len(edges) > 2 else [])

    def load(self, cells: pa.ChunkedArray, source: Source) -> Loaded:
        x, bad = numbers(cells)
        problems = [Problem(row, source.column, "", f"not a finite number: {str(cell)[:40]!r}") for row, cell in bad]
        source.progress(len(cells))
        present = np.isfinite(x)
        x = np.where(present, x, self.median)
        scaled = (x - self.median) / self.spread
        parts = [(scaled / np.sqrt(1 + (scaled / 3) ** 2))[:, None]]
        if self.edges:
            parts.append(piecewise_linear(x, np.array(self.edges)))
        features = np.concatenate(parts, 1).astype(np.float32)
        return Loaded(Values(torch.from_numpy(features)), torch.from_numpy(present), problems)

    def state(self) -> dict[str, Any]:
        return {"median": self.median, "spread": self.spread, "edges": self.edges}

    @classmethod
    def from_state(cls, config: Config, state: dict[str, Any]) -> Number:
        return cls(config, **state)


component = Number


def piecewise_linear(x_B: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Gorishniy et al. 2022, "On Embeddings for Numerical Features", eq. 1: entry t of T is 0 before bin t, 1 after it,
    and rises linearly within. The first and last bins are not extended beyond 0 and 1."""
    widths = np.diff(edges)
    return ((x_B[:, None] - edges[:-1]) / widths).clip(0, 1)


def share_of_numbers(cells: pa.ChunkedArray) -> float:
    """How many of these strings are numbers; of those that mostly are none, how many of a sample."""
    looked = sample(cells, 500)
    share = sum(map(_parses, looked)) / max(len(looked), 1)
    return sum(map(_parses, cells.to_pylist())) / len(cells) if share >= MOST else share


def numbers(cells: pa.ChunkedArray) -> tuple[np.ndarray, list[tuple[int, Any]]]:
    """The cells as float64, NaN where missing or bad, and the bad ones: (row, cell)."""
    if is_text(cells):
        x = np.array([_number(c) for c in cells.to_pylist()], dtype=np.float64)
    else:
        x = pc.cast(cells, pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
    was_given = ~pc.is_null(cells, nan_is_null=not is_text(cells)).to_numpy(zero_copy_only=False)
    bad = np.flatnonzero(was_given & ~np.isfinite(x))
    x[bad] = np.nan
    return x, [(int(row), cells[int(row)].as_py()) for row in bad]


def _number(cell: str | None) -> float:
    try:
        return float("nan") if cell is None else float(cell.replace(",", "").strip("$€£% "))
    except ValueError:
        return float("nan")


def _parses(cell: str) -> bool:
    return bool(np.isfinite(_number(cell)))
