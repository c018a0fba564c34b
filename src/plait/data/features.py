"""Turn a table into the numbers that linear models and trees read.

Each input becomes a feature block: the vectors of its frozen encoder if it has one, else numbers that are
computed from the prepared cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from pydantic import ConfigDict, TypeAdapter
from scipy import sparse
from torch import Tensor

from plait.data.dataset import Dataset
from plait.data.reduction import Reduction
from plait.modalities.base import Modality
from plait.nn.batch import Values
from plait.nn.layers import masked_mean
from plait.nn.summaries import (
    KINDS,
    LEAST_SPREAD,
    Matrix,
    inverse_frequency,
    mean_of_several,
    unit_rows,
    word_counts,
)
from plait.table.json import JSON

Form = Literal["dense", "bag", "one_hot"]

TOGETHER = 256  # cells that are turned into numbers at once


@dataclass
class FeatureBlock:
    """The numbers of one input, `x` (rows, width): zero where `present` says that the cell is missing.

    Dense numbers have mean 0 and expected squared length 1 over the rows that they were fitted on; rows of
    a `bag` have length 1; rows of `one_hot` hold a single 1. So one strength of regularisation suits all.
    The last number of a column of numbers is the number itself. It has mean 0 and variance 1, so a straight
    line costs less than a bent one.

    `reduced` (rows, width) says about the same in few dense numbers, for trees and networks. The first one of
    a bag is the logarithm of its length.
    """

    view: str
    column: str
    form: Form
    x: Matrix
    present: np.ndarray
    reduced: np.ndarray

    @property
    def counts_words(self) -> bool:
        """Whether the numbers are counts of words or n-grams."""
        return self.form == "bag"

    def take(self, rows: np.ndarray) -> FeatureBlock:
        """Return the block of some rows."""
        return replace(self, x=self.x[rows], present=self.present[rows], reduced=self.reduced[rows])

    def only(self, columns: Iterable[str]) -> FeatureBlock:
        """Return the block as if its column was missing in every row, unless it is one of `columns`."""
        if self.column in set(columns):
            return self
        return replace(
            self,
            x=self.x * 0,
            present=np.zeros_like(self.present),
            reduced=np.zeros_like(self.reduced),
        )


@dataclass
class _Fitted:
    """How one input of one view becomes a feature block.

    Dense numbers x become (x - `mean`) * `scale`. Counts are multiplied by `scale`, and have no mean: with
    it, no number would stay zero. `reduction` makes few numbers of these.
    """

    __pydantic_config__ = ConfigDict(arbitrary_types_allowed=True, extra="forbid")  # arrays

    view: str
    column: str
    form: Form
    mean: np.ndarray
    scale: np.ndarray
    reduction: Reduction


_FITTED = TypeAdapter(_Fitted)


class Features:
    """The scales of all inputs, fitted on training rows. Called with views, they give feature blocks."""

    def __init__(self, fitted: list[_Fitted]) -> None:
        self._fitted = fitted

    @classmethod
    def fit(cls, views: dict[str, Dataset], takes: dict[str, list[str]], rows: np.ndarray) -> Features:
        """Fit scales on the rows `rows` of the tables. `takes` names the columns of each view to read."""
        fitted = []
        for view, columns in takes.items():
            for column in columns:
                cells = _Cells.of(views[view], column, torch.from_numpy(rows))
                fitted.append(_fit(view, column, cells))

        # Trees and networks find a few important numbers only if there are not too many others.
        wide = sum(of.reduction.is_wide for of in fitted)
        for of in fitted:
            of.reduction = of.reduction.share(wide)
        return cls(fitted)

    def __call__(self, views: dict[str, Dataset]) -> list[FeatureBlock]:
        """Return the block of each input, for all rows of the views."""
        blocks = []
        for fitted in self._fitted:
            view = views[fitted.view]
            cells = _Cells.of(view, fitted.column, view.rows)
            x = _scaled(cells.numbers(), fitted, cells.present)
            blocks.append(
                FeatureBlock(
                    view=fitted.view,
                    column=fitted.column,
                    form=fitted.form,
                    x=x,
                    present=cells.present,
                    reduced=_reduced(x, fitted, cells),
                )
            )
        return blocks

    @property
    def views(self) -> set[str]:
        """The names of the views that are read."""
        return {fitted.view for fitted in self._fitted}

    def tensors(self) -> dict[str, Tensor]:
        """Return the fitted means, scales and reductions, to be saved beside `state`."""
        tensors = {}
        for number, fitted in enumerate(self._fitted):
            tensors[f"{number}/mean"] = torch.from_numpy(fitted.mean)
            tensors[f"{number}/scale"] = torch.from_numpy(fitted.scale)
            tensors[f"{number}/columns"] = torch.from_numpy(fitted.reduction.columns)
            tensors[f"{number}/directions"] = torch.from_numpy(fitted.reduction.directions)
        return tensors

    def state(self) -> list[JSON]:
        """Return the view, the column and the form of each block, as JSON."""
        state: list[JSON] = []
        for fitted in self._fitted:
            state.append({"view": fitted.view, "column": fitted.column, "form": fitted.form})
        return state

    @classmethod
    def from_state(cls, state: Sequence[Mapping[str, object]], tensors: dict[str, Tensor]) -> Features:
        """Invert `state` and `tensors`. Raises `ValueError` or `KeyError` if they do not fit."""
        fitted = []
        for number, block in enumerate(state):
            fields = dict(block)
            scale = tensors[f"{number}/scale"]
            mean = tensors[f"{number}/mean"]
            _check(mean, scale, is_dense=fields["form"] == "dense")
            fields["mean"] = mean.numpy()
            fields["scale"] = scale.numpy()
            fields["reduction"] = Reduction.from_tensors(
                tensors[f"{number}/columns"], tensors[f"{number}/directions"], len(scale)
            )
            fitted.append(_FITTED.validate_python(fields))
        return cls(fitted)


@dataclass(frozen=True)
class _Cells:
    """Some cells of one column: prepared values, or embeddings. `present` is True where there is a cell."""

    values: Values
    present: np.ndarray
    modality: Modality

    @classmethod
    def of(cls, view: Dataset, column: str, rows: Tensor) -> _Cells:
        """Take the cells of a column in these rows of the prepared table."""
        batch = view.prepared.batch
        present = batch.present[column][rows].numpy()
        return cls(batch.values[column].take(rows), present, view.preprocessing.inputs[column])

    @property
    def form(self) -> Form:
        """The form of the column's numbers, see `FeatureBlock`."""
        if self.values.encoded:
            return "dense"
        layout = self.modality.layout
        if layout.is_text:
            return "bag"
        return "one_hot" if layout.kind == "index" else "dense"

    def numbers(self) -> Matrix:
        """Return the unscaled numbers of each cell, (rows, width): floats, or counts of n-grams."""
        values = self.values
        vocabulary = self.modality.layout.vocabulary
        if self.form == "one_hot":
            ids = values.x[:, None]
            return word_counts(ids, ids > 0, vocabulary)
        if self.form == "bag":
            return word_counts(values.x, values.mask_BL(), vocabulary)

        media = Values(values.x, values.length_B, encoded=values.encoded)
        chunks = []
        for items in torch.arange(len(values.x)).split(TOGETHER):
            chunks.append(self._summaries(media.take(items)))
        x = torch.cat(chunks) if chunks else torch.zeros(0, 1)
        return np.concatenate([mean_of_several(x, values.count_B).numpy(), self.raw()], 1)

    def raw(self) -> np.ndarray:
        """Return the numbers of a column of numbers themselves, (rows, 1); of others (rows, 0)."""
        if self.form != "dense" or self.values.encoded:
            return np.zeros((len(self.present), 0), dtype=np.float32)
        return mean_of_several(self.modality.raw(self.values), self.values.count_B).numpy()

    def lengths(self) -> Tensor:
        """Return how many tokens each text has, (rows,)."""
        assert self.values.length_B is not None
        return self.values.length_B

    def _summaries(self, media: Values) -> Tensor:
        """Return the numbers of single media or embeddings, (media, width)."""
        if media.encoded:
            return masked_mean(media.x.float(), media.mask_BL())
        media = self.modality.transform(media, None)
        summarise = KINDS[self.modality.layout.kind]
        # modalities cut a long recording into windows
        return mean_of_several(summarise(media).float(), media.count_B)


