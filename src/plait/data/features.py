"""What linear models and trees see of a table: for each input a block of numbers, from vectors of
frozen encoders where there are any, else from what preprocessing makes of the cells.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import ConfigDict, TypeAdapter
from scipy import sparse
from torch import Tensor

from plait.data.dataset import Dataset
from plait.nn.batch import Layout, Values
from plait.nn.layers import masked_mean
from plait.nn.summaries import KINDS, LEAST_SPREAD, WORDS, Matrix, inverse_frequency, unit_rows, word_counts
from plait.table.json import JSON, JSONValue, read_object

TOGETHER = 256  # cells that are turned into numbers at once


@dataclass
class Block:
    """One input's numbers for some rows, zero where it is missing, which `present` says.

    Dense ones have mean 0 and expected squared length 1 over the rows that they were fitted on; rows of
    a `bag` are of length 1; rows of `one_hot` hold a single 1. So one strength of regularisation suits
    all.
    """

    view: str
    column: str
    x: Matrix
    present: np.ndarray

    def take(self, rows: np.ndarray) -> Block:
        return Block(self.view, self.column, self.x[rows], self.present[rows])

    def only(self, columns: Iterable[str]) -> Block:
        """The block as if its column was missing in every row, unless it is one of `columns`."""
        return (
            self
            if self.column in set(columns)
            else Block(self.view, self.column, self.x * 0, np.zeros_like(self.present))
        )


@dataclass
class _Fitted:
    """How one input of one view becomes a block: mean and deviation of each number, or the weight of
    each n-gram.
    """

    __pydantic_config__ = ConfigDict(arbitrary_types_allowed=True)  # arrays

    view: str
    column: str
    form: Literal["dense", "bag", "one_hot"]
    mean: np.ndarray
    scale: np.ndarray


_FITTED = TypeAdapter(_Fitted)


class Features:
    """The fitted blocks of all inputs that `takes` names by view."""

    def __init__(self, fitted: list[_Fitted]) -> None:
        self._fitted = fitted

    @classmethod
    def fit(cls, views: dict[str, Dataset], takes: dict[str, list[str]], rows: np.ndarray) -> Features:
        """Fits scales on the rows `rows` of the tables. `takes` names the columns that are taken of
        each view.
        """
        fitted = []
        for view, columns in takes.items():
            for column in columns:
                layout = views[view].preprocessing.inputs[column].layout
                values, present = _cells(views[view], column, torch.from_numpy(rows))
                x = _numbers(values, layout, views[view], column)[present]
                fitted.append(_fit(view, column, x, _form(values, layout)))
        return cls(fitted)

    def __call__(self, views: dict[str, Dataset]) -> list[Block]:
        """Every row's blocks."""
        blocks = []
        for one in self._fitted:
            data = views[one.view]
            values, present = _cells(data, one.column, data.rows)
            x = _numbers(values, data.preprocessing.inputs[one.column].layout, data, one.column)
            blocks.append(Block(one.view, one.column, _scaled(x, one, present), present))
        return blocks

    @property
    def views(self) -> set[str]:
        return {one.view for one in self._fitted}

    def without(self, views: set[str]) -> Features:
        return Features([one for one in self._fitted if one.view not in views])

    def tensors(self) -> dict[str, Tensor]:
        """All that was fitted, to be saved beside `state`."""
        return {
            f"{i}/{k}": torch.from_numpy(getattr(one, k))
            for i, one in enumerate(self._fitted)
            for k in ("mean", "scale")
        }

    def state(self) -> list[JSON]:
        return [{"view": one.view, "column": one.column, "form": one.form} for one in self._fitted]

    @classmethod
    def from_state(cls, state: list[JSONValue], tensors: dict[str, Tensor]) -> Features:
        fitted = []
        for number, fields in enumerate(state):
            mean, scale = tensors[f"{number}/mean"].numpy(), tensors[f"{number}/scale"].numpy()
            fitted.append(_FITTED.validate_python({**read_object(fields), "mean": mean, "scale": scale}))
        return cls(fitted)


def _cells(data: Dataset, column: str, rows: Tensor) -> tuple[Values, np.ndarray]:
    return data.prepared.batch.values[column].take(rows), data.prepared.batch.present[column][rows].numpy()


def _form(values: Values, layout: Layout) -> Literal["dense", "bag", "one_hot"]:
    if values.encoded:
        return "dense"
    return "bag" if layout.kind in WORDS else "one_hot" if layout.kind == "index" else "dense"


def _fit(view: str, column: str, x: Matrix, form: Literal["dense", "bag", "one_hot"]) -> _Fitted:
    if form == "dense":
        assert isinstance(x, np.ndarray)
        if not len(x):
            x = np.zeros((1, x.shape[1]), dtype=np.float32)
        spread = x.std(0)
        scale = np.where(spread > LEAST_SPREAD, 1 / (np.maximum(spread, LEAST_SPREAD) * x.shape[1] ** 0.5), 0)
        return _Fitted(view, column, form, x.mean(0).astype(np.float32), scale.astype(np.float32))
    weight = (
        inverse_frequency(x) if form == "bag" else (inverse_frequency(x) > 0)
    )  # what no row had says nothing
    return _Fitted(view, column, form, np.zeros(1, dtype=np.float32), weight.astype(np.float32))


def _scaled(x: Matrix, fitted: _Fitted, present: np.ndarray) -> Matrix:
    if fitted.form == "dense":
        return np.ascontiguousarray((x - fitted.mean) * fitted.scale * present[:, None])
    weighted = sparse.csr_array(x.multiply(fitted.scale[None]).multiply(present[:, None]))
    weighted.eliminate_zeros()
    return unit_rows(weighted) if fitted.form == "bag" else weighted


def _numbers(values: Values, layout: Layout, data: Dataset, column: str) -> Matrix:
    """The unscaled numbers of cells: floats (rows, width), or counts of n-grams."""
    if not values.encoded and layout.kind == "index":
        return word_counts(values.x[:, None], values.x[:, None] > 0, layout.vocabulary)
    if not values.encoded and layout.kind in WORDS:
        return word_counts(values.x, values.mask_BL(), layout.vocabulary)
    of_kind = _pooled if values.encoded else KINDS[layout.kind]
    modality, plain = (
        data.preprocessing.inputs[column],
        Values(values.x, values.length_B, encoded=values.encoded),
    )
    parts = []
    for some in torch.arange(len(values.x)).split(TOGETHER):
        part = plain.take(some)
        part = part if values.encoded else modality.transform(part, None)
        parts.append(_mean_of_several(of_kind(part).float(), part.count_B))  # windows of a long recording
    x = torch.cat(parts) if parts else torch.zeros(0, 1)
    return _mean_of_several(x, values.count_B).numpy()


def _mean_of_several(x: Tensor, count_B: Tensor | None) -> Tensor:
    """One row for each cell that holds several media."""
    if count_B is None:
        return x
    owner = torch.arange(len(count_B)).repeat_interleave(count_B)
    return torch.zeros(len(count_B), x.shape[1]).index_add(0, owner, x) / count_B.clamp(min=1)[:, None]


def _pooled(values: Values) -> Tensor:
    return masked_mean(values.x.float(), values.mask_BL())
