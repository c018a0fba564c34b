"""Numbers: robustly scaled, smoothly bounded, and spread over quantile bins."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field

from plait.modalities.base import Match, Modality
from plait.nn.batch import Layout, Loaded, Values
from plait.recipe.registry import Options
from plait.table.json import JSON, read_as
from plait.table.problems import Problem
from plait.table.table import Source
from plait.table.values import MOST, distinct, is_text, numbers, share_of_numbers


class Config(Options):
    """`quantile` adds a piecewise-linear encoding over `bins` (Gorishniy et al. 2022, eq. 1) beside the
    scaled number. For learned periodic embeddings see the option `periodic` of the encoder `tabular`.
    """

    embedding: Literal["quantile", "none"] = "quantile"
    bins: int = Field(16, ge=2, le=256)


class Number(Modality):
    """A column of numbers, (x - median) / spread, then bounded to (-3, 3) by x / sqrt(1 + (x/3)^2) as
    RealMLP does (Holzmueller et al. 2024), so that one outlier cannot drown the rest.

    The spread is the interquartile range as a standard deviation, or what is not zero of: the standard
    deviation, 1. NaN is missing. An infinity, or a string that is no number, is a problem and missing.
    """

    options = Config
    encoder = "tabular"
    tabular = True
    may_be_id = True

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
        edges = (
            np.unique(np.quantile(x, np.linspace(0, 1, config.bins + 1))).tolist()
            if config.embedding == "quantile"
            else []
        )
        return cls(config, median, spread, edges if len(edges) > 2 else [])

    def load(self, cells: pa.ChunkedArray, source: Source) -> Loaded:
        x, bad = numbers(cells)
        problems = [
            Problem(row, source.column, "", f"not a finite number: {str(cell)[:40]!r}") for row, cell in bad
        ]
        source.progress(len(cells))
        present = np.isfinite(x)
        x = np.where(present, x, self.median)
        scaled = (x - self.median) / self.spread
        parts = [(scaled / np.sqrt(1 + (scaled / 3) ** 2))[:, None]]
        if self.edges:
            parts.append(piecewise_linear(x, np.array(self.edges)))
        features = np.concatenate(parts, 1).astype(np.float32)
        return Loaded(Values(torch.from_numpy(features)), torch.from_numpy(present), problems)

    def state(self) -> JSON:
        return {"median": self.median, "spread": self.spread, "edges": self.edges}

    @classmethod
    def from_state(cls, config: Config, state: JSON) -> Number:
        median, spread = read_as(float, state["median"]), read_as(float, state["spread"])
        return cls(config, median, spread, read_as(list[float], state["edges"]))


component = Number


def piecewise_linear(x_B: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Gorishniy et al. 2022, "On Embeddings for Numerical Features", eq. 1: entry t of T is 0 before
    bin t, 1 after it, and rises linearly within. The first and last bins are not extended beyond 0 and
    1.
    """
    widths = np.diff(edges)
    return ((x_B[:, None] - edges[:-1]) / widths).clip(0, 1)
