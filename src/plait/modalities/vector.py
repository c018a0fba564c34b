"""Vectors: equally long lists of numbers, such as embeddings computed elsewhere."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import Field

from plait.modalities.base import Match, ValueModality
from plait.nn.batch import Layout, Loaded, Values
from plait.recipe.registry import Options
from plait.table.conventions.listing import Listing
from plait.table.conventions.plain import Plain
from plait.table.json import JSON, read_as
from plait.table.problems import Problem
from plait.table.table import Source
from plait.table.values import sample

# Entries of a larger size, scaled or not, are taken for damaged: in 32 bits, networks square what they read.
LARGEST = 1e15


class Config(Options):
    """`scaling`: `standardise` each entry over the training rows, scale each vector to length 1 (`unit`), or
    change nothing (`none`).
    """

    scaling: Literal["standardise", "unit", "none"] = Field(
        "standardise", description="what is done to the entries of a vector (see above)"
    )


class Vector(ValueModality):
    """A column of equally long lists of numbers.

    A vector of another length, or with an entry that is not finite or beyond `LARGEST`, is a problem and
    missing.
    """

    options = Config
    encoder = "tabular"
    drops_constant = False
    conventions = (Listing, Plain)

    def __init__(self, config: Config, mean: list[float], std: list[float]) -> None:
        self.config, self.mean, self.std = config, mean, std
        self.layout = Layout("vector", (len(mean),))

    @classmethod
    def matches(cls, cells: pa.ChunkedArray, source: Source) -> Match | None:
        """Recognise lists of numbers that all have one length."""
        if not _is_list_of_numbers(cells.type):
            return None
        lengths = {len(c) for c in sample(cells, 200)}
        if len(lengths) == 1 and lengths != {0}:
            return Match(1.0, f"lists of {lengths.pop()} numbers")
        return None

    @classmethod
    def fit(cls, config: Config, cells: pa.ChunkedArray) -> Vector:
        """Learn the most frequent length, and mean and standard deviation of each entry."""
        lengths = pc.list_value_length(cells.drop_null())
        length = int(pc.mode(lengths)[0]["mode"].as_py()) if len(lengths) else 1
        x, good, _ = _matrix(cells, length)
        x = x[good]
        if not len(x):
            return cls(config, [0.0] * length, [1.0] * length)
        std = x.std(0)
        return cls(config, x.mean(0).tolist(), np.where(std > 1e-8, std, 1.0).tolist())

    def load(self, cells: pa.ChunkedArray, source: Source) -> Loaded:
        """Return the scaled vectors, float32 (B, length)."""
        source.progress(len(cells))
        x, good, bad = _matrix(cells, len(self.mean))
        if self.config.scaling == "standardise":
            x = (x - self.mean) / self.std
        elif self.config.scaling == "unit":
            x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        too_large = good & (np.abs(x) > LARGEST).any(1)
        bad += [
            (row, "one that is far beyond those of training") for row in np.flatnonzero(too_large).tolist()
        ]
        good &= ~too_large
        x = np.where(good[:, None], x, 0).astype(np.float32)
        problems = []
        for row, content in bad:
            reason = f"expected {len(self.mean)} finite numbers, got {content}"
            problems.append(Problem(row, source.column, "", reason))
        return Loaded(Values(torch.from_numpy(x)), torch.from_numpy(good), problems)

    def cell_schema(self) -> JSON:
        """Return the schema of a list of numbers."""
        length = len(self.mean)
        return {"type": "array", "items": {"type": "number"}, "minItems": length, "maxItems": length}

    def state(self) -> JSON:
        """Return what `fit` has learned, as JSON."""
        return {"mean": self.mean, "std": self.std}

    @classmethod
    def from_state(cls, config: Config, state: JSON) -> Vector:
        """Build the fitted modality from what `state` returned."""
        mean, std = read_as(list[float], state["mean"]), read_as(list[float], state["std"])
        if len(mean) != len(std) or not all(number > 0 for number in std):
            raise ValueError(f"{len(mean)} means do not go with {len(std)} standard deviations above 0")
        return cls(config, mean, std)


component = Vector


def _is_list_of_numbers(kind: pa.DataType) -> bool:
    """Return whether cells of an Arrow type are lists of floats or integers."""
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        return False
    inner = kind.value_type
    return bool(pa.types.is_floating(inner) or pa.types.is_integer(inner))


def _matrix(cells: pa.ChunkedArray, length: int) -> tuple[np.ndarray, np.ndarray, list[tuple[int, str]]]:
    """Return the cells as a matrix (B, length), True where a row is good, and the bad rows.

    Of a bad row it returns the number and what the cell holds, to be shown to the user.
    """
    x = np.zeros((len(cells), length))
    lengths = pc.fill_null(pc.list_value_length(cells), -1).to_numpy(zero_copy_only=False)
    fits = lengths == length
    if fits.any():
        numbers = pc.cast(pc.list_flatten(cells.filter(pa.array(fits))), pa.float64())
        x[fits] = numbers.to_numpy(zero_copy_only=False).reshape(-1, length)
    good = fits & (np.abs(x) <= LARGEST).all(1)
    bad = []
    for row in np.flatnonzero((lengths >= 0) & ~good).tolist():
        content = f"{lengths[row]}"
        if fits[row]:
            content = "one that is too large" if np.isfinite(x[row]).all() else "one that is not finite"
        bad.append((row, content))
    return x, good, bad
