"""Turn a table into the numbers that linear models and trees read.

Each input becomes a block of numbers: the vectors of its frozen encoder if it has one, else numbers that
are computed from the prepared cells.
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
    """The numbers of one input, `x` (rows, width): zero where `present` says that the cell is missing.

    Dense numbers have mean 0 and expected squared length 1 over the rows that they were fitted on; rows of
    a `bag` have length 1; rows of `one_hot` hold a single 1. So one strength of regularisation suits all.
    """

    view: str
    column: str
    x: Matrix
    present: np.ndarray

    def take(self, rows: np.ndarray) -> Block:
        """Return the block of some rows."""
        return Block(self.view, self.column, self.x[rows], self.present[rows])

    def only(self, columns: Iterable[str]) -> Block:
        """Return the block as if its column was missing in every row, unless it is one of `columns`."""
        if self.column in set(columns):
            return self
        return Block(self.view, self.column, self.x * 0, np.zeros_like(self.present))


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
    """The scales of all inputs, fitted on training rows; called with views, they give the blocks."""

    def __init__(self, fitted: list[_Fitted]) -> None:
        self._fitted = fitted

    @classmethod
    def fit(cls, views: dict[str, Dataset], takes: dict[str, list[str]], rows: np.ndarray) -> Features:
        """Fit scales on the rows `rows` of the tables. `takes` names the columns of each view to read."""
        fitted = []
        for view, columns in takes.items():
            for column in columns:
                layout = views[view].preprocessing.inputs[column].layout
                values, present = _cells(views[view], column, torch.from_numpy(rows))
                x = _numbers(values, layout, views[view], column)[present]
                fitted.append(_fit(view, column, x, _form(values, layout)))
        return cls(fitted)

    def __call__(self, views: dict[str, Dataset]) -> list[Block]:
        """Return the block of each input, for all rows of the views."""
        blocks = []
        for fitted in self._fitted:
            data = views[fitted.view]
            layout = data.preprocessing.inputs[fitted.column].layout
            values, present = _cells(data, fitted.column, data.rows)
            x = _numbers(values, layout, data, fitted.column)
            blocks.append(Block(fitted.view, fitted.column, _scaled(x, fitted, present), present))
        return blocks

    @property
    def views(self) -> set[str]:
        """The names of the views that are read."""
        return {fitted.view for fitted in self._fitted}

    def without(self, views: set[str]) -> Features:
        """Return the features without those of some views."""
        return Features([fitted for fitted in self._fitted if fitted.view not in views])

    def tensors(self) -> dict[str, Tensor]:
        """Return the fitted means and scales, to be saved beside `state`."""
        tensors = {}
        for number, fitted in enumerate(self._fitted):
            tensors[f"{number}/mean"] = torch.from_numpy(fitted.mean)
            tensors[f"{number}/scale"] = torch.from_numpy(fitted.scale)
        return tensors

    def state(self) -> list[JSON]:
        """Return the view, the column and the form of each block, as JSON."""
        state: list[JSON] = []
        for fitted in self._fitted:
            state.append({"view": fitted.view, "column": fitted.column, "form": fitted.form})
        return state

    @classmethod
    def from_state(cls, state: list[JSONValue], tensors: dict[str, Tensor]) -> Features:
        """Invert `state` and `tensors`."""
        fitted = []
        for number, block in enumerate(state):
            mean, scale = tensors[f"{number}/mean"].numpy(), tensors[f"{number}/scale"].numpy()
            fitted.append(_FITTED.validate_python({**read_object(block), "mean": mean, "scale": scale}))
        return cls(fitted)


def _cells(data: Dataset, column: str, rows: Tensor) -> tuple[Values, np.ndarray]:
    batch = data.prepared.batch
    return batch.values[column].take(rows), batch.present[column][rows].numpy()


def _form(values: Values, layout: Layout) -> Literal["dense", "bag", "one_hot"]:
    if values.encoded:
        return "dense"
    if layout.kind in WORDS:
        return "bag"
    return "one_hot" if layout.kind == "index" else "dense"


def _fit(view: str, column: str, x: Matrix, form: Literal["dense", "bag", "one_hot"]) -> _Fitted:
    if form == "dense":
        assert isinstance(x, np.ndarray)
        if not len(x):
            x = np.zeros((1, x.shape[1]), dtype=np.float32)
        spread = x.std(0)
        inverse = 1 / (np.maximum(spread, LEAST_SPREAD) * x.shape[1] ** 0.5)
        scale = np.where(spread > LEAST_SPREAD, inverse, 0)
        return _Fitted(view, column, form, x.mean(0).astype(np.float32), scale.astype(np.float32))

    weight = inverse_frequency(x)
    if form == "one_hot":
        weight = weight > 0  # a category that no fitted row has weighs nothing
    return _Fitted(view, column, form, np.zeros(1, dtype=np.float32), weight.astype(np.float32))


def _scaled(x: Matrix, fitted: _Fitted, present: np.ndarray) -> Matrix:
    if fitted.form == "dense":
        return np.ascontiguousarray((x - fitted.mean) * fitted.scale * present[:, None])
    weighted = sparse.csr_array(x.multiply(fitted.scale[None]).multiply(present[:, None]))
    weighted.eliminate_zeros()
    return unit_rows(weighted) if fitted.form == "bag" else weighted


def _numbers(values: Values, layout: Layout, data: Dataset, column: str) -> Matrix:
    """Return the unscaled numbers of cells: floats (rows, width), or counts of n-grams."""
    if not values.encoded and layout.kind == "index":
        return word_counts(values.x[:, None], values.x[:, None] > 0, layout.vocabulary)
    if not values.encoded and layout.kind in WORDS:
        return word_counts(values.x, values.mask_BL(), layout.vocabulary)

    summarise = _pooled if values.encoded else KINDS[layout.kind]
    modality = data.preprocessing.inputs[column]
    media = Values(values.x, values.length_B, encoded=values.encoded)
    summaries = []
    for items in torch.arange(len(values.x)).split(TOGETHER):
        chunk = media.take(items)
        if not values.encoded:
            chunk = modality.transform(chunk, None)
        # modalities cut a long recording into windows
        summaries.append(_mean_of_several(summarise(chunk).float(), chunk.count_B))
    x = torch.cat(summaries) if summaries else torch.zeros(0, 1)
    return _mean_of_several(x, values.count_B).numpy()


def _mean_of_several(x: Tensor, count_B: Tensor | None) -> Tensor:
    """Average the rows of `x` that belong to one cell, for cells that hold several media."""
    if count_B is None:
        return x
    owner = torch.arange(len(count_B)).repeat_interleave(count_B)
    return torch.zeros(len(count_B), x.shape[1]).index_add(0, owner, x) / count_B.clamp(min=1)[:, None]


def _pooled(values: Values) -> Tensor:
    return masked_mean(values.x.float(), values.mask_BL())