def _check(mean: Tensor, scale: Tensor, is_dense: bool) -> None:
    """Raise `ValueError` unless these can be the means and scales of one input. Counts have a mean of 0."""
    means = len(scale) if is_dense and scale.ndim else 1
    if scale.ndim != 1 or mean.shape != (means,):
        raise ValueError(f"means of shape {tuple(mean.shape)} do not go with scales of {tuple(scale.shape)}")
    for tensor in (mean, scale):
        if tensor.dtype != torch.float32 or not tensor.isfinite().all():
            raise ValueError("a mean or a scale is no finite number in float32")


def _fit(view: str, column: str, cells: _Cells) -> _Fitted:
    """Fit the scales of an input on the numbers of its present cells."""
    form = cells.form
    x = cells.numbers()[cells.present]
    if form == "dense":
        assert isinstance(x, np.ndarray)
        width = x.shape[1] - cells.raw().shape[1]
        mean, scale = _fit_dense(x, width)
        reduction = Reduction.of_dense(((x - mean) * scale)[:, :width])
        return _Fitted(view, column, form, mean, scale, reduction)

    weight = inverse_frequency(x)
    if form == "one_hot":
        weight = weight > 0  # a category that no fitted row has weighs nothing
    no_mean = np.zeros(1, dtype=np.float32)
    scale = weight.astype(np.float32)
    weighted = sparse.csr_array(x.multiply(scale[None]))
    if form == "one_hot":
        return _Fitted(view, column, form, no_mean, scale, Reduction.of_categories(weighted))
    return _Fitted(view, column, form, no_mean, scale, Reduction.of_ngrams(unit_rows(weighted)))


