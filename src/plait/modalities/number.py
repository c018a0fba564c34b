"""Numbers: robustly scaled, smoothly bounded, and spread over quantile bins."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import Field
from torch import Tensor

from plait.modalities.base import Match, ValueModality
from plait.nn.batch import Layout, Loaded, Values
from plait.recipe.registry import Options
from plait.table.conventions.clock import Clock
from plait.table.conventions.number import Number as NumberConvention
from plait.table.json import JSON, read_as
from plait.table.table import Source
from plait.table.values import distinct

WIDEST = 1e12  # of a bin, in units of the spread: sums of squares are finite in float32
LARGEST = 1e100  # differences and squares of such numbers can still be computed


class Config(Options):
    """`quantile` adds a piecewise-linear encoding over `bins` (Gorishniy et al. 2022, eq. 1) to the scaled
    number. For learned periodic embeddings see the option `periodic` of the encoder `tabular`.
    """

    embedding: Literal["quantile", "none"] = Field(
        "quantile", description="add a piecewise-linear encoding to the scaled number, or nothing"
    )
    bins: int = Field(
        16,
        ge=2,
        le=256,
        description="intervals of the piecewise-linear encoding, with as many training rows in each",
    )


class Number(ValueModality):
    """A column of numbers, scaled to (x - median) / spread.

    They are then bounded to (-3, 3) by x / sqrt(1 + (x/3)^2), as in RealMLP (Holzmueller et al. 2024): an
    outlier does not dominate the other values. The spread is the interquartile range as a standard deviation;
    if that is zero, the standard deviation; if that is zero too, 1.
    """

    options = Config
    encoder = "tabular"
    plain = True
    may_be_id = True
    conventions = (NumberConvention, Clock)

    def __init__(self, config: Config, median: float, spread: float, edges: list[float]) -> None:
        self.config, self.median, self.spread, self.edges = config, median, spread, edges
        self.layout = Layout("vector", (1 + max(len(edges) - 1, 0),))

    @classmethod
    def matches(cls, cells: pa.ChunkedArray, source: Source) -> Match | None:
        """Recognise numbers."""
        kind = cells.type
        if pa.types.is_floating(kind) or pa.types.is_integer(kind):
            return Match(0.7, f"numbers, {distinct(cells):,} different")
        return None

    @classmethod
    def fit(cls, config: Config, cells: pa.ChunkedArray) -> Number:
        """Learn median, spread and quantiles of the training rows."""
        x = _numbers(cells)
        x = x[np.isfinite(x)]
        if not len(x):
            return cls(config, 0.0, 1.0, [])
        low, median, high = np.quantile(x, [0.25, 0.5, 0.75]).tolist()
        spread = (high - low) / 1.349 or float(x.std()) or 1.0
        edges: list[float] = []
        if config.embedding == "quantile":
            edges = np.unique(np.quantile(x, np.linspace(0, 1, config.bins + 1))).tolist()
        if len(edges) <= 2:  # a single bin says no more than the scaled number
            edges = []
        return cls(config, median, spread, edges)

    def load(self, cells: pa.ChunkedArray, source: Source) -> Loaded:
        """Return the scaled number and its encoding over bins, float32 (B, 1 + bins)."""
        source.progress(len(cells))
        x = _numbers(cells)
        present = np.isfinite(x)
        x = np.where(present, x, self.median)
        # Where the other numbers are tiny, one may be infinitely far away. It is bounded all the same.
        with np.errstate(over="ignore"):
            scaled = ((x - self.median) / self.spread).clip(-LARGEST, LARGEST)
            columns = [(scaled / np.hypot(1, scaled / 3))[:, None]]
            if self.edges:
                columns.append(piecewise_linear(x, np.array(self.edges)))
        features = np.concatenate(columns, 1).astype(np.float32)
        return Loaded(Values(torch.from_numpy(features)), torch.from_numpy(present))

    def raw(self, values: Values) -> Tensor:
        """Return the numbers above the least one, in units of the spread, (B, 1).

        They are the sums of their bins, so they end where the training rows end. No bin is wider than
        `WIDEST`: the square of a number must be finite.
        """
        if not self.edges:
            return super().raw(values)
        with np.errstate(over="ignore"):
            widths = (np.diff(self.edges) / self.spread).clip(max=WIDEST)
        return values.x[:, 1:] @ torch.from_numpy(widths.astype(np.float32))[:, None]

    def cell_schema(self) -> JSON:
        """Return the schema of a number. A text is read as the column writes numbers."""
        training = {"median": self.median}
        if self.edges:
            training |= {"low": self.edges[0], "high": self.edges[-1]}
        return {"type": ["number", "string"], "x-training": training}

    def state(self) -> JSON:
        """Return what `fit` has learned, as JSON."""
        return {"median": self.median, "spread": self.spread, "edges": self.edges}

    @classmethod
    def from_state(cls, config: Config, state: JSON) -> Number:
        """Build the fitted modality from what `state` returned."""
        median, spread = read_as(float, state["median"]), read_as(float, state["spread"])
        return cls(config, median, spread, read_as(list[float], state["edges"]))


component = Number


def _numbers(cells: pa.ChunkedArray) -> np.ndarray:
    """Return cells as float64 (B,), NaN where one is missing, and none beyond `LARGEST`."""
    x_B = pc.cast(cells, pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float64)
    return np.where(np.isfinite(x_B), x_B.clip(-LARGEST, LARGEST), x_B)


def piecewise_linear(x_B: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Encode numbers over bins, (B, T), T being the number of bins.

    Entry t is 0 before bin t, 1 after it, and rises linearly within it (Gorishniy et al. 2022, "On Embeddings
    for Numerical Features", eq. 1). The first and last bins are not extended beyond 0 and 1.
    """
    widths = np.diff(edges)
    return ((x_B[:, None] - edges[:-1]) / widths).clip(0, 1)
