"""Vectors: lists of numbers of one length, such as embeddings computed elsewhere."""

from __future__ import annotations

from typing import Literal

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
from plait.table.values import sample


class Config(Options):
    """`standardise` each entry over the training rows, or the whole vector to length one (`unit`), or
    `none`.
    """

    scaling: Literal["standardise", "unit", "none"] = "standardise"


class Vector(Modality):
    """A column of equally long lists of numbers. A vector of another length, or with a NaN, is a
    problem and missing.
    """

    options = Config
    encoder = "tabular"
    drops_constant = False

    def __init__(self, config: Config, mean: list[float], std: list[float]) -> None:
        self.config, self.mean, self.std = config, mean, std
        self.layout = Layout("vector", (len(mean),))

    @classmethod
    def matches(cls, cells: pa.ChunkedArray, source: Source) -> Match | None:
        if not _is_list_of_numbers(cells.type):
            return None
        lengths = {len(c) for c in sample(cells, 200)}
        if len(lengths) == 1 and lengths != {0}:
            return Match(1.0, f"lists of {lengths.pop()} numbers")
        return None

    @classmethod
    def fit(cls, config: Config, cells: pa.ChunkedArray) -> Vector:
        lengths = pc.list_value_length(cells.drop_null())
        length = int(pc.mode(lengths)[0]["mode"].as_py()) if len(lengths) else 1
        x, good, _ = _matrix(cells, length)
        x = x[good]
        if not len(x):
            return cls(config, [0.0] * length, [1.0] * length)
        std = x.std(0)
        return cls(config, x.mean(0).tolist(), np.where(std > 1e-8, std, 1.0).tolist())

    def load(self, cells: pa.ChunkedArray, source: Source) -> Loaded:
        source.progress(len(cells))
        x, good, bad = _matrix(cells, len(self.mean))
        if self.config.scaling == "standardise":
            x = (x - self.mean) / self.std
        elif self.config.scaling == "unit":
            x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        x = np.where(good[:, None], x, 0).astype(np.float32)
        problems = [
            Problem(row, source.column, "", f"expected {len(self.mean)} finite numbers, got {what}")
            for row, what in bad
        ]
        return Loaded(Values(torch.from_numpy(x)), torch.from_numpy(good), problems)

    def state(self) -> JSON:
        return {"mean": self.mean, "std": self.std}

    @classmethod
    def from_state(cls, config: Config, state: JSON) -> Vector:
        return cls(config, read_as(list[float], state["mean"]), read_as(list[float], state["std"]))


component = Vector


def _is_list_of_numbers(kind: pa.DataType) -> bool:
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        return False
    inner = kind.value_type
    return bool(pa.types.is_floating(inner) or pa.types.is_integer(inner))


def _matrix(cells: pa.ChunkedArray, length: int) -> tuple[np.ndarray, np.ndarray, list[tuple[int, str]]]:
    """The cells as rows of a matrix, True where the row is good, and what is wrong with the bad ones."""
    x = np.zeros((len(cells), length))
    lengths = pc.fill_null(pc.list_value_length(cells), -1).to_numpy(zero_copy_only=False)
    fits = lengths == length
    if fits.any():
        x[fits] = (
            pc.cast(pc.list_flatten(cells.filter(pa.array(fits))), pa.float64())
            .to_numpy(zero_copy_only=False)
            .reshape(-1, length)
        )
    finite = np.isfinite(x).all(1)
    bad = [
        (int(r), "one that is not finite" if fits[r] else f"{lengths[r]}")
        for r in np.flatnonzero((lengths >= 0) & ~(fits & finite))
    ]
    return x, fits & finite, bad