def _fit_dense(x: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of each number, and its scale.

    The expected squared length of a row's first `width` numbers becomes 1, as the variance of each other one.
    """
    if not len(x):
        x = np.zeros((1, x.shape[1]), dtype=np.float32)
    spread = x.std(0)
    share = np.ones(x.shape[1])
    share[:width] = width**0.5
    inverse = 1 / (np.maximum(spread, LEAST_SPREAD) * share)
    scale = np.where(spread > LEAST_SPREAD, inverse, 0)  # a constant number says nothing
    return x.mean(0).astype(np.float32), scale.astype(np.float32)


def _scaled(x: Matrix, fitted: _Fitted, present: np.ndarray) -> Matrix:
    """Scale the numbers of an input. Rows without a cell are zero."""
    present_column = present[:, None]
    if fitted.form == "dense":
        centred = x - fitted.mean
        return np.ascontiguousarray(centred * fitted.scale * present_column)
    weighted = sparse.csr_array(x.multiply(fitted.scale[None]).multiply(present_column))
    weighted.eliminate_zeros()
    return unit_rows(weighted) if fitted.form == "bag" else weighted


def _reduced(x: Matrix, fitted: _Fitted, cells: _Cells) -> np.ndarray:
    """Return few numbers for the scaled numbers of each cell, (rows, width) float32."""
    reduced = fitted.reduction(x)
    if fitted.form != "bag":
        return reduced
    length = np.log1p(cells.lengths().numpy() * cells.present)
    return np.concatenate([length[:, None].astype(np.float32), reduced], 1)
